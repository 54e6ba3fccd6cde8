"""What is translated: which sentences of a corpus, and in which batches.

Speed is compared where the contenders do the same: on sentences of about 20 tokens
that all of them translate to equally many tokens, nobody being forced to a length.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

Ids = list[list[int]]
MIDDLE = 20
SLACKS = (2, 3, 4, 6, 8, 12, 16)  # tokens more or less than the middle, widened
SEED = 1
CHOICE = 3  # candidates for each sentence that is timed, at least


@dataclass(frozen=True)
class Candidates:
    """Sentences of the corpus that have about the length wanted."""

    sources: Ids
    slack: int
    found: int  # in the corpus; `sources` is a draw of them


@dataclass(frozen=True)
class Work:
    """The sentences that one search is timed with, by source length."""

    beam: int
    sources: Ids
    lengths: list[int]  # of the translations, in tokens without the end
    candidates: int
    agreed: int  # candidates that all contenders translate to equally many tokens
    fitting: int  # and those to MIDDLE, slack more or less
    slack: int

    @property
    def tokens(self) -> int:
        """Of all translations."""
        return sum(self.lengths)

    @property
    def repeated(self) -> int:
        """Sentences that fill up the work, for there were too few."""
        return max(0, len(self.sources) - self.fitting)

    def batches(self, size: int) -> list[Ids]:
        """All of the work in batches of neighbours, equally padded for everyone."""
        starts = range(0, len(self.sources), size)
        return [self.sources[start : start + size] for start in starts]


def near(lengths: Sequence[int], wanted: int) -> tuple[int, list[int]]:
    """The least slack under which there are `wanted`, and the indices of those."""
    for slack in SLACKS:
        found = [n for n, one in enumerate(lengths) if abs(one - MIDDLE) <= slack]
        if len(found) >= wanted:
            break
    return slack, found


def read_sources(corpora: Sequence[Path]) -> list[str]:
    """Every source once; lines are source TAB target."""
    lines = (line for path in corpora for line in path.read_text("utf-8").splitlines())
    return list(dict.fromkeys(line.partition("\t")[0] for line in lines))


def candidates(
    texts: Sequence[str], encode: Callable[[str], list[int]], least: int, most: int
) -> Candidates:
    """Sources of about MIDDLE tokens, the end token included: a draw of `most`.

    The range of lengths is widened where there are fewer than `least`.
    """
    sources = [encode(text) for text in texts]
    slack, found = near([len(source) for source in sources], least)
    chosen = sorted(Random(SEED).sample(found, min(most, len(found))))
    return Candidates([sources[index] for index in chosen], slack, len(found))


def choose(
    sources: Ids, written: Mapping[str, Sequence[int]], beam: int, wanted: int
) -> Work:
    """The work of a search, by how many tokens each contender wrote of each source."""
    counts = list(zip(*written.values(), strict=True))
    agreed = [index for index, each in enumerate(counts) if len({*each}) == 1]
    slack, places = near([counts[index][0] for index in agreed], wanted)
    if not places:
        raise SystemExit("no sentence is translated to equally many tokens by all")
    fitting = [agreed[place] for place in places]
    drawn = Random(SEED).sample(fitting, min(wanted, len(fitting)))
    filled = [drawn[place % len(drawn)] for place in range(wanted)]
    ordered = sorted(filled, key=lambda index: (len(sources[index]), index))
    return Work(
        beam,
        sources=[sources[index] for index in ordered],
        lengths=[counts[index][0] for index in ordered],
        candidates=len(sources),
        agreed=len(agreed),
        fitting=len(fitting),
        slack=slack,
    )
