"""Batches of any size made of a sample's own content, to examine and trace with.

The sequences of a batch are ragged, the first row is full, and every input has a length
of its own: the exporter must not take two axes for one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2edge.models.contract import Tensors
from seq2edge.runtime.inputs import Example, collate
from seq2edge.runtime.manifest import SEQUENCES, InputSpec
from seq2edge.runtime.stepper import Inputs

FURTHER = 3  # positions that each further sequence has more than the one before
USUAL = 13  # the longest that anybody asks for of the first sequence


@dataclass(frozen=True)
class Dummies:
    """Makes batches for the inputs of one model."""

    inputs: Sequence[InputSpec]
    pools: Mapping[str, NDArray[Any]]  # all tokens, frames, vectors or ids of an input
    longest: int = USUAL * 4  # sequence that the model takes

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        inputs: Sequence[InputSpec],
        longest: int = USUAL * 4,
    ) -> "Dummies":
        """Draw on these examples, in their order."""
        pools = {}
        for spec in inputs:
            arrays = [example[spec.name] for example in examples]
            joined = spec.kind in SEQUENCES
            pools[spec.name] = np.concatenate(arrays) if joined else np.stack(arrays)
        return cls(inputs, pools, longest)

    def length(self, spec: InputSpec, length: int) -> int:
        """Positions that this input has where the first one has `length`.

        All in proportion shorter for a model that takes only a few.
        """
        sequences = [each.name for each in self.inputs if each.kind in SEQUENCES]
        wanted = length + FURTHER * sequences.index(spec.name)
        most = USUAL + FURTHER * (len(sequences) - 1)
        if most <= self.longest or wanted == 1:
            return wanted
        return min(self.longest, max(2, wanted * self.longest // most))

    def examples(self, batch: int, length: int, offset: int = 0) -> list[Example]:
        """The rows of such a batch, each alone; `offset` draws others."""
        return [
            {spec.name: self._row(spec, row, length, offset) for spec in self.inputs}
            for row in range(batch)
        ]

    def arrays(self, batch: int, length: int) -> Inputs:
        """A padded batch as the runtime feeds it."""
        return collate(self.examples(batch, length), self.inputs)

    def tensors(self, batch: int, length: int) -> Tensors:
        """The same for torch."""
        return as_tensors(self.arrays(batch, length))

    def _row(self, spec: InputSpec, row: int, length: int, offset: int) -> NDArray[Any]:
        pool = self.pools[spec.name]
        if spec.kind not in SEQUENCES:
            return np.asarray(pool[(row + offset) % len(pool)])
        longest = self.length(spec, length)
        places = row * longest + np.arange(max(1, longest - row)) + offset
        return np.asarray(pool[places % len(pool)])


def as_tensors(inputs: Inputs) -> Tensors:
    """Arrays as tensors, under their names."""
    return {name: _tensor(array) for name, array in inputs.items()}


def as_arrays(tensors: Tensors) -> Inputs:
    """Tensors as arrays, under their names."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
