"""What the drafts of a bundle are made of, and whether they change what it says.

The shortlist is learnt from the bundle itself. Common tokens are those that the model's
own translations of the sample hold, and those that are frequent by what SentencePiece
noted of the text that its model was trained on. A source token's are those that the
model gives to this token alone. No text is needed beyond the sample, and none of it
need be right: what is missing costs time only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto

from seq2edge.export.near_ties import Tokens
from seq2edge.export.sample import Sample
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.errors import ParityError
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.inputs import Example
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.pieces import PieceTokenizer
from seq2edge.runtime.shortlist import Shortlist
from seq2edge.runtime.stepper import IntArray
from seq2edge.runtime.tokenizer import SentencePieceTokenizer, Tokenizer
from seq2edge.runtime.translator import Translator

FILE = "shortlist.npy"
# In per cent of the tokens that a Marian model wrote in 600 test sentences so many were
# missing (vocabulary 8,073): with 500 common ones and 32 of a source token 1.5, with
# 1,000 and 32 0.9, with 1,000 and 64 0.6; by the sample alone 0.9, by SentencePiece
# alone 0.6. A thousand more make a step a tenth longer.
COMMON = 1000
OF_SOURCE = 64
STEPS = 3  # a source token's translation may be several tokens
SOURCES = 8192  # source tokens that are asked for; the ids that follow are rare
BATCH = 64
CHECKED = 200  # sentences


@dataclass(frozen=True)
class Frame:
    """What stands before and behind every source: a language, an end token."""

    front: tuple[int, ...]
    back: tuple[int, ...]

    @classmethod
    def of(cls, sources: Sequence[IntArray]) -> "Frame":
        """What all of the sources have in common there."""
        shortest = min(map(len, sources)) - 1
        front = _shared([source[:shortest] for source in sources])
        back = _shared([source[::-1][: shortest - len(front)] for source in sources])
        return cls(front, back[::-1])


def learn_shortlist(
    folder: Path, sources: Sequence[IntArray], translations: Sequence[Tokens], size: int
) -> Shortlist:
    """Of a bundle without one; size: of the source's vocabulary."""
    translator = Translator.load(folder, check_hashes=False)
    common = _Frequencies.of(translator, translations).common()
    asked = min(size, SOURCES)
    lists = [
        np.setdiff1d(best, common)
        for log_probs in _of_single_tokens(translator, Frame.of(sources), asked)
        for best in np.argsort(-log_probs, axis=1)[:, :OF_SOURCE]
    ]
    counts = np.array([*map(len, lists), *[0] * (size - asked)])
    return Shortlist(common, counts, np.concatenate(lists))


def check_drafts(
    folder: Path,
    shortlist: Shortlist,
    sample: Sample,
    translations: Sequence[Tokens],
    share: float,
) -> Mapping[str, float | int]:
    """Greedy and beam search by several steps at once against single steps, alone.

    translations: PyTorch's. share: of the sentences that must come out the same;
    ParityError if fewer do. What it returns says what of each translation a shortlist
    that is learnt from the others misses.
    """
    examples = sample.examples[:CHECKED]
    several, steps = (
        Translator.load(folder, EngineOptions(speculates=each), check_hashes=False)
        for each in (True, False)
    )
    same = {}
    for name, beam in (("greedy", 1), ("beam", max(2, steps.defaults.beam_size))):
        search = replace(steps.defaults.with_beam(beam), n_best=1)
        found, expected = (_each(side, examples, search) for side in (several, steps))
        same[name] = sum(
            a.tokens == b.tokens for a, b in zip(found, expected, strict=True)
        )
        if same[name] < share * len(examples):
            raise ParityError(
                f"{same[name]} of {len(examples)} sentences come out alone, {name}, as "
                "step by step; no bundle was written: report this model, or loosen "
                "--min-exact"
            )
    [source] = [spec.name for spec in steps.inputs]
    frequencies = _Frequencies.of(steps, translations)
    sizes, missed, tokens = 0, 0, 0
    for example, written in zip(examples, translations, strict=False):
        own = shortlist.own(example[source])
        sizes += len(shortlist.candidates(example[source]))
        # By what the others hold: of the list that was learnt from it, it misses none.
        known = np.union1d(own, frequencies.common(without=written))
        missed += int((~np.isin(written, known)).sum())
        tokens += len(written)
    return {
        "sentences": len(examples),
        "identical": same["greedy"],
        "identical_beams": same["beam"],
        "candidates": round(sizes / len(examples)),
        "missed_tokens": round(missed / max(tokens, 1), 4),
    }


