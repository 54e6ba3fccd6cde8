"""Where in a sequence a token stands, as a vector to add to its embedding."""

import math

import torch
from torch import Tensor, nn

from seq2edge.models.transformer_config import TransformerConfig


class Positions(nn.Module):
    """Positions (...) int64, the first token's being 0, to vectors (..., size)."""

    def __init__(self, config: TransformerConfig) -> None:
        """A table that is learned, or one of sines and cosines."""
        super().__init__()
        self.offset = config.position_offset
        rows = config.max_positions + self.offset
        if config.positions == "learned":
            self.table = nn.Parameter(torch.randn(rows, config.size) * 0.02)
        else:
            shifted = config.positions == "sinusoidal_shifted"
            table = sinusoids(rows, config.size, shifted)
            self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Look them up."""
        # A lookup, not a slice: slicing would make the exporter fix the length.
        return nn.functional.embedding(positions + self.offset, self.table)


def sinusoids(rows: int, size: int, shifted: bool) -> Tensor:
    """Sines, then cosines, of wavelengths in a geometric series: (rows, size).

    Vaswani et al., arXiv:1706.03762, section 3.5, but for the order of the features.
    """
    half = size // 2
    steps = half - 1 if shifted else half
    # fairseq, whose shifted ones are, and transformers make these in float32: at
    # position 1,000 a sine is 1e-4 off, and models were trained so.
    dtype = torch.float32 if shifted else torch.float64
    rates = torch.exp(torch.arange(half, dtype=dtype) * -(math.log(1e4) / steps))
    angles = torch.arange(rows, dtype=dtype)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
