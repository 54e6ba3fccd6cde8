"""Functions as models: the searches are told probabilities that a test can work out."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from toy_decoding import UnaskedDecoding

from seq2edge.runtime.batch import Guidance
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.search import search
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray
from seq2edge.runtime.vocabulary import Vocabulary

PAD, UNKNOWN, START, END, A, B = range(6)
LOOKS = {A: (1.0, 0.0), B: (0.0, 1.0)}  # what a step looks at, by the token it reads
VOCABULARY = Vocabulary(size=6, pad=PAD, unknown=UNKNOWN, start=START, end=END)

Prefix = tuple[int, ...]
Tree = Mapping[Prefix, Mapping[int, float]]
NextToken = Callable[
    [int, Prefix], NDArray[np.float64]
]  # sentence, prefix to log-probs


class ToyStepper:
    """A function as a model, which checks that the search keeps to the contract.

    `source` (batch, 1) names the sentences; what each step was asked for is noted.
    """

    def __init__(self, next_token: NextToken) -> None:
        self.next_token = next_token
        self.counts: list[int] = []
        self.rows: list[int] = []
        self.kept: list[list[int]] = []
        self.heads: list[str] = []  # that were asked, step by step

    def start(self, inputs: Inputs) -> "ToyDecoding":
        return ToyDecoding(self, [int(row[0]) for row in inputs["source"]])


class ToyDecoding(UnaskedDecoding):
    def __init__(self, stepper: ToyStepper, sentences: list[int]) -> None:
        self.stepper = stepper
        self.sentences = sentences
        self.prefixes: list[Prefix] = [() for _ in sentences]

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        self.stepper.heads.append("best")
        return self._top(tokens, parents, count)

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        self.stepper.heads.append("scores")
        return self._advance(tokens, parents)

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        """The first position for A, the second for B, both for all else."""
        self.stepper.heads.append("attended")
        log_probs, found = self._top(tokens, parents, count)
        looks = [LOOKS.get(prefix[-1], (0.5, 0.5)) for prefix in self.prefixes]
        return log_probs, found, np.array(looks, dtype=np.float32)

    def _top(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        log_probs = self._advance(tokens, parents)
        assert 1 <= count <= log_probs.shape[1]
        self.stepper.counts.append(count)
        order = np.argsort(-log_probs, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(log_probs, order, axis=1), order

    def _advance(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        assert tokens.dtype == np.int64
        if parents is None:
            parents = np.arange(len(self.prefixes))
        assert tokens.shape == parents.shape
        beam_before = len(self.prefixes) // len(self.sentences)
        beam = len(tokens) // len(self.sentences)
        assert beam * len(self.sentences) == len(tokens)
        # No row goes on from another sentence's row.
        assert (parents // beam_before == np.arange(len(tokens)) // beam).all()
        self.prefixes = [
            (*self.prefixes[parent], token)
            for parent, token in zip(parents.tolist(), tokens.tolist(), strict=True)
        ]
        self.stepper.rows.append(len(tokens))
        # The start token, which begins every prefix, is no token of the hypothesis.
        return np.array(
            [
                self.stepper.next_token(self.sentences[row // beam], prefix[1:])
                for row, prefix in enumerate(self.prefixes)
            ],
            dtype=np.float32,
        )

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        self.stepper.heads.append("logits")
        return self._advance(tokens, parents)

    def keep(self, sentences: IntArray) -> None:
        kept = sentences.tolist()
        assert kept
        assert all(first < second for first, second in pairwise(kept))
        self.stepper.kept.append(kept)
        beam = len(self.prefixes) // len(self.sentences)
        self.prefixes = [
            self.prefixes[sentence * beam + row]
            for sentence in kept
            for row in range(beam)
        ]
        self.sentences = [self.sentences[sentence] for sentence in kept]


def random_model(size: int = VOCABULARY.size, spread: float = 1.5) -> ToyStepper:
    """Every prefix of every sentence has its own random distribution."""

    def next_token(sentence: int, prefix: Prefix) -> NDArray[np.float64]:
        generator = np.random.default_rng([sentence, len(prefix), *prefix])
        logits = generator.normal(size=size) * spread
        log_probs: NDArray[np.float64] = logits - np.log(np.exp(logits).sum())
        return log_probs

    return ToyStepper(next_token)


def tree_model(*trees: Tree) -> ToyStepper:
    """Probabilities written out, a tree a sentence; what is not named has none."""

    def next_token(sentence: int, prefix: Prefix) -> NDArray[np.float64]:
        log_probs = np.full(VOCABULARY.size, -np.inf)
        ended = {VOCABULARY.end: 1.0}  # who has ended may be asked on, for nothing
        for token, probability in trees[sentence].get(prefix, ended).items():
            log_probs[token] = math.log(probability)
        return log_probs

    return ToyStepper(next_token)


def sources(*sentences: int) -> Inputs:
    return {"source": np.array(sentences, dtype=np.int64).reshape(-1, 1)}


def decode(
    stepper: ToyStepper,
    options: SearchOptions,
    max_lengths: list[int],
    sentences: list[int] | None = None,
    vocabulary: Vocabulary = VOCABULARY,
    guidance: Guidance | None = None,
) -> list[list[Hypothesis]]:
    if sentences is None:
        sentences = list(range(len(max_lengths)))
    inputs = sources(*sentences)
    return search(stepper, inputs, vocabulary, options, max_lengths, guidance)
