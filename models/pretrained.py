"""Word vectors made elsewhere, put in the rows of the words that a model reads.

Read are the text of word2vec (arXiv:1301.3781; a first line "count size") and of GloVe
(Pennington et al. 2014; none), and a .npy table with a file that names a word a line.
A piece that begins a word, or has no letters, stands for that word; what goes on inside
of a word stands for none. A word that isn't there is sought in lower case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seq2edge.models.recipe import EmbeddingRecipe
from seq2edge.runtime.errors import ConfigError

Vector = NDArray[np.float32]
WORD_START = "\u2581"  # SentencePiece's sign of a space


@dataclass
class WordVectors:
    """The vectors of the words that were wanted; the first of a word counts."""

    found: dict[str, Vector] = field(default_factory=dict)
    bad_lines: int = 0  # blank, damaged or of another length


def fill_embedding(
    table: nn.Embedding,
    pieces: Sequence[str | None],
    recipe: EmbeddingRecipe,
    folder: Path,
) -> dict[str, Any]:
    """Copy what the file has into the table's rows; returns the event to report.

    `pieces` is the source vocabulary, None for ids that stand for no text.
    """
    words = [None if piece is None else _word(piece) for piece in pieces]
    wanted = {word for word in words if word}
    wanted |= {word.lower() for word in wanted}
    vectors = read_vectors(recipe, folder, table.embedding_dim, wanted)
    missing = []
    with torch.no_grad():
        for row, (piece, word) in enumerate(zip(pieces, words, strict=True)):
            if piece is None:
                continue
            vector = _lookup(vectors, word)
            if vector is None:
                missing.append(piece.replace(WORD_START, "") or piece)
            else:
                table.weight[row] = torch.from_numpy(vector)
    table.weight.requires_grad_(not recipe.frozen)
    return {
        "event": "embedding",
        "found": sum(piece is not None for piece in pieces) - len(missing),
        "missing": len(missing),
        "examples": missing[:5],
        "bad_lines": vectors.bad_lines,
    }


def read_vectors(
    recipe: EmbeddingRecipe, folder: Path, size: int, wanted: set[str]
) -> WordVectors:
    """Read the vectors of the wanted words; ConfigError where their size is another."""
    path = folder / recipe.file
    vectors = WordVectors()
    try:
        if recipe.vocabulary:
            lines = _table_lines(path, folder / recipe.vocabulary, size)
        else:
            lines = _text_lines(path, size)
        for line in lines:
            if line is None:
                vectors.bad_lines += 1
            elif line[0] in wanted and line[0] not in vectors.found:
                vectors.found[line[0]] = line[1]
    except OSError as error:
        raise ConfigError(
            f"embedding: {error.filename or path} can't be read: {error.strerror}"
        ) from None
    return vectors


def _word(piece: str) -> str | None:
    if piece.startswith(WORD_START):
        return piece.removeprefix(WORD_START)
    return None if any(letter.isalpha() for letter in piece) else piece


def _lookup(vectors: WordVectors, word: str | None) -> Vector | None:
    if word is None:
        return None
    return vectors.found.get(word, vectors.found.get(word.lower()))


def _text_lines(path: Path, size: int) -> Iterator[tuple[str, Vector] | None]:
    """Word and vector of each line, None of a bad one."""
    is_first = True
    with path.open("rb") as file:
        for line in file:
            fields = line.split()
            if not fields or not is_first:
                yield _parse(line, size)
                continue
            is_first = False
            if len(fields) == 2 and _are_counts(fields):
                _check_size(path, int(fields[1]), size)
            else:
                _check_size(path, len(fields) - 1, size)
                yield _parse(line, size)


def _parse(line: bytes, size: int) -> tuple[str, Vector] | None:
    """A word, which may hold spaces, and as many numbers as are due."""
    try:
        text = line.decode("utf-8").rstrip(" \t\r\n").replace("\t", " ")
        word, *numbers = text.rsplit(" ", size)
        vector = np.array([float(number) for number in numbers], np.float32)
    except ValueError:  # UnicodeDecodeError is one
        return None
    word = word.strip(" ")
    if not word or len(vector) != size or not np.isfinite(vector).all():
        return None
    return word, vector


def _table_lines(
    path: Path, vocabulary: Path, size: int
) -> Iterator[tuple[str, Vector] | None]:
    words = vocabulary.read_text(encoding="utf-8", errors="replace").split("\n")
    words = words[:-1] if words[-1] == "" else words
    try:
        table = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConfigError(f"embedding: {path} is no .npy file: {error}") from None
    if table.ndim != 2 or table.dtype.kind not in "fiu":
        raise ConfigError(f"embedding: {path} holds no table of numbers, (words, size)")
    _check_size(path, table.shape[1], size)
    if len(words) != len(table):
        raise ConfigError(
            f"embedding: {path} has {len(table)} rows and {vocabulary} {len(words)} "
            "words; a word a line is due"
        )
    for word, row in zip(words, table.astype(np.float32), strict=True):
        usable = word.strip() and np.isfinite(row).all()
        yield (word.strip(), row) if usable else None


def _are_counts(fields: Sequence[bytes]) -> bool:
    return all(each.isdigit() for each in fields)


def _check_size(path: Path, given: int, wanted: int) -> None:
    if given != wanted:
        raise ConfigError(
            f"embedding: {path} has vectors of {given} numbers, and "
            f"model.embedding_size is {wanted}; make it {given}"
        )
