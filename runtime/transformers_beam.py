"""Beam search by the rule of Hugging Face transformers, `generate` of 4.57.

A beam is as wide at every step: twice as many candidates are looked at, those among
the better half that end enter a pool of the `beam_size` best, and the best that don't
end go on. A sentence is over at its maximal length, or when `early_stopping` says so:
with True as soon as the pool is full; otherwise when the best of the beam could no
longer enter it, judged by its length of today (False) or, if longer is better, by the
longest that may come ("never"). Sums and scores are float32, as there.

transformers fills beams that have too few hypotheses with such of score -1e9; here they
stay empty, which only shows where a vocabulary can't fill a beam.
"""

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.beams import Beams, Extensions
from seq2edge.runtime.constraints import Prompts
from seq2edge.runtime.hypothesis import Hypothesis, Stop, best_first
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import Inputs, Stepper


def transformers_beam_search(
    stepper: Stepper, inputs: Inputs, rules: Rules, batch: Batch
) -> list[list[Hypothesis]]:
    """The n best of each sentence's pool."""
    return _PooledBeams(rules, batch).run(stepper, inputs)


class _PooledBeams(Beams):
    """Beams of one width; `found` are the pools."""

    def __init__(self, rules: Rules, batch: Batch) -> None:
        super().__init__(rules, batch, 2 * rules.options.beam_size, np.float32)
        self.prompts = Prompts.of(rules, batch).given  # tokens that don't count
        self.any_full = False  # pools

    @property
    def most_ended(self) -> int:
        """As many as fill the pool: then it may be over."""
        return self.rules.options.beam_size

    def settle(self, extensions: Extensions, length: int) -> bool:
        """What has ended can't be extended; what is over can't be improved."""
        ended = self.ended(extensions, length)
        if ended is not None:
            self._pool(extensions, ended)
            extensions.totals[ended] = -np.inf
        over = self.any_full and self._drop_over(extensions, length)
        return ended is not None or over

    def hypothesis(
        self, extensions: Extensions, row: int, column: int, stopped: Stop = ""
    ) -> Hypothesis:
        """Scored by its total over the penalty of what wasn't given."""
        tokens, log_probs = self.path(extensions, row, column)
        penalty = self._penalty(int(self.sentence[row]), len(tokens))
        score = float(extensions.totals[row, column] / penalty)
        return self.rules.hypothesis(tokens, log_probs, score, stopped)

    def _pool(self, extensions: Extensions, ended: NDArray[np.bool_]) -> None:
        """The better half of the candidates may enter the pool."""
        size = self.rules.options.beam_size
        better = ended & (extensions.totals > -np.inf)
        for row, column in np.argwhere(better[:, :size]).tolist():
            news = self.hypothesis(extensions, row, column)
            pool = self.found[self.sentence[row]]
            pool[:] = best_first([*pool, news], size)
            self.any_full |= len(pool) == size

    def _drop_over(self, extensions: Extensions, length: int) -> bool:
        """Drop sentences that nothing more can come of, as the rule sees it."""
        early = self.rules.options.early_stopping is True
        any_over = False
        for row, sentence in enumerate(self.sentence.tolist()):
            pool = self.found[sentence]
            if len(pool) == self.rules.options.beam_size:
                hope = extensions.totals[row].max() / self._hoped(sentence, length)
                if early or not hope > pool[-1].score:
                    extensions.totals[row] = -np.inf
                    any_over = True
        return any_over

    def _hoped(self, sentence: int, length: int) -> np.float32:
        """The penalty by which the best that is alive is judged."""
        options = self.rules.options
        if options.early_stopping == "never" and options.length_penalty > 0:
            length = int(self.batch.max_lengths[sentence])
        return self._penalty(sentence, length)

    def _penalty(self, sentence: int, length: int) -> np.float32:
        # Never of nothing: a prefix may be all that there is.
        counted = max(1, length - int(self.prompts[sentence]))
        return np.float32(self.rules.penalty(counted))
