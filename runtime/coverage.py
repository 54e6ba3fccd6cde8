"""Coverage: a hypothesis that has left parts of the source unread scores less.

Wu et al. 2016, arXiv:1609.08144, section 7: beta times the sum over all positions of
log(min(attention that the position got from all tokens, 1)) is added to the score. It
is never above 0, and only counted when a hypothesis ends.
"""

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.stepper import Decoding, FloatArray, IntArray

# What a position has that nobody looked at: its logarithm must be a number.
_LEAST = 1e-10


class Covered:
    """A Decoding that asks for the attention at every step, and sums it up."""

    def __init__(
        self, decoding: Decoding, size: int, read: NDArray[np.bool_] | None
    ) -> None:
        """size: of the vocabulary; read (batch, positions): no padding, None: all."""
        self._decoding = decoding
        self._size = size
        self._read = read
        self._sums: FloatArray | None = None  # (rows, positions), after the last step
        self._beam = 1

    def penalty(self, sentence: int, place: int) -> float:
        """Of a row of the last step, `place` of its sentence, without the factor beta.

        sentence: its place in the present batch.
        """
        assert self._sums is not None
        sums = self._sums[sentence * self._beam + place]
        if self._read is not None:
            sums = sums[self._read[sentence]]
        return float(np.log(np.clip(sums.astype(np.float64), _LEAST, 1)).sum())

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        """As Decoding.best, by the attention head."""
        log_probs, found, attention = self._decoding.attended(tokens, parents, count)
        if self._sums is None:
            self._sums = attention
        else:
            past = self._sums if parents is None else self._sums[parents]
            self._beam = len(tokens) * self._beam // len(self._sums)
            self._sums = past + attention
        return log_probs, found

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """As Decoding.scores: all candidates, in the order of their ids."""
        log_probs, found = self.best(tokens, parents, self._size)
        ordered = np.full_like(log_probs, -np.inf)
        np.put_along_axis(ordered, found, log_probs, axis=1)
        return ordered

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        """As Decoding.logits; only asked by the rule that counts no coverage."""
        return self._decoding.logits(tokens, parents)

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """As Decoding.attended, of this step alone."""
        return self._decoding.attended(tokens, parents, count)

    def keep(self, sentences: IntArray) -> None:
        """As Decoding.keep."""
        if self._sums is not None:
            rows = (sentences[:, None] * self._beam + np.arange(self._beam)).ravel()
            self._sums = self._sums[rows]
        if self._read is not None:
            self._read = self._read[sentences]
        self._decoding.keep(sentences)
