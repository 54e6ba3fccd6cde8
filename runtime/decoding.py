"""A batch under way in the graphs of a bundle, a step a run."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from seq2edge.runtime.contract import Array, Head
from seq2edge.runtime.sessions import HeadGraph
from seq2edge.runtime.stepper import FloatArray, IntArray


class Mark(NamedTuple):
    """The state after some step."""

    state: list[Array]
    rows: int


def steps_feed(
    tokens: IntArray, candidates: IntArray, steps: int, end: IntArray
) -> dict[str, Array]:
    """What a head of greedy search reads to go so many steps at most.

    candidates (n,): among what it chooses; end (1,): the token behind which it stops.
    """
    return {
        "token": tokens,
        "candidates": candidates,
        "steps": np.array([steps]),
        "end": end,
    }


class GraphDecoding:
    """Memory and state of one batch, as plain arrays.

    They are fed to `session.run` in one dictionary that lives as long as the same head
    is asked. Measured with onnxruntime 1.32, greedy, microseconds a step, tiny graph /
    int8 GRU (hidden 320, vocabulary 8,000): this 55 / 194; a new dictionary each step
    58 / 200; memory wrapped as OrtValue 61 / 208; IOBinding 67 / 208; everything by
    run_with_ort_values 134 / 293. The arrays that `run` returns aren't copies.
    """

    def __init__(
        self,
        head: Callable[[Head], HeadGraph],
        memory: dict[str, Array],
        state: list[Array],
        batch: int,
    ) -> None:
        """head: gives the graph of a head; state: in the manifest's order."""
        self._head_of = head
        self._memory = memory
        self._state = state
        self._batch = batch
        self._rows = batch
        self._head: HeadGraph | None = None  # the one that _feed was made for
        self._feed: dict[str, Array] = {}

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        """As Decoding."""
        if count == 1 and parents is None:
            log_prob, token = self._step("greedy", tokens, None, 1)
            return log_prob[:, None], token[:, None]
        log_probs, top_tokens = self._step("beam", tokens, parents, count)
        return log_probs, top_tokens

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """As Decoding."""
        return self._step("scores", tokens, parents, 0)[0]

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """As Decoding."""
        log_probs, top, attention = self._step("attention", tokens, parents, count)
        return log_probs, top, attention

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """As Decoding."""
        log_probs, log_normalizer = self._step("scores", tokens, parents, 0)
        logits: FloatArray = log_probs + log_normalizer
        return logits

    def keep(self, sentences: IntArray) -> None:
        """As Decoding."""
        if len(sentences) == self._batch:
            return
        beam = self._rows // self._batch
        rows = (sentences[:, None] * beam + np.arange(beam)).ravel()
        self._memory = {name: part[sentences] for name, part in self._memory.items()}
        self._state = [part[rows] for part in self._state]
        self._batch, self._rows = len(sentences), len(rows)
        self._head = None

    def several(self, name: Head, feed: dict[str, Array], rows: int) -> list[Array]:
        """Run a head that goes several steps, to so many rows, and take over its state.

        feed: all but memory and state. Returns the head's results.
        """
        head = self._use(name)
        self._feed |= feed
        outputs = head.run(self._feed)
        self._take_over(head, outputs[head.results :])
        self._rows = rows
        return outputs[: head.results]

    def mark(self) -> "Mark":
        """Where this is."""
        return Mark(self._state, self._rows)

    def back_to(self, mark: "Mark") -> None:
        """Go back to where this was; no sentence may have left in between."""
        self._state, self._rows = mark
        self._head = None

    def _use(self, name: Head) -> HeadGraph:
        """Make ready to feed a head."""
        head = self._head_of(name)
        if head is not self._head:
            self._feed = head.feed(self._memory, self._state)
            self._head = head
        return head

    def _take_over(self, head: HeadGraph, state: list[Array]) -> None:
        """Go on from this state, with the same head."""
        self._state = state
        for name, position in head.state:
            self._feed[name] = state[position]

    def _step(
        self, name: Head, tokens: IntArray, parents: IntArray | None, count: int
    ) -> list[Array]:
        """Run a head and take over its state; returns its results."""
        head = self._use(name)
        feed = self._feed
        feed["token"] = tokens
        if head.takes_parents:
            same = np.arange(self._rows, dtype=np.int64)
            feed["parents"] = same if parents is None else parents
        if head.takes_count:
            feed["count"] = np.array([count], np.int64)
        outputs = head.run(feed)
        self._take_over(head, outputs[head.results :])
        self._rows = len(tokens)
        return outputs[: head.results]
