"""A label for every word of a text (or frame of a recording), or one for the whole.

What a bundle of the tasks tagging and classification is for. A tagger that reads in one
direction also goes word by word: `PredictionStream` answers each word as it comes, and
says what the whole pass would.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2edge.runtime.batching import Batching, batches, windows
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.errors import BundleError, InputError
from seq2edge.runtime.inputs import (
    SOURCE,
    Array,
    Example,
    Given,
    checked_examples,
    collate,
    example_length,
)
from seq2edge.runtime.manifest import InputSpec, Limits, Task
from seq2edge.runtime.records import Reader
from seq2edge.runtime.stepper import FloatArray, Labeller, Stream

if TYPE_CHECKING:  # slow to import, and not needed to label with another model
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class PredictionFlags:
    """What was done to a text."""

    split: bool = False  # too long for the model, tagged in pieces
    truncated: bool = False  # too long, and its end left out
    empty: bool = False  # nothing but spaces, not labelled
    unknown: tuple[str, ...] = ()  # words or characters that the model doesn't know


@dataclass(frozen=True)
class Prediction:
    """Labels with their log-probabilities: one for each position, or one in all."""

    labels: tuple[str, ...]
    log_probs: tuple[float, ...]  # of the labels
    words: tuple[str, ...]  # that a tagger labelled; none in classification
    ranking: tuple[tuple[str, float], ...]  # all classes, best first; none in tagging
    flags: PredictionFlags

    @property
    def text(self) -> str:
        """The labels with spaces between them."""
        return " ".join(self.labels)


@dataclass(frozen=True, eq=False)
class Predictor:
    """Labels with any model behind the seam; threads may share it."""

    labeller: Labeller
    task: Task
    labels: tuple[str, ...]
    limits: Limits
    tokenizer: "Tokenizer | None" = None  # without one a text is its ids
    batching: Batching = field(default_factory=Batching)
    inputs: tuple[InputSpec, ...] = (SOURCE,)
    folder: Path = field(default_factory=Path)  # that names of files are relative to
    streams: bool = False  # whether it also goes word by word

    @classmethod
    def load(
        cls,
        path: Path | str,
        engine_options: "EngineOptions | None" = None,
        batching: Batching | None = None,
        check_hashes: bool = True,
    ) -> "Predictor":
        """Load a bundle; BundleError says what is wrong with it."""
        from seq2edge.runtime.engine import Engine

        bundle = Bundle.load(path, check_hashes)
        manifest = bundle.manifest
        if manifest.task == "generation":
            raise BundleError(
                f"{bundle.path} gives no labels, it writes tokens; "
                "use `seq2edge translate` or Translator"
            )
        return cls(
            labeller=Engine.load(bundle, engine_options),
            task=manifest.task,
            labels=manifest.labels,
            limits=manifest.limits,
            tokenizer=_load_tokenizer(bundle),
            batching=batching or Batching(),
            inputs=manifest.inputs,
            streams="stream" in manifest.heads,
        )

    @cached_property
    def reader(self) -> Reader:
        """Reads lines of input."""
        longest = self.limits.source_tokens
        return Reader(self.inputs, self.tokenizer, longest, self.folder)

    def predict(self, text: str) -> Prediction:
        """Label one text."""
        return self.predict_batch([text])[0]

    def predict_batch(self, texts: Sequence[str]) -> list[Prediction]:
        """Label any number of texts, the longest with each other."""
        read = [self._read(text) for text in texts]
        found = iter(self._logits([each for one in read for each in one.examples]))
        return [self._predict(one, [next(found) for _ in one.examples]) for one in read]

    def predict_stream(self, lines: Iterable[str]) -> Iterator[Prediction]:
        """Label line by line, in order and in bounded memory."""
        for window in windows(lines, self.batching.lines):
            yield from self.predict_batch(window)

    def logits(self, examples: Sequence[Given]) -> list[FloatArray]:
        """Logits of each example alone: (labels,), or (time, labels) of a tagger.

        This needs no tokenizer, and cuts nothing: InputError names what is too long.
        """
        longest = self.limits.source_tokens
        return self._logits(checked_examples(examples, self.inputs, longest))

    def stream(self) -> "PredictionStream":
        """Begin to tag a text word by word."""
        if not self.streams:
            raise InputError(
                "this bundle can't go word by word; a tagger can that reads in one "
                "direction"
            )
        return PredictionStream(self)

    def _read(self, text: str) -> "_Read":
        if not text.strip():
            return _Read([], (), PredictionFlags(empty=True))
        reader, longest = self.reader, self.limits.source_tokens
        if self.task == "tagging" and reader.reads_text:
            words = text.split()
            starts = range(0, len(words), longest)
            records = [
                reader.read(" ".join(words[first : first + longest]))
                for first in starts
            ]
        else:
            words, records = [], [reader.read(text)]
        unknown = dict.fromkeys(word for one in records for word in one.unknown)
        flags = PredictionFlags(
            split=len(records) > 1,
            truncated=any(record.cut for record in records),
            unknown=tuple(unknown),
        )
        return _Read([record.example for record in records], tuple(words), flags)

    def _logits(self, examples: Sequence[Example]) -> list[FloatArray]:
        results: list[FloatArray] = [np.zeros(0, np.float32)] * len(examples)
        lengths = [example_length(example, self.inputs) for example in examples]
        for batch in batches(lengths, self.batching):
            chosen = collate([examples[index] for index in batch], self.inputs)
            logits = self.labeller.logits(chosen)
            for index, row in zip(batch, logits, strict=True):
                whole = self.task == "classification"
                results[index] = row if whole else row[: lengths[index]]
        return results

    def _predict(self, read: "_Read", logits: list[FloatArray]) -> Prediction:
        if not logits:
            return Prediction((), (), (), (), read.flags)
        log_probs = np.concatenate([log_softmax(np.atleast_2d(one)) for one in logits])
        labels, best = self.best(log_probs)
        ranking: list[tuple[str, float]] = []
        if self.task == "classification":
            order = np.argsort(-log_probs[0], kind="stable").tolist()
            ranking = [(self.labels[i], float(log_probs[0, i])) for i in order]
        return Prediction(labels, best, read.words, tuple(ranking), read.flags)

    def best(self, log_probs: FloatArray) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """The likeliest label of each row and its log-probability."""
        if not np.isfinite(log_probs).all():
            raise InputError(
                "the model gives no finite log-probability; check its weights and input"
            )
        ids = log_probs.argmax(axis=1)
        best = log_probs[np.arange(len(ids)), ids]
        return tuple(self.labels[i] for i in ids.tolist()), tuple(best.tolist())


class PredictionStream:
    """One text or recording, tagged word by word or frame by frame."""

    def __init__(self, predictor: Predictor) -> None:
        """Begin; `Predictor.stream` is the usual way in."""
        self._predictor = predictor
        self._stream: Stream = predictor.labeller.stream(1)

    def push(self, word: "str | int | NDArray[Any]") -> tuple[str, float]:
        """The label of the next word (or id, or frame) and its log-probability."""
        position = self._position(word)
        [label], [log_prob] = self._predictor.best(
            log_softmax(self._stream.push(position))
        )
        return label, log_prob

    def _position(self, word: "str | int | NDArray[Any]") -> Array:
        [spec] = self._predictor.inputs
        if spec.kind == "frames":
            return self._frame(spec, word)
        ids = [word] if isinstance(word, int) else self._ids(str(word))
        if len(ids) != 1:
            raise InputError(f"{word!r} is {len(ids)} words; push one at a time")
        return np.array(ids, np.int64)

    def _ids(self, word: str) -> list[int]:
        [array] = self._predictor.reader.read(word).example.values()
        return [int(id_) for id_ in array]

    def _frame(self, spec: InputSpec, frame: "str | int | NDArray[Any]") -> Array:
        wanted = spec.shape[2:]
        array = np.asarray(frame)
        if array.dtype.kind not in "fiu" or array.shape != wanted:
            raise InputError(
                f"{spec.name} goes frame by frame; push arrays of {wanted[0]} numbers"
            )
        return array.astype(np.float32)[None]


@dataclass(frozen=True)
class _Read:
    """A text that has been read; a long one in several pieces."""

    examples: list[Example]
    words: tuple[str, ...]
    flags: PredictionFlags


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs: FloatArray = shifted - np.log(
        np.exp(shifted).sum(axis=-1, keepdims=True)
    )
    return log_probs


def _load_tokenizer(bundle: Bundle) -> "Tokenizer | None":
    if bundle.manifest.tokenizer is None:
        return None
    from seq2edge.runtime.tokenizer import load_tokenizer

    return load_tokenizer(bundle.manifest.tokenizer, bundle.path)
