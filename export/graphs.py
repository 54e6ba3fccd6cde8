"""What a module's tensors look like, and its two halves as graphs that can be traced.

Tracing wants results in a row where the contract has named dicts: EncoderGraph and
StepGraph translate. Which axes vary is found by running the module twice, with every
size changed in between.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor, nn

from seq2edge.models.contract import StepModule, Tensors
from seq2edge.runtime.bundle import Axis, Dtype, InputSpec, TensorSpec
from seq2edge.runtime.errors import ExportError

SOURCE = InputSpec("source", "tokens", "int64", ("batch", "source"), "source_lengths")
DTYPES: Mapping[torch.dtype, Dtype] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.uint8: "uint8",
    torch.int8: "int8",
    torch.bool: "bool",
}
Ids = Sequence[Sequence[int]]  # sentences as token ids


@dataclass(frozen=True)
class Contract:
    """Names, types and axes of all that goes between encoder, decoder and search."""

    inputs: tuple[InputSpec, ...]
    memory: tuple[TensorSpec, ...]
    state: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Example:
    """A batch on its way through a module: what the graphs are traced with."""

    inputs: Tensors
    memory: Tensors
    state: Tensors  # of rows = batch * beam
    token: Tensor  # (rows,)
    beam: int

    @property
    def batch(self) -> int:
        """Sentences in the batch."""
        return len(self.token) // self.beam


class EncoderGraph(nn.Module):
    """A dict of inputs to (memory..., state...), in the order of a contract."""

    def __init__(self, module: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.module = module
        self.contract = contract

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """Run `encode`."""
        memory, state = self.module.encode(**inputs)  # type: ignore[operator]
        return (
            *(memory[spec.name] for spec in self.contract.memory),
            *(state[spec.name] for spec in self.contract.state),
        )


class StepGraph(nn.Module):
    """(token, memory, state) to (logits, next state...), in the order of a contract."""

    def __init__(self, module: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.module = module
        self.contract = contract

    def forward(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, ...]:
        """Run `step`."""
        logits, following = self.module.step(token, memory, state)  # type: ignore[operator]
        return (logits, *(following[spec.name] for spec in self.contract.state))


def input_names(contract: Contract) -> list[str]:
    """Arguments of `encode`: every input, followed by its lengths if it has them."""
    names = []
    for spec in contract.inputs:
        names.append(spec.name)
        if spec.lengths is not None:
            names.append(spec.lengths)
    return names


def token_batch(sources: Ids, batch: int, length: int) -> Tensors:
    """A ragged batch of the sample's own tokens; the first row is full."""
    tokens = cycle(token for source in sources for token in source)
    source = torch.tensor([list(islice(tokens, length)) for _ in range(batch)])
    lengths = [max(1, length - row) for row in range(batch)]
    return {
        "source": source,
        "source_lengths": torch.tensor(lengths, dtype=torch.int32),
    }


@torch.no_grad()
def example(
    module: StepModule, sources: Ids, start: int, batch: int, length: int, beam: int
) -> Example:
    """Run a batch of these sizes through `encode` and two steps."""
    inputs = token_batch(sources, batch, length)
    memory, state = _encode(module, inputs)
    rows = batch * beam
    state = {k: tensor.repeat_interleave(beam, 0) for k, tensor in state.items()}
    token = torch.full((rows,), start, dtype=torch.int64)
    for _ in range(2):
        _, state = _step(module, token, memory, state)
    return Example(inputs, memory, state, token, beam)


@torch.no_grad()
def examine(module: StepModule, sources: Ids, start: int) -> Contract:
    """Find the contract of a module, or say which rule of it is broken where."""
    sizes = ((3, 7), (4, 11))  # batch, source: every size changes
    small, large = (token_batch(sources, *size) for size in sizes)
    (memory, state), (more_memory, more_state) = (
        _encode(module, small),
        _encode(module, large),
    )
    for role, one, two in (
        ("memory", memory, more_memory),
        ("state", state, more_state),
    ):
        _same_names(f"{role} of encode", one, two)
        _check_batch_axis(role, one, two, sizes)
    _check_step(module, memory, state, start)
    growing = _growing_axes(module, memory, state, start)
    return Contract(
        (SOURCE,),
        tuple(_spec(name, "batch", memory, more_memory, sizes) for name in memory),
        tuple(
            _grown(_spec(name, "rows", state, more_state, sizes), growing[name])
            for name in state
        ),
    )


def _encode(module: StepModule, inputs: Tensors) -> tuple[Tensors, Tensors]:
    result = _call("encode", module.encode, inputs, **inputs)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ExportError(
            f"encode returned {type(result).__name__}; return (memory, state), "
            "two dicts of tensors"
        )
    for role, tensors in zip(("memory", "state"), result, strict=True):
        _check_dict(f"{role} of encode", tensors)
    if not result[1]:
        raise ExportError("encode returned an empty state; a step must have one")
    return result


