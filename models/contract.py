"""What a module must offer to be run and exported: `encode`, and usually `step`.

Offered or not: `step_with_attention`, for alignments.

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
from typing import Any, Protocol

from torch import Tensor

Tensors = dict[str, Tensor]
AttendedStep = Callable[[Tensor, Tensors, Tensors], tuple[Tensor, Tensor, Tensors]]


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


class AligningModule(StepModule, Protocol):
    """One that writes tokens and can say where in its input it looked for each.

    `step_with_attention` does what `step` does and returns (logits, attention, next
    state). attention (rows, positions) float32 has a place for every position of every
    input that is a sequence, one input behind the other, padding included. A row sums
    to 1; what lies on padding is 0, and so is what the model doesn't look at.
    """

    @property
    def step_with_attention(self) -> AttendedStep | None:
        """None, as no such method, says that this one has no attention to show."""
        ...


def attended_step(module: Any) -> AttendedStep | None:
    """A module's step_with_attention, or None."""
    found: AttendedStep | None = getattr(module, "step_with_attention", None)
    return found
