"""The torch side of the seam: a module behind a Stepper, or behind a Labeller.

The same search thus decodes the module in training and in the parity check, and its
exported form on the device.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2edge.models.contract import (
    EncodeModule,
    StepModule,
    Tensors,
    attended_step,
)
from seq2edge.runtime.errors import InputError
from seq2edge.runtime.inputs import SOURCE, collate
from seq2edge.runtime.manifest import LOGITS, InputSpec
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray


class TorchDecoding:
    """One batch under way in torch; see Decoding for the contract."""

    def __init__(self, module: StepModule, memory: Tensors, state: Tensors) -> None:
        """Memory and first state of one batch, as `encode` gave them."""
        self._module = module
        self._memory = memory
        self._state = state
        self._batch = _first_axis(state)

    @torch.inference_mode()
    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        """The `count` most probable next tokens of every row, best first."""
        log_probs = self._logits(tokens, parents).log_softmax(dim=-1)
        log_probs, ids = log_probs.topk(count, dim=-1)
        return log_probs.cpu().numpy(), ids.cpu().numpy()

    @torch.inference_mode()
    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """All log-probabilities of every row, (rows, vocabulary)."""
        log_probs = self._logits(tokens, parents).log_softmax(dim=-1)
        scores: FloatArray = log_probs.cpu().numpy()
        return scores

    @torch.inference_mode()
    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """What the log-softmax is taken of, (rows, vocabulary)."""
        logits: FloatArray = self._logits(tokens, parents).cpu().numpy()
        return logits

    @torch.inference_mode()
    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """As `best`, with the attention, (rows, positions)."""
        step = attended_step(self._module)
        if step is None:
            raise InputError("this module has no step_with_attention to ask")
        logits, attention, self._state = step(*self._read(tokens, parents))
        log_probs, ids = logits.float().log_softmax(dim=-1).topk(count, dim=-1)
        return log_probs.cpu().numpy(), ids.cpu().numpy(), attention.cpu().numpy()

    @torch.inference_mode()
    def keep(self, sentences: IntArray) -> None:
        """Go on with these sentences of the batch and the rows that are theirs."""
        beam = _first_axis(self._state) // self._batch
        rows = (sentences[:, None] * beam + np.arange(beam)).reshape(-1)
        self._memory = _take(self._memory, sentences)
        self._state = _take(self._state, rows)
        self._batch = len(sentences)

    def _logits(self, tokens: IntArray, parents: IntArray | None) -> Tensor:
        logits, self._state = self._module.step(*self._read(tokens, parents))
        as_float: Tensor = logits.float()
        return as_float

    def _read(
        self, tokens: IntArray, parents: IntArray | None
    ) -> tuple[Tensor, Tensors, Tensors]:
        """What a step reads."""
        state = self._state if parents is None else _take(self._state, parents)
        device = next(iter(state.values())).device
        token = torch.from_numpy(np.ascontiguousarray(tokens)).to(device)
        return token, self._memory, state


@dataclass(frozen=True)
class TorchStepper:
    """Begins to decode a batch with a module, which must be in eval mode."""

    module: StepModule
    device: str = "cpu"

    @torch.inference_mode()
    def start(self, inputs: Inputs) -> TorchDecoding:
        """Encode a batch; the names of `inputs` are the arguments of `encode`."""
        _refuse_training(self.module)
        memory, state = self.module.encode(**_tensors(inputs, self.device))
        return TorchDecoding(self.module, memory, state)


@dataclass(frozen=True)
class TorchLabeller:
    """Labels with a module, which must be in eval mode."""

    module: EncodeModule
    device: str = "cpu"
    inputs: tuple[InputSpec, ...] = (SOURCE,)

    @torch.inference_mode()
    def logits(self, inputs: Inputs) -> FloatArray:
        """Read a batch: (batch, labels), or (batch, time, labels) of a tagger."""
        _refuse_training(self.module)
        outputs, _ = self.module.encode(**_tensors(inputs, self.device))
        logits: FloatArray = outputs[LOGITS].cpu().numpy()
        return logits

    @torch.inference_mode()
    def stream(self, rows: int) -> "TorchStream":
        """Begin to tag so many sequences step by step, from a state of zeros."""
        _refuse_training(self.module)
        return TorchStream(self)


class TorchStream:
    """Sequences being labelled position by position."""

    def __init__(self, labeller: TorchLabeller) -> None:
        """Begin; `TorchLabeller.stream` is the usual way in."""
        self._labeller = labeller
        self._state: Tensors | None = None

    @torch.inference_mode()
    def push(self, positions: NDArray[np.generic]) -> FloatArray:
        """Read one token (rows,) or frame (rows, features) each: (rows, labels)."""
        module, device = self._labeller.module, self._labeller.device
        if self._state is None:
            self._state = self._zeros(positions)
        position = torch.from_numpy(np.ascontiguousarray(positions)).to(device)
        step = cast(StepModule, module).step
        logits, self._state = step(position, {}, self._state)
        result: FloatArray = logits.cpu().numpy()
        return result

    def _zeros(self, positions: NDArray[np.generic]) -> Tensors:
        """What a state looks like, a sequence of one position tells."""
        [spec] = self._labeller.inputs
        inputs = collate(
            [{spec.name: position[None]} for position in positions], [spec]
        )
        tensors = _tensors(inputs, self._labeller.device)
        _, state = self._labeller.module.encode(**tensors)
        return {name: torch.zeros_like(part) for name, part in state.items()}


def _refuse_training(module: EncodeModule) -> None:
    if module.training:
        raise ValueError("the module is in training mode: call eval() before decoding")


def _tensors(inputs: Inputs, device: str) -> Tensors:
    # A batch may be padded beyond its longest row, for it has been a larger one, and
    # pad_packed_sequence would give fewer positions than the input has.
    return {
        name: torch.from_numpy(np.ascontiguousarray(_trimmed(name, inputs))).to(device)
        for name in inputs
    }


def _trimmed(name: str, inputs: Inputs) -> NDArray[np.generic]:
    lengths = inputs.get(f"{name}_lengths")
    array = inputs[name]
    return array if lengths is None else array[:, : int(lengths.max())]


def _first_axis(state: Tensors) -> int:
    return int(next(iter(state.values())).shape[0])


def _take(tensors: Tensors, rows: IntArray) -> Tensors:
    """Row i of the result is row rows[i] of every tensor."""
    index = torch.from_numpy(np.ascontiguousarray(rows))
    return {
        name: tensor.index_select(0, index.to(tensor.device))
        for name, tensor in tensors.items()
    }
