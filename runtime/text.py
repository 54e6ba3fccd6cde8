"""Cut text that is too long for a model, and join the translations of its pieces.

Every sentence of a text that doesn't fit becomes a piece of its own, because sentences
are what translation models are trained on. A sentence that doesn't fit is halved until
all fit: at the clause end nearest to its middle, else at a space, else between two
characters. The rules know punctuation but no language, so that a cut may follow an
abbreviation.
"""

import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

_SPACES = r"\s\x00-\x1f\x7f-\x9f"  # a tokenizer reads control characters as spaces
_FULL_STOPS = ".!?…‽؟۔।॥։።፧"
_CLAUSE_ENDS = ",;:،؛–—"
_CLOSING = "\"'”’“»›)]}"
# Chinese and Japanese marks, which no space follows.
_WIDE_FULL_STOPS = "。！？｡"
_WIDE_CLAUSE_ENDS = "，、；：､"
_WIDE_CLOSING = "」』”’）】》"

# Chinese and Japanese have no spaces; in Thai, Lao, Tibetan, Burmese and Khmer they
# stand between sentences, not between words.
_WIDE = (
    "\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff9f"
    "\U00020000-\U0003ffff"
)
_WORDS_UNSPACED = _WIDE + "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"

# Spaces, or the place behind wide marks. It matches at once or not at all, so that a
# million full stops take no longer than other text.
_GAP = re.compile(
    f"[{_SPACES}]+"
    f"|(?:(?<=[{_WIDE_FULL_STOPS}{_WIDE_CLAUSE_ENDS}])"
    f"|(?<=[{_WIDE_FULL_STOPS}][{_WIDE_CLOSING}]))"
    f"(?![{_SPACES}{_WIDE_FULL_STOPS}{_WIDE_CLAUSE_ENDS}{_WIDE_CLOSING}])"
)
# An initial, a number or a short capitalized word: J. S. Bach, 3. Mai, Mr. Smith.
_ABBREVIATION = re.compile(r"(?<!\w)(?:\w|\d+|[^\W\d_a-z]\w{1,2})\.$")
_LOOK_BACK = 12  # characters; enough for an abbreviation and closing marks

_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_LONGEST_CLUSTER = 64  # characters that we read as one sign; more is no text


class Strength(IntEnum):
    """How good a place is to cut at."""

    SPACE = 1
    CLAUSE = 2
    SENTENCE = 3


@dataclass(frozen=True)
class Piece:
    """A piece of a text, and the spaces that follow it there (often none)."""

    text: str
    spaces: str = ""


def split(text: str, fits: Callable[[str], bool]) -> list[Piece]:
    """Cut a text so that every piece fits; texts and spaces add up to the input.

    A single character is a piece even if `fits` denies it.
    """
    if fits(text):
        return [Piece(text)]
    gaps = _Gaps(text)
    cuts: list[tuple[int, int]] = []
    start = 0
    for gap_start, gap_end in gaps.of(Strength.SENTENCE):
        cuts += [*_halve(text, start, gap_start, gaps, fits), (gap_start, gap_end)]
        start = gap_end
    cuts += [*_halve(text, start, len(text), gaps, fits), (len(text), len(text))]
    starts = [0, *(end for _, end in cuts)]
    return [
        Piece(text[start:end], text[end:next_start])
        for start, (end, next_start) in zip(starts, cuts, strict=False)
    ]


def join(pieces: Sequence[Piece], translations: Sequence[str]) -> str:
    """Put the translations of a text's pieces together.

    A space goes between two, but none beside Chinese or Japanese, and none where a word
    was cut.
    """
    joined: list[str] = []
    apart = False  # whether a cut since the last translation was no word's
    for index, (piece, translation) in enumerate(
        zip(pieces, translations, strict=True)
    ):
        apart |= index > 0 and not _within_word(pieces[index - 1], piece)
        if not translation:
            continue
        if joined and apart and not _meet_wide(joined[-1], translation):
            joined.append(" ")
        joined.append(translation)
        apart = False
    return "".join(joined)


class _Gaps:
    """All places to cut at, (start, end) of the spaces there, by their strength."""

    def __init__(self, text: str) -> None:
        self._starts = {strength: array("q") for strength in Strength}
        self._ends = {strength: array("q") for strength in Strength}
        for match in _GAP.finditer(text):
            if match.start() > 0 and match.end() < len(text):
                strength = _strength(text, match)
                self._starts[strength].append(match.start())
                self._ends[strength].append(match.end())

    def of(self, strength: Strength) -> Iterator[tuple[int, int]]:
        return zip(self._starts[strength], self._ends[strength], strict=True)

    def best_within(self, start: int, end: int) -> tuple[int, int] | None:
        """The one of the highest strength, then nearest to the middle."""
        middle = (start + end) // 2
        for strength in sorted(Strength, reverse=True):
            starts, ends = self._starts[strength], self._ends[strength]
            after = bisect_left(starts, middle)
            near = [
                (abs(starts[index] - middle), starts[index], ends[index])
                for index in (after - 1, after)
                if 0 <= index < len(starts)
                if start < starts[index] and ends[index] < end
            ]
            if near:
                return min(near)[1:]
        return None


def _strength(text: str, gap: re.Match[str]) -> Strength:
    if "\n" in gap.group():
        return Strength.SENTENCE
    before = text[max(0, gap.start() - _LOOK_BACK) : gap.start()]
    if before[-1].isalnum():
        return Strength.SPACE
    mark = before.rstrip(_CLOSING + _WIDE_CLOSING)[-1:] or before[-1]
    if mark in _WIDE_FULL_STOPS:
        return Strength.SENTENCE
    if mark in _FULL_STOPS:
        doubtful = text[gap.end()].islower() or _ABBREVIATION.search(before)
        return Strength.CLAUSE if doubtful else Strength.SENTENCE
    if before[-1] in _CLAUSE_ENDS + _WIDE_CLAUSE_ENDS:
        return Strength.CLAUSE
    return Strength.SPACE


def _halve(
    text: str, start: int, end: int, gaps: _Gaps, fits: Callable[[str], bool]
) -> Iterator[tuple[int, int]]:
    """The cuts, (start, end) of the spaces at each, that make text[start:end] fit."""
    if end - start <= 1 or fits(text[start:end]):
        return
    cut = gaps.best_within(start, end) or _between_characters(text, start, end)
    yield from _halve(text, start, cut[0], gaps, fits)
    yield cut
    yield from _halve(text, cut[1], end, gaps, fits)


def _between_characters(text: str, start: int, end: int) -> tuple[int, int]:
    """The middle; a character and what modifies it stay together if they can."""
    middle = (start + end) // 2
    for cut in range(middle, min(end, middle + _LONGEST_CLUSTER)):
        if not _modifies(text[cut]) and text[cut - 1] != _ZERO_WIDTH_JOINER:
            return cut, cut
    return middle, middle


def _modifies(character: str) -> bool:
    return (
        character == _ZERO_WIDTH_JOINER
        or character in _SKIN_TONES
        or unicodedata.category(character) in ("Mn", "Mc", "Me")
    )


def _within_word(left: Piece, right: Piece) -> bool:
    """Whether two pieces of a source were one word."""
    return not (
        left.spaces
        or _begins_with(_WORDS_UNSPACED, left.text[-1:])
        or _begins_with(_WORDS_UNSPACED, right.text)
    )


def _meet_wide(left: str, right: str) -> bool:
    return _begins_with(_WIDE, left[-1]) or _begins_with(_WIDE, right)


def _begins_with(characters: str, text: str) -> bool:
    return re.match(f"[{characters}]", text) is not None
