"""One example as arrays, and examples put together to a batch that an encoder reads.

An example maps the names of a model's inputs to arrays without batch axis: tokens
(time,) int64, frames (time, features) float32, a vector (features,) float32, a class id
() int64. Padding is zero, which is never read: every sequence comes with its lengths.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.manifest import SEQUENCES, InputSpec
from seq2edge.runtime.stepper import Inputs

Array = NDArray[Any]
Example = Mapping[str, Array]
# Plain ids where one sequence of tokens is the input; lists do for arrays.
Given = Mapping[str, Any] | Sequence[int]


def tokens_input(name: str) -> InputSpec:
    """A sequence of token ids: (batch, time) int64 and <name>_lengths."""
    return InputSpec(name, "tokens", "int64", ("batch", name), f"{name}_lengths")


def frames_input(name: str, features: int) -> InputSpec:
    """A sequence of frames: (batch, time, features) float32 and <name>_lengths."""
    shape = ("batch", name, features)
    return InputSpec(name, "frames", "float32", shape, f"{name}_lengths")


def vector_input(name: str, features: int) -> InputSpec:
    """A vector: (batch, features) float32."""
    return InputSpec(name, "vector", "float32", ("batch", features), None)


def class_input(name: str, labels: Sequence[str]) -> InputSpec:
    """One of these classes: its id, (batch,) int64."""
    return InputSpec(name, "class", "int64", ("batch",), None, tuple(labels))


SOURCE = tokens_input("source")


def as_example(given: Given, specs: Sequence[InputSpec]) -> Example:
    """Give plain ids the name of the only input; arrays get its type, if they fit."""
    if not isinstance(given, Mapping):
        if len(specs) != 1 or specs[0].kind != "tokens":
            names = ", ".join(f"{spec.name} ({spec.kind})" for spec in specs)
            raise InputError(f"plain ids can't be read here; give a dict of {names}")
        given = {specs[0].name: np.asarray(given, np.int64)}
    if given.keys() != {spec.name for spec in specs}:
        raise InputError(
            f"the example has {', '.join(given) or 'nothing'}, where this model takes "
            f"{', '.join(spec.name for spec in specs)}"
        )
    return {spec.name: _typed(given[spec.name], spec) for spec in specs}


def checked_examples(
    examples: Sequence[Given], specs: Sequence[InputSpec], longest: int
) -> list[Example]:
    """Examples in the types of their inputs; InputError names the first unfit one."""
    typed = [as_example(each, specs) for each in examples]
    for place, example in enumerate(typed):
        check_example(example, specs, longest, f"example {place}")
    return typed


def example_length(example: Example, specs: Sequence[InputSpec]) -> int:
    """Positions of the longest sequence; 0 of an example without any."""
    lengths = (len(example[spec.name]) for spec in specs if spec.kind in SEQUENCES)
    return max(lengths, default=0)


def check_example(
    example: Example, specs: Sequence[InputSpec], longest: int, name: str = "example"
) -> None:
    """Refuse, by name, what a model of this longest sequence can't take."""
    for spec in specs:
        array, where = example[spec.name], f"{name}: {spec.name}"
        if spec.kind in SEQUENCES and not 0 < len(array) <= longest:
            raise InputError(
                f"{where} has {len(array)} {spec.kind}; "
                f"this model takes from 1 to {longest}"
            )
        if spec.kind in ("tokens", "class") and array.min() < 0:
            raise InputError(f"{where} holds the negative id {array.min()}")
        if spec.kind == "class" and array >= len(spec.labels):
            raise InputError(
                f"{where} is {array}; this model knows 0 to {len(spec.labels) - 1}"
            )
        if spec.kind in ("frames", "vector") and not np.isfinite(array).all():
            raise InputError(f"{where} holds a number that is not finite")


def collate(examples: Sequence[Example], specs: Sequence[InputSpec]) -> Inputs:
    """Examples as `encode` reads them: every input padded, followed by its lengths."""
    inputs: dict[str, Array] = {}
    for spec in specs:
        arrays = [example[spec.name] for example in examples]
        if spec.lengths is None:
            inputs[spec.name] = np.stack(arrays)
            continue
        lengths = np.array([len(array) for array in arrays], np.int32)
        shape = (len(arrays), int(lengths.max()), *arrays[0].shape[1:])
        padded = np.zeros(shape, arrays[0].dtype)
        for row, array in zip(padded, arrays, strict=True):
            row[: len(array)] = array
        inputs[spec.name], inputs[spec.lengths] = padded, lengths
    return inputs


def real_positions(inputs: Inputs, specs: Sequence[InputSpec]) -> NDArray[np.bool_]:
    """Where there is no padding, of all sequences one behind the other.

    (batch, positions): what an attention is over.
    """
    inside = [
        np.arange(inputs[spec.name].shape[1])
        < inputs[spec.lengths].astype(int)[:, None]
        for spec in specs
        if spec.lengths is not None
    ]
    return np.concatenate(inside, axis=1)


def _typed(value: Any, spec: InputSpec) -> Array:
    try:
        array = np.asarray(value).astype(spec.dtype, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise InputError(f"{spec.name} is no {spec.dtype} array: {error}") from None
    wanted = spec.shape[1:]
    fixed = {axis: size for axis, size in enumerate(wanted) if isinstance(size, int)}
    fits = array.ndim == len(wanted) and all(
        array.shape[axis] == size for axis, size in fixed.items()
    )
    if not fits:
        axes = ", ".join(str(axis) for axis in wanted)
        raise InputError(
            f"{spec.name} has shape {array.shape}; give ({axes}), without batch axis"
        )
    return array
