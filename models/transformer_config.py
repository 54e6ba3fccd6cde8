"""What a transformer is made of: a frozen dataclass, checked where it is made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from seq2edge.runtime.errors import ConfigError

DECODERS = ("attention", "ssru")
NORMS = ("pre", "post")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")
POSITIONS = ("sinusoidal", "sinusoidal_shifted", "learned")
TIES = ("none", "output", "embeddings", "all")

CHOICES = {
    "decoder": DECODERS,
    "norm": NORMS,
    "activation": ACTIVATIONS,
    "positions": POSITIONS,
    "tie": TIES,
}
SIZES = (
    "source_vocabulary",
    "target_vocabulary",
    "size",
    "encoder_layers",
    "decoder_layers",
    "encoder_heads",
    "decoder_heads",
    "encoder_feed_forward",
    "decoder_feed_forward",
    "max_positions",
)


@dataclass(frozen=True)
class TransformerConfig:
    """An encoder-decoder of Vaswani et al., arXiv:1706.03762, or one with SSRU layers.

    decoder: "attention", or "ssru" (Kim et al. 2019, D19-5632) in place of the
    decoder's self-attention: a state of constant size.

    norm: "post" adds, then normalises (Vaswani et al.); "pre" normalises what a
    sublayer reads, and once more at the end (Xiong et al., arXiv:2002.04745).

    positions: "sinusoidal", sines in the first half of the features and cosines in the
    second, the wavelengths 10000^(2i/size); "sinusoidal_shifted", 10000^(i/(size/2-1))
    as in tensor2tensor and fairseq; "learned", a table. position_offset is the row of
    the first token.

    tie: "output" shares the target embedding with the output layer, "embeddings" with
    the source (one joint vocabulary), "all" shares one table between the three.
    """

    source_vocabulary: int
    target_vocabulary: int
    size: int = 256  # of every vector between sublayers
    encoder_layers: int = 6
    decoder_layers: int = 2
    encoder_heads: int = 8
    decoder_heads: int = 8
    encoder_feed_forward: int = 1024
    decoder_feed_forward: int = 1024
    decoder: str = "attention"
    norm: str = "pre"
    activation: str = "relu"
    positions: str = "sinusoidal"
    position_offset: int = 0
    max_positions: int = 512  # tokens of either side
    scale_embeddings: bool = True  # by the root of size
    embedding_norm: bool = False  # of embedding and position together
    tie: str = "all"
    dropout: float = 0.1
    architecture: Literal["transformer"] = "transformer"

    # What it shares with a recurrent model, and has no choice in.
    task: ClassVar[str] = "generation"
    writes: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    inputs: ClassVar[Mapping[str, str]] = MappingProxyType({"source": "tokens"})
    features: ClassVar[int] = 0
    classes: ClassVar[int] = 0
    labels: ClassVar[int] = 0

    def __post_init__(self) -> None:
        """Raise ConfigError with every fault at once."""
        if faults := list(self._faults()):
            raise ConfigError("model: " + "; ".join(faults))

    @property
    def embedding_size(self) -> int:
        """Features of a token's vector."""
        return self.size

    def _faults(self) -> Iterator[str]:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(allowed)
                yield f"{name} = {getattr(self, name)!r}; use one of {listed}"
        for name in SIZES:
            if getattr(self, name) < 1:
                yield f"{name} = {getattr(self, name)}; at least 1"
        for name in ("encoder_heads", "decoder_heads"):
            heads = getattr(self, name)
            if self.size % max(heads, 1):
                yield f"{name} = {heads} doesn't divide size ({self.size})"
        if self.size % 2 and self.positions != "learned":
            yield f"size = {self.size}; sines and cosines need an even one"
        if self.size < 4 and self.positions == "sinusoidal_shifted":
            yield f"size = {self.size}; sinusoidal_shifted positions need 4"
        if self.position_offset < 0:
            yield f"position_offset = {self.position_offset}; at least 0"
        if not 0 <= self.dropout < 1:
            yield f"dropout = {self.dropout}; from 0 to below 1"
        vocabularies = {self.source_vocabulary, self.target_vocabulary}
        if self.tie in ("embeddings", "all") and len(vocabularies) > 1:
            yield f"tie = {self.tie!r} needs one joint vocabulary"
