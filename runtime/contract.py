"""The names, types and shapes that pass between the runtime and a bundle's graphs.

The encoder takes the manifest's inputs and gives memory.<name> or output.<name>, and
state.<name>; a head takes memory, state and the tokens, and gives its results and
next.<name>. rows = batch * beam.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.manifest import LOGITS, InputSpec, Manifest, TensorSpec
from seq2edge.runtime.stepper import Inputs

Array = np.ndarray[Any, np.dtype[Any]]
Head = Literal[
    "greedy",
    "beam",
    "scores",
    "attention",
    "draft",
    "verify",
    "shortlist",
    "ahead",
    "beam_ahead",
    "stream",
]

TOKEN = TensorSpec("token", "int64", ("rows",))
PARENTS = TensorSpec("parents", "int64", ("rows",))
COUNT = TensorSpec("count", "int64", (1,))

CANDIDATES = TensorSpec("candidates", "int64", ("candidates",))
_STEPS = TensorSpec("steps", "int64", (1,))  # at most
_END = TensorSpec("end", "int64", (1,))  # the end token
_SEVERAL = (TOKEN, CANDIDATES, _STEPS, _END)  # in one run
MASK = TensorSpec("candidate_mask", "float32", ("masks", "candidates"))
# What the candidates need of the output layer.
GATHERED = (
    TensorSpec("candidate_weight", "int8", ("features", "candidates")),
    TensorSpec("candidate_scale", "float32", ("candidates",)),
    TensorSpec("candidate_bias", "float32", ("candidates",)),
    TensorSpec("candidate_tokens", "int64", ("tokens",)),  # the common ones first
)
CHOOSING: tuple[Head, ...] = ("greedy", "beam", "attention")

HEAD_INPUTS: dict[Head, tuple[TensorSpec, ...]] = {
    "greedy": (TOKEN,),
    "beam": (TOKEN, PARENTS, COUNT),
    "scores": (TOKEN, PARENTS),
    "attention": (TOKEN, PARENTS, COUNT),
    "draft": _SEVERAL,
    "verify": (TensorSpec("hidden", "float32", ("rows", "features")),),
    "shortlist": (CANDIDATES,),
    "ahead": _SEVERAL,
    "beam_ahead": (  # see stepper.Outlook
        *_SEVERAL,
        PARENTS,
        COUNT,
        TensorSpec("totals", "float32", ("rows",)),
        TensorSpec("bans", "float32", ("vocabulary",)),
        TensorSpec("width", "int64", (1,)),
        TensorSpec("beam", "int64", (1,)),
        TensorSpec("most_ended", "int64", (1,)),
    ),
    "stream": (),  # one position of the input, see stream_input
}
_TOP = (
    TensorSpec("top_log_probs", "float32", ("rows", "count")),
    TensorSpec("top_tokens", "int64", ("rows", "count")),
)
_BEST = (
    TensorSpec("best_log_prob", "float32", ("rows",)),
    TensorSpec("best_token", "int64", ("rows",)),
)
HEAD_RESULTS: dict[Head, tuple[TensorSpec, ...]] = {
    "greedy": _BEST,
    "beam": _TOP,
    "scores": (  # logits = log_probs + log_normalizer
        TensorSpec("log_probs", "float32", ("rows", "vocabulary")),
        TensorSpec("log_normalizer", "float32", ("rows", 1)),
    ),
    "attention": (*_TOP, TensorSpec("attention", "float32", ("rows", "positions"))),
    "draft": (  # hidden: what the output layer would have read
        TensorSpec("draft_tokens", "int64", ("steps", "rows")),
        TensorSpec("hidden", "float32", ("steps", "rows", "features")),
    ),
    "verify": _BEST,  # a row a step
    "shortlist": GATHERED,
    "ahead": (
        TensorSpec("ahead_tokens", "int64", ("steps", "rows")),
        TensorSpec("ahead_log_probs", "float32", ("steps", "rows")),
    ),
    "beam_ahead": (  # flat: of (rows, count), row by row; places: of what was seen
        TensorSpec("beam_totals", "float32", ("steps", "width")),
        TensorSpec("beam_log_probs", "float32", ("steps", "rows", "count")),
        TensorSpec("beam_tokens", "int64", ("steps", "width")),
        TensorSpec("beam_flat", "int64", ("steps", "width")),
        TensorSpec("beam_places", "int64", ("steps", "rows")),
    ),
    "stream": (TensorSpec(LOGITS, "float32", ("rows", "labels")),),
}

ORT_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "uint8": "tensor(uint8)",
    "int8": "tensor(int8)",
    "bool": "tensor(bool)",
}


@dataclass(frozen=True)
class GraphContract:
    """What a graph may take, and what it must give, in the order we read it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def faults(self, inputs: Sequence["Port"], outputs: Sequence["Port"]) -> list[str]:
        """Where a graph's declared ports contradict this."""
        declared = {port.name for port in outputs}
        missing = [spec.name for spec in self.outputs if spec.name not in declared]
        return [
            *_port_faults("input", inputs, self.inputs),
            *_port_faults("output", outputs, self.outputs),
            *(f"output {name} is missing" for name in missing),
        ]


class Port(Protocol):
    """What onnxruntime tells of one input or output of a graph."""

    @property
    def name(self) -> str:
        """E.g. state.hidden."""
        ...

    @property
    def type(self) -> str:
        """E.g. tensor(float)."""
        ...

    @property
    def shape(self) -> Sequence[int | str | None]:
        """A number for a fixed axis, a name or None for one that varies."""
        ...


