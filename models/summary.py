"""The summary c of a source, and the first state that a decoder makes of it.

RecurrentConfig says what c is (summary) and where a decoder reads it (summary_use).
"""

import torch
from torch import Tensor, nn

from seq2edge.models.recurrent import state_names
from seq2edge.models.recurrent_config import RecurrentConfig


class Bridge(nn.Linear):
    """c = tanh(Q v), Q with a bias."""

    def forward(self, vector: Tensor) -> Tensor:
        """(batch, joined) to (batch, size)."""
        return torch.tanh(super().forward(vector))


def bridge(config: RecurrentConfig) -> nn.Module:
    """What makes c of the encoders' vector; nothing to learn where c is the last h.

    Used as first state only, c is a vector of its own for every part of the state.
    """
    if config.summary == "last":
        return nn.Identity()
    size = config.decoder_hidden
    if config.summary_use == "state":
        size *= len(state_names(config.cell, config.decoder_layers))
    return Bridge(config.joined_size, size)


def first_state(config: RecurrentConfig, summary: Tensor) -> dict[str, Tensor]:
    """Every part of the decoder's state, (batch, hidden).

    Where c is one vector, each layer's hidden starts as c, and an LSTM's cell as zeros.
    """
    names = state_names(config.cell, config.decoder_layers)
    if config.summary_use == "state" and config.summary != "last":
        return dict(zip(names, summary.chunk(len(names), dim=-1), strict=True))
    zeros = summary.new_zeros(summary.shape[0], config.decoder_hidden)
    hidden = zeros if config.summary_use == "input" else summary
    return {name: hidden if name.startswith("hidden") else zeros for name in names}
