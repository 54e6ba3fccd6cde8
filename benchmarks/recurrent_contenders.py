"""Who decodes in recurrent_peers.py: one checkpoint's module, compiled or not.

The encoder stays as it is, PyTorch's own recurrent layers; what differs is the step.
The same search drives them all, and the bundle (peers_contenders.Seq2edge) too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers_contenders import Seq2edge
from torch import Tensor, nn

from seq2edge.models.contract import StepModule, Tensors
from seq2edge.models.loading import load_checkpoint
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime.translator import Translator

Step = Callable[[Tensor, Tensors, Tensors], tuple[Tensor, Tensors]]
EXAMPLE = {
    "source": torch.tensor([[4, 5, 6], [7, 8, 0]]),
    "source_lengths": torch.tensor([3, 2], dtype=torch.int32),
}


class WithStep:
    """A module whose step is another's."""

    training = False

    def __init__(self, module: StepModule, step: Step) -> None:
        self.encode = module.encode
        self.step = step


class Eager(Seq2edge):
    """The module as it is."""

    how = "no compilation"

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        checkpoint = load_checkpoint(folder)
        info = checkpoint.info
        assert info.vocabulary is not None
        assert info.search is not None
        self.translator = Translator(
            stepper=TorchStepper(self.module(checkpoint.module)),
            vocabulary=info.vocabulary,
            limits=info.limits,
            defaults=info.search,
            inputs=info.inputs,
        )
        self.details = {"step": self.how}

    def module(self, module: Any) -> StepModule:
        """What the stepper drives."""
        found: StepModule = module
        return found


class TorchScript(Eager):
    """Its step traced and frozen."""

    how = "torch.jit.trace, frozen"

    @torch.no_grad()
    def module(self, module: Any) -> StepModule:
        """Traced with two rows, and true of any number."""
        memory, state = module.encode(**EXAMPLE)
        token = torch.tensor([4, 5])
        flat = _FlatStep(module, [*memory], [*state]).eval()
        tensors = (token, *memory.values(), *state.values())
        trace: Any = torch.jit.trace  # not typed
        traced = torch.jit.freeze(trace(flat, tensors))

        def step(token: Tensor, memory: Tensors, state: Tensors) -> Any:
            logits, *following = traced(token, *memory.values(), *state.values())
            return logits, dict(zip(state, following, strict=True))

        return WithStep(module, step)


class _FlatStep(nn.Module):
    """A step that takes and returns tensors alone, which is what tracing knows."""

    def __init__(self, module: Any, memory: list[str], state: list[str]) -> None:
        super().__init__()
        self.module = module
        self.memory, self.state = memory, state

    def forward(self, token: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Logits and the next state, in the order of the state."""
        memory = dict(zip(self.memory, tensors, strict=False))
        state = dict(zip(self.state, tensors[len(memory) :], strict=True))
        logits, following = self.module.step(token, memory, state)
        return logits, *(following[name] for name in self.state)


class Compiled(Eager):
    """Its step through torch.compile, for any number of rows and positions."""

    how = "torch.compile, dynamic"

    def module(self, module: Any) -> StepModule:
        """Compiled when it first runs."""
        return WithStep(module, torch.compile(module.step, dynamic=True))


def compiler_fault() -> str:
    """Why torch.compile can't be had on this machine; empty where it can."""
    try:
        torch.compile(lambda x: (x.sin() + 1) @ x)(torch.ones(2, 2))
    except Exception as error:  # whatever a missing compiler raises
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return ""
