"""Decoding with heads that choose among the candidates of a shortlist.

A batch has the candidates of all its sentences, and a mask that leaves each its own, so
that a sentence's translation doesn't depend on the others. What is asked for all tokens
(`scores`, `logits`) is of all tokens here too.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.contract import CANDIDATES, GATHERED, MASK, Array, Head
from seq2edge.runtime.decoding import GraphDecoding, steps_feed
from seq2edge.runtime.sessions import HeadGraph
from seq2edge.runtime.stepper import FloatArray, IntArray

TOKENS = GATHERED[-1].name
AHEAD = 64  # steps in one run: a deadline is looked at between two


class ShortlistedDecoding(GraphDecoding):
    """A batch under way, a step a run."""

    def __init__(
        self,
        head: Callable[[Head], HeadGraph],
        memory: dict[str, Array],
        state: list[Array],
        candidates: IntArray,
        absent: NDArray[np.bool_],
    ) -> None:
        """candidates (n,): of all sentences, beside the common tokens.

        absent (batch, n): which of them aren't a sentence's.
        """
        super().__init__(head, memory, state, len(absent))
        self._candidates = candidates
        self._absent = absent

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        """As Decoding; all of the shortlist, if it has fewer."""
        return super().best(tokens, parents, min(count, self._size))

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """As Decoding; all of the shortlist, if it has fewer."""
        return super().attended(tokens, parents, min(count, self._size))

    def keep(self, sentences: IntArray) -> None:
        """As Decoding."""
        if len(sentences) < self._batch:
            self._absent = self._absent[sentences]
        super().keep(sentences)

    @cached_property
    def _gathered(self) -> dict[str, Array]:
        """What the candidates need of the output layer."""
        found = self._head_of("shortlist").run({CANDIDATES.name: self._candidates})
        names = [spec.name for spec in GATHERED]
        return dict(zip(names, found, strict=True))

    @property
    def _size(self) -> int:
        """How many tokens the shortlist has, the common ones among them."""
        return len(self._gathered[TOKENS])

    def _use(self, name: Head) -> HeadGraph:
        known = self._head
        head = super()._use(name)
        if head is not known and head.takes_candidates:
            self._feed |= self._gathered
        return head

    def _step(
        self, name: Head, tokens: IntArray, parents: IntArray | None, count: int
    ) -> list[Array]:
        if self._use(name).takes_candidates:
            masked = MASK.name in self._feed and len(tokens) == self._rows
            if not masked:
                self._feed[MASK.name] = self._mask(len(tokens))
        return super()._step(name, tokens, parents, count)

    def _mask(self, rows: int) -> FloatArray:
        """What is added to the candidates' logits, (rows or 1, candidates)."""
        if not self._absent.any():  # one row for all
            return np.zeros((1, len(self._candidates)), np.float32)
        mask = np.where(self._absent, np.float32(-np.inf), np.float32(0))
        return np.repeat(mask, rows // self._batch, axis=0)


class AheadDecoding(ShortlistedDecoding):
    """One sentence under way, of which greedy search may go several steps at once."""

    def __init__(
        self,
        head: Callable[[Head], HeadGraph],
        memory: dict[str, Array],
        state: list[Array],
        candidates: IntArray,
        end: int,
    ) -> None:
        """candidates (n,): beside the common tokens."""
        absent = np.zeros((1, len(candidates)), dtype=np.bool_)
        super().__init__(head, memory, state, candidates, absent)
        self._end = np.array([end])

    def ahead(self, tokens: IntArray, most: int) -> tuple[FloatArray, IntArray]:
        """As SpeculativeDecoding."""
        feed = steps_feed(tokens, self._candidates, min(most, AHEAD), self._end)
        found, log_probs = self.several("ahead", feed, 1)
        return log_probs.T, found.T
