"""Scaled dot-product attention of several heads (arXiv:1706.03762, section 3.2).

No weights here: what reads what, in the four ways in which a transformer needs it. An
export has each of them as one operator of ONNX.

Letters: n, queries of a sequence; features = size / heads.
"""

import torch
from torch import Tensor, nn

from seq2edge.models.attention import MASKED


class Heads(nn.Module):
    """Queries, keys and values (batch, time, size) that are split among heads.

    Masks are bool, true where something may be read.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def within(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        """A sequence reading itself, (batch, time, size); mask as of `read`."""
        return self.read(queries, keys, values, mask)[0]

    def earlier(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """A sequence reading itself, (batch, time, size), each position up to it."""
        time = queries.shape[1]
        mask = torch.ones(time, time, dtype=torch.bool, device=queries.device).tril()
        return self.read(queries, keys, values, mask)[0]

    def extend(
        self, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next position, (rows, 1, size), reading a cache and itself.

        keys, values (rows, heads, past, features) are returned longer by one.
        """
        keys = torch.cat([keys, self._split(key)], dim=2)
        values = torch.cat([values, self._split(value)], dim=2)
        return self._attend(query, keys, values, None)[0], keys, values

    def read(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries (batch, n, size) reading keys and values (batch, source, size).

        mask (batch, 1, n, source), or with fewer axes. Returns (batch, n, size), and
        the weights (batch, heads, n, source).
        """
        return self._attend(queries, self._split(keys), self._split(values), mask)

    def _split(self, vectors: Tensor) -> Tensor:
        """(batch, time, size) to (batch, heads, time, features)."""
        batch, time, size = vectors.shape
        apart = vectors.reshape(batch, time, self.count, size // self.count)
        return apart.transpose(1, 2)

    def _attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        split = self._split(queries)
        energies = split * keys.shape[-1] ** -0.5 @ keys.transpose(2, 3)
        if mask is not None:
            energies = energies.masked_fill(~mask, MASKED)
        weights = torch.softmax(energies, dim=-1)
        return (weights @ values).transpose(1, 2).flatten(2), weights


def mask_of(present: Tensor, count: int) -> Tensor:
    """What so many queries may read, (batch, 1, count, source), of present (batch,
    source), true where there is no padding.
    """
    return present[:, None, None].expand(-1, -1, count, -1)
