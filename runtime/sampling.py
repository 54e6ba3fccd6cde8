"""Sampling: every token is drawn by its probability, after three filters.

Temperature, then the `top_k` most probable, then the fewest that have the share `top_p`
(the nucleus of Holtzman et al. 2019, arXiv:1904.09751), in the order of transformers.
Each sample has a generator of its own, so that it is the same in any company.

Letters: rows = batch * n_best; count, candidates a row.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.greedy import follow
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.monitor import Number
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.proposals import Proposer, proposer
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray, Stepper

Probabilities = NDArray[np.float64]


def sample(
    stepper: Stepper, inputs: Inputs, rules: Rules, batch: Batch
) -> list[list[Hypothesis]]:
    """`n_best` independent samples of each sentence, in the order of their numbers."""
    samples = rules.options.n_best
    rows = np.repeat(np.arange(len(batch.numbers)), samples)
    drawn = batch.sampled(samples)
    decoding = stepper.start({name: array[rows] for name, array in inputs.items()})
    sampler = _Sampler(proposer(decoding, rules, drawn), rules, drawn.numbers)
    found = follow(sampler.choose, sampler.keep, rules, drawn)
    whole = [one for one in found if one is not None]
    return [whole[first : first + samples] for first in range(0, len(rows), samples)]


class _Sampler:
    """Draws from what a proposer proposes."""

    def __init__(
        self, source: Proposer, rules: Rules, numbers: Sequence[Number]
    ) -> None:
        self._source = source
        self._options = rules.options
        size = rules.vocabulary.size
        self._wanted = min(rules.options.top_k or size, size)
        self._generators = [generator(rules.options.seed, one) for one in numbers]

    def choose(
        self, tokens: IntArray, parents: IntArray | None, _: int
    ) -> tuple[FloatArray, IntArray]:
        """One token of each row, as `greedy.Choose`."""
        candidates = self._source.propose(tokens, parents, self._wanted)
        order = (-candidates.scores).argsort(axis=1, kind="stable")[:, : self._wanted]
        scores = np.take_along_axis(candidates.scores, order, axis=1)
        columns = draw(filtered(scores, self._options), self._generators)
        return candidates.pick(order[np.arange(len(columns)), columns])

    def keep(self, rows: IntArray) -> None:
        """Go on with these samples only."""
        self._generators = [self._generators[row] for row in rows.tolist()]
        self._source.keep(rows)


def generator(seed: int, number: Number) -> np.random.Generator:
    """The one that draws the tokens of this sample."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=number))


def filtered(scores: FloatArray, options: SearchOptions) -> Probabilities:
    """What to draw by, (rows, count), not normalized: 0 where filtered out.

    scores (rows, count): the `top_k` best log-probabilities, best first.
    """
    logits = np.fmax(scores, -np.inf).astype(np.float64) / options.temperature
    highest = logits[:, :1]
    weights = np.exp(logits - np.where(np.isfinite(highest), highest, 0))
    # A token stays if those before it don't have the share yet, so the first one does.
    before = weights.cumsum(axis=1) - weights
    within = before < options.top_p * weights.sum(axis=1, keepdims=True)
    nucleus: Probabilities = weights * within if options.top_p < 1 else weights
    return nucleus


def draw(
    weights: Probabilities, generators: Sequence[np.random.Generator]
) -> NDArray[np.int64]:
    """A column of each row, with a probability in proportion to its weight."""
    marks = np.array([each.random() for each in generators])
    sums = weights.cumsum(axis=1)
    columns = (sums <= marks[:, None] * sums[:, -1:]).sum(axis=1)
    # Rounding must not lead past the last one that may come.
    last = np.count_nonzero(weights, axis=1) - 1
    drawn: NDArray[np.int64] = np.clip(columns, 0, np.maximum(last, 0))
    return drawn
