"""What a model is made of: one frozen dataclass, checked once where it is made."""

from dataclasses import dataclass, fields

from seq2edge.runtime.errors import ConfigError

CELLS = ("gru", "lstm")
ATTENTIONS = ("additive", "dot", "general")
CONTEXTS = ("output", "upper", "input", "input_feeding")
TIES = ("none", "output", "all")


@dataclass(frozen=True)
class ModelConfig:
    """A recurrent encoder-decoder with attention.

    attention: "additive" (Bahdanau et al., arXiv:1409.0473, appendix A.1.2), "dot" or
    "general" (Luong et al., arXiv:1508.04025, section 3.1).

    context: where the attention's context c_t goes, beside the output layer.
    "output": nowhere else (Luong without input feeding). "upper": the lowest decoder
    layer asks, the layers above read the answer (GNMT, arXiv:1609.08144, section 3).
    "input": asked with the previous state and fed to the lowest cell (Bahdanau).
    "input_feeding": the last attentional vector joins the next input (Luong, 3.3).
    The first two train without a loop over time.

    tie: "output" shares the target embedding with the output layer, "all" shares the
    source embedding too (one joint vocabulary).
    """

    source_vocabulary: int
    target_vocabulary: int
    cell: str = "gru"
    embedding_size: int = 256
    encoder_hidden: int = 256  # of each direction
    encoder_layers: int = 2
    bidirectional: bool = True
    decoder_hidden: int = 320
    decoder_layers: int = 2
    attention: str = "general"
    context: str = "upper"
    tie: str = "all"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Raise ConfigError with every fault at once."""
        if faults := self._faults():
            raise ConfigError("model: " + "; ".join(faults))

    @property
    def annotation_size(self) -> int:
        """Features of one encoder output h_t, both directions together."""
        return self.encoder_hidden * (2 if self.bidirectional else 1)

    def _faults(self) -> list[str]:
        faults = []
        choices = {
            "cell": CELLS,
            "attention": ATTENTIONS,
            "context": CONTEXTS,
            "tie": TIES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                faults.append(
                    f"{name} = {getattr(self, name)!r}; use one of {', '.join(allowed)}"
                )
        for field in fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                faults.append(f"{field.name} = {getattr(self, field.name)}; at least 1")
        if not 0 <= self.dropout < 1:
            faults.append(f"dropout = {self.dropout}; from 0 to below 1")
        if self.attention == "dot" and self.annotation_size != self.decoder_hidden:
            faults.append(
                f"dot attention needs encoder outputs ({self.annotation_size}) as wide "
                f"as the decoder ({self.decoder_hidden}); use general"
            )
        if self.context == "upper" and self.decoder_layers < 2:
            faults.append("context = 'upper' needs decoder_layers of 2 or more")
        if self.tie == "all" and self.source_vocabulary != self.target_vocabulary:
            faults.append("tie = 'all' needs one joint vocabulary")
        return faults
