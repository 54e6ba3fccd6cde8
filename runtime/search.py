"""Greedy and beam search over any Stepper, in plain numpy.

A hypothesis that ends gives up its place in the beam, so the beam narrows as in Marian and
a beam of one is greedy search. One that can no longer enter the n best leaves too, and a
sentence without hypotheses leaves the batch: with a beam wide enough the result is that of
an exhaustive search. Length penalty: Wu et al. 2016, arXiv:1609.08144, section 7.

Letters: batch, sentences still being decoded; beam, hypotheses of each (the most that any
sentence has, the others are filled up with log-probability -inf); count, candidates of a row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counting

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray, Stepper
from seq2edge.runtime.vocabulary import Vocabulary

_ScoreArray = NDArray[np.float64]
_BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class SearchOptions:
    """How to decode; lengths are in target tokens."""

    beam_size: int = 4  # 1 is greedy search
    length_penalty: float = 0.6  # alpha; 0 ranks by plain log-probability
    n_best: int = 1
    min_length: int = 0  # tokens before the end token may come
    max_length: int | None = (
        None  # the end token included; None: as the caller computes
    )

    def __post_init__(self) -> None:
        """Collect every fault, so that one message names them all."""
        faults = [
            (self.beam_size < 1, f"beam_size {self.beam_size} must be at least 1"),
            (
                not 0 <= self.length_penalty < math.inf,
                f"length_penalty {self.length_penalty} must be a number from 0 up",
            ),
            (self.n_best < 1, f"n_best {self.n_best} must be at least 1"),
            (
                self.n_best > max(self.beam_size, 1),
                f"n_best {self.n_best} needs a beam_size of at least {self.n_best}",
            ),
            (self.min_length < 0, f"min_length {self.min_length} must be at least 0"),
            (
                self.max_length is not None and self.max_length < 1,
                f"max_length {self.max_length} must be at least 1",
            ),
            (
                self.max_length is not None and self.min_length > self.max_length >= 1,
                f"min_length {self.min_length} is above max_length {self.max_length}",
            ),
        ]
        messages = [message for wrong, message in faults if wrong]
        if messages:
            raise ConfigError("; ".join(messages))


@dataclass(frozen=True)
class Hypothesis:
    """A decoded sequence; `finished` is False where it was cut at its maximal length."""

    tokens: tuple[int, ...]  # without the end token
    score: float  # log_prob over the length penalty: the order of n-best lists
    log_prob: float  # with that of the end token
    finished: bool


def search(
    stepper: Stepper,
    inputs: Inputs,
    vocabulary: Vocabulary,
    options: SearchOptions,
    max_lengths: Sequence[int] | IntArray,
) -> list[list[Hypothesis]]:
    """Decode a batch: for each sentence its `n_best` hypotheses, best first.

    max_lengths (batch,): the most tokens of each sentence, the end token included, so that
    a hypothesis of max_length tokens that has no end is unfinished. It must come from the
    sentence itself, never from its batch. Fewer than `n_best` hypotheses come back only
    where the model knows no more.
    """
    longest = np.asarray(max_lengths, dtype=np.int64)
    if not longest.size:
        return []
    if longest.min() < 1:
        raise InputError(f"maximal length {longest.min()} must be at least 1")
    if options.max_length is not None:
        longest = np.minimum(longest, options.max_length)
    rules = _Rules.of(vocabulary, options)
    if options.beam_size == 1:
        return _greedy(stepper, inputs, rules, longest)
    return beam_search(stepper, inputs, vocabulary, options, longest)


def length_penalty(length: int, alpha: float) -> float:
    """What a log-probability is divided by: 1 for one token, more for more."""
    return float(((5 + length) / 6) ** alpha)


@dataclass(frozen=True)
class _Rules:
    """Options and vocabulary in the form that the loops read."""

    options: SearchOptions
    start: int
    end: int
    size: int
    banned: frozenset[int]  # ids that are never emitted
    forbidden: _BoolArray  # (vocabulary,): the banned ones
    forbidden_early: _BoolArray  # (vocabulary,): with the end token, before min_length

    @classmethod
    def of(cls, vocabulary: Vocabulary, options: SearchOptions) -> "_Rules":
        banned = frozenset({vocabulary.pad, vocabulary.start} - {vocabulary.end})
        forbidden = np.zeros(vocabulary.size, dtype=np.bool_)
        forbidden[list(banned)] = True
        early = forbidden.copy()
        early[vocabulary.end] = True
        if early.all():
            raise InputError(
                f"a vocabulary of {vocabulary.size} ids holds nothing but special ones"
            )
        return cls(
            options, vocabulary.start, vocabulary.end, vocabulary.size, banned,
            forbidden, early,
        )  # fmt: skip

    def forbidden_at(self, length: int) -> _BoolArray:
        """What token number `length` (the first is 1) must not be."""
        return (
            self.forbidden if length > self.options.min_length else self.forbidden_early
        )

    def candidates(self, wanted: int) -> int:
        """How many to ask for, so that `wanted` are left when the forbidden are gone."""
        spare = len(self.banned) + (self.options.min_length > 0)
        return min(wanted + spare, self.size)

    def hypothesis(self, tokens: Sequence[int], log_prob: float) -> Hypothesis:
        """Score a sequence that has just received its last token."""
        if not math.isfinite(log_prob):
            raise InputError(
                "the model gives no token a finite log-probability; are its weights sound?"
            )
        finished = tokens[-1] == self.end
        return Hypothesis(
            tokens=tuple(tokens[:-1] if finished else tokens),
            score=log_prob / length_penalty(len(tokens), self.options.length_penalty),
            log_prob=log_prob,
            finished=finished,
        )


def _greedy(
    stepper: Stepper, inputs: Inputs, rules: _Rules, max_lengths: IntArray
) -> list[list[Hypothesis]]:
    """Ask for the best token only, which the cheapest head gives.

    Should that be a banned one (a trained model doesn't do it), those sentences are decoded
    again with spare candidates.
    """
    count = 1 if not rules.options.min_length else rules.candidates(1)
    results = greedy_search(stepper, inputs, rules, max_lengths, count)
    failed = [index for index, result in enumerate(results) if result is None]
    if failed:
        again = {name: array[failed] for name, array in inputs.items()}
        count = rules.candidates(1)
        retried = greedy_search(stepper, again, rules, max_lengths[failed], count)
        for index, result in zip(failed, retried, strict=True):
            results[index] = result
    return [[result] for result in results if result is not None]


def greedy_search(
    stepper: Stepper,
    inputs: Inputs,
    rules: _Rules,
    max_lengths: IntArray,
    count: int,
) -> list[Hypothesis | None]:
    """Take the best token at every step; None for a sentence that met a banned one.

    This loop runs once a token at batch 1: lists beat arrays there (about 2 us a token).
    """
    results: list[Hypothesis | None] = [None] * len(max_lengths)
    live = list(range(len(max_lengths)))
    paths: list[list[int]] = [[] for _ in live]
    totals = np.zeros(len(live))
    stops = rules.banned | {rules.end}
    shortest = int(max_lengths.min())
    tokens = np.full(len(live), rules.start, dtype=np.int64)
    decoding = stepper.start(inputs)
    for length in counting(1):
        log_probs, candidates = decoding.best(tokens, None, count)
        if count > 1:
            forbidden = rules.forbidden_at(length)
            log_probs, candidates = _first_allowed(log_probs, candidates, forbidden)
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
        shortest = int(max_lengths[live].min())
        if len(kept) < len(ids):
            tokens, totals = tokens[kept], totals[kept]
            decoding.keep(np.array(kept, dtype=np.int64))
    return results


def _first_allowed(
    log_probs: FloatArray, tokens: IntArray, forbidden: _BoolArray
) -> tuple[FloatArray, IntArray]:
    """Of each row's candidates (rows, count), best first, the first allowed: (rows, 1)."""
    column = forbidden[tokens].argmin(axis=1)
    row = np.arange(len(tokens))
    return log_probs[row, column][:, None], tokens[row, column][:, None]


class _Trellis:
    """Every token that was kept, with its predecessor: a beam's memory of its paths."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._parents: list[int] = []

    def extend(self, tokens: IntArray, parents: IntArray) -> IntArray:
        """Add nodes and return their ids, in the same shape."""
        first = len(self._tokens)
        self._tokens.extend(tokens.ravel().tolist())
        self._parents.extend(parents.ravel().tolist())
        return np.arange(first, len(self._tokens)).reshape(tokens.shape)

    def path(self, node: int) -> list[int]:
        """The tokens that lead to a node; the root is -1."""
        tokens = []
        while node >= 0:
            tokens.append(self._tokens[node])
            node = self._parents[node]
        return tokens[::-1]


@dataclass
class _Beams:
    """The sentences that are still being decoded."""

    sentence: IntArray  # (batch,): its place in the input
    log_probs: _ScoreArray  # (batch, beam), descending; -inf: no hypothesis
    nodes: IntArray  # (batch, beam): ends of the paths in the trellis
    places: IntArray  # (batch,): beam_size less the hypotheses that have ended
    to_beat: _ScoreArray  # (batch,): the n_best'th score so far
    max_length: IntArray  # (batch,)
    max_penalty: _ScoreArray  # (batch,): length penalty at max_length

    @classmethod
    def begin(cls, options: SearchOptions, max_lengths: IntArray) -> "_Beams":
        batch = len(max_lengths)
        return cls(
            sentence=np.arange(batch),
            log_probs=np.zeros((batch, 1)),
            nodes=np.full((batch, 1), -1, dtype=np.int64),
            places=np.full(batch, options.beam_size, dtype=np.int64),
            to_beat=np.full(batch, -np.inf),
            max_length=max_lengths,
            max_penalty=((5 + max_lengths) / 6) ** options.length_penalty,
        )

    def keep(self, rows: IntArray) -> None:
        self.sentence = self.sentence[rows]
        self.places = self.places[rows]
        self.to_beat = self.to_beat[rows]
        self.max_length = self.max_length[rows]
        self.max_penalty = self.max_penalty[rows]


@dataclass
class _Extensions:
    """Each sentence's best continuations, all (batch, beam), best first."""

    log_probs: _ScoreArray  # -inf: none
    tokens: IntArray
    parents: IntArray  # the hypothesis that each continues, 0 to beam - 1

    def narrow(self) -> None:
        """Move what is left to the front and cut off columns that nobody needs."""
        left = self.log_probs > -np.inf
        beam = int(left.sum(axis=1).max())
        if not left[:, :beam].all():
            order = np.argsort(~left, axis=1, kind="stable")
            row = np.arange(len(order))[:, None]
            self.log_probs = self.log_probs[row, order]
            self.tokens = self.tokens[row, order]
            self.parents = self.parents[row, order]
        self._cut(np.s_[:, :beam])

    def keep(self, rows: IntArray) -> None:
        self._cut(rows)

    def _cut(self, index: IntArray | tuple[slice, slice]) -> None:
        self.log_probs = self.log_probs[index]
        self.tokens = self.tokens[index]
        self.parents = self.parents[index]


def beam_search(
    stepper: Stepper,
    inputs: Inputs,
    vocabulary: Vocabulary,
    options: SearchOptions,
    max_lengths: IntArray,
) -> list[list[Hypothesis]]:
    """Beam search of any width; `search` takes the greedy loop for a width of one."""
    rules = _Rules.of(vocabulary, options)
    count = rules.candidates(options.beam_size)
    beams = _Beams.begin(options, max_lengths)
    results: list[list[Hypothesis]] = [[] for _ in max_lengths]
    trellis = _Trellis()
    tokens = np.full(len(max_lengths), rules.start, dtype=np.int64)
    parents: IntArray | None = None
    decoding = stepper.start(inputs)
    for length in counting(1):
        best = decoding.best(tokens, parents, count)
        extensions = _extend(beams, best, rules.forbidden_at(length), options.beam_size)
        _collect_ended(extensions, beams, results, trellis, rules, length)
        _drop_hopeless(extensions, beams)

        kept = np.flatnonzero((extensions.log_probs > -np.inf).any(axis=1))
        if not kept.size:
            break
        beam = beams.log_probs.shape[1]
        nodes = beams.nodes
        if kept.size < len(beams.sentence):
            decoding.keep(kept)
            beams.keep(kept)
            extensions.keep(kept)
            nodes = nodes[kept]
        extensions.narrow()
        rows = np.arange(kept.size)[:, None] * beam + extensions.parents
        tokens, parents = extensions.tokens.ravel(), rows.ravel()
        beams.log_probs = extensions.log_probs
        beams.nodes = trellis.extend(extensions.tokens, nodes.take(rows))
    return [_best_of(found, options.n_best) for found in results]


def _extend(
    beams: _Beams,
    best: tuple[FloatArray, IntArray],
    forbidden: _BoolArray,
    beam_size: int,
) -> _Extensions:
    """Rank the candidates of all hypotheses of a sentence; ties go to the earlier one."""
    log_probs, tokens = best  # (rows, count)
    batch, beam = beams.log_probs.shape
    count = tokens.shape[1]
    totals = beams.log_probs[:, :, None] + log_probs.reshape(batch, beam, count)
    totals[forbidden[tokens].reshape(totals.shape)] = -np.inf
    totals = totals.reshape(batch, -1)
    order = np.argsort(-totals, axis=1, kind="stable")[:, :beam_size]
    flat = order + np.arange(0, totals.size, totals.shape[1])[:, None]
    ranked = totals.take(flat)
    ranked[np.arange(order.shape[1]) >= beams.places[:, None]] = -np.inf
    return _Extensions(ranked, tokens.take(flat), order // count)


def _collect_ended(
    extensions: _Extensions,
    beams: _Beams,
    results: list[list[Hypothesis]],
    trellis: _Trellis,
    rules: _Rules,
    length: int,
) -> None:
    """Move what ends here, by its end token or at its maximal length, to the results."""
    ended = (extensions.tokens == rules.end) | (beams.max_length == length)[:, None]
    ended &= extensions.log_probs > -np.inf
    if not ended.any():
        return
    for row, column in np.argwhere(ended).tolist():
        node = int(beams.nodes[row, extensions.parents[row, column]])
        path = [*trellis.path(node), int(extensions.tokens[row, column])]
        hypothesis = rules.hypothesis(path, float(extensions.log_probs[row, column]))
        found = results[beams.sentence[row]]
        found.append(hypothesis)
        beams.places[row] -= 1
        if len(found) >= rules.options.n_best:
            worst = _best_of(found, rules.options.n_best)[-1]
            beams.to_beat[row] = worst.score
    extensions.log_probs[ended] = -np.inf


def _drop_hopeless(extensions: _Extensions, beams: _Beams) -> None:
    """Drop what can't enter the n best even if all its further tokens had probability 1.

    Log-probabilities only fall and the penalty grows with the length, so that the best
    score to come is today's log-probability over the penalty of the maximal length.
    """
    hopes = extensions.log_probs / beams.max_penalty[:, None]
    extensions.log_probs[hopes <= beams.to_beat[:, None]] = -np.inf


def _best_of(found: list[Hypothesis], n_best: int) -> list[Hypothesis]:
    if not found:
        raise InputError(
            "the model gives no token a finite log-probability; are its weights sound?"
        )
    return sorted(found, key=lambda hypothesis: -hypothesis.score)[:n_best]
