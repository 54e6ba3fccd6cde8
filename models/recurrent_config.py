"""What a recurrent model is made of: a frozen dataclass, checked where it is made.

The structures are those of the recurrent family: many to many through a summary
(Sutskever et al., arXiv:1409.3215; Cho et al., arXiv:1406.1078) or attention, one to
many (a vector or class begins a sequence), N to N (a tagger) and N to 1 (a classifier).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.manifest import SEQUENCES

TASKS = ("generation", "tagging", "classification")
KINDS = ("tokens", "frames", "vector", "class")
CELLS = ("elman", "elman_relu", "gru", "lstm")
ATTENTIONS = ("none", "dot", "scaled_dot", "general", "additive", "multi_head")
CONTEXTS = ("output", "upper", "input", "input_feeding")
SUMMARIES = ("last", "mapped", "sum")
SUMMARY_USES = ("state", "input", "both")
TIES = ("none", "output", "all")

CHOICES = {
    "task": TASKS,
    "cell": CELLS,
    "attention": ATTENTIONS,
    "context": CONTEXTS,
    "summary": SUMMARIES,
    "summary_use": SUMMARY_USES,
    "tie": TIES,
}
SIZES = ("embedding_size", "encoder_hidden", "encoder_layers")
DECODER_SIZES = ("decoder_hidden", "decoder_layers", "attention_heads")


@dataclass(frozen=True)
class RecurrentConfig:
    """A recurrent network that writes, tags or classifies.

    inputs: names, and what each is: "tokens", "frames" (batch, time, features), a
    "vector" (batch, features) or a "class". Every sequence has an encoder of its own;
    all tokens share one vocabulary and its table.

    cell: "elman" (tanh; Elman 1990) or "elman_relu" (Le et al., arXiv:1504.00941),
    "gru" (Cho et al., arXiv:1406.1078), "lstm" (Hochreiter & Schmidhuber 1997).

    summary: the vector c of all inputs. With h_t the encoder's output, h_T what each
    direction ends with, and Q a learned map: "last" is h_T itself, "mapped"
    tanh(Q h_T), "sum" tanh(Q (h_1 + ... + h_T)). A vector stands for itself, a class
    for its row of a table; several inputs are joined before Q.

    summary_use: where a decoder reads c. "state": in its first state only; "input":
    with every token, in the lowest cell (Cho et al.), from a state of zeros; "both".

    attention: "none", or what asks the encoder's outputs: "additive" (Bahdanau et al.,
    arXiv:1409.0473, A.1.2), "dot" or "general" (Luong et al., arXiv:1508.04025, 3.1),
    "scaled_dot" or "multi_head" (Vaswani et al., arXiv:1706.03762, 3.2.1 and 3.2.2).
    The outputs of several encoders are asked together, as one longer sequence.

    context: where the attention's context c_t goes, beside the output layer.
    "output": nowhere else (Luong without input feeding). "upper": the lowest decoder
    layer asks, the layers above read the answer (GNMT, arXiv:1609.08144, section 3).
    "input": asked with the previous state and fed to the lowest cell (Bahdanau).
    "input_feeding": the last attentional vector joins the next input (Luong, 3.3).
    The first two train without a loop over time.

    tie: "output" shares the target embedding with the output layer, "all" shares the
    source embedding too, if there is one (one joint vocabulary).
    """

    source_vocabulary: int  # unused where no tokens are read
    target_vocabulary: int  # unused where none are written
    task: str = "generation"
    inputs: Mapping[str, str] = field(default_factory=lambda: {"source": "tokens"})
    features: int = 0  # of a frame or a vector
    classes: int = 0  # that an input of kind class knows
    labels: int = 0  # that a tagger or classifier gives
    cell: str = "gru"
    embedding_size: int = 256
    encoder_hidden: int = 256  # of each direction
    encoder_layers: int = 2
    bidirectional: bool = True
    summary: str = "mapped"
    summary_use: str = "state"
    decoder_hidden: int = 320
    decoder_layers: int = 2
    attention: str = "general"
    attention_heads: int = 4  # of multi_head
    context: str = "upper"
    tie: str = "all"
    dropout: float = 0.2
    architecture: Literal["recurrent"] = "recurrent"

    def __post_init__(self) -> None:
        """Raise ConfigError with every fault at once."""
        faults = [*self._value_faults(), *self._input_faults()]
        if self.writes:
            faults += self._decoder_faults()
        if faults:
            raise ConfigError("model: " + "; ".join(faults))

    @property
    def writes(self) -> bool:
        """Whether the model writes tokens, and so has a decoder."""
        return self.task == "generation"

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the inputs that have lengths, and an encoder each."""
        return tuple(name for name, kind in self.inputs.items() if kind in SEQUENCES)

    @property
    def reads_tokens(self) -> bool:
        """Whether there is a source vocabulary."""
        return "tokens" in self.inputs.values()

    @property
    def annotation_size(self) -> int:
        """Features of one encoder output h_t, both directions together."""
        return self.encoder_hidden * (2 if self.bidirectional else 1)

    @property
    def joined_size(self) -> int:
        """Features of what the summary is made of, all inputs together."""
        sizes = {"vector": self.features, "class": self.embedding_size}
        kinds = self.inputs.values()
        return sum(sizes.get(kind, self.annotation_size) for kind in kinds)

    @property
    def summary_size(self) -> int:
        """Features of a summary that is fed to the decoder with every token."""
        return self.joined_size if self.summary == "last" else self.decoder_hidden

    def _value_faults(self) -> Iterator[str]:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(allowed)
                yield f"{name} = {getattr(self, name)!r}; use one of {listed}"
        needed = [*SIZES, *(DECODER_SIZES if self.writes else ["labels"])]
        needed += ["source_vocabulary"] if self.reads_tokens else []
        needed += ["target_vocabulary"] if self.writes else []
        for name in needed:
            if getattr(self, name) < 1:
                yield f"{name} = {getattr(self, name)}; at least 1"
        if self.writes and self.labels:
            yield f"labels = {self.labels}, and generation writes tokens; use 0"
        if not 0 <= self.dropout < 1:
            yield f"dropout = {self.dropout}; from 0 to below 1"

    def _input_faults(self) -> Iterator[str]:
        kinds = list(self.inputs.values())
        if not kinds:
            yield "inputs is empty; name one at least"
        for name, kind in self.inputs.items():
            if kind not in KINDS:
                yield f"inputs.{name} = {kind!r}; use one of {', '.join(KINDS)}"
            if not name.isidentifier():
                yield f"inputs.{name} is no name; use letters, digits and _"
            if f"{name}_lengths" in self.inputs:
                yield f"inputs.{name}_lengths is the name of {name}'s lengths"
        if kinds.count("class") > 1:
            yield "inputs has more than one class; join them to one"
        if self.task == "tagging" and (len(kinds) != 1 or not self.sequences):
            yield "tagging needs one input, of tokens or frames"
        if self.summary == "sum" and not self.sequences:
            yield "summary = 'sum' needs tokens or frames to sum over; use mapped"
        yield from self._size_faults("features", "frames", "vector")
        yield from self._size_faults("classes", "class")

    def _size_faults(self, name: str, *kinds: str) -> Iterator[str]:
        """A size is given just where an input of these kinds has it."""
        size, wanted = getattr(self, name), set(kinds) & set(self.inputs.values())
        if wanted and size < 1:
            yield f"{name} = {size}; at least 1 with {' or '.join(kinds)} as input"
        if not wanted and size:
            yield f"{name} = {size}, and no input is {' or '.join(kinds)}; use 0"

    def _decoder_faults(self) -> Iterator[str]:
        hidden, annotation = self.decoder_hidden, self.annotation_size
        if self.attention in ("dot", "scaled_dot") and annotation != hidden:
            yield (
                f"{self.attention} attention needs encoder outputs ({annotation}) as "
                f"wide as the decoder ({hidden}); use general"
            )
        if self.attention == "multi_head" and hidden % max(self.attention_heads, 1):
            yield (
                f"attention_heads = {self.attention_heads} doesn't divide "
                f"decoder_hidden ({hidden})"
            )
        if self.attention != "none":
            if not self.sequences:
                yield "attention needs tokens or frames to read; use none"
            if self.context == "upper" and self.decoder_layers < 2:
                yield "context = 'upper' needs decoder_layers of 2 or more"
        fills_state = self.summary_use in ("state", "both")
        if self.summary == "last" and fills_state and self.joined_size != hidden:
            yield (
                f"summary = 'last' as the first state needs finals ({self.joined_size} "
                f"together) as wide as the decoder ({hidden}); use mapped"
            )
        vocabularies = self.source_vocabulary, self.target_vocabulary
        if self.tie == "all" and self.reads_tokens and len(set(vocabularies)) > 1:
            yield "tie = 'all' needs one joint vocabulary"
