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
from seq2edge.runtime.decoding import GraphDecoding
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
        """candidates (n,): the tokens that drafts are made of, ascending."""
        super().__init__(head, memory, state, 1)
        self._candidates = candidates
        self._end = np.array([end])

    def ahead(self, tokens: IntArray, most: int) -> tuple[FloatArray, IntArray]:
        """As SpeculativeDecoding."""
        drafted, hidden, *state = self._draft(tokens, min(most, DRAFTED))
        verify = self._head_of("verify")
        log_probs, found = verify.run({"hidden": hidden[:, 0]})
        wrong = np.flatnonzero(found != drafted[:, 0])
        count = int(wrong[0]) + 1 if wrong.size else len(found)
        self._take_over(state, len(found), count)
        return log_probs[None, :count], found[None, :count]

    def _draft(self, tokens: IntArray, steps: int) -> list[Array]:
        head = self._use("draft")
        self._feed |= {
            "token": tokens,
            "candidates": self._candidates,
            "steps": np.array([steps]),
            "end": self._end,
        }
        return head.run(self._feed)

    def _take_over(self, state: list[Array], drafted: int, kept: int) -> None:
        """The state after the steps that are kept, of all that were drafted."""
        head = self._use("draft")
        for position, growing in enumerate(head.growing):
            part = state[position]
            if growing is None:  # it came out as it was after every step
                state[position] = part[kept - 1]
            elif kept < drafted:
                length = part.shape[growing] - drafted + kept
                shorter = (*[slice(None)] * growing, slice(length))
                state[position] = np.ascontiguousarray(part[shorter])
        self._state = state
        for name, position in head.state:
            self._feed[name] = state[position]
