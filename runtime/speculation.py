"""Greedy decoding of one sentence by drafts of several tokens, each of them verified.

Two runs give what as many steps would: the draft head goes on through its own tokens,
chosen among the shortlist, and the verify head says what the whole vocabulary would
have chosen at each. Up to the first difference both agree, and there the verified token
is right as well, for it was chosen after the right ones. Leviathan et al. 2023,
arXiv:2211.17192, section 2, for the most probable token.
"""

from collections.abc import Callable

import numpy as np

from seq2edge.runtime.contract import Array, Head
from seq2edge.runtime.decoding import GraphDecoding, steps_feed
from seq2edge.runtime.sessions import HeadGraph
from seq2edge.runtime.stepper import FloatArray, IntArray

# A longer draft spares runs, and wastes more steps behind a token that was not in the
# shortlist.
DRAFTED = 24


class Speculation(GraphDecoding):
    """One sentence under way, which may go several steps at once."""

    def __init__(
        self,
        head: Callable[[Head], HeadGraph],
        memory: dict[str, Array],
        state: list[Array],
        candidates: IntArray,
        end: int,
    ) -> None:
        """candidates (n,): what drafts are made of beside the common tokens."""
        super().__init__(head, memory, state, 1)
        self._candidates = candidates
        self._end = np.array([end])

    def ahead(self, tokens: IntArray, most: int) -> tuple[FloatArray, IntArray]:
        """As SpeculativeDecoding."""
        head = self._use("draft")
        steps = min(most, DRAFTED)
        self._feed |= steps_feed(tokens, self._candidates, steps, self._end)
        drafted, hidden, *state = head.run(self._feed)
        verify = self._head_of("verify")
        log_probs, found = verify.run({"hidden": hidden[:, 0]})
        wrong = np.flatnonzero(found != drafted[:, 0])
        count = int(wrong[0]) + 1 if wrong.size else len(found)
        self._take_over(head, _kept(head, state, len(found), count))
        return log_probs[None, :count], found[None, :count]


def _kept(head: HeadGraph, state: list[Array], drafted: int, kept: int) -> list[Array]:
    """The state after the steps that are kept, of all that were drafted."""
    return [
        _after(part, growing, drafted, kept)
        for part, growing in zip(state, head.growing, strict=True)
    ]


def _after(part: Array, growing: int | None, drafted: int, kept: int) -> Array:
    if growing is None:  # it came out as it was after every step
        after: Array = part[kept - 1]
        return after
    if kept == drafted:
        return part
    length = part.shape[growing] - drafted + kept
    return np.ascontiguousarray(part[(*[slice(None)] * growing, slice(length))])
