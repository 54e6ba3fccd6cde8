"""Where in its input a model looked for each token that it wrote.

A second pass over the hypothesis that a search has chosen, which reads it token by
token from the attention head: the search itself pays nothing. A token is aligned with
the position that it looked at most, and with nothing if that isn't of the text, as an
end token. Words are what spaces part: one is aligned, if any of its pieces is, with the
word that all of them together looked at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.batching import batches
from seq2edge.runtime.forcing import forced
from seq2edge.runtime.inputs import Example, collate, example_length, real_positions
from seq2edge.runtime.stepper import FloatArray

if TYPE_CHECKING:
    from seq2edge.runtime.translator import Translator

Pair: TypeAlias = tuple[int, int]  # place in the source, place in the target


@dataclass(frozen=True)
class Alignment:
    """Of a text, or of several sentences one behind the other.

    source: a name for every position: its piece, id or number; "" for what was added to
    the text. attention: a row for each token of the target, over all positions of the
    source; a row sums to 1.
    """

    source: tuple[str, ...] = ()
    attention: tuple[tuple[float, ...], ...] = ()
    pairs: tuple[Pair, ...] = ()  # of pieces, by target
    source_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    words: tuple[Pair, ...] | None = None  # of words; None where there is no text

    @property
    def pharaoh(self) -> str:
        """The pairs of words, or of pieces, as "0-0 1-2": source, target."""
        pairs = self.pairs if self.words is None else self.words
        return " ".join(f"{source}-{target}" for source, target in pairs)

    def __add__(self, other: "Alignment") -> "Alignment":
        """Both, the other one behind."""
        width, more = len(self.source), len(other.source)
        words = None
        if self.words is not None and other.words is not None:
            shifts = len(self.source_words), len(self.target_words)
            words = self.words + _moved(other.words, *shifts)
        return Alignment(
            self.source + other.source,
            tuple((*row, *[0.0] * more) for row in self.attention)
            + tuple((*[0.0] * width, *row) for row in other.attention),
            self.pairs + _moved(other.pairs, width, len(self.attention)),
            self.source_words + other.source_words,
            self.target_words + other.target_words,
            words,
        )


NO_ALIGNMENT = Alignment(words=())  # of nothing


def align(
    source: Sequence[str],
    attention: FloatArray,
    units: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Alignment:
    """The alignment of one sentence.

    source: a name for every position, "" for what was added to the text. attention
    (target, source). units: source and target as `units` writes them, for words.
    """
    rows = tuple(map(tuple, attention.tolist()))
    pairs = tuple(pair for pair in _strongest(attention) if source[pair[0]])
    if units is None:
        return Alignment(tuple(source), rows, pairs)
    ours, theirs = (Words.of(each) for each in units)
    aligned = theirs.matrix[:, [row for _, row in pairs]].sum(axis=1) > 0
    found = _strongest(theirs.matrix @ attention @ ours.matrix.T) if ours.texts else ()
    words = tuple(pair for pair in found if aligned[pair[1]])
    return Alignment(tuple(source), rows, pairs, ours.texts, theirs.texts, words)


@dataclass(frozen=True, eq=False)
class Words:
    """The words that units make."""

    texts: tuple[str, ...]
    matrix: FloatArray  # (words, units): 1 where a unit belongs to a word

    @classmethod
    def of(cls, units: Sequence[str]) -> "Words":
        """Split at the spaces; a unit belongs to the word that its text begins with.

        One of spaces alone belongs to the word behind it.
        """
        texts: list[str] = []
        of_unit = []  # -1: of none
        apart = True  # from the word before
        for unit in units:
            words = unit.split()
            if words and (apart or unit[0].isspace()):
                texts.append("")
            if words:
                of_unit.append(len(texts) - 1)
                texts[-1] += words[0]
                texts += words[1:]
            else:
                of_unit.append(len(texts) if unit else -1)
            apart = unit[-1:].isspace() or (apart and not words)
        matrix = np.equal.outer(np.arange(len(texts)), of_unit).astype(np.float32)
        return cls(tuple(texts), matrix)


def attentions(
    translator: "Translator",
    examples: Sequence[Example],
    targets: Sequence[Sequence[int]],
) -> list[FloatArray]:
    """The attention of each target's tokens: (target, positions), without padding.

    Positions are those of every sequence of an example, one behind the other.
    InputError if the model has no attention to show.
    """
    inputs = translator.inputs
    sizes = [sum(_lengths(example, translator)) for example in examples]
    found = [np.zeros((0, size), np.float32) for size in sizes]
    filled = [index for index, target in enumerate(targets) if target]
    lengths = [
        max(example_length(examples[index], inputs), len(targets[index]))
        for index in filled
    ]
    for batch in batches(lengths, translator.batching):
        chosen = [filled[place] for place in batch]
        shown = _shown(
            translator,
            [examples[index] for index in chosen],
            [targets[index] for index in chosen],
        )
        for index, attention in zip(chosen, shown, strict=True):
            found[index] = attention
    return found


def _shown(
    translator: "Translator",
    examples: Sequence[Example],
    targets: Sequence[Sequence[int]],
) -> list[FloatArray]:
    """The attention over one batch."""
    arrays = collate(examples, translator.inputs)
    real = real_positions(arrays, translator.inputs)
    rows: list[list[FloatArray]] = [[] for _ in targets]
    decoding = translator.stepper.start(arrays)
    for step in forced(decoding, targets, translator.vocabulary.start):
        _, _, attention = decoding.attended(step.tokens, None, 1)
        for sentence, row in zip(step.sentences, attention, strict=True):
            rows[sentence].append(row[real[sentence]])
    return [np.stack(each) for each in rows]


def _lengths(example: Example, translator: "Translator") -> list[int]:
    return [
        len(example[spec.name])
        for spec in translator.inputs
        if spec.lengths is not None
    ]


def _strongest(matrix: NDArray[np.floating[Any]]) -> tuple[Pair, ...]:
    """The strongest column of each row, as (column, row)."""
    places: list[int] = matrix.argmax(axis=1).tolist()
    return tuple((place, row) for row, place in enumerate(places))


def _moved(pairs: Sequence[Pair], source: int, target: int) -> tuple[Pair, ...]:
    return tuple((i + source, j + target) for i, j in pairs)
