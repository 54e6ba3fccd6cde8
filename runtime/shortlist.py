"""The tokens that may come in the translation of a source.

Some are common to all sources, others belong to single tokens of the source (a lexical
shortlist, as of Marian). Drafts are made of them, which are verified against the whole
vocabulary, so that what isn't in the list costs time only; or a search chooses among
them, and it never comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.stepper import IntArray

Integers = NDArray[np.integer]


@dataclass(frozen=True)
class Shortlist:
    """Target ids, by what they belong to.

    common (n,): of all sources. counts (source vocabulary,): how many belong to each
    source token; of_source: these, one token's behind the other's.
    """

    common: Integers
    counts: Integers
    of_source: Integers

    @cached_property
    def _size(self) -> int:
        """Ids of the list are below it."""
        last = max(self.common.max(initial=0), self.of_source.max(initial=0))
        return int(last) + 1

    @cached_property
    def _own(self) -> tuple[Integers, list[int]]:
        """What belongs to source tokens and isn't common; where each token's begin."""
        is_common = np.zeros(self._size, dtype=np.bool_)
        is_common[self.common] = True
        is_own = ~is_common[self.of_source]
        before = np.zeros(len(is_own) + 1, dtype=np.int64)
        np.cumsum(is_own, out=before[1:])
        ends = np.cumsum(self.counts, dtype=np.int64)
        return self.of_source[is_own], [0, *before[ends].tolist()]

    def _present(self, source: Integers) -> NDArray[np.bool_]:
        """Of each id, whether it is one of a source's and isn't common.

        numpy's own sets take ten times as long.
        """
        (own, firsts), size = self._own, len(self.counts)
        present = np.zeros(self._size, dtype=np.bool_)
        tokens = [token for token in source.tolist() if token < size]
        if tokens:
            its = [own[firsts[token] : firsts[token + 1]] for token in tokens]
            present[np.concatenate(its)] = True
        return present

    def candidates(self, source: Integers) -> IntArray:
        """Those of a source (length,), each once and ascending."""
        present = self._present(source)
        present[self.common] = True
        return np.flatnonzero(present)

    def own(self, source: Integers) -> IntArray:
        """The same without the common ones."""
        return self._present(source).nonzero()[0]

    def own_of_batch(
        self, sources: Sequence[Integers]
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """Those of all sources, without the common ones, ascending: (candidates,).

        And of which sources they aren't: (sources, candidates).
        """
        present = np.stack([self._present(source) for source in sources])
        union = np.flatnonzero(present.any(axis=0))
        return union, ~present[:, union]

    @classmethod
    def load(cls, path: Path) -> "Shortlist":
        """Read what `save` has written; BundleError if it is something else."""
        try:
            flat = np.load(path, allow_pickle=False)
            common, sources = flat[:2].tolist()
            shortlist = cls(*np.split(flat[2:], [common, common + sources]))
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise BundleError(
                f"{path} is no shortlist ({error}); copy or export the bundle again"
            ) from None
        sizes = len(shortlist.common), len(shortlist.counts), len(shortlist.of_source)
        if sizes != (common, sources, shortlist.counts.sum()):
            raise BundleError(
                f"{path} is a damaged shortlist; copy or export the bundle again"
            )
        return shortlist

    def save(self, path: Path) -> None:
        """Write one array: two sizes, then the three parts."""
        sizes = np.array([len(self.common), len(self.counts)])
        flat = np.concatenate([sizes, self.common, self.counts, self.of_source])
        small = flat.max() <= np.iinfo(np.uint16).max
        np.save(path, flat.astype(np.uint16 if small else np.uint32))
