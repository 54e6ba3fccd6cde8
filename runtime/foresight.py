"""Beam search of one sentence by several steps a run, which a search then follows.

A run goes on as the search will, unless something interferes that only the search knows
of: so each step that was run is told when the search asks for just this step, and where
it asks for another, what was foreseen is dropped and the state gone back to. Either way
the search gets what single steps give.

A step of four beams takes 312 microseconds in its run and 80 around it (Marian
transformer in int8, shortlist, AVX512-VNNI), each finding the caches full of the other;
of several in one run, 277 and 23.
"""

import numpy as np

from seq2edge.runtime.contract import Array
from seq2edge.runtime.decoding import GraphDecoding, Mark
from seq2edge.runtime.stepper import (
    Ahead,
    FloatArray,
    Foresight,
    IntArray,
    Outlook,
    Seen,
)

FORESEEN = 64  # steps in one run


class ForesightDecoding:
    """One sentence under way, whose beams may be foreseen."""

    def __init__(
        self,
        steps: GraphDecoding,
        end: int,
        candidates: IntArray | None = None,
        size: int | None = None,
    ) -> None:
        """candidates (n,): beside the common tokens, of a bundle whose search chooses
        among a shortlist; size: the number of both.
        """
        self._size = size
        self._steps = steps
        self._end = np.array([end])
        self._candidates = candidates
        self._foreseen: _Foreseen | None = None
        if hasattr(steps, "ahead"):
            self.ahead: Ahead = steps.ahead

    def foresee(self, tokens: IntArray, outlook: Outlook) -> Foresight | None:
        """As ForesightfulDecoding."""
        if self._size is not None and outlook.found > self._size:
            return None
        self._catch_up()
        rows, totals = outlook.beam, outlook.totals
        if len(tokens) < rows:  # the first step: the others begin with nothing
            tokens = np.repeat(tokens, rows)
            totals = np.full(rows, -np.inf, np.float32)
            totals[0] = outlook.totals[0]
        parents = outlook.parents
        feed: dict[str, Array] = {
            "token": tokens,
            "parents": np.zeros(rows, np.int64) if parents is None else parents,
            "totals": totals.astype(np.float32),
            "bans": outlook.bans,
            "count": np.array([outlook.found]),
            "width": np.array([outlook.width]),
            "beam": np.array([rows]),
            "end": self._end,
            "most_ended": np.array([outlook.most_ended]),
            "steps": np.array([min(outlook.steps, FORESEEN)]),
        }
        if self._candidates is not None:
            feed["candidates"] = self._candidates
        before = self._steps.mark()
        results = self._steps.several("beam_ahead", feed, rows)
        self._foreseen = _Foreseen(tokens, outlook, before, results, self._end)
        return self._foreseen

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        """As Decoding."""
        self._catch_up()
        return self._steps.best(tokens, parents, count)

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """As Decoding."""
        self._catch_up()
        return self._steps.scores(tokens, parents)

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """As Decoding."""
        self._catch_up()
        return self._steps.logits(tokens, parents)

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """As Decoding."""
        self._catch_up()
        return self._steps.attended(tokens, parents, count)

    def keep(self, sentences: IntArray) -> None:
        """As Decoding; there is one."""
        self._steps.keep(sentences)

    def _catch_up(self) -> None:
        """Have the state after the last step that was followed."""
        foreseen, self._foreseen = self._foreseen, None
        if foreseen is None or not foreseen.left:
            return
        self._steps.back_to(foreseen.before)
        for tokens, parents in foreseen.asked():
            self._steps.best(tokens, parents, foreseen.found)


class _Foreseen:
    """What a run looked at, step by step, and how far it was followed."""

    def __init__(
        self,
        tokens: IntArray,
        outlook: Outlook,
        before: Mark,
        results: list[Array],
        end: IntArray,
    ) -> None:
        totals, found, tokens_seen, flat, places = results
        steps = len(totals)
        log_probs = np.take_along_axis(found.reshape(steps, -1), flat, axis=1)
        parents = flat // outlook.found
        self._seen = totals, tokens_seen, log_probs, parents
        # The search says what is wrong with a model whose numbers aren't finite.
        self._finite = not np.isnan(log_probs).any()
        self.steps = steps
        self._beam = outlook.beam
        last = totals[:, self._beam - 1]
        quiet = (tokens_seen != end).all(axis=1) & (last > -np.inf)
        self._loud = [*np.flatnonzero(~quiet).tolist(), steps]
        self.before = before
        self.found = outlook.found
        self._followed = 0  # steps
        self._first: tuple[IntArray, IntArray | None] | None = None  # asked for
        # What every step began with.
        first = None if outlook.parents is None else outlook.parents.tolist()
        chosen = np.take_along_axis(tokens_seen, places, axis=1).tolist()
        rows = np.take_along_axis(parents, places, axis=1).tolist()
        self._began = [(tokens.tolist(), first), *zip(chosen, rows, strict=True)]

    @property
    def left(self) -> bool:
        """Whether there are steps that weren't followed."""
        return self._followed < self.steps

    def asked(self) -> list[tuple[IntArray, IntArray | None]]:
        """What the steps that were followed began with."""
        began = self._began[1 : self._followed]
        later = [(np.array(ids), np.array(origins)) for ids, origins in began]
        return [*([self._first] if self._first else []), *later]

    def follow(self, tokens: IntArray, parents: IntArray | None) -> Seen | None:
        """As Foresight."""
        if not self._goes_on(tokens, parents):
            return None
        return self._follow(tokens, parents, self._followed + 1)

    def skip(
        self, tokens: IntArray, parents: IntArray | None, most: int
    ) -> Seen | None:
        """As Foresight."""
        if not self._goes_on(tokens, parents):
            return None
        loud = next(step for step in self._loud if step >= self._followed)
        last = min(self._followed + most, loud)
        if last <= self._followed:
            return None
        return self._follow(tokens, parents, last, self._beam)

    def _follow(
        self,
        tokens: IntArray,
        parents: IntArray | None,
        last: int,
        most: int | None = None,
    ) -> Seen:
        """What steps up to the last looked at, or the best of it."""
        if not self._followed:
            self._first = tokens, parents
        part = np.s_[self._followed : last, :most]
        self._followed = last
        totals, found, log_probs, origins = self._seen
        return Seen(totals[part], found[part], log_probs[part], origins[part])

    def _goes_on(self, tokens: IntArray, parents: IntArray | None) -> bool:
        """Whether the next step began with these."""
        step = self._followed
        if step >= self.steps or not self._finite:
            return False
        ids, origins = self._began[step]
        asked: list[int] | None = None if parents is None else parents.tolist()
        # In the first step of all, there is one row only.
        given: list[int] = tokens.tolist()
        return bool(asked == origins and given == (ids if asked else ids[:1]))
