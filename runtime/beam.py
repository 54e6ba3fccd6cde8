"""Beam search in which a hypothesis that ends gives up its place.

The beam narrows as in Marian, so that a beam of one is greedy search. A hypothesis that
can no longer enter the n best leaves too, and a sentence without hypotheses leaves the
batch. With a beam wide enough the result is that of an exhaustive search.
"""

import numpy as np

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.beams import Beams, Extensions
from seq2edge.runtime.coverage import Covered
from seq2edge.runtime.hypothesis import Hypothesis, Stop, best_first
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import Decoding, Inputs, IntArray, Stepper


def beam_search(
    stepper: Stepper, inputs: Inputs, rules: Rules, batch: Batch
) -> list[list[Hypothesis]]:
    """Beam search of any width; `search` prefers the greedy loop for a width of one."""
    return _NarrowingBeams(rules, batch).run(stepper, inputs)


class _NarrowingBeams(Beams):
    """Beams that are as wide as a sentence has hypotheses to find."""

    def __init__(self, rules: Rules, batch: Batch) -> None:
        super().__init__(rules, batch, rules.options.beam_size, np.float64)
        size = len(batch.numbers)
        self.places = np.full(size, rules.options.beam_size)  # not yet given up
        self.max_penalties = rules.penalties(self.max_lengths)
        self.to_beat = np.full(size, -np.inf)  # the n_best'th score, if so many ended
        self.any_ended = False
        self.covered: Covered | None = None

    def begin(self, stepper: Stepper, inputs: Inputs) -> Decoding:
        """With a sum of the attention, where coverage counts."""
        decoding = stepper.start(inputs)
        if not self.rules.options.coverage_penalty:
            return decoding
        size = self.rules.vocabulary.size
        self.covered = Covered(decoding, size, self.batch.read)
        return self.covered

    @property
    def most_ended(self) -> int:
        """The first that ends narrows the beam."""
        return 1

    def settle(self, extensions: Extensions, length: int) -> bool:
        """In this order, so that what ends now counts already."""
        if self.any_ended:
            places = np.arange(extensions.totals.shape[1])
            extensions.totals[places >= self.places[:, None]] = -np.inf
        self._collect_ended(extensions, length)
        self._drop_hopeless(extensions)
        return self.any_ended

    def hypothesis(
        self, extensions: Extensions, row: int, column: int, stopped: Stop = ""
    ) -> Hypothesis:
        """Scored by its log-probability over the length penalty, and by coverage."""
        tokens, log_probs = self.path(extensions, row, column)
        total = extensions.totals.item(row, column)
        score = total / self.rules.penalty(len(tokens))
        if self.covered is not None:
            place = extensions.parents.item(row, column)
            beta = self.rules.options.coverage_penalty
            score += beta * self.covered.penalty(row, place)
        return self.rules.hypothesis(tokens, log_probs, score, stopped)

    def keep(self, rows: IntArray) -> None:
        """Go on with these sentences only."""
        super().keep(rows)
        self.places = self.places[rows]
        self.max_penalties = self.max_penalties[rows]
        self.to_beat = self.to_beat[rows]

    def _collect_ended(self, extensions: Extensions, length: int) -> None:
        """Take out what ends."""
        ended = self.ended(extensions, length)
        if ended is None:
            return
        ended &= extensions.totals > -np.inf
        for row, column in np.argwhere(ended).tolist():
            self._add(row, self.hypothesis(extensions, row, column))
        extensions.totals[ended] = -np.inf

    def _add(self, row: int, hypothesis: Hypothesis) -> None:
        n_best = self.rules.options.n_best
        found = self.found[self.sentence[row]]
        found.append(hypothesis)
        self.places[row] -= 1
        self.any_ended = True
        if len(found) >= n_best:
            self.to_beat[row] = best_first(found, n_best)[-1].score

    def _drop_hopeless(self, extensions: Extensions) -> None:
        """Drop what can't enter the n best even if all that follows has probability 1.

        Log-probabilities only fall and the penalty grows with the length: the best that
        can come is today's log-probability over the penalty of the maximal length, if
        nothing is left uncovered.
        """
        if self.any_ended:
            hopes = extensions.totals / self.max_penalties[:, None]
            extensions.totals[hopes <= self.to_beat[:, None]] = -np.inf
