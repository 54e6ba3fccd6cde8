"""What both beam searches share: live hypotheses, their growth, and the loop.

Letters: batch, sentences still being decoded; beam, hypotheses of each (the most that
any has; the others are filled up with -inf); count, candidates a row.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.errors import InputError
from seq2edge.runtime.hypothesis import Hypothesis, Stop, best_first
from seq2edge.runtime.proposals import Candidates, Plain, Proposer, proposer
from seq2edge.runtime.rules import NOTHING_LEFT, Rules
from seq2edge.runtime.stepper import (
    Decoding,
    FloatArray,
    Inputs,
    IntArray,
    Seen,
    Stepper,
)
from seq2edge.runtime.trellis import Path, Trellis

Totals = NDArray[np.floating[Any]]


@dataclass
class Extensions:
    """The best continuations of each sentence, all (batch, width), best first."""

    totals: Totals  # what their hypotheses have altogether; -inf: none
    tokens: IntArray
    log_probs: FloatArray  # of these tokens
    parents: IntArray  # the hypothesis that each continues, 0 to beam - 1

    def close_ranks(self, most: int) -> None:
        """Move what is left to the front and cut off columns that nobody needs.

        most: how many a sentence may keep.
        """
        left = self.totals > -np.inf
        width = min(most, left.sum(axis=1).max())
        order = np.argsort(~left, axis=1, kind="stable")[:, :width]
        self.cut((np.arange(len(order))[:, None], order))

    def cut(
        self, index: IntArray | tuple[IntArray, IntArray] | tuple[slice, slice]
    ) -> None:
        """Keep these sentences, or these columns of each."""
        self.totals = self.totals[index]
        self.tokens = self.tokens[index]
        self.log_probs = self.log_probs[index]
        self.parents = self.parents[index]


class Beams(ABC):
    """The sentences still being decoded, the live hypotheses of each, and all found.

    What a rule is: `settle` says what ends and what is given up, `hypothesis` how a
    sequence is scored.
    """

    def __init__(
        self, rules: Rules, batch: Batch, width: int, dtype: DTypeLike
    ) -> None:
        """width: candidates that are looked at; dtype: of sums of log-probabilities."""
        size = len(batch.numbers)
        self.rules = rules
        self.batch = batch
        self.width = width
        self.found: list[list[Hypothesis]] = [[] for _ in range(size)]
        self.sentence = np.arange(size)  # its place in the input
        self.totals: Totals = np.zeros((size, 1), dtype)  # (batch, beam), descending
        self.max_lengths = batch.max_lengths
        self.shortest = int(self.max_lengths.min())
        self._nodes = np.zeros((size, 1), dtype=np.int64)  # of the trellis's last step
        self._trellis = Trellis()

    @property
    @abstractmethod
    def most_ended(self) -> int:
        """How many may end before the beams can be others than the best alive."""

    @abstractmethod
    def settle(self, extensions: Extensions, length: int) -> bool:
        """Take out what ends and what is given up; `length` tokens are there now.

        Returns whether anything may have been taken out.
        """

    @abstractmethod
    def hypothesis(
        self, extensions: Extensions, row: int, column: int, stopped: Stop = ""
    ) -> Hypothesis:
        """An extension as a result."""

    def run(self, stepper: Stepper, inputs: Inputs) -> list[list[Hypothesis]]:
        """Decode to the end: the n best of every sentence."""
        source = proposer(self.begin(stepper, inputs), self.rules, self.batch)
        start, most = self.rules.vocabulary.start, self.rules.options.beam_size
        tokens = np.full(len(self.found), start, dtype=np.int64)
        parents: IntArray | None = None
        follower = self._follower(source)
        length = 0
        while True:
            extensions = None
            if follower is not None:
                if skipped := self._skip(follower, tokens, parents, length):
                    length += len(skipped.tokens)
                    tokens, parents = skipped.tokens[-1], skipped.parents[-1]
                extensions = self._followed(follower, tokens, parents)
            length += 1
            if extensions is None:
                follower = None
                extensions = self.extend(source.propose(tokens, parents, self.width))
            gaps = self.settle(extensions, length)
            if self.batch.monitor is not None:
                gaps |= self._interrupt(extensions)
            if gaps or not self._full(extensions, most):
                kept = np.flatnonzero((extensions.totals > -np.inf).any(axis=1))
                if not kept.size:
                    break
                if kept.size < len(self.sentence):
                    source.keep(kept)
                    self.keep(kept)
                    extensions.cut(kept)
                extensions.close_ranks(most)
            elif extensions.totals.shape[1] > most:
                extensions.cut(np.s_[:, :most])
            tokens, parents = self._advance(extensions)
        return self._results()

    def _follower(self, source: Proposer) -> Plain | None:
        """What can run steps ahead, which is done for one sentence."""
        single = len(self.found) == 1 and self.batch.monitor is None
        return source if single and isinstance(source, Plain) else None

    def _skip(
        self, source: Plain, tokens: IntArray, parents: IntArray | None, length: int
    ) -> Seen | None:
        """Go through steps that were run ahead, and in which nothing ends.

        A run ends when hypotheses have ended, and the few steps that may follow go one
        by one; one that was long enough goes on in the next.
        """
        most = self.shortest - 1 - length
        skipped = source.skip(tokens, parents, most)
        if not skipped and not self.found[0] and not source.foreseen:
            totals = self.totals.ravel(), self.width, self.most_ended
            if source.foresee(tokens, parents, *totals):
                skipped = source.skip(tokens, parents, most)
        if skipped:
            self._go_through(skipped)
        return skipped

    def _go_through(self, seen: Seen) -> None:
        """Add steps that are followed as they are."""
        totals, nodes = self.totals, seen.parents.copy()
        nodes[0] = self._nodes.take(nodes[0])
        self._nodes = self._trellis.add_steps(seen.tokens, seen.log_probs, nodes)[None]
        for log_probs, parents in zip(seen.log_probs, seen.parents, strict=True):
            totals = totals.take(parents) + log_probs
        self.totals = totals[None]

    def _followed(
        self, source: Plain, tokens: IntArray, parents: IntArray | None
    ) -> Extensions | None:
        """The next step of those that were run ahead."""
        seen = source.follow(tokens, parents)
        if seen is None:
            return None
        totals = self.totals.ravel().take(seen.parents) + seen.log_probs
        totals[seen.totals == -np.inf] = -np.inf
        return Extensions(totals, seen.tokens, seen.log_probs, seen.parents)

    def begin(self, stepper: Stepper, inputs: Inputs) -> Decoding:
        """What is asked for the next tokens."""
        return stepper.start(inputs)

    def extend(self, candidates: Candidates) -> Extensions:
        """The best of all candidates (rows, count); equals keep their order."""
        batch, beam = self.totals.shape
        count = candidates.tokens.shape[1]
        sums = candidates.scores + self.totals.reshape(batch * beam, 1)
        sums = sums.reshape(batch, beam * count)
        order = (-sums).argsort(axis=1, kind="stable")[:, : self.width]
        flat = order + _firsts(batch, beam * count)
        return Extensions(
            np.fmax(sums.take(flat), -np.inf),  # a NaN is no candidate
            candidates.tokens.take(flat),
            candidates.log_probs.take(flat),
            order // count,
        )

    def path(self, extensions: Extensions, row: int, column: int) -> Path:
        """An extension with all that it goes on from."""
        node = self._nodes.item(row, extensions.parents.item(row, column))
        path = self._trellis.path(node)
        path.tokens.append(extensions.tokens.item(row, column))
        path.log_probs.append(extensions.log_probs.item(row, column))
        return path

    def keep(self, rows: IntArray) -> None:
        """Go on with these sentences only."""
        self.sentence = self.sentence[rows]
        self.totals = self.totals[rows]
        self.max_lengths = self.max_lengths[rows]
        self.shortest = int(self.max_lengths.min())
        self._nodes = self._nodes[rows]

    def ended(self, extensions: Extensions, length: int) -> NDArray[np.bool_] | None:
        """What has its last token, by its end token or at its maximal length."""
        ended = extensions.tokens == self.rules.vocabulary.end
        if length >= self.shortest:
            ended |= (self.max_lengths == length)[:, None]
        return ended if np.count_nonzero(ended) else None

    def _advance(self, extensions: Extensions) -> tuple[IntArray, IntArray]:
        """Go on with the extensions: their tokens and parent rows, both (rows,)."""
        batch, beam = self.totals.shape
        rows = extensions.parents + _firsts(batch, beam)
        tokens = extensions.tokens
        self.totals = extensions.totals
        nodes = self._nodes.take(rows)
        self._nodes = self._trellis.add(tokens, extensions.log_probs, nodes)
        return tokens.ravel(), rows.ravel()

    def _full(self, extensions: Extensions, most: int) -> bool:
        """Whether every sentence has `most` extensions, or all if they are fewer."""
        last = extensions.totals[:, :most][:, -1]
        return last.item() > -np.inf if last.size == 1 else bool((last > -np.inf).all())

    def _interrupt(self, extensions: Extensions) -> bool:
        """Tell what is certain; of a sentence that is to stop, keep what was alive.

        A token is certain if all that is alive has it, and the best of what has ended.
        Returns whether any sentence was stopped.
        """
        monitor, most = self.batch.monitor, self.rules.options.beam_size
        assert monitor is not None
        late, any_stopped = monitor.late(), False
        for row, sentence in enumerate(self.sentence.tolist()):
            columns = np.flatnonzero(extensions.totals[row] > -np.inf)[:most].tolist()
            stopped: Stop = "deadline" if late else ""
            if columns and monitor.streams:
                paths = [self.path(extensions, row, column)[0] for column in columns]
                paths += [
                    list(one.tokens) for one in best_first(self.found[sentence], 1)
                ]
                if monitor.tell_agreed(self.batch.numbers[sentence], paths):
                    stopped = "callback"
            if columns and stopped:
                alive = [self.hypothesis(extensions, row, place) for place in columns]
                both = [*self.found[sentence], *alive]
                self.found[sentence] = [replace(one, stopped=stopped) for one in both]
                extensions.totals[row] = -np.inf
                any_stopped = True
        return any_stopped

    def _results(self) -> list[list[Hypothesis]]:
        """The n best of every sentence; tell what was not yet told of the best."""
        if not all(self.found):
            raise InputError(NOTHING_LEFT)
        best = [best_first(found, self.rules.options.n_best) for found in self.found]
        if self.batch.monitor is not None:
            for number, (first, *_) in zip(self.batch.numbers, best, strict=True):
                if not first.stopped:
                    self.batch.monitor.tell_agreed(number, [first.tokens])
        return best


@lru_cache(maxsize=64)  # a search asks for the same few again and again
def _firsts(batch: int, width: int) -> IntArray:
    """The place of each sentence's first among so many of each, (batch, 1)."""
    firsts = np.arange(0, batch * width, width)[:, None]
    firsts.setflags(write=False)
    return firsts
