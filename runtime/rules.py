"""Options and vocabulary as the searches read them, worked out once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.hypothesis import Hypothesis, Stop, length_penalty
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.stepper import FloatArray, IntArray
from seq2edge.runtime.vocabulary import Vocabulary

NOTHING_LEFT = (
    "the model gives no finite log-probability to any token that may come; check its "
    "weights and input, or loosen what is suppressed, not repeated or forced"
)


@dataclass(frozen=True)
class Rules:
    """What holds for every sentence of a search."""

    options: SearchOptions
    vocabulary: Vocabulary
    banned: frozenset[int]  # ids that are never emitted
    bans: FloatArray  # (vocabulary,): -inf where banned, else 0
    early_bans: FloatArray  # the same with the end token, for before min_length

    @classmethod
    @lru_cache(maxsize=16)  # made anew it costs as much as five greedy tokens
    def of(cls, vocabulary: Vocabulary, options: SearchOptions) -> "Rules":
        """Find the banned ids; refuse options that this vocabulary can't have."""
        _check(vocabulary, options)
        banned = _banned(vocabulary, options)
        bans = np.zeros(vocabulary.size, dtype=np.float32)
        bans[list(banned)] = -np.inf
        early_bans = bans.copy()
        early_bans[vocabulary.end] = -np.inf
        return cls(options, vocabulary, banned, bans, early_bans)

    def bans_at(self, length: int) -> FloatArray:
        """What to add to the log-probabilities of token number `length` (1, 2, ...)."""
        return self.early_bans if length <= self.options.min_length else self.bans

    def candidates(self, wanted: int) -> int:
        """How many to ask for, to have `wanted` when the banned ones are gone."""
        spare = len(self.banned) + (self.options.min_length > 0)
        return min(wanted + spare, self.vocabulary.size)

    def penalty(self, length: int) -> float:
        """What the log-probability of so many tokens is divided by."""
        options = self.options
        return length_penalty(length, options.length_penalty, options.normalization)

    def penalties(self, lengths: IntArray) -> FloatArray:
        """The same of many lengths."""
        return np.array([self.penalty(length) for length in lengths.tolist()])

    def hypothesis(
        self,
        tokens: Sequence[int],
        log_probs: Sequence[float],
        score: float | None = None,
        stopped: Stop = "",
    ) -> Hypothesis:
        """Score a sequence that has received its last token.

        score: None: the sum of its log_probs over the length penalty.
        """
        log_prob = sum(log_probs)
        if score is None:
            score = log_prob / self.penalty(len(tokens))
        if not math.isfinite(score):
            raise InputError(NOTHING_LEFT)
        finished = tokens[-1] == self.vocabulary.end
        return Hypothesis(
            tokens=tuple(tokens[:-1] if finished else tokens),
            score=score,
            log_prob=log_prob,
            finished=finished,
            token_log_probs=tuple(log_probs),
            stopped=stopped,
        )


def _banned(vocabulary: Vocabulary, options: SearchOptions) -> frozenset[int]:
    """Ids that no hypothesis has at any place."""
    banned = {ids[0] for ids in options.suppressed if len(ids) == 1}
    if not options.allow_special:
        banned |= {vocabulary.pad, vocabulary.start}
    if not options.allow_unknown:
        banned.add(vocabulary.unknown)
    return frozenset(banned - {vocabulary.end})


def _check(vocabulary: Vocabulary, options: SearchOptions) -> None:
    size, end = vocabulary.size, vocabulary.end
    given = {token for ids in options.suppressed for token in ids}
    if options.forced_first is not None:
        given.add(options.forced_first)
    faults = [
        f"suppressed or forced_first holds id {token}, and the vocabulary has {size}"
        for token in sorted(given)
        if token >= size
    ]
    if (end,) in options.suppressed:
        faults.append(f"suppressed holds the end token {end}, and nothing would end")
    if faults:
        raise ConfigError("; ".join(faults))
    if size <= len(_banned(vocabulary, options) | {end}):
        raise InputError(
            f"a vocabulary of {size} ids holds nothing but special ones or suppressed"
        )
