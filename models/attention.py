"""Attention of a recurrent decoder over the encoder's outputs.

What depends on the source only is computed once, by `project`. A step asks with one
query a beam, the training pass with one query a target position: the same code.
Additive: Bahdanau et al., arXiv:1409.0473; dot and general: Luong et al.,
arXiv:1508.04025.
"""

import torch
from torch import Tensor, nn

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
        """Kind: "additive", "dot" or "general"; dot has no weights."""
        super().__init__()
        self.kind = kind
        if kind != "dot":
            self.key = nn.Linear(annotation, hidden, bias=False)
        if kind == "additive":
            self.query = nn.Linear(hidden, hidden)
            self.energy = nn.Linear(hidden, 1, bias=False)

    def project(self, annotations: Tensor) -> dict[str, Tensor]:
        """The memory of a source: values (batch, source, annotation), and keys."""
        if self.kind == "dot":
            return {"values": annotations}
        return {"values": annotations, "keys": self.key(annotations)}

    def forward(self, queries: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Weighted means of memory["values"], never of padding."""
        keys = memory["values"] if self.kind == "dot" else memory["keys"]
        if self.kind == "additive":
            sums = self.query(queries)[:, :, None] + keys[:, None]
            energies = self.energy(torch.tanh(sums)).squeeze(-1)
        else:
            energies = queries @ keys.transpose(1, 2)  # (batch, queries, source)
        weights = torch.softmax(energies + memory["mask"][:, None], dim=-1)
        return weights @ memory["values"]
