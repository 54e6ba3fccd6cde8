"""Scaled dot-product attention of several heads (arXiv:1706.03762, section 3.2).

No weights here: what reads what, in the four ways in which a transformer needs it. An
export has each of them as one operator of onnxruntime's.

Letters: n, queries of a sequence; features = size / heads.
"""

import torch
from torch import Tensor, nn

from seq2edge.models.attention import MASKED


class Heads(nn.Module):
    """Queries, keys and values (batch, time, size) that are split among heads."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def split(self, vectors: Tensor) -> Tensor:
        """(batch, time, size) to (batch, heads, time, features)."""
        batch, time, size = vectors.shape
        return vectors.reshape(batch, time, self.count, size // self.count).transpose(
            1, 2
        )

    def within(
        self, queries: Tensor, keys: Tensor, values: Tensor, present: Tensor
    ) -> Tensor:
        """A sequence reading itself, (batch, time, size), where present isn't 0.

        present (batch, time) int32.
        """
        split = self.split
        return self.read(queries, split(keys), split(values), present)[0]

    def earlier(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """A sequence reading itself, (batch, time, size), each position up to it."""
        time = queries.shape[1]
        later = torch.full((time, time), MASKED, device=queries.device).triu(1)
        split = self.split
        return self._attend(queries, split(keys), split(values), later)[0]

    def extend(
        self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next position, (rows, 1, size), reading a cache and itself.

        keys, values (rows, heads, past, features) are returned longer by one.
        """
        keys = torch.cat([keys, self.split(key)], dim=2)
        values = torch.cat([values, self.split(value)], dim=2)
        return self._attend(query, keys, values, None)[0], keys, values

    def read(
        self, queries: Tensor, keys: Tensor, values: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries (batch, n, size) reading another sequence, where present isn't 0.

        keys, values (batch, heads, source, features); present (batch, source) int32.
        Returns (batch, n, size), and the weights (batch, heads, n, source).
        """
        hidden = (1 - present).to(queries.dtype) * MASKED
        return self._attend(queries, keys, values, hidden[:, None, None])

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        energies = self.split(queries) * keys.shape[-1] ** -0.5 @ keys.transpose(2, 3)
        if mask is not None:
            energies = energies + mask
        weights = torch.softmax(energies, dim=-1)
        return (weights @ values).transpose(1, 2).flatten(2), weights
