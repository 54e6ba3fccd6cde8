"""Which head is asked for the next tokens, and which of them may come.

The heads that give a few candidates are asked wherever they can be: what is forbidden
is made up for by spare candidates. All log-probabilities are asked for while a token is
forced, where scores are reweighed, and where tokens are drawn from all.

Letters: rows = batch * beam; count, candidates a row.
"""

from typing import NamedTuple, Protocol

import numpy as np

from seq2edge.runtime.batch import Batch
from seq2edge.runtime.constraints import FREE, Forcing, bans_of, merged
from seq2edge.runtime.reweighing import Reweighing, reweighings_of
from seq2edge.runtime.rules import Rules
from seq2edge.runtime.stepper import (
    Ahead,
    Decoding,
    FloatArray,
    Foresee,
    Foresight,
    IntArray,
    Outlook,
    Seen,
)


class Candidates(NamedTuple):
    """Next tokens of every row, all (rows, count), about best first."""

    tokens: IntArray
    log_probs: FloatArray  # the model's
    scores: FloatArray  # what to rank by; -inf: may not come

    def pick(self, columns: IntArray) -> tuple[FloatArray, IntArray]:
        """One of each row, both (rows, 1); of log-probability -inf if it may not."""
        rows = np.arange(len(columns))
        may = self.scores[rows, columns] > -np.inf
        log_probs = np.where(may, self.log_probs[rows, columns], -np.inf)
        return log_probs[:, None], self.tokens[rows, columns][:, None]

    def best(self) -> tuple[FloatArray, IntArray]:
        """The best of each row, both (rows, 1)."""
        return self.pick(self.scores.argmax(axis=1))


class Proposer(Protocol):
    """A Decoding that proposes only what may come."""

    def propose(
        self, tokens: IntArray, parents: IntArray | None, wanted: int
    ) -> Candidates:
        """Advance every row, as Decoding.best: `wanted` candidates that may come."""
        ...

    def keep(self, sentences: IntArray) -> None:
        """Go on with these sentences only, as Decoding.keep."""
        ...


def proposer(decoding: Decoding, rules: Rules, batch: Batch) -> Proposer:
    """The simplest that does what the options ask for."""
    options, reweighings = rules.options, reweighings_of(rules, batch)
    free = options.forced_first is None and not any(batch.prefixes)
    free = free and not bans_of(rules)
    if reweighings or not free or (options.sampling and not options.top_k):
        return Constrained(decoding, rules, batch, reweighings)
    return Plain(decoding, rules, batch)


class Plain:
    """Only single tokens are forbidden, and at most the last one of all is forced."""

    def __init__(self, decoding: Decoding, rules: Rules, batch: Batch) -> None:
        self._decoding = decoding
        self._rules = rules
        self._length = 0
        self._sentences = np.arange(len(batch.numbers))
        self._forced_from = int(batch.max_lengths.max()) + 1  # none is before this one
        self._forcing: Forcing | None = None
        if rules.options.forced_end:
            self._forced_from = int(batch.max_lengths.min())
            self._forcing = Forcing(rules, batch)
        # Asking for the protocol itself takes as long as a step.
        self._ahead: Ahead | None = getattr(decoding, "ahead", None)
        self._foresee: Foresee | None = getattr(decoding, "foresee", None)
        self._foreseen: Foresight | None = None

    def propose(
        self, tokens: IntArray, parents: IntArray | None, wanted: int
    ) -> Candidates:
        """By the greedy or the beam head, where nothing is forced."""
        self._length += 1
        if self._forcing is not None and self._length >= self._forced_from:
            owners = _owners(self._sentences, len(tokens))
            forced = self._forcing.tokens(owners, self._length)
            if forced is not None:
                return self._all(tokens, parents, wanted, forced)
        count = self._rules.candidates(wanted)
        log_probs, found = self._decoding.best(tokens, parents, count)
        bans = self._rules.bans_at(self._length)
        return Candidates(found, log_probs, log_probs + bans.take(found))

    def foresee(
        self,
        tokens: IntArray,
        parents: IntArray | None,
        totals: FloatArray,
        width: int,
        most_ended: int,
    ) -> bool:
        """Let a beam of one sentence be run ahead, if it can, till something is forced.

        totals (rows,). width, most_ended: as in Outlook.
        """
        rules, steps = self._rules, self._forced_from - 1 - self._length
        early = self._length < rules.options.min_length
        if self._foresee is None or early or steps < 1:
            return False
        found, beam = rules.candidates(width), rules.options.beam_size
        outlook = Outlook(
            parents, totals, rules.bans, found, width, beam, most_ended, steps
        )
        self._foreseen = self._foresee(tokens, outlook)
        return self._foreseen is not None

    @property
    def foreseen(self) -> bool:
        """Whether steps that were run ahead are left."""
        return self._foreseen is not None and self._foreseen.left

    def follow(self, tokens: IntArray, parents: IntArray | None) -> Seen | None:
        """As Foresight."""
        seen = self._foreseen.follow(tokens, parents) if self._foreseen else None
        self._length += seen is not None
        return seen

    def skip(
        self, tokens: IntArray, parents: IntArray | None, most: int
    ) -> Seen | None:
        """As Foresight."""
        seen = self._foreseen.skip(tokens, parents, most) if self._foreseen else None
        self._length += len(seen.tokens) if seen else 0
        return seen

    def unguarded(
        self, tokens: IntArray, parents: IntArray | None, _: int
    ) -> tuple[FloatArray, IntArray]:
        """The best of each row, both (rows, 1), though it may be a forbidden one.

        Or (1, steps) tokens at once, where there is one sentence and a draft of it.
        """
        most = self._forced_from - 1 - self._length
        if most < 1:
            return self.propose(tokens, parents, 1).best()
        if self._ahead is None:
            self._length += 1
            return self._decoding.best(tokens, parents, 1)
        log_probs, found = self._ahead(tokens, most)
        self._length += found.shape[1]
        return log_probs, found

    def keep(self, sentences: IntArray) -> None:
        """As Decoding.keep."""
        self._sentences = self._sentences[sentences]
        self._decoding.keep(sentences)

    def _all(
        self,
        tokens: IntArray,
        parents: IntArray | None,
        wanted: int,
        forced: IntArray,
    ) -> Candidates:
        log_probs = self._decoding.scores(tokens, parents)
        scores = log_probs + self._rules.bans_at(self._length)
        force(self._rules, log_probs, scores, forced)
        return _best(log_probs, scores, min(wanted, self._rules.vocabulary.size))


