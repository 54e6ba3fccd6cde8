"""What changes the score of a token that may come; it needs all log-probabilities."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import FloatArray, IntArray


class Reweighing(Protocol):
    """Changes scores in place."""

    def lasts(self, length: int) -> bool:
        """Whether it has anything to say of token number `length` (1, 2, ...)."""
        ...

    def apply(self, scores: FloatArray, history: IntArray, sentences: IntArray) -> None:
        """scores (rows, vocabulary); history (rows, length), the start token first;
        sentences (rows,): whose row each is.
        """
        ...


@dataclass(frozen=True)
class RepetitionPenalty:
    """What a row has already gets its score multiplied, or divided if positive.

    Keskar et al. 2019, arXiv:1909.05858, section 4.1, each token once.
    """

    penalty: float
    first: int  # column of the history from which on tokens count

    def lasts(self, length: int) -> bool:
        """To the end."""
        return True

    def apply(self, scores: FloatArray, history: IntArray, sentences: IntArray) -> None:
        """In float32, as transformers computes it."""
        seen = history[:, self.first :]
        found = np.take_along_axis(scores, seen, axis=1)
        changed = np.where(found < 0, found * self.penalty, found / self.penalty)
        np.put_along_axis(scores, seen, changed, axis=1)


class PrefixBias:
    """The token that would go on with the prefix gets `beta` of all probability.

    p becomes (1 - beta) p, and beta more at the prefix's token, in rows that have not
    parted from the prefix: Arivazhagan et al. 2020, arXiv:1912.03393, section 4.2, as
    CTranslate2 has it.
    """

    def __init__(self, beta: float, first: int | None, batch: Batch) -> None:
        head = () if first is None else (first,)
        self._beta = beta
        self._prefixes = [[*head, *prefix] for prefix in batch.prefixes]
        self._longest = max(map(len, self._prefixes))

    def lasts(self, length: int) -> bool:
        """While any sentence has more of its prefix."""
        return length <= self._longest

    def apply(self, scores: FloatArray, history: IntArray, sentences: IntArray) -> None:
        """Rows are few and prefixes short, so they are looked at one by one."""
        length = history.shape[1] - 1
        for row, sentence in enumerate(sentences.tolist()):
            prefix = self._prefixes[sentence]
            if length < len(prefix) and history[row, 1:].tolist() == prefix[:length]:
                scores[row] += math.log1p(-self._beta)
                token = prefix[length]
                scores[row, token] = np.logaddexp(
                    scores[row, token], math.log(self._beta)
                )


def reweighings_of(rules: Rules, batch: Batch) -> list[Reweighing]:
    """What the options ask for, in the order in which it applies."""
    options, found = rules.options, list[Reweighing]()
    if options.repetition_penalty != 1:
        first = 0 if options.like_transformers else 1
        found.append(RepetitionPenalty(options.repetition_penalty, first))
    if options.prefix_bias and any(batch.prefixes):
        found.append(PrefixBias(options.prefix_bias, options.forced_first, batch))
    return found
