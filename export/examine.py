"""What a module's tensors look like, and whether it keeps the rules of the contract.

Which axes vary is found by running the module twice, with every size changed in
between. A rule that is broken is an ExportError that names the tensor, the axis and the
rule; it is found here, in PyTorch, where a stranger still sees what his code does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2edge.export.dummies import Dummies, as_arrays
from seq2edge.export.graphs import DTYPES, Contract
from seq2edge.models.contract import AttendedStep, Tensors, attended_step
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.inputs import real_positions
from seq2edge.runtime.manifest import LOGITS, PAST, SEQUENCES, Axis, Task, TensorSpec

ATTENTION = "attention"
SMALL, LARGE = (3, 7), (4, 12)  # batch, length of the first sequence


@dataclass(frozen=True)
class Traced:
    """A batch on its way through a module: what the graphs are traced with."""

    inputs: Tensors
    memory: Tensors
    state: Tensors  # of rows = batch * beam
    token: Tensor  # (rows,), or frames (rows, features) of a stream
    beam: int

    @property
    def batch(self) -> int:
        """Sentences in the batch."""
        return len(self.token) // self.beam


@dataclass(frozen=True)
class Subject:
    """A module under examination, and what it is fed."""

    module: Any  # EncodeModule, and StepModule if it has a state
    task: Task
    dummies: Dummies
    start: int  # the first token of a decoder

    @property
    def role(self) -> str:
        """What messages call the results of `encode`."""
        return "memory" if self.task == "generation" else "output"

    def encode(self, inputs: Tensors) -> tuple[Tensors, Tensors]:
        """Run `encode`, whose results must be of the right kind."""
        result = _call("encode", self.module.encode, inputs, **inputs)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ExportError(
                f"encode returned {type(result).__name__}; return ({self.role}, "
                "state), two dicts of tensors"
            )
        for role, tensors in zip((self.role, "state"), result, strict=True):
            _check_dict(f"{role} of encode", tensors)
        return result

    def step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Run `step`, whose results must be of the right kind."""
        tensors = {"token": token, **memory, **state}
        result = _call("step", self.module.step, tensors, token, memory, state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ExportError(
                f"step returned {type(result).__name__}; return (logits, next state)"
            )
        logits, following = result
        _check_step_results("step", len(token), logits, following)
        return logits, following

    @property
    def attends(self) -> bool:
        """Whether the module shows its attention."""
        writes = self.task == "generation"
        return writes and attended_step(self.module) is not None

    def attended_step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Run `step_with_attention`, whose results must be of the right kind."""
        what, tensors = "step_with_attention", {"token": token, **memory, **state}
        function = self.module.step_with_attention
        result = _call(what, function, tensors, token, memory, state)
        if not isinstance(result, tuple) or len(result) != 3:
            raise ExportError(
                f"{what} returned {type(result).__name__}; return (logits, attention, "
                "next state)"
            )
        logits, attention, following = result
        _check_step_results(what, len(token), logits, following)
        if not isinstance(attention, Tensor) or attention.dtype != torch.float32:
            raise ExportError(f"{what}'s attention is no tensor of float32")
        return logits, attention, following

    def tokens(self, inputs: Tensors, state: Tensors, position: int = 0) -> Tensor:
        """What a step reads: a decoder's start token, or a stream's next position."""
        rows = next(iter(state.values())).shape[0]
        if self.task == "generation":
            return torch.full((rows,), self.start, dtype=torch.int64)
        sequence = inputs[self.dummies.inputs[0].name][:, position]
        return sequence.repeat_interleave(rows // sequence.shape[0], 0)


@dataclass
class Guarded:
    """A stranger's module that is decoded with: what it raises becomes one sentence."""

    module: Any
    training: bool = False  # an export runs nothing in training mode

    def encode(self, **inputs: Tensor) -> tuple[Tensors, Tensors]:
        """The module's own."""
        results: tuple[Tensors, Tensors] = _call(
            "encode", self.module.encode, inputs, **inputs
        )
        return results

    def step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        """The module's own."""
        tensors = {"token": token, **memory, **state}
        results: tuple[Tensor, Tensors] = _call(
            "step", self.module.step, tensors, token, memory, state
        )
        return results

    @property
    def step_with_attention(self) -> AttendedStep | None:
        """The module's own, if it has one."""
        return self._attended_step if attended_step(self.module) else None

    def _attended_step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        what, tensors = "step_with_attention", {"token": token, **memory, **state}
        results: tuple[Tensor, Tensor, Tensors] = _call(
            what, self.module.step_with_attention, tensors, token, memory, state
        )
        return results


@torch.no_grad()
def examine(subject: Subject) -> Contract:
    """Find the contract of a module, or say which rule of it is broken where."""
    small, large = (subject.dummies.tensors(*size) for size in (SMALL, LARGE))
    (results, state), (more_results, more_state) = (
        subject.encode(small),
        subject.encode(large),
    )
    for role, one, two in (
        (subject.role, results, more_results),
        ("state", state, more_state),
    ):
        _same_names(f"{role} of encode", one, two)
        _check_batch_axis(role, one, two)
    _check_results(subject, results, state)
    growing = _check_step(subject, small, results, state) if state else {}
    axes = _Axes.of(subject.dummies)
    found = tuple(axes.spec(n, "batch", results, more_results) for n in results)
    attentions = _attentions(subject, small, large) if subject.attends else None
    return Contract(
        task=subject.task,
        inputs=tuple(subject.dummies.inputs),
        memory=found if subject.task == "generation" else (),
        outputs=() if subject.task == "generation" else found,
        state=tuple(
            _grown(axes.spec(name, "rows", state, more_state), growing[name])
            for name in state
        ),
        attention=attentions and axes.spec(ATTENTION, "rows", *attentions),
    )


@torch.no_grad()
def traced_with(subject: Subject, batch: int, length: int, beam: int) -> Traced:
    """Run a batch of these sizes through `encode` and two steps."""
    inputs = subject.dummies.tensors(batch, length)
    memory, state = subject.encode(inputs)
    if subject.task != "generation":
        memory = {}
    state = {k: tensor.repeat_interleave(beam, 0) for k, tensor in state.items()}
    if not state:
        return Traced(inputs, memory, state, torch.zeros(batch * beam), beam)
    token = subject.tokens(inputs, state)
    for _ in range(2):
        _, state = subject.step(token, memory, state)
    return Traced(inputs, memory, state, token, beam)


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


def _check_logits(what: str, logits: object) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ExportError(f"{what} are no tensor of floats")


def _same_names(role: str, one: Tensors, two: Tensors) -> None:
    if one.keys() != two.keys():
        names = ", ".join(sorted(one.keys() ^ two.keys()))
        raise ExportError(f"the {role} doesn't always have {names}; keep its names")


def _check_batch_axis(role: str, one: Tensors, two: Tensors) -> None:
    for name in one:
        for tensors, (batch, _) in zip((one, two), (SMALL, LARGE), strict=True):
            shape = tuple(tensors[name].shape)
            if shape[:1] != (batch,):
                raise ExportError(
                    f"{role} {name!r} has shape {shape} for a batch of {batch}; "
                    "axis 0 must be the batch"
                )
        if one[name].dim() != two[name].dim():
            raise ExportError(f"{role} {name!r} has no fixed number of axes")


def _check_step_results(
    what: str, rows: int, logits: Tensor, following: Tensors
) -> None:
    _check_logits(f"{what}'s logits", logits)
    if logits.dim() != 2 or logits.shape[0] != rows:
        raise ExportError(
            f"{what}'s logits have shape {tuple(logits.shape)} for {rows} rows; "
            "return (rows, vocabulary)"
        )
    _check_dict(f"next state of {what}", following)


def _check_results(subject: Subject, results: Tensors, state: Tensors) -> None:
    """What each task must give, and what the others have instead."""
    task = subject.task
    if task == "generation":
        if not state:
            raise ExportError("encode returned an empty state; a step must have one")
        return
    if LOGITS not in results:
        raise ExportError(
            f"encode's output has {', '.join(results) or 'nothing'}, and {task} needs "
            f"{LOGITS!r}"
        )
    logits, axes = results[LOGITS], {"tagging": 3, "classification": 2}[task]
    _check_logits("encode's logits", logits)
    if logits.dim() != axes:
        wanted = "(batch, time, labels)" if axes == 3 else "(batch, labels)"
        raise ExportError(
            f"encode's logits have shape {tuple(logits.shape)}; {task} needs {wanted}"
        )
    kinds = [spec.kind for spec in subject.dummies.inputs]
    if task == "tagging" and (len(kinds) != 1 or kinds[0] not in SEQUENCES):
        raise ExportError("tagging needs one sequence as its only input")
    if state and task != "tagging":
        raise ExportError(f"encode returned a state, which {task} has no use for")


def _check_step(
    subject: Subject, inputs: Tensors, results: Tensors, state: Tensors
) -> dict[str, set[int]]:
    """The axes of each state that a step lengthens, as a cache of keys does."""
    memory = results if subject.task == "generation" else {}
    token = subject.tokens(inputs, state)
    _, following = subject.step(token, memory, state)
    _same_names("state", state, following)
    growing = {}
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
        pairs = enumerate(zip(tensor.shape, after.shape, strict=True))
        growing[name] = {axis for axis, (size, larger) in pairs if size != larger}
        for axis in growing[name]:
            _check_growth(name, axis, tensor.shape[axis], after.shape[axis])
        if growing[name] and subject.task != "generation":
            raise ExportError(
                f"state {name!r} grows with every step; a stream's state must keep its "
                "shape"
            )
    return growing


def _attentions(
    subject: Subject, small: Tensors, large: Tensors
) -> tuple[Tensors, Tensors]:
    """The attention of a first step over each of two batches."""
    if all(spec.lengths is None for spec in subject.dummies.inputs):
        raise ExportError("step_with_attention has no sequence to attend to; drop it")
    found = []
    for inputs in (small, large):
        memory, state = subject.encode(inputs)
        token = subject.tokens(inputs, state)
        _, attention, _ = subject.attended_step(token, memory, state)
        positions = real_positions(as_arrays(inputs), subject.dummies.inputs).shape[1]
        if attention.shape != (len(token), positions):
            raise ExportError(
                f"step_with_attention's attention has shape {tuple(attention.shape)} "
                f"for {len(token)} rows and sequences of {positions} positions, one "
                "input behind the other; return (rows, positions)"
            )
        found.append({ATTENTION: attention})
    return found[0], found[1]


def _check_growth(name: str, axis: int, before: int, after: int) -> None:
    if after != before + 1:
        raise ExportError(
            f"axis {axis} of state {name!r} is {before} before a step and {after} "
            "after; a state keeps its shape, or an axis grows by one with every step"
        )


@dataclass(frozen=True)
class _Axes:
    """Names of axes by their sizes in the small and the large batch."""

    names: dict[tuple[int, int], str]

    @classmethod
    def of(cls, dummies: Dummies) -> "_Axes":
        """Those of the inputs to begin with."""
        names = {}
        for spec in dummies.inputs:
            if spec.kind in SEQUENCES:
                sizes = [dummies.length(spec, length) for _, length in (SMALL, LARGE)]
                names[sizes[0], sizes[1]] = str(spec.shape[1])
        return cls(names)

    def spec(self, name: str, first: str, small: Tensors, large: Tensors) -> TensorSpec:
        """A tensor's type and axes; axes of one size have one name."""
        shape: list[Axis] = [first]
        pairs = zip(small[name].shape[1:], large[name].shape[1:], strict=True)
        for axis, pair in enumerate(pairs, start=1):
            if pair[0] == pair[1]:
                shape.append(int(pair[0]))
            else:
                shape.append(self.names.setdefault(pair, f"{name}_{axis}"))
        return TensorSpec(name, DTYPES[small[name].dtype], tuple(shape))


def _grown(spec: TensorSpec, growing: set[int]) -> TensorSpec:
    shape = tuple(
        PAST if axis in growing else size for axis, size in enumerate(spec.shape)
    )
    return TensorSpec(spec.name, spec.dtype, shape)
