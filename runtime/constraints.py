"""Tokens that may not come, or must, by what a row has already.

A ban names a few ids a row, so that a few spare candidates make up for them and nobody
needs all log-probabilities. `history` is (rows, length), the start token first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import IntArray

FREE = -1  # where no token is forced


class Ban(Protocol):
    """Ids that may not follow."""

    def banned(self, history: IntArray) -> list[list[int]]:
        """The ids that may not be the next token of each row."""
        ...


@dataclass(frozen=True)
class NoRepeatedNgrams:
    """No n-gram comes twice; of one token, no token does."""

    size: int
    first: int  # column of the history from which on n-grams count

    def banned(self, history: IntArray) -> list[list[int]]:
        """What has followed the last size - 1 tokens before."""
        seen, context = history[:, self.first :], self.size - 1
        rows, length = seen.shape
        if length < self.size:
            return [[] for _ in range(rows)]
        same = np.ones((rows, length - context), dtype=bool)
        for place in range(context):
            last = seen[:, length - context + place, None]
            same &= seen[:, place : place + length - context] == last
        followers = seen[:, context:]
        return [followers[row, same[row]].tolist() for row in range(rows)]


@dataclass(frozen=True)
class SuppressedSequences:
    """None of these sequences of two tokens or more comes."""

    sequences: tuple[tuple[int, ...], ...]

    def banned(self, history: IntArray) -> list[list[int]]:
        """The last tokens of sequences that a row has all others of."""
        banned: list[list[int]] = [[] for _ in history]
        for *context, last in self.sequences:
            # As transformers has it, one never is all that there is.
            if len(context) < history.shape[1]:
                matches = (history[:, -len(context) :] == context).all(axis=1)
                for row in np.flatnonzero(matches).tolist():
                    banned[row].append(last)
        return banned


def bans_of(rules: Rules) -> list[Ban]:
    """What the options forbid beside single tokens, which Rules knows."""
    options, bans = rules.options, list[Ban]()
    if options.no_repeat_ngram_size:
        # transformers counts the start token, which only tells where it is the end.
        first = 0 if options.like_transformers else 1
        bans.append(NoRepeatedNgrams(options.no_repeat_ngram_size, first))
    sequences = tuple(ids for ids in options.suppressed if len(ids) > 1)
    if sequences:
        bans.append(SuppressedSequences(sequences))
    return bans


@dataclass(frozen=True)
class Prompts:
    """The tokens that each sentence must begin with."""

    tokens: tuple[tuple[int, ...], ...]
    given: IntArray  # (batch,), how many are no part of what is scored

    @classmethod
    def of(cls, rules: Rules, batch: Batch) -> "Prompts":
        """The prefix, behind a first token that the options force.

        transformers doesn't score what it was given, and has a forced first token only
        where it was given nothing. A biased prefix is none that must come.
        """
        options = rules.options
        prefixes = batch.prefixes
        if options.prefix_bias:
            prefixes = ((),) * len(prefixes)
        first = () if options.forced_first is None else (options.forced_first,)
        tokens = tuple((*first, *prefix) for prefix in prefixes)
        given = [
            len(prompt) if prefix and options.like_transformers else 0
            for prompt, prefix in zip(tokens, prefixes, strict=True)
        ]
        return cls(tokens, np.array(given, dtype=np.int64))


class Forcing:
    """Which token must come where."""

    def __init__(self, rules: Rules, batch: Batch) -> None:
        prompts = Prompts.of(rules, batch).tokens
        self._longest = max(map(len, prompts))
        self._prompts = np.full((len(prompts), self._longest), FREE)
        for row, prompt in enumerate(prompts):
            self._prompts[row, : len(prompt)] = prompt
        self._end = rules.vocabulary.end if rules.options.forced_end else FREE
        self._max_lengths = batch.max_lengths

    def tokens(self, sentences: IntArray, length: int) -> IntArray | None:
        """Token number `length` (1, 2, ...) of each row (rows,), FREE where any may.

        sentences (rows,): whose row each is. None where all are free.
        """
        last = self._max_lengths[sentences] == length
        if length > self._longest and (self._end == FREE or not last.any()):
            return None
        forced = np.full(len(sentences), FREE)
        if length <= self._longest:
            forced = self._prompts[sentences, length - 1]
        if self._end != FREE:
            forced = np.where(last, self._end, forced)
        return forced


def merged(lists: Sequence[list[list[int]]], rows: int) -> list[list[int]]:
    """The ids of several bans together."""
    return [sorted({id_ for each in lists for id_ in each[row]}) for row in range(rows)]
