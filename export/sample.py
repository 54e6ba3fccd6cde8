"""The examples that an export is traced with, calibrated on and judged by."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seq2edge.runtime.errors import ExportError, InputError
from seq2edge.runtime.inputs import (
    Array,
    Example,
    example_length,
    frames_input,
    tokens_input,
    vector_input,
)
from seq2edge.runtime.manifest import InputSpec
from seq2edge.runtime.records import Reader, Record


@dataclass(frozen=True, eq=False)
class Sample:
    """Examples and, where there are any, the lines they come from and references."""

    examples: tuple[Example, ...]
    texts: tuple[str, ...] = ()  # lines of input fields, of each example, or none
    references: tuple[tuple[str, ...], ...] = ()  # of each example, or none at all
    origin: str = "arrays"
    too_long: int = 0  # examples left out, for the model can't take them at once

    def __post_init__(self) -> None:
        """Refuse a sample that judges nothing."""
        if not self.examples:
            raise ExportError(f"{self.origin}: a sample needs examples, none empty")
        for example in self.examples:
            if empty := [name for name, array in example.items() if not array.size]:
                raise ExportError(
                    f"{self.origin}: {', '.join(empty)} of an example is empty; a "
                    "sample needs examples, none empty"
                )

    @classmethod
    def of_ids(cls, sources: Sequence[Sequence[int]]) -> "Sample":
        """Token ids, for a model that reads one sequence of them as `source`."""
        return cls.of([{"source": source} for source in sources])

    @classmethod
    def of(
        cls,
        examples: Sequence[Mapping[str, Any]],
        references: Sequence[Sequence[str]] = (),
    ) -> "Sample":
        """Arrays by the names of the arguments of `encode`, without batch axis.

        A sequence of token ids (time,), frames (time, features), a vector (features,)
        or a class id (). References are texts, tags with spaces between them or labels.
        """
        arrays = tuple(
            {name: _plain(name, value) for name, value in example.items()}
            for example in examples
        )
        return cls(arrays, references=tuple(tuple(each) for each in references))

    @classmethod
    def read(cls, path: Path, reader: Reader) -> "Sample":
        """Read a file of lines of input fields TAB reference."""
        return cls.parse(_read(path), path, reader)

    @classmethod
    def parse(cls, content: bytes, path: Path, reader: Reader) -> "Sample":
        """The same of what was read from `path`; equal inputs are one example.

        The reference may be missing; only if every example has one are there any.
        """
        found: dict[str, list[str]] = {}
        for line, *references in _lines(path, content, len(reader.inputs)):
            known = found.setdefault(line, [])
            known.extend(text for text in references if text and text not in known)
        whole = replace(reader, longest=1 << 30)
        records = {line: _record(path, whole, line) for line in found}
        fits = {line: one for line, one in records.items() if _fits(one, reader)}
        judged = all(found[line] for line in fits)
        return cls(
            examples=tuple(record.example for record in fits.values()),
            texts=tuple(fits),
            references=tuple(tuple(found[line]) for line in fits) if judged else (),
            origin=f"{path.name}, sha256 {hashlib.sha256(content).hexdigest()[:16]}",
            too_long=len(records) - len(fits),
        )


def infer_inputs(sample: Sample) -> tuple[InputSpec, ...]:
    """What a module's inputs are, by the arrays of a sample."""
    return tuple(
        _infer(name, array.ndim, array) for name, array in sample.examples[0].items()
    )


def _infer(name: str, axes: int, array: Array) -> InputSpec:
    whole = array.dtype.kind == "i"
    if whole and axes == 1:
        return tokens_input(name)
    if not whole and axes == 2:
        return frames_input(name, array.shape[1])
    if not whole and axes == 1:
        return vector_input(name, len(array))
    if whole and axes == 0:
        raise ExportError(
            f"{name} of the sample is a class id; give ModelSpec its inputs, with "
            f"class_input({name!r}, labels) among them"
        )
    raise ExportError(
        f"{name} of the sample has {axes} axes of {array.dtype}; give tokens (time,), "
        "frames (time, features) or a vector (features,)"
    )


def _plain(name: str, value: Any) -> Array:
    """Whole numbers as int64, others as float32."""
    array = np.asarray(value)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    raise ExportError(f"{name} of an example is no array of numbers")


def _record(path: Path, reader: Reader, line: str) -> Record:
    try:
        return reader.read_fields(line.split("\t"))
    except InputError as error:
        raise ExportError(f"{path}: {error}; mend or remove the line") from None


def _fits(record: Record, reader: Reader) -> bool:
    return example_length(record.example, reader.inputs) <= reader.longest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"{path}: the sample can't be read ({error.strerror}); "
            "give lines of SOURCE or SOURCE TAB REFERENCE with --sample"
        ) from None


def _lines(path: Path, content: bytes, inputs: int) -> Iterator[list[str]]:
    """The input fields as one line, and the references; blank lines are passed over."""
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            fields = [field.strip() for field in line.decode("utf-8").split("\t")]
        except UnicodeDecodeError:
            raise ExportError(
                f"{path}, line {number}: not UTF-8; mend or remove the line"
            ) from None
        given = fields[:inputs]
        if not any(given):
            continue
        if len(given) < inputs or not all(given):
            raise ExportError(
                f"{path}, line {number}: {inputs} input fields are due, TAB between "
                "them, and none empty; mend or remove the line"
            )
        yield ["\t".join(given), *fields[inputs:]]