class Constrained:
    """Knows what every row has already, and bans, forces and reweighs by it."""

    def __init__(
        self,
        decoding: Decoding,
        rules: Rules,
        batch: Batch,
        reweighings: list[Reweighing],
    ) -> None:
        self._decoding = decoding
        self._rules = rules
        self._reweighings = reweighings
        self._bans = bans_of(rules)
        self._forcing = Forcing(rules, batch)
        self._history = np.empty((len(batch.prefixes), 0), dtype=np.int64)
        self._sentences = np.arange(len(batch.prefixes))  # in the input
        # transformers penalizes logits in greedy search, log-probabilities in a beam.
        single = rules.options.beam_size == 1 or rules.options.sampling
        self._on_logits = single and rules.options.like_transformers

    def propose(
        self, tokens: IntArray, parents: IntArray | None, wanted: int
    ) -> Candidates:
        """By the scores head only where it must be."""
        past = self._history if parents is None else self._history[parents]
        self._history = np.concatenate([past, tokens[:, None]], axis=1)
        length = self._history.shape[1]
        owners = _owners(self._sentences, len(tokens))
        banned = merged([ban.banned(self._history) for ban in self._bans], len(tokens))
        forced = self._forcing.tokens(owners, length)
        reweighed = any(one.lasts(length) for one in self._reweighings)
        few = wanted < self._rules.vocabulary.size
        if few and forced is None and not reweighed:
            return self._few(tokens, parents, wanted, banned)
        log_probs, scores = self._all(tokens, parents)
        for reweighing in self._reweighings:
            reweighing.apply(scores, self._history, owners)
        self._restrict(log_probs, scores, banned, forced)
        return _best(log_probs, scores, min(wanted, self._rules.vocabulary.size))

    def keep(self, sentences: IntArray) -> None:
        """As Decoding.keep."""
        beam = len(self._history) // len(self._sentences)
        rows = (sentences[:, None] * beam + np.arange(beam)).ravel()
        self._history = self._history[rows]
        self._sentences = self._sentences[sentences]
        self._decoding.keep(sentences)

    def _few(
        self,
        tokens: IntArray,
        parents: IntArray | None,
        wanted: int,
        banned: list[list[int]],
    ) -> Candidates:
        spare = max(map(len, banned))
        count = self._rules.candidates(wanted + spare)
        log_probs, found = self._decoding.best(tokens, parents, count)
        bans = self._rules.bans_at(self._history.shape[1])
        scores = log_probs + bans.take(found)
        for row, ids in enumerate(banned):
            if ids:
                scores[row, np.isin(found[row], ids)] = -np.inf
        return Candidates(found, log_probs, scores)

    def _all(
        self, tokens: IntArray, parents: IntArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """The model's log-probabilities, and what is to be changed to scores."""
        if self._on_logits and self._reweighings:
            logits = self._decoding.logits(tokens, parents)
            return log_softmax(logits), logits.copy()
        log_probs = self._decoding.scores(tokens, parents)
        return log_probs, log_probs.copy()

    def _restrict(
        self,
        log_probs: FloatArray,
        scores: FloatArray,
        banned: list[list[int]],
        forced: IntArray | None,
    ) -> None:
        """Forbid and force in place."""
        scores += self._rules.bans_at(self._history.shape[1])
        for row, ids in enumerate(banned):
            scores[row, ids] = -np.inf
        if forced is not None:
            force(self._rules, log_probs, scores, forced)


def force(
    rules: Rules, log_probs: FloatArray, scores: FloatArray, forced: IntArray
) -> None:
    """Change scores in place so that a forced token comes, whatever forbids it.

    It counts with its log-probability; under the rule of transformers with none.
    """
    free = rules.options.like_transformers
    for row in np.flatnonzero(forced != FREE).tolist():
        token = forced[row]
        scores[row] = -np.inf
        scores[row, token] = 0 if free else log_probs[row, token]


def _owners(sentences: IntArray, rows: int) -> IntArray:
    """The sentence of each row."""
    return np.repeat(sentences, rows // len(sentences))


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities (rows, vocabulary) in float32."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probs


def _best(log_probs: FloatArray, scores: FloatArray, count: int) -> Candidates:
    """The best of all tokens; of equals those of the lower ids, NaN last."""
    negated = -scores
    if count < scores.shape[1]:
        # Where equals lie on both sides of the cut, some of them are left out.
        tokens = np.argpartition(negated, count - 1, axis=1)[:, :count]
        tokens.sort(axis=1)
    else:
        tokens = np.broadcast_to(np.arange(count), scores.shape)
    order = np.take_along_axis(negated, tokens, axis=1).argsort(axis=1, kind="stable")
    tokens = np.take_along_axis(tokens, order, axis=1)
    return Candidates(
        tokens,
        np.take_along_axis(log_probs, tokens, axis=1),
        np.take_along_axis(scores, tokens, axis=1),
    )
