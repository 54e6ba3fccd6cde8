"""Token embeddings, and the output layer that may share their table."""

import torch
from torch import Tensor, nn

PAD = 0  # every tokenizer that seq2edge trains puts padding first


def token_embedding(vocabulary: int, size: int) -> nn.Embedding:
    """A table whose rows have about unit length; padding is zero."""
    table = nn.Embedding(vocabulary, size, padding_idx=PAD)
    nn.init.normal_(table.weight, std=size**-0.5)
    with torch.no_grad():
        table.weight[PAD].zero_()
    return table


def class_embedding(classes: int, size: int) -> nn.Embedding:
    """A table whose rows have about unit length, one a class."""
    table = nn.Embedding(classes, size)
    nn.init.normal_(table.weight, std=size**-0.5)
    return table


class OutputLayer(nn.Module):
    """Logits of every target token: readout (..., size) to (..., vocabulary).

    With `tied`, the product reads the embedding's own table (Press & Wolf,
    arXiv:1608.05859), which halves a small model.
    """

    def __init__(self, vocabulary: int, size: int, tied: nn.Embedding | None) -> None:
        """Make a table of its own unless `tied` lends one."""
        super().__init__()
        self.projection = nn.Linear(size, vocabulary)
        nn.init.zeros_(self.projection.bias)
        if tied is None:
            nn.init.normal_(self.projection.weight, std=size**-0.5)
        else:
            self.projection.weight = tied.weight

    def forward(self, readout: Tensor) -> Tensor:
        """(..., size) to (..., vocabulary)."""
        logits: Tensor = self.projection(readout)
        return logits
