"""The torch side of the seam: a module with `encode` and `step` behind a Stepper.

The same search thus decodes the module in training and in the parity check, and its
exported form on the device.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seq2edge.models.contract import StepModule, Tensors
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
        log_probs, ids = self._log_probs(tokens, parents).topk(count, dim=-1)
        return log_probs.cpu().numpy(), ids.cpu().numpy()

    @torch.inference_mode()
    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """All log-probabilities of every row, (rows, vocabulary)."""
        log_probs: FloatArray = self._log_probs(tokens, parents).cpu().numpy()
        return log_probs

    @torch.inference_mode()
    def keep(self, sentences: IntArray) -> None:
        """Go on with these sentences of the batch and the rows that are theirs."""
        beam = _first_axis(self._state) // self._batch
        rows = (sentences[:, None] * beam + np.arange(beam)).reshape(-1)
        self._memory = _take(self._memory, sentences)
        self._state = _take(self._state, rows)
        self._batch = len(sentences)

    def _log_probs(self, tokens: IntArray, parents: IntArray | None) -> Tensor:
        state = self._state if parents is None else _take(self._state, parents)
        device = next(iter(state.values())).device
        token = torch.from_numpy(np.ascontiguousarray(tokens)).to(device)
        logits, self._state = self._module.step(token, self._memory, state)
        log_probs: Tensor = logits.float().log_softmax(dim=-1)
        return log_probs


@dataclass(frozen=True)
class TorchStepper:
    """Begins to decode a batch with a module, which must be in eval mode."""

    module: StepModule
    device: str = "cpu"

    @torch.inference_mode()
    def start(self, inputs: Inputs) -> TorchDecoding:
        """Encode a batch; the names of `inputs` are the arguments of `encode`."""
        if self.module.training:
            raise ValueError(
                "the module is in training mode: call eval() before decoding"
            )
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
            for name, array in inputs.items()
        }
        memory, state = self.module.encode(**tensors)
        return TorchDecoding(self.module, memory, state)


def _first_axis(state: Tensors) -> int:
    return int(next(iter(state.values())).shape[0])


def _take(tensors: Tensors, rows: IntArray) -> Tensors:
    """Row i of the result is row rows[i] of every tensor."""
    index = torch.from_numpy(np.ascontiguousarray(rows))
    return {
        name: tensor.index_select(0, index.to(tensor.device))
        for name, tensor in tensors.items()
    }
