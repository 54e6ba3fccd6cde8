"""Lines from files: what is read, and what was left out and why.

A line has a field for each input of the model, and then what is to be made of them: a
text, tags with spaces between them, or a label. Defective lines are counted, never
fatal: real corpora have them (Multi30k's training half has a stray TAB and a line that
is only "@@").
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seq2edge.runtime.errors import ConfigError


@dataclass(frozen=True)
class Corpus:
    """The fields of every line, and how many lines had which defect."""

    inputs: list[tuple[str, ...]]  # of each line, in the order of the model's inputs
    outputs: list[str]
    defects: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.inputs)

    def column(self, index: int) -> list[str]:
        """One input of every line."""
        return [fields[index] for fields in self.inputs]

    def record(self, line: int) -> str:
        """The inputs of a line, as the runtime reads them."""
        return "\t".join(self.inputs[line])


def read_corpus(
    files: Sequence[str], folder: Path, inputs: Sequence[str] = ("source",)
) -> Corpus:
    """Read one TSV file, or line-aligned ones; names are relative to `folder`.

    Columns, or files, are the inputs in their order and the output.
    """
    columns = len(inputs) + 1
    if len(files) == 1:
        lines = _tsv_lines(folder / files[0], columns)
    elif len(files) == columns:
        lines = _aligned_lines([folder / file for file in files])
    else:
        raise ConfigError(
            f"data: {list(files)} must be one TSV file or "
            f"[{', '.join(inputs)}, {'target' if columns == 2 else 'output'}]"
        )
    corpus = Corpus([], [])
    for line in lines:
        if isinstance(line, str):
            corpus.defects[line] += 1
        else:
            corpus.inputs.append(line[:-1])
            corpus.outputs.append(line[-1])
    if not len(corpus):
        raise ConfigError(f"data: {list(files)} holds no usable line")
    return corpus


def by_frequency(labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once: the most frequent first, and equals by the alphabet."""
    counts = Counter(labels)
    return tuple(sorted(counts, key=lambda label: (-counts[label], label)))


def _tsv_lines(path: Path, columns: int) -> Iterator[tuple[str, ...] | str]:
    for line in _lines(path):
        fields = line.split(b"\t")
        if len(fields) == columns:
            yield _checked(fields)
        else:
            yield "stray TAB" if len(fields) > columns else "no TAB"


def _aligned_lines(paths: Sequence[Path]) -> Iterator[tuple[str, ...] | str]:
    files = [_lines(path) for path in paths]
    for path, lines in zip(paths[1:], files[1:], strict=True):
        if len(lines) != len(files[0]):
            raise ConfigError(
                f"{paths[0]} has {len(files[0])} lines and {path} has {len(lines)}; "
                "line-aligned files need as many"
            )
    for fields in zip(*files, strict=True):
        tab = any(b"\t" in each for each in fields)
        yield "stray TAB" if tab else _checked(fields)


def _checked(fields: Sequence[bytes]) -> tuple[str, ...] | str:
    try:
        texts = tuple(each.decode("utf-8").strip() for each in fields)
    except UnicodeDecodeError:
        return "invalid UTF-8"
    return texts if all(texts) else "empty side"


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    lines = content.split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines
