"""What a module must offer to be run and exported: `encode`, and usually `step`.

    encode(**inputs) -> results, state
    step(token (rows,) int64, memory, state) -> logits (rows, vocabulary), next state

The arguments of `encode` bear the names of the model's inputs: `source` (batch, time)
int64 tokens or (batch, time, features) float32 frames, followed by `source_lengths`
(batch,) int32; a vector (batch, features) float32 or class id (batch,) int64 alone.

A module that writes tokens returns its *memory*, which every step reads and none
changes; its axis 0 is the batch. *State* is what a step replaces, under the same names;
its axis 0 is rows = batch * beam, row b * beam + j being beam j of sentence b.

A module that labels returns its *outputs* instead, among them `logits`: (batch, time,
labels) of a tagger, (batch, labels) of a classifier. Its state is empty, unless it can
also go position by position: then state is what it has after the whole sequence, `step`
reads one token, or frame (rows, features), and begins with a state of zeros.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

Tensors = dict[str, Tensor]


class EncodeModule(Protocol):
    """Any torch.nn.Module with this method; no base class, no configuration."""

    training: bool

    @property
    def encode(self) -> Callable[..., tuple[Tensors, Tensors]]:
        """Read a padded batch once: memory or outputs, and state, all (batch, ...)."""
        ...


class StepModule(EncodeModule, Protocol):
    """One that also goes step by step."""

    @property
    def step(self) -> Callable[..., tuple[Tensor, Tensors]]:
        """Read one token a row: logits (rows, vocabulary) and the next state."""
        ...