def _step(
    module: StepModule, token: Tensor, memory: Tensors, state: Tensors
) -> tuple[Tensor, Tensors]:
    tensors = {"token": token, **memory, **state}
    result = _call("step", module.step, tensors, token, memory, state)
    if not isinstance(result, tuple) or len(result) != 2:
        raise ExportError(
            f"step returned {type(result).__name__}; return (logits, next state)"
        )
    logits, following = result
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ExportError("step's logits are no tensor of floats")
    if logits.dim() != 2 or logits.shape[0] != token.shape[0]:
        raise ExportError(
            f"step's logits have shape {tuple(logits.shape)} for {token.shape[0]} "
            "rows; return (rows, vocabulary)"
        )
    _check_dict("next state of step", following)
    return logits, following


def _call(
    what: str, function: Callable[..., Any], tensors: Tensors, *args: Any, **named: Any
) -> Any:
    """Run a stranger's code; what it raises becomes one sentence."""
    try:
        return function(*args, **named)
    except Exception as error:
        shapes = ", ".join(f"{k} {tuple(t.shape)}" for k, t in tensors.items())
        reason = next(iter(str(error).strip().splitlines()), "no message")
        raise ExportError(
            f"{what} fails on {shapes}: {type(error).__name__}: {reason}"
        ) from error


def _check_dict(role: str, tensors: object) -> None:
    if not isinstance(tensors, dict):
        raise ExportError(
            f"the {role} is a {type(tensors).__name__}; make it a dict of tensors"
        )
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ExportError(f"the {role} has the name {name!r}; use an identifier")
        if not isinstance(tensor, Tensor):
            raise ExportError(f"{name!r} in the {role} is no tensor")
        if tensor.dtype not in DTYPES:
            raise ExportError(
                f"{name!r} in the {role} has dtype {tensor.dtype}; "
                f"use one of {', '.join(DTYPES.values())}"
            )


def _same_names(role: str, one: Tensors, two: Tensors) -> None:
    if one.keys() != two.keys():
        names = ", ".join(sorted(one.keys() ^ two.keys()))
        raise ExportError(f"the {role} doesn't always have {names}; keep its names")


Sizes = tuple[tuple[int, int], tuple[int, int]]


def _check_batch_axis(role: str, one: Tensors, two: Tensors, sizes: Sizes) -> None:
    for name in one:
        for tensors, (batch, _) in zip((one, two), sizes, strict=True):
            shape = tuple(tensors[name].shape)
            if shape[:1] != (batch,):
                raise ExportError(
                    f"{role} {name!r} has shape {shape} for a batch of {batch}; "
                    "axis 0 must be the batch"
                )
        if one[name].dim() != two[name].dim():
            raise ExportError(f"{role} {name!r} has no fixed number of axes")


def _check_step(
    module: StepModule, memory: Tensors, state: Tensors, start: int
) -> None:
    token = torch.full((next(iter(state.values())).shape[0],), start)
    _, following = _step(module, token, memory, state)
    _same_names("state", state, following)
    for name, tensor in state.items():
        after = following[name]
        if after.dtype != tensor.dtype:
            raise ExportError(
                f"state {name!r} is {tensor.dtype} before a step and {after.dtype} "
                "after; keep its dtype"
            )
        if after.dim() != tensor.dim() or after.shape[:1] != tensor.shape[:1]:
            raise ExportError(
                f"state {name!r} has shape {tuple(tensor.shape)} before a step and "
                f"{tuple(after.shape)} after; only axes behind the first may grow"
            )


def _growing_axes(
    module: StepModule, memory: Tensors, state: Tensors, start: int
) -> dict[str, set[int]]:
    """Axes that a step lengthens, as a cache of keys does."""
    token = torch.full((next(iter(state.values())).shape[0],), start)
    _, following = _step(module, token, memory, state)
    return {
        name: {
            axis
            for axis, size in enumerate(tensor.shape)
            if following[name].shape[axis] != size
        }
        for name, tensor in state.items()
    }


def _spec(
    name: str, first: str, small: Tensors, large: Tensors, sizes: Sizes
) -> TensorSpec:
    (_, length), (_, longer) = sizes
    shape: list[Axis] = [first]
    pairs = zip(small[name].shape[1:], large[name].shape[1:], strict=True)
    for axis, (size, larger) in enumerate(pairs, start=1):
        if size == larger:
            shape.append(int(size))
        elif (size, larger) == (length, longer):
            shape.append("source")
        else:
            shape.append(f"{name}_{axis}")
    return TensorSpec(name, DTYPES[small[name].dtype], tuple(shape))


def _grown(spec: TensorSpec, growing: set[int]) -> TensorSpec:
    shape = tuple(
        "past" if axis in growing else size for axis, size in enumerate(spec.shape)
    )
    return TensorSpec(spec.name, spec.dtype, shape)
