"""A line of text to the example that it describes, whatever a model reads.

A line has one field for each input of the model, TAB between them: text for tokens
(ids with spaces between them where there is no tokenizer), a label for a class, numbers
for a vector, and for frames the name of a .npy file that holds (time, features). Where
text is the only input the line is the text, its TABs too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.inputs import Array, Example
from seq2edge.runtime.manifest import SEQUENCES, InputSpec

if TYPE_CHECKING:
    from seq2edge.runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class Record:
    """What was read of a line."""

    example: Example
    cut: bool = False  # a sequence was too long, and its end left out
    unknown: tuple[str, ...] = ()  # words or characters that the model doesn't know


@dataclass(frozen=True)
class Reader:
    """Reads lines for the inputs of one model."""

    inputs: Sequence[InputSpec]
    tokenizer: "Tokenizer | None"
    longest: int  # sequence that the model takes
    folder: Path = field(default_factory=Path)  # that names of files are relative to

    def fields(self, line: str) -> list[str]:
        """The line's fields, one for each input."""
        if self.reads_text:
            return [line]
        fields = line.split("\t")
        if len(fields) != len(self.inputs):
            names = " TAB ".join(spec.name for spec in self.inputs)
            raise InputError(
                f"the line has {len(fields)} field(s), where {names} is due: "
                f"{_shortened(line)!r}"
            )
        return fields

    @property
    def reads_text(self) -> bool:
        """Whether a whole line is one text."""
        return [spec.kind for spec in self.inputs] == ["tokens"]

    @property
    def is_text(self) -> bool:
        """Whether every sequence is text."""
        kinds = {spec.kind for spec in self.inputs if spec.kind in SEQUENCES}
        return self.tokenizer is not None and kinds == {"tokens"}

    def read(self, line: str) -> Record:
        """The line as arrays; InputError names the input that can't be read."""
        return self.read_fields(self.fields(line))

    def read_fields(self, fields: Sequence[str]) -> Record:
        """The same of fields that are apart already."""
        arrays: dict[str, Array] = {}
        unknown: dict[str, None] = {}
        cut = False
        for spec, text in zip(self.inputs, fields, strict=True):
            array = READERS[spec.kind](self, spec, text)
            if spec.kind in SEQUENCES and len(array) > self.longest:
                array, cut = self._cut(array), True
            arrays[spec.name] = array
            if spec.kind == "tokens" and self.tokenizer is not None:
                unknown |= dict.fromkeys(self.tokenizer.unknown_characters(text))
        return Record(arrays, cut, tuple(unknown))

    def positions(self, line: str, example: Example) -> tuple[str, ...]:
        """A name for every position of every sequence, one behind the other.

        Pieces, "" for tokens that were added to the text; ids or the numbers of frames.
        """
        names: list[str] = []
        for spec, text in zip(self.inputs, self.fields(line), strict=True):
            if spec.kind not in SEQUENCES:
                continue
            count = len(example[spec.name])
            if spec.kind == "tokens" and self.tokenizer is not None:
                pieces = self.tokenizer.source_pieces(text)
                places = np.arange(len(pieces))
                kept = self._cut(places) if len(pieces) > self.longest else places
                assert len(kept) == count  # or a tokenizer's pieces aren't its ids
                names.extend(pieces[place] for place in kept.tolist())
            else:
                are_ids = spec.kind == "tokens"
                names.extend(map(str, example[spec.name] if are_ids else range(count)))
        return tuple(names)

    def _cut(self, array: Array) -> Array:
        """As much as the model takes; tokens keep their last ones, the end token."""
        tail = self.tokenizer.tail if self.tokenizer and array.ndim == 1 else 0
        if not tail:
            return array[: self.longest]
        return np.append(array[: self.longest - tail], array[-tail:])

    def _tokens(self, spec: InputSpec, text: str) -> Array:
        if not text.strip():
            raise InputError(f"{spec.name} is empty; give it a text")
        encode = self.tokenizer.encode if self.tokenizer else partial(_ids, spec)
        ids = encode(text)
        return np.array(ids, np.int64)

    def _frames(self, spec: InputSpec, text: str) -> Array:
        path = self.folder / text.strip()
        try:
            frames = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{spec.name}: {path} can't be read as a .npy file: {reason}"
            ) from None
        features = spec.shape[2]
        if not isinstance(frames, np.ndarray) or frames.dtype.kind not in "fiu":
            raise InputError(f"{spec.name}: {path} holds no array of numbers")
        if frames.ndim != 2 or frames.shape[1] != features or not len(frames):
            raise InputError(
                f"{spec.name}: {path} has shape {frames.shape}, where (time, "
                f"{features}) is due, with one frame at least"
            )
        return self._finite(spec, frames.astype(np.float32))

    def _vector(self, spec: InputSpec, text: str) -> Array:
        numbers = text.replace(",", " ").split()
        try:
            vector = np.array([float(number) for number in numbers], np.float32)
        except ValueError:
            raise InputError(
                f"{spec.name} must be numbers with spaces between them, not "
                f"{_shortened(text)!r}"
            ) from None
        if len(vector) != spec.shape[1]:
            raise InputError(
                f"{spec.name} has {len(vector)} numbers, where {spec.shape[1]} are due"
            )
        return self._finite(spec, vector)

    def _finite(self, spec: InputSpec, array: Array) -> Array:
        if not np.isfinite(array).all():
            raise InputError(f"{spec.name} holds a number that is not finite")
        return array

    def _class(self, spec: InputSpec, text: str) -> Array:
        label = text.strip()
        if label not in spec.labels:
            known = ", ".join(spec.labels[:20]) + ", ..." * (len(spec.labels) > 20)
            raise InputError(f"{spec.name} {label!r} is not known; give one of {known}")
        return np.array(spec.labels.index(label), np.int64)


READERS: Mapping[str, Callable[[Reader, InputSpec, str], Array]] = {
    "tokens": Reader._tokens,
    "frames": Reader._frames,
    "vector": Reader._vector,
    "class": Reader._class,
}


def _ids(spec: InputSpec, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split()]
    except ValueError:
        raise InputError(
            f"{spec.name} is {_shortened(text)!r}, and this bundle has no tokenizer; "
            "give ids with spaces between them"
        ) from None


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