def encoder_contract(manifest: Manifest) -> GraphContract:
    """Every input with its lengths in; memory or outputs, and state, out."""
    return GraphContract(
        tuple(array for spec in manifest.inputs for array in input_arrays(spec)),
        _prefixed("memory", manifest.memory)
        + _prefixed("output", manifest.outputs)
        + _prefixed("state", manifest.state),
    )


def head_contract(manifest: Manifest, head: Head) -> GraphContract:
    """Tokens, memory and state in; the results and the next state out."""
    memory, state = manifest.memory, manifest.state
    if head in ("verify", "shortlist"):
        return GraphContract(HEAD_INPUTS[head], HEAD_RESULTS[head])
    following = state
    if head == "draft":
        following = tuple(_after_every_step(spec) for spec in state)
    read = HEAD_INPUTS[head]
    if head == "stream":
        read = (stream_input(manifest.inputs[0]),)
    elif head in CHOOSING and "shortlist" in manifest.heads:
        read = (*read, MASK, *GATHERED)
    return GraphContract(
        read + _prefixed("memory", memory) + _prefixed("state", state),
        HEAD_RESULTS[head] + _prefixed("next", following),
    )


def _after_every_step(spec: TensorSpec) -> TensorSpec:
    """A state that doesn't grow comes out of a draft as it was after each step."""
    if spec.growing is not None:
        return spec
    return TensorSpec(spec.name, spec.dtype, ("steps", *spec.shape))


def stream_input(spec: InputSpec) -> TensorSpec:
    """One position of a sequence: token (rows,), or frame (rows, features)."""
    if spec.kind == "tokens":
        return TOKEN
    return TensorSpec("frame", spec.dtype, ("rows", *spec.shape[2:]))


def input_arrays(spec: InputSpec) -> list[TensorSpec]:
    """The arrays that one input consists of: itself and its lengths."""
    arrays = [TensorSpec(spec.name, spec.dtype, spec.shape)]
    if spec.lengths is not None:
        arrays.append(TensorSpec(spec.lengths, "int32", ("batch",)))
    return arrays


def check_inputs(inputs: Inputs, specs: Sequence[InputSpec]) -> None:
    """Refuse arrays that don't fit, by the name of the first that doesn't."""
    arrays = [array for spec in specs for array in input_arrays(spec)]
    if inputs.keys() != {array.name for array in arrays}:
        raise InputError(
            f"the inputs are {', '.join(inputs)}, "
            f"where this bundle takes {', '.join(array.name for array in arrays)}"
        )
    sizes: dict[str, int] = {}  # of each named axis, for all arrays agree on them
    for array in arrays:
        _check_array(inputs[array.name], array, sizes)
    for spec in specs:
        if spec.lengths is not None:
            _check_sequence(spec, inputs[spec.name], inputs[spec.lengths])
        elif spec.kind == "class":
            _check_class(spec, inputs[spec.name])


def _check_array(array: Array, spec: TensorSpec, sizes: dict[str, int]) -> None:
    wanted = [
        sizes.setdefault(axis, size) if isinstance(axis, str) else axis
        for axis, size in zip(spec.shape, array.shape, strict=False)
    ]
    fits = array.ndim == len(spec.shape) and [*array.shape] == wanted
    if array.dtype != spec.dtype or not fits or 0 in array.shape:
        axes = ", ".join(
            f"{axis}={sizes[axis]}" if axis in sizes else str(axis)
            for axis in spec.shape
        )
        raise InputError(
            f"{spec.name} must be {spec.dtype} of shape ({axes}), and not empty; "
            f"it is {array.dtype} of shape {array.shape}"
        )


def _check_sequence(spec: InputSpec, sequence: Array, lengths: Array) -> None:
    longest = sequence.shape[1]
    if lengths.min() < 1 or lengths.max() > longest:
        raise InputError(
            f"{spec.lengths} must be from 1 to {longest}; "
            f"they are from {lengths.min()} to {lengths.max()}"
        )
    if spec.kind == "tokens" and sequence.min() < 0:
        raise InputError(f"{spec.name} has the negative token {sequence.min()}")


def _check_class(spec: InputSpec, ids: Array) -> None:
    if ids.min() < 0 or ids.max() >= len(spec.labels):
        raise InputError(
            f"{spec.name} must be from 0 to {len(spec.labels) - 1}; "
            f"it is from {ids.min()} to {ids.max()}"
        )


def _prefixed(prefix: str, specs: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{prefix}.{s.name}", s.dtype, s.shape) for s in specs)


def _port_faults(
    kind: str, ports: Sequence[Port], specs: Sequence[TensorSpec]
) -> Iterator[str]:
    expected = {spec.name: spec for spec in specs}
    for port in ports:
        spec = expected.get(port.name)
        if spec is None:
            yield f"{kind} {port.name} is not in the contract"
        elif port.type != ORT_TYPES[spec.dtype]:
            yield f"{kind} {port.name} is {port.type}, not {ORT_TYPES[spec.dtype]}"
        elif not _fits(port.shape, spec.shape):
            yield f"{kind} {port.name} has shape {port.shape}, not {list(spec.shape)}"


def _fits(declared: Sequence[int | str | None], wanted: Sequence[int | str]) -> bool:
    """Same rank, and no fixed axis of another length; names of axes are free."""
    return len(declared) == len(wanted) and all(
        have == want
        for have, want in zip(declared, wanted, strict=True)
        if isinstance(have, int) and isinstance(want, int)
    )