def source_size(encoder: ModelProto, name: str, sources: Sequence[IntArray]) -> int:
    """How many ids an encoder reads: the rows of its table, or those of the sample."""
    tables = [tensor.dims[0] for tensor in _tables(encoder.graph, name)]
    return int(min(tables, default=max(source.max() for source in sources) + 1))


def _each(
    translator: Translator, examples: Sequence[Example], search: SearchOptions
) -> list[Hypothesis]:
    """Each by itself."""
    return [translator.generate([each], search)[0][0] for each in examples]


def _of_single_tokens(
    translator: Translator, frame: Frame, size: int
) -> Iterator[NDArray[np.float32]]:
    """The log-probabilities (batch, vocabulary) of the translations of each token.

    Of every target token the greatest in the first steps of greedy search.
    """
    [spec] = translator.inputs
    start = translator.vocabulary.start
    for first in range(0, size, BATCH):
        tokens = range(first, min(first + BATCH, size))
        source = np.array([[*frame.front, token, *frame.back] for token in tokens])
        lengths = np.full(len(source), source.shape[1], np.int32)
        decoding = translator.stepper.start(
            {spec.name: source, f"{spec.name}_lengths": lengths}
        )
        written = np.full(len(source), start)
        greatest = np.full(1, -np.inf, np.float32)
        for _ in range(STEPS):
            log_probs = decoding.scores(written, None)
            written = log_probs.argmax(axis=1)
            greatest = np.maximum(greatest, log_probs)
        yield greatest


@dataclass(frozen=True, eq=False)
class _Frequencies:
    """How often each token comes, in translations and by SentencePiece."""

    counts: NDArray[np.float64]
    expected: NDArray[np.float64]  # not normalized
    end: int

    @classmethod
    def of(
        cls, translator: Translator, translations: Sequence[Tokens]
    ) -> "_Frequencies":
        vocabulary = translator.vocabulary
        counts = np.zeros(vocabulary.size)
        for tokens in translations:
            np.add.at(counts, list(tokens), 1)
        expected = _expected(translator.tokenizer, vocabulary.size)
        return cls(counts, expected, vocabulary.end)

    def common(self, without: Tokens = ()) -> NDArray[np.int64]:
        """The most frequent tokens, and the end token, ascending.

        without: a translation that isn't counted.
        """
        counts = self.counts.copy()
        np.subtract.at(counts, list(without), 1)
        frequency = counts / max(counts.sum(), 1)
        frequency += self.expected / max(self.expected.sum(), 1)
        order = np.argsort(-frequency, kind="stable")[:COMMON]
        return np.union1d(order, [self.end])


def _expected(tokenizer: Tokenizer | None, size: int) -> NDArray[np.float64]:
    """How frequent SentencePiece expects each token to be, not normalized.

    Its scores are log-probabilities, or of byte pair encoding the order of the merges.
    """
    expected = np.zeros(size)
    if not isinstance(tokenizer, SentencePieceTokenizer | PieceTokenizer):
        return expected
    scores = dict(enumerate(tokenizer.target_scores(size)))
    known = {token: score for token, score in scores.items() if score < 0}
    merges = all(score == round(score) for score in known.values())
    for token, score in known.items():
        expected[token] = 1 / (10 - score) if merges else np.exp(score)
    return expected


def _shared(sequences: Sequence[IntArray]) -> tuple[int, ...]:
    """What all of them begin with."""
    shared = []
    for tokens in zip(*(sequence.tolist() for sequence in sequences), strict=False):
        if len(set(tokens)) > 1:
            break
        shared.append(tokens[0])
    return tuple(shared)


def _tables(graph: GraphProto, name: str) -> Iterator[TensorProto]:
    """What is looked up by an input, also where it is transposed before."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ids = {name}
    for node in graph.node:
        if node.op_type in ("Transpose", "Identity", "Cast") and node.input[0] in ids:
            ids.add(node.output[0])
        looks_up = node.op_type == "Gather" and node.input[1] in ids
        if looks_up and node.input[0] in constants:
            yield constants[node.input[0]]
