"""Parallel text from files: what is read, and what was left out and why.

Defective lines are counted, never fatal: real corpora have them (Multi30k's training
half has a stray TAB and a line that is only "@@").
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seq2edge.runtime.errors import ConfigError


@dataclass(frozen=True)
class Corpus:
    """Pairs of sentences, and how many lines had which defect."""

    sources: list[str]
    targets: list[str]
    defects: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.sources)


def read_corpus(files: Sequence[str], folder: Path) -> Corpus:
    """Read one TSV file or two line-aligned files; names are relative to `folder`."""
    if len(files) == 1:
        pairs = _tsv_pairs(folder / files[0])
    elif len(files) == 2:
        pairs = _aligned_pairs(folder / files[0], folder / files[1])
    else:
        raise ConfigError(
            f"data: {list(files)} must be one TSV file or [source, target]"
        )
    corpus = Corpus([], [])
    for pair in pairs:
        if isinstance(pair, str):
            corpus.defects[pair] += 1
        else:
            corpus.sources.append(pair[0])
            corpus.targets.append(pair[1])
    if not corpus.sources:
        raise ConfigError(f"data: {list(files)} holds no usable pair of sentences")
    return corpus


def _tsv_pairs(path: Path) -> Iterator[tuple[str, str] | str]:
    for line in _lines(path):
        columns = line.split(b"\t")
        if len(columns) == 2:
            yield _checked(columns[0], columns[1])
        else:
            yield "stray TAB" if len(columns) > 2 else "no TAB"


def _aligned_pairs(source: Path, target: Path) -> Iterator[tuple[str, str] | str]:
    sources, targets = _lines(source), _lines(target)
    if len(sources) != len(targets):
        raise ConfigError(
            f"{source} has {len(sources)} lines and {target} has {len(targets)}; "
            "line-aligned files need as many"
        )
    for left, right in zip(sources, targets, strict=True):
        yield "stray TAB" if b"\t" in left + right else _checked(left, right)


def _checked(source: bytes, target: bytes) -> tuple[str, str] | str:
    try:
        pair = source.decode("utf-8").strip(), target.decode("utf-8").strip()
    except UnicodeDecodeError:
        return "invalid UTF-8"
    return pair if all(pair) else "empty side"


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    lines = content.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines
