"""Greedy and beam search over any Stepper, in plain numpy.

A hypothesis that ends gives up its place, so that the beam narrows as in Marian and a
beam of one is greedy search. One that can no longer enter the n best leaves too, and a
sentence without hypotheses leaves the batch. With a beam wide enough the result is that
of an exhaustive search. Length penalty: Wu et al. 2016, arXiv:1609.08144, section 7.

Letters: batch, sentences still being decoded; beam, hypotheses of each (the most that
any has; the others are filled up with log-probability -inf); count, candidates a row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count as counting

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray, Stepper
from seq2edge.runtime.vocabulary import Vocabulary

_ScoreArray = NDArray[np.float64]

_NOT_FINITE = "the model gives no finite log-probability; check its weights and input"


@dataclass(frozen=True)
class SearchOptions:
    """How to decode; lengths are in target tokens."""

    beam_size: int = 4  # 1 is greedy search
    length_penalty: float = 0.6  # alpha; 0 ranks by plain log-probability
    n_best: int = 1
    min_length: int = 0  # tokens before the end token may come
    max_length: int | None = None  # with the end token; None leaves it to the caller

    def __post_init__(self) -> None:
        """Refuse what can't be meant, with all that is wrong."""
        positive = {"beam_size": self.beam_size, "n_best": self.n_best}
        if self.max_length is not None:
            positive["max_length"] = self.max_length
        faults = [
            f"{name} {value} must be at least 1"
            for name, value in positive.items()
            if value < 1
        ]
        if self.n_best > self.beam_size >= 1:
            faults.append(
                f"n_best {self.n_best} is above beam_size {self.beam_size}; "
                "widen the beam or ask for fewer"
            )
        if not 0 <= self.length_penalty < math.inf:
            faults.append(f"length_penalty {self.length_penalty} must be at least 0")
        if self.min_length < 0:
            faults.append(f"min_length {self.min_length} must be at least 0")
        if self.max_length is not None and self.min_length > self.max_length >= 1:
            faults.append(
                f"min_length {self.min_length} is above max_length {self.max_length}"
            )
        if faults:
            raise ConfigError("; ".join(faults))


@dataclass(frozen=True)
class Hypothesis:
    """A decoded sequence; not `finished` if it was cut at its maximal length."""

    tokens: tuple[int, ...]  # without the end token
    score: float  # log_prob over the length penalty: the order of n-best lists
    log_prob: float  # of all tokens and the end token
    finished: bool


def search(
    stepper: Stepper,
    inputs: Inputs,
    vocabulary: Vocabulary,
    options: SearchOptions,
    max_lengths: Sequence[int] | IntArray,
) -> list[list[Hypothesis]]:
    """Decode a batch: for each sentence its `n_best` hypotheses, best first.

    max_lengths (batch,): the most tokens of each sentence, the end token included; a
    hypothesis that has so many and no end comes back unfinished. It must come from the
    sentence itself, never from its batch. Fewer than `n_best` hypotheses come back only
    where the beam found no more.
    """
    longest = np.asarray(max_lengths, dtype=np.int64)
    if not longest.size:
        return []
    if longest.min() < 1:
        raise InputError(f"maximal length {longest.min()} must be at least 1")
    if options.max_length is not None:
        longest = np.minimum(longest, options.max_length)
    rules = Rules.of(vocabulary, options)
    if options.beam_size == 1:
        return greedy_search(stepper, inputs, rules, longest)
    return beam_search(stepper, inputs, rules, longest)


def length_penalty(length: int, alpha: float) -> float:
    """What a log-probability is divided by: 1 for one token, more for more."""
    return float(((5 + length) / 6) ** alpha)


@dataclass(frozen=True)
class Rules:
    """Options and vocabulary as the loops read them."""

    options: SearchOptions
    vocabulary: Vocabulary
    banned: frozenset[int]  # ids that are never emitted
    bans: FloatArray  # (vocabulary,): -inf where banned, else 0
    early_bans: FloatArray  # the same with the end token, for before min_length

    @classmethod
    @lru_cache(maxsize=16)  # made anew it costs as much as five greedy tokens
    def of(cls, vocabulary: Vocabulary, options: SearchOptions) -> "Rules":
        """Find the banned ids."""
        banned = frozenset({vocabulary.pad, vocabulary.start} - {vocabulary.end})
        bans = np.zeros(vocabulary.size, dtype=np.float32)
        bans[list(banned)] = -np.inf
        early_bans = bans.copy()
        early_bans[vocabulary.end] = -np.inf
        if vocabulary.size <= len(banned | {vocabulary.end}):
            raise InputError(
                f"a vocabulary of {vocabulary.size} ids holds nothing but special ones"
            )
        return cls(options, vocabulary, banned, bans, early_bans)

    def bans_at(self, length: int) -> FloatArray:
        """What to add to the log-probabilities of token number `length` (1, 2, ...)."""
        return self.early_bans if length <= self.options.min_length else self.bans

    def candidates(self, wanted: int) -> int:
        """How many to ask for, to have `wanted` when the banned ones are gone."""
        spare = len(self.banned) + (self.options.min_length > 0)
        return min(wanted + spare, self.vocabulary.size)

    def hypothesis(self, tokens: Sequence[int], log_prob: float) -> Hypothesis:
        """Score a sequence that has received its last token."""
        if not math.isfinite(log_prob):
            raise InputError(_NOT_FINITE)
        finished = tokens[-1] == self.vocabulary.end
        return Hypothesis(
            tokens=tuple(tokens[:-1] if finished else tokens),
            score=log_prob / length_penalty(len(tokens), self.options.length_penalty),
            log_prob=log_prob,
            finished=finished,
        )


def greedy_search(
    stepper: Stepper, inputs: Inputs, rules: Rules, max_lengths: IntArray
) -> list[list[Hypothesis]]:
    """Ask for the best token only, which the cheapest head gives.

    Should that be a banned one (a trained model doesn't do it), those sentences are
    decoded again with spare candidates.
    """
    count = rules.candidates(1) if rules.options.min_length else 1
    results = _greedy_pass(stepper, inputs, rules, max_lengths, count)
    failed = [index for index, result in enumerate(results) if result is None]
    if failed:
        again = {name: array[failed] for name, array in inputs.items()}
        count = rules.candidates(1)
        passed = _greedy_pass(stepper, again, rules, max_lengths[failed], count)
        for index, result in zip(failed, passed, strict=True):
            results[index] = result
    return [[result] for result in results if result is not None]


def _greedy_pass(
    stepper: Stepper,
    inputs: Inputs,
    rules: Rules,
    max_lengths: IntArray,
    count: int,
) -> list[Hypothesis | None]:
    """Take the best token at every step; None for a sentence that met a banned one.

    At batch 1 one round is one token, and lists are faster than arrays of one.
    """
    results: list[Hypothesis | None] = [None] * len(max_lengths)
    live = list(range(len(max_lengths)))
    paths: list[list[int]] = [[] for _ in live]
    totals = np.zeros(len(live))
    stops = rules.banned | {rules.vocabulary.end}
    shortest = int(max_lengths.min())
    tokens = np.full(len(live), rules.vocabulary.start, dtype=np.int64)
    decoding = stepper.start(inputs)
    for length in counting(1):
        log_probs, candidates = decoding.best(tokens, None, count)
        if count > 1:
            bans = rules.bans_at(length)
            log_probs, candidates = _first_allowed(log_probs, candidates, bans)
        tokens = candidates[:, 0]
        totals += log_probs[:, 0]
        ids = tokens.tolist()
        for path, token in zip(paths, ids, strict=True):
            path.append(token)
        if length < shortest and stops.isdisjoint(ids):
            continue

        kept = []
        for row, (sentence, token) in enumerate(zip(live, ids, strict=True)):
            if token not in stops and length < max_lengths[sentence]:
                kept.append(row)
            elif token not in rules.banned:
                results[sentence] = rules.hypothesis(paths[row], float(totals[row]))
        if not kept:
            break
        live = [live[row] for row in kept]
        paths = [paths[row] for row in kept]
        tokens, totals = tokens[kept], totals[kept]
        shortest = int(max_lengths[live].min())
        decoding.keep(np.array(kept, dtype=np.int64))
    return results


def _first_allowed(
    log_probs: FloatArray, tokens: IntArray, bans: FloatArray
) -> tuple[FloatArray, IntArray]:
    """The first allowed of each row's candidates: (rows, count) to (rows, 1)."""
    column = bans[tokens].argmax(axis=1)
    row = np.arange(len(tokens))
    return log_probs[row, column][:, None], tokens[row, column][:, None]


def beam_search(
    stepper: Stepper, inputs: Inputs, rules: Rules, max_lengths: IntArray
) -> list[list[Hypothesis]]:
    """Beam search of any width; `search` prefers the greedy loop for a width of one."""
    beams = _Beams(rules, max_lengths)
    count = rules.candidates(rules.options.beam_size)
    tokens = np.full(len(max_lengths), rules.vocabulary.start, dtype=np.int64)
    parents: IntArray | None = None
    decoding = stepper.start(inputs)
    for length in counting(1):
        log_probs, candidates = decoding.best(tokens, parents, count)
        extensions = beams.extend(log_probs, candidates, length)
        beams.collect_ended(extensions, length)
        beams.drop_hopeless(extensions)
        left = extensions.log_probs > -np.inf
        if np.count_nonzero(left) < left.size:
            kept = np.flatnonzero(left.any(axis=1))
            if not kept.size:
                break
            if kept.size < len(beams.sentence):
                decoding.keep(kept)
                beams.keep(kept)
                extensions.cut(kept)
            extensions.close_ranks()
        tokens, parents = beams.advance(extensions)
    return [_best_of(found, rules.options.n_best) for found in beams.found]


@dataclass
class _Extensions:
    """The best continuations of each sentence, all (batch, beam), best first."""

    log_probs: _ScoreArray  # -inf: none
    tokens: IntArray
    parents: IntArray  # the hypothesis that each continues, 0 to beam - 1

    def close_ranks(self) -> None:
        """Move what is left to the front and cut off columns that nobody needs."""
        left = self.log_probs > -np.inf
        order = np.argsort(~left, axis=1, kind="stable")[:, : left.sum(axis=1).max()]
        self.cut((np.arange(len(order))[:, None], order))

    def cut(self, index: IntArray | tuple[IntArray, IntArray]) -> None:
        """Keep these sentences, or these columns of each."""
        self.log_probs = self.log_probs[index]
        self.tokens = self.tokens[index]
        self.parents = self.parents[index]


class _Beams:
    """The sentences still being decoded, and what has been found for all."""

    def __init__(self, rules: Rules, max_lengths: IntArray) -> None:
        batch = len(max_lengths)
        alpha = rules.options.length_penalty
        self.rules = rules
        self.found: list[list[Hypothesis]] = [[] for _ in range(batch)]
        self.trellis = _Trellis()
        self.sentence = np.arange(batch)  # its place in the input
        self.log_probs = np.zeros((batch, 1))  # (batch, beam), descending
        self.nodes = np.full((batch, 1), -1)  # (batch, beam), in the trellis
        self.places = np.full(batch, rules.options.beam_size)  # not yet given up
        self.max_lengths = max_lengths
        self.shortest = int(max_lengths.min())
        self.max_penalties = ((5 + max_lengths) / 6) ** alpha
        self.to_beat = np.full(batch, -np.inf)  # the n_best'th score, if so many ended
        self.any_ended = False

    def extend(
        self, log_probs: FloatArray, tokens: IntArray, length: int
    ) -> _Extensions:
        """Rank the candidates (rows, count) of each sentence; ties keep their order."""
        batch, beam = self.log_probs.shape
        count = tokens.shape[1]
        allowed = log_probs + self.rules.bans_at(length).take(tokens)
        totals = allowed.reshape(batch, beam, count) + self.log_probs[:, :, None]
        totals = totals.reshape(batch, beam * count)
        order = (-totals).argsort(axis=1, kind="stable")
        order = order[:, : self.rules.options.beam_size]
        flat = order + np.arange(0, totals.size, beam * count)[:, None]
        ranked = np.fmax(totals.take(flat), -np.inf)  # a NaN is no candidate
        if self.any_ended:
            ranked[np.arange(order.shape[1]) >= self.places[:, None]] = -np.inf
        return _Extensions(ranked, tokens.take(flat), order // count)

    def collect_ended(self, extensions: _Extensions, length: int) -> None:
        """Take out what ends, by its end token or at its maximal length."""
        ended = extensions.tokens == self.rules.vocabulary.end
        if length >= self.shortest:
            ended |= (self.max_lengths == length)[:, None]
        if not np.count_nonzero(ended):
            return
        ended &= extensions.log_probs > -np.inf
        for row, column in np.argwhere(ended).tolist():
            node = int(self.nodes[row, extensions.parents[row, column]])
            path = [*self.trellis.path(node), int(extensions.tokens[row, column])]
            self._add(row, path, float(extensions.log_probs[row, column]))
        extensions.log_probs[ended] = -np.inf

    def _add(self, row: int, path: list[int], log_prob: float) -> None:
        n_best = self.rules.options.n_best
        found = self.found[self.sentence[row]]
        found.append(self.rules.hypothesis(path, log_prob))
        self.places[row] -= 1
        self.any_ended = True
        if len(found) >= n_best:
            self.to_beat[row] = _best_of(found, n_best)[-1].score

    def drop_hopeless(self, extensions: _Extensions) -> None:
        """Drop what can't enter the n best even if all that follows has probability 1.

        Log-probabilities only fall and the penalty grows with the length: the best that
        can come is today's log-probability over the penalty of the maximal length.
        """
        if self.any_ended:
            hopes = extensions.log_probs / self.max_penalties[:, None]
            extensions.log_probs[hopes <= self.to_beat[:, None]] = -np.inf

    def keep(self, rows: IntArray) -> None:
        """Go on with these sentences only."""
        self.sentence = self.sentence[rows]
        self.log_probs = self.log_probs[rows]
        self.nodes = self.nodes[rows]
        self.places = self.places[rows]
        self.max_lengths = self.max_lengths[rows]
        self.shortest = int(self.max_lengths.min())
        self.max_penalties = self.max_penalties[rows]
        self.to_beat = self.to_beat[rows]

    def advance(self, extensions: _Extensions) -> tuple[IntArray, IntArray]:
        """Go on with the extensions: their tokens and parent rows, both (rows,)."""
        batch, beam = self.log_probs.shape
        rows = extensions.parents + np.arange(0, batch * beam, beam)[:, None]
        self.log_probs = extensions.log_probs
        self.nodes = self.trellis.add(extensions.tokens, self.nodes.take(rows))
        return extensions.tokens.ravel(), rows.ravel()


class _Trellis:
    """Every token that was kept and its predecessor: the paths of all hypotheses."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._parents: list[int] = []

    def add(self, tokens: IntArray, parents: IntArray) -> IntArray:
        """The new nodes, in the shape of their tokens; the root is -1."""
        first = len(self._tokens)
        self._tokens.extend(tokens.ravel().tolist())
        self._parents.extend(parents.ravel().tolist())
        return np.arange(first, len(self._tokens)).reshape(tokens.shape)

    def path(self, node: int) -> list[int]:
        """The tokens that lead to a node."""
        tokens = []
        while node >= 0:
            tokens.append(self._tokens[node])
            node = self._parents[node]
        return tokens[::-1]


def _best_of(found: list[Hypothesis], n_best: int) -> list[Hypothesis]:
    if not found:
        raise InputError(_NOT_FINITE)
    return sorted(found, key=lambda hypothesis: -hypothesis.score)[:n_best]
