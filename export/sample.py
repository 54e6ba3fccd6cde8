"""The sentences that an export is traced with, calibrated on and judged by."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seq2edge.runtime.errors import ExportError


class Encoder(Protocol):
    """The half of a tokenizer that a sample needs."""

    def encode(self, text: str) -> list[int]:
        """The source ids of a text, with the end token if the model wants it."""
        ...


@dataclass(frozen=True)
class Sample:
    """Sources as ids and, where there are any, their texts and references."""

    sources: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...] = ()  # of each source, or none at all
    references: tuple[tuple[str, ...], ...] = ()  # of each source, or none at all
    origin: str = "ids"
    too_long: int = 0  # sentences left out, for the model can't take them at once

    def __post_init__(self) -> None:
        """Refuse a sample that judges nothing."""
        if not self.sources or not all(self.sources):
            raise ExportError(f"{self.origin}: a sample needs sentences, none empty")

    @classmethod
    def of_ids(cls, sources: Sequence[Sequence[int]]) -> "Sample":
        """A sample for a model without a tokenizer."""
        return cls(tuple(tuple(source) for source in sources))

    @classmethod
    def read(cls, path: Path, tokenizer: Encoder, longest: int) -> "Sample":
        """Read lines of SOURCE or SOURCE TAB REFERENCE; equal sources are one.

        Only if every source has a reference are there any.
        """
        content = _read(path)
        found: dict[str, list[str]] = {}
        for source, *references in _lines(path, content):
            known = found.setdefault(source, [])
            known.extend(text for text in references if text and text not in known)
        encoded = {text: tuple(tokenizer.encode(text)) for text in found}
        texts = tuple(text for text, ids in encoded.items() if len(ids) <= longest)
        judged = all(found[text] for text in texts)
        return cls(
            sources=tuple(encoded[text] for text in texts),
            texts=texts,
            references=tuple(tuple(found[text]) for text in texts) if judged else (),
            origin=f"{path.name}, sha256 {hashlib.sha256(content).hexdigest()[:16]}",
            too_long=len(encoded) - len(texts),
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"{path}: the sample can't be read ({error.strerror}); "
            "give lines of SOURCE or SOURCE TAB REFERENCE with --sample"
        ) from None


def _lines(path: Path, content: bytes) -> Iterator[list[str]]:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            fields = [field.strip() for field in line.decode("utf-8").split("\t")]
        except UnicodeDecodeError:
            raise ExportError(
                f"{path}, line {number}: not UTF-8; mend or remove the line"
            ) from None
        if fields[0]:
            yield fields
