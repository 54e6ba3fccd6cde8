"""What a module must offer to be decoded and exported: `encode` and `step`.

    encode(source (batch, source) int64, source_lengths (batch,) int32)
        -> memory, state
    step(token (rows,) int64, memory, state)
        -> logits (rows, vocabulary), next state

Memory is what every step reads and none changes; its axis 0 is the batch. State is
what a step replaces, under the same names; its axis 0 is rows = batch * beam, row
b * beam + j being beam j of sentence b. The arguments of `encode` bear the names of the
model's inputs.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Tensors = dict[str, Tensor]


class StepModule(Protocol):
    """Any torch.nn.Module with these two methods; no base class, no configuration."""

    training: bool

    @property
    def encode(self) -> Callable[..., tuple[Tensors, Tensors]]:
        """Read a padded batch once: memory (batch, ...), first state (batch, ...)."""
        ...

    @property
    def step(self) -> Callable[..., tuple[Tensor, Tensors]]:
        """Read one token a row: logits (rows, vocabulary) and the next state."""
        ...
