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
    def _is_common(self) -> NDArray[np.bool_]:
        """Of each id; numpy's own sets take ten times as long."""
        last = max(self.common.max(initial=0), self.of_source.max(initial=0))
        is_common = np.zeros(int(last) + 1, dtype=np.bool_)
        is_common[self.common] = True
        return is_common

    @cached_property
    def _firsts(self) -> list[int]:
        """Where each source token's begin."""
        return [0, *np.cumsum(self.counts, dtype=np.int64).tolist()]

    def _present(self, source: Integers) -> NDArray[np.bool_]:
        """Of each id, whether it is one of a source's."""
        present, firsts, size = self._is_common.copy(), self._firsts, len(self.counts)
        tokens = [token for token in source.tolist() if token < size]
        its = [self.of_source[firsts[token] : firsts[token + 1]] for token in tokens]
        if its:
            present[np.concatenate(its)] = True
        return present

    def candidates(self, source: Integers) -> IntArray:
        """Those of a source (length,), each once and ascending."""
        return np.flatnonzero(self._present(source))

    def own(self, source: Integers) -> IntArray:
        """The same without the common ones."""
        return np.flatnonzero(self._present(source) & ~self._is_common)

    def own_of_batch(
        self, sources: Sequence[Integers]
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """Those of all sources, without the common ones, ascending: (candidates,).

        And of which sources they aren't: (sources, candidates).
        """
        present = np.stack([self._present(source) for source in sources])
        union = np.flatnonzero(present.any(axis=0) & ~self._is_common)
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
