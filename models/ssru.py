"""The simpler simple recurrent unit, in place of a decoder's self-attention.

Kim et al. 2019, D19-5632, section 3: f_t = sigmoid(W_f x_t + b_f),
c_t = f_t * c_{t-1} + (1 - f_t) * W x_t, output ReLU(c_t). The products don't depend on
the state, so that training runs them over the whole target, and then a scan.
"""

import torch
from torch import Tensor, nn

LayerState = tuple[Tensor, ...]


class Ssru(nn.Module):
    """(batch, time, size) to the same, each position reading those up to it."""

    parts = ("cell",)

    def __init__(self, size: int) -> None:
        """One product gives forget gate and candidate; only the gate has a bias."""
        super().__init__()
        self.size = size
        self.project = nn.Linear(size, 2 * size, bias=False)
        # Gates begin near 0.7: a cell then remembers some three tokens.
        self.forget_bias = nn.Parameter(torch.ones(size))

    def start(self, batch: int, like: Tensor) -> LayerState:
        """The state before the first token: (batch, size) of zeros."""
        return (like.new_zeros(batch, self.size),)

    def step(self, inputs: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """(batch, beam, size) to the same, and cells, (rows, size), to the next."""
        forget, candidate = self._gates(inputs)
        before = state[0].reshape(inputs.shape)
        cell = forget * before + (1 - forget) * candidate
        return torch.relu(cell), (cell.reshape(state[0].shape),)

    def forward(self, inputs: Tensor) -> Tensor:
        """All positions at once."""
        forget, candidate = self._gates(inputs)
        # In float32 under autocast too: the cell is a long sum.
        kept, added = forget.float(), ((1 - forget) * candidate).float()
        return torch.relu(linear_scan(kept, added))

    def _gates(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        forget, candidate = self.project(inputs).chunk(2, dim=-1)
        return torch.sigmoid(forget + self.forget_bias), candidate


def linear_scan(kept: Tensor, added: Tensor) -> Tensor:
    """c_t = kept_t * c_{t-1} + added_t from c of zeros, along axis 1, in log2 rounds.

    Each round joins every position with what lies 1, 2, 4, ... before it (Hillis &
    Steele 1986); kept is within 0 and 1, so that nothing overflows.
    """
    distance, time = 1, kept.shape[1]
    while distance < time:
        before = added[:, :-distance] * kept[:, distance:]
        added = torch.cat([added[:, :distance], added[:, distance:] + before], dim=1)
        further = kept[:, distance:] * kept[:, :-distance]
        kept = torch.cat([kept[:, :distance], further], dim=1)
        distance *= 2
    return added
