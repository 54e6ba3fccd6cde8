"""A module's two halves as graphs that can be traced, and what passes between them.

Tracing wants results in a row where the contract has named dicts: EncoderGraph and
StepGraph translate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2edge.models.contract import Tensors
from seq2edge.runtime.manifest import Dtype, InputSpec, Task, TensorSpec

DTYPES: Mapping[torch.dtype, Dtype] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.uint8: "uint8",
    torch.int8: "int8",
    torch.bool: "bool",
}


@dataclass(frozen=True)
class Contract:
    """Names, types and axes of all that goes between encoder, step and search."""

    task: Task
    inputs: tuple[InputSpec, ...]
    memory: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[TensorSpec, ...]
    attention: TensorSpec | None = None  # (rows, positions), of a step that shows it

    @property
    def reads_tokens(self) -> bool:
        """Whether it reads one text: a shortlist has what a source's tokens become."""
        return [spec.kind for spec in self.inputs] == ["tokens"]

    @property
    def results(self) -> tuple[TensorSpec, ...]:
        """What `encode` returns beside the state."""
        return self.memory if self.task == "generation" else self.outputs

    @property
    def role(self) -> str:
        """What the graphs and messages call the results."""
        return "memory" if self.task == "generation" else "output"


class EncoderGraph(nn.Module):
    """A dict of inputs to (results..., state...), in the order of a contract."""

    def __init__(self, module: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.module = module
        self.contract = contract

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """Run `encode`."""
        results, state = self.module.encode(**inputs)  # type: ignore[operator]
        return (
            *(results[spec.name] for spec in self.contract.results),
            *(state[spec.name] for spec in self.contract.state),
        )


class StepGraph(nn.Module):
    """(token, memory, state) to (logits, next state...), in the order of a contract.

    A module that shows its attention gives it behind the logits.
    """

    def __init__(self, module: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.module = module
        self.contract = contract

    def forward(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, ...]:
        """Run `step`, or `step_with_attention`."""
        module, attends = self.module, self.contract.attention is not None
        step = module.step_with_attention if attends else module.step
        *results, following = step(token, memory, state)  # type: ignore[operator]
        return (*results, *(following[spec.name] for spec in self.contract.state))
