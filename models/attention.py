"""Attention of a recurrent decoder over the encoder's outputs.

What depends on the source only is computed once, by `project`. A step asks with one
query a beam, the training pass with one query a target position: the same code.
Additive: Bahdanau et al., arXiv:1409.0473; dot and general: Luong et al.,
arXiv:1508.04025; scaled dot and several heads: Vaswani et al., arXiv:1706.03762, 3.2.
"""

import torch
from torch import Tensor, nn

from seq2edge.models.recurrent_config import RecurrentConfig

MASKED = -1e9  # finite: a row without any source stays a number


def source_mask(lengths: Tensor, longest: int) -> Tensor:
    """What to add to the energies: 0 within a sentence, MASKED past it.

    lengths (batch,) to (batch, longest) float32.
    """
    positions = torch.arange(longest, device=lengths.device)
    padding = positions[None, :] >= lengths[:, None]
    return padding.to(torch.float32) * MASKED


class Attention(nn.Module):
    """Queries (batch, queries, hidden) to contexts (batch, queries, annotation)."""

    def __init__(self, kind: str, hidden: int, annotation: int) -> None:
        """Kind: "additive", "general", "dot" or "scaled_dot"; the dots lack weights."""
        super().__init__()
        self.kind = kind
        self.scale = hidden**-0.5
        self.has_keys = kind in ("additive", "general")
        if self.has_keys:
            self.key = nn.Linear(annotation, hidden, bias=False)
        if kind == "additive":
            self.query = nn.Linear(hidden, hidden)
            self.energy = nn.Linear(hidden, 1, bias=False)

    def project(self, annotations: Tensor) -> dict[str, Tensor]:
        """The memory of a source: values (batch, source, annotation), and keys."""
        if not self.has_keys:
            return {"values": annotations}
        return {"values": annotations, "keys": self.key(annotations)}

    def forward(self, queries: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Weighted means of memory["values"], never of padding."""
        return self.read(self.weights(queries, memory), memory)

    def weights(self, queries: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """How much each query reads of each position: (batch, queries, source)."""
        keys = memory["keys"] if self.has_keys else memory["values"]
        if self.kind == "additive":
            sums = self.query(queries)[:, :, None] + keys[:, None]
            energies = self.energy(torch.tanh(sums)).squeeze(-1)
        else:
            if self.kind == "scaled_dot":
                queries = queries * self.scale
            energies = queries @ keys.transpose(1, 2)  # (batch, queries, source)
        return torch.softmax(energies + memory["mask"][:, None], dim=-1)

    def read(self, weights: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """What is found there: (batch, queries, annotation)."""
        return weights @ memory["values"]

    def alignment(self, weights: Tensor) -> Tensor:
        """The weights themselves."""
        return weights


class MultiHeadAttention(nn.Module):
    """The same with several heads, each with projections of its own."""

    def __init__(self, heads: int, hidden: int, annotation: int) -> None:
        """Heads of hidden // heads features."""
        super().__init__()
        self.heads = heads
        self.scale = (hidden // heads) ** -0.5
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key = nn.Linear(annotation, hidden, bias=False)
        self.value = nn.Linear(annotation, hidden, bias=False)
        self.join = nn.Linear(hidden, annotation, bias=False)

    def project(self, annotations: Tensor) -> dict[str, Tensor]:
        """The memory of a source: keys and values (batch, heads, source, features)."""
        return {
            "values": self._split(self.value(annotations)),
            "keys": self._split(self.key(annotations)),
        }

    def forward(self, queries: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Each head's weighted means of its values, joined; never of padding."""
        return self.read(self.weights(queries, memory), memory)

    def weights(self, queries: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """How much each head reads: (batch, heads, queries, source)."""
        split = self._split(self.query(queries) * self.scale)
        energies = split @ memory["keys"].transpose(2, 3)  # (batch, heads, queries, s)
        return torch.softmax(energies + memory["mask"][:, None, None], dim=-1)

    def read(self, weights: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """What the heads find, joined: (batch, queries, annotation)."""
        contexts = (weights @ memory["values"]).transpose(1, 2).flatten(2)
        joined: Tensor = self.join(contexts)
        return joined

    def alignment(self, weights: Tensor) -> Tensor:
        """The mean of the heads: (batch, queries, source)."""
        return weights.mean(dim=1)

    def _split(self, features: Tensor) -> Tensor:
        """(batch, time, hidden) to (batch, heads, time, hidden // heads)."""
        batch, time, hidden = features.shape
        heads = features.reshape(batch, time, self.heads, hidden // self.heads)
        return heads.transpose(1, 2)


def make_attention(config: RecurrentConfig) -> Attention | MultiHeadAttention:
    """The attention of a configuration that has one."""
    hidden, annotation = config.decoder_hidden, config.annotation_size
    if config.attention == "multi_head":
        return MultiHeadAttention(config.attention_heads, hidden, annotation)
    return Attention(config.attention, hidden, annotation)
