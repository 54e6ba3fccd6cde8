"""Rounds to figures: medians, quartiles and ratios."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from peers_work import Work


@dataclass(frozen=True)
class Turn:
    """One contender's part of a round."""

    contender: str
    threads: int
    beam: int
    batch: int
    seconds: float
    cpu_seconds: float
    lengths: list[int]  # of what it wrote

    @property
    def case(self) -> tuple[int, int, int]:
        """What the contenders of a comparison have in common."""
        return self.threads, self.beam, self.batch


@dataclass(frozen=True)
class Spread:
    """Of several measurements."""

    median: float
    lower: float  # quartiles
    upper: float


@dataclass(frozen=True)
class Timing:
    """A contender's rounds in one case."""

    contender: str
    threads: int
    beam: int
    batch: int
    milliseconds: Spread  # a sentence
    tokens_per_second: float
    times_as_fast: float  # as the base: its median over this one's, of the same rounds
    cores: float  # processor time over time: how many it kept busy
    other_lengths: int  # translations, in all rounds, not as long as when chosen


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of one value, that."""
    if len(values) == 1:
        return Spread(*3 * (round(values[0], 4),))
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return Spread(*(round(x, 4) for x in (median(values), lower, upper)))


def timings(turns: Sequence[Turn], works: Sequence[Work], base: str) -> list[Timing]:
    """A figure of every contender in every case, in their order."""
    work_of = {work.beam: work for work in works}
    groups: dict[tuple[str, tuple[int, int, int]], list[Turn]] = {}
    for turn in turns:
        groups.setdefault((turn.contender, turn.case), []).append(turn)
    return [
        _timing(group, groups[base, case], work_of[case[1]])
        for (_, case), group in groups.items()
    ]


def _timing(turns: list[Turn], base: list[Turn], work: Work) -> Timing:
    first, sentences = turns[0], len(work.sources)
    seconds = median(turn.seconds for turn in turns)
    return Timing(
        first.contender,
        *first.case,
        milliseconds=spread([1000 * turn.seconds / sentences for turn in turns]),
        tokens_per_second=round(work.tokens / seconds, 1),
        times_as_fast=round(median(turn.seconds for turn in base) / seconds, 3),
        cores=round(median(turn.cpu_seconds / turn.seconds for turn in turns), 2),
        other_lengths=sum(_apart(turn.lengths, work.lengths) for turn in turns),
    )


def _apart(found: Sequence[int], expected: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(found, expected, strict=True))


def identical(found: Sequence[list[int]], expected: Sequence[list[int]]) -> int:
    """How many translations are the same, token by token."""
    return sum(a == b for a, b in zip(found, expected, strict=True))
