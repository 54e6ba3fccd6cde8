"""Why a sentence came out otherwise: a near tie, or something else.

It is explained by two candidates that lie no further apart than both sides' errors, or
by a search that comes to the same result once the reference's log-probabilities are
shaken by that much: a beam can part from another without the last token showing why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.inputs import Example, Given, collate
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.stepper import Decoding, FloatArray, Inputs, IntArray, Stepper
from seq2edge.runtime.translator import Translator

SHAKES = 32
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """A sentence that the bundle decodes otherwise than the reference."""

    sentence: int  # its place in the sample
    expected: Tokens
    found: Tokens
    gap: float  # log-probabilities of the two at the first differing token, apart
    explained: bool


@dataclass(frozen=True)
class Judge:
    """Tells near ties from real differences."""

    reference: Translator
    examples: Sequence[Example]
    tolerance: float  # both candidates may be off by the measured difference

    def compare(
        self,
        options: SearchOptions,
        expected: Sequence[Tokens],
        found: Sequence[Tokens],
    ) -> tuple[Difference, ...]:
        """The sentences that differ, each explained or not."""
        pairs = enumerate(zip(expected, found, strict=True))
        return tuple(
            self._difference(options, sentence, one, other)
            for sentence, (one, other) in pairs
            if one != other
        )

    def _difference(
        self, options: SearchOptions, sentence: int, expected: Tokens, found: Tokens
    ) -> Difference:
        example = self.examples[sentence]
        gap = self._gap(example, expected, found)
        explained = gap <= self.tolerance or self._shaken(options, example, found)
        return Difference(sentence, expected, found, gap, explained)

    def _gap(self, example: Example, expected: Tokens, found: Tokens) -> float:
        """How far apart the reference sees the two tokens where the sentences part."""
        end = self.reference.vocabulary.end
        one, other = (*expected, end), (*found, end)
        parting = next(
            place
            for place, pair in enumerate(zip(one, other, strict=False))
            if pair[0] != pair[1]
        )
        inputs = collate([example], self.reference.inputs)
        *_, (log_probs, _) = forced(self.reference, inputs, [one[:parting]])
        return float(abs(log_probs[0, one[parting]] - log_probs[0, other[parting]]))

    def _shaken(self, options: SearchOptions, example: Example, found: Tokens) -> bool:
        """Whether the reference says the same, its log-probabilities off by no more."""
        amount = self.tolerance / 2
        results = shaken(self.reference, example, options, amount, SHAKES)
        return any(tokens == found for tokens in results)


def shaken(
    translator: Translator,
    example: Example,
    options: SearchOptions,
    amount: float,
    times: int,
) -> Iterator[Tokens]:
    """What a search finds with every log-probability off by up to `amount`."""
    for seed in range(times):
        stepper = _Shaken(translator.stepper, amount, seed)
        yield best(replace(translator, stepper=stepper), [example], options)[0].tokens


def is_firm(
    translator: Translator, example: Example, options: SearchOptions, amount: float
) -> bool:
    """Whether log-probabilities that are off by so much change nothing."""
    [found] = best(translator, [example], options)
    results = shaken(translator, example, options, amount, SHAKES // 4)
    return all(tokens == found.tokens for tokens in results)


@dataclass(frozen=True)
class _Shaken:
    """A stepper whose log-probabilities are off by random amounts."""

    stepper: Stepper
    amount: float
    seed: int

    def start(self, inputs: Inputs) -> Decoding:
        random = np.random.default_rng(self.seed)
        return _ShakenDecoding(self.stepper.start(inputs), self.amount, random)


@dataclass(frozen=True)
class _ShakenDecoding:
    decoding: Decoding
    amount: float
    random: np.random.Generator

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        log_probs = self.scores(tokens, parents)
        order = np.argsort(-log_probs, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(log_probs, order, axis=1), order

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return self._shaken(self.decoding.scores(tokens, parents))

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return self._shaken(self.decoding.logits(tokens, parents))

    def _shaken(self, scores: FloatArray) -> FloatArray:
        noise = self.random.uniform(-self.amount, self.amount, scores.shape)
        return scores + noise.astype(np.float32)

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        return self.decoding.attended(tokens, parents, count)  # no search asks

    def keep(self, sentences: IntArray) -> None:
        self.decoding.keep(sentences)


def best(
    translator: Translator, examples: Sequence[Given], options: SearchOptions
) -> list[Hypothesis]:
    """The best hypothesis of every example."""
    return [found[0] for found in translator.generate(examples, options)]


def forced(
    translator: Translator, inputs: Inputs, targets: Sequence[Tokens]
) -> Iterator[tuple[FloatArray, IntArray]]:
    """All log-probabilities at each step of given targets, and the rows not ended."""
    lengths = np.array([len(target) for target in targets])
    decoding = translator.stepper.start(inputs)
    token = np.full(len(targets), translator.vocabulary.start, np.int64)
    for length in range(int(lengths.max()) + 1):
        yield decoding.scores(token, None), np.flatnonzero(lengths >= length)
        token = np.array(
            [
                target[length] if length < len(target) else translator.vocabulary.end
                for target in targets
            ],
            np.int64,
        )
