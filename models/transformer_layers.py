"""The sublayers of a transformer, and the layers that they make.

Vaswani et al., arXiv:1706.03762, section 3. Letters: rows = batch * beam, as in the
contract; features = size / heads.
"""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from seq2edge.models.dropout import LockedDropout
from seq2edge.models.heads import Heads
from seq2edge.models.ssru import LayerState, Ssru
from seq2edge.models.transformer_config import TransformerConfig

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
    "silu": nn.functional.silu,
}


class SelfAttention(nn.Module):
    """Positions of one sequence reading each other; in a decoder only earlier ones."""

    parts = ("keys", "values")

    def __init__(self, size: int, heads: int) -> None:
        """One product gives queries, keys and values."""
        super().__init__()
        self.heads = Heads(heads)
        self.project = nn.Linear(size, 3 * size)
        self.join = nn.Linear(size, size)
        # As one would initialise the three products apart.
        nn.init.xavier_uniform_(self.project.weight, gain=2**-0.5)
        nn.init.xavier_uniform_(self.join.weight)

    def start(self, batch: int, like: Tensor) -> LayerState:
        """The cache before the first token: keys and values of no position."""
        heads, size = self.heads.count, self.join.in_features
        empty = like.new_zeros(batch, heads, 0, size // heads)
        return empty, empty

    def step(self, inputs: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """(batch, beam, size) to the same, and the rows' cache to a longer one."""
        batch, beam, size = inputs.shape
        projected = self.project(inputs.reshape(batch * beam, 1, size))
        joined, keys, values = self.heads.extend(*projected.chunk(3, dim=-1), *state)
        return self.join(joined.reshape(batch, beam, size)), (keys, values)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """All positions at once; without a mask each reads those up to it."""
        query, key, value = self.project(inputs).chunk(3, dim=-1)
        if mask is None:
            joined = self.heads.earlier(query, key, value)
        else:
            joined = self.heads.within(query, key, value, mask)
        output: Tensor = self.join(joined)
        return output


class CrossAttention(nn.Module):
    """Target positions reading the source."""

    def __init__(self, size: int, heads: int) -> None:
        """Keys and values are one product, made once a source."""
        super().__init__()
        self.heads = Heads(heads)
        self.query = nn.Linear(size, size)
        self.project = nn.Linear(size, 2 * size)
        self.join = nn.Linear(size, size)
        for linear, gain in ((self.query, 1), (self.project, 2**-0.5), (self.join, 1)):
            nn.init.xavier_uniform_(linear.weight, gain=gain)

    def memory(self, annotations: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (batch, source, size), in the same shape."""
        keys, values = self.project(annotations).chunk(2, dim=-1)
        return keys.contiguous(), values.contiguous()

    def forward(
        self, inputs: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(batch, n, size) to the same, and weights (batch, heads, n, source)."""
        joined, weights = self.heads.read(self.query(inputs), keys, values, mask)
        return self.join(joined), weights


class FeedForward(nn.Module):
    """Two products with an activation between them, at every position."""

    def __init__(self, size: int, inner: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.widen = nn.Linear(size, inner)
        self.narrow = nn.Linear(inner, size)
        nn.init.xavier_uniform_(self.widen.weight)
        nn.init.xavier_uniform_(self.narrow.weight)
        self.activation = _ACTIVATIONS[activation]
        self.dropout = LockedDropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., size) to the same."""
        inner = self.dropout(self.activation(self.widen(inputs)))
        narrowed: Tensor = self.narrow(inner)
        return narrowed


class Residual(nn.Module):
    """What goes around a sublayer: the sum with its input, and the layer norm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.first = config.norm == "pre"
        self.norm = nn.LayerNorm(config.size)
        self.dropout = LockedDropout(config.dropout)

    def before(self, inputs: Tensor) -> Tensor:
        """What the sublayer reads."""
        normed: Tensor = self.norm(inputs) if self.first else inputs
        return normed

    def after(self, inputs: Tensor, update: Tensor) -> Tensor:
        """What goes on of its input and its output."""
        summed = inputs + self.dropout(update)
        output: Tensor = summed if self.first else self.norm(summed)
        return output


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.size, config.encoder_heads)
        self.feed_forward = FeedForward(
            config.size, config.encoder_feed_forward, config.activation, config.dropout
        )
        self.around_attention = Residual(config)
        self.around_feed_forward = Residual(config)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, size) to the same."""
        around = self.around_attention
        inputs = around.after(inputs, self.attention(around.before(inputs), mask))
        around = self.around_feed_forward
        return around.after(inputs, self.feed_forward(around.before(inputs)))


class DecoderLayer(nn.Module):
    """Self-attention or SSRU, then attention to the source, then feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        size, heads = config.size, config.decoder_heads
        self.mixer: SelfAttention | Ssru = (
            Ssru(size) if config.decoder == "ssru" else SelfAttention(size, heads)
        )
        self.cross = CrossAttention(size, heads)
        self.feed_forward = FeedForward(
            size, config.decoder_feed_forward, config.activation, config.dropout
        )
        self.around_mixer = Residual(config)
        self.around_cross = Residual(config)
        self.around_feed_forward = Residual(config)

    def step(
        self,
        inputs: Tensor,
        state: LayerState,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, LayerState]:
        """(batch, beam, size): the output, its weights (batch, heads, beam, source) and
        the next state.

        mask (batch, 1, beam, source).
        """
        around = self.around_mixer
        update, following = self.mixer.step(around.before(inputs), state)
        inputs = around.after(inputs, update)
        outputs, weights = self._upper(inputs, keys, values, mask)
        return outputs, weights, following

    def forward(
        self, inputs: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """(batch, target, size), all positions at once."""
        around = self.around_mixer
        inputs = around.after(inputs, self.mixer(around.before(inputs)))
        return self._upper(inputs, keys, values, mask)[0]

    def _upper(
        self, inputs: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        around = self.around_cross
        update, weights = self.cross(around.before(inputs), keys, values, mask)
        inputs = around.after(inputs, update)
        around = self.around_feed_forward
        update = self.feed_forward(around.before(inputs))
        return around.after(inputs, update), weights
