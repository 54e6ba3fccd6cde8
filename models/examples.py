"""A corpus as arrays: what a network reads, and ids of what it should say."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from seq2edge.models.corpus import Corpus
from seq2edge.models.labels import IGNORED
from seq2edge.runtime.errors import InputError
from seq2edge.runtime.evaluate import labels_of
from seq2edge.runtime.inputs import Example, example_length
from seq2edge.runtime.manifest import InputSpec, Task
from seq2edge.runtime.records import Reader
from seq2edge.runtime.tokenizer import SentencePieceTokenizer


@dataclass(frozen=True)
class EncodedCorpus:
    """Examples and what is expected of each: `outputs` has as many entries.

    Token ids of a text, without its end token; ids of labels, one for each position in
    tagging and a single one in classification. A label unknown to the model is IGNORED.
    """

    task: Task
    inputs: tuple[InputSpec, ...]
    examples: list[Example] = field(default_factory=list)
    outputs: list[list[int]] = field(default_factory=list)
    readable: list[int] = field(default_factory=list)  # lines to judge a model by
    defects: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)  # words, or characters
    reasons: list[str] = field(default_factory=list)  # why an input is unreadable

    def __len__(self) -> int:
        return len(self.examples)

    def lengths(self) -> list[tuple[int, int]]:
        """Positions of each example's longest sequence, and of its output."""
        end = 1 if self.task == "generation" else 0
        return [
            (example_length(example, self.inputs), len(output) + end)
            for example, output in zip(self.examples, self.outputs, strict=True)
        ]


@dataclass(frozen=True)
class CorpusEncoder:
    """Reads corpora for one model; what it can't use is counted and left out."""

    task: Task
    inputs: tuple[InputSpec, ...]
    labels: tuple[str, ...]
    tokenizer: SentencePieceTokenizer | None
    folder: Path  # that names of files are relative to
    max_tokens: int
    max_ratio: float

    def encode(self, corpus: Corpus) -> EncodedCorpus:
        """Every line that is whole, short enough and not absurdly unequal."""
        encoded = EncodedCorpus(self.task, self.inputs, defects=Counter(corpus.defects))
        for line, fields in enumerate(corpus.inputs):
            try:
                record = self._reader.read_fields(fields)
            except InputError as error:
                encoded.defects["unreadable input"] += 1
                encoded.reasons.append(str(error))
                continue
            output = self._output(corpus.outputs[line])
            defect = "too long" if record.cut else self._defect(record.example, output)
            if defect is None or self.task == "generation":
                encoded.readable.append(line)
            if defect is None:
                encoded.examples.append(record.example)
                encoded.outputs.append(output)
                encoded.unknown.update(record.unknown)
            else:
                encoded.defects[defect] += 1
        return encoded

    @cached_property
    def _reader(self) -> Reader:
        # A text and its end token stay below max_tokens, as they always have.
        tokens = any(spec.kind == "tokens" for spec in self.inputs)
        tail = self.tokenizer.tail if tokens and self.tokenizer is not None else 0
        return Reader(self.inputs, self.tokenizer, self.max_tokens - tail, self.folder)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {label: index for index, label in enumerate(self.labels)}

    def _output(self, text: str) -> list[int]:
        if self.task == "generation":
            assert self.tokenizer is not None
            return self.tokenizer.encode_target(text)
        return [self._ids.get(label, IGNORED) for label in labels_of(text, self.task)]

    def _defect(self, example: Example, output: list[int]) -> str | None:
        length = example_length(example, self.inputs)
        if self.task == "tagging" and length != len(output):
            return "number of tags"
        if self.task != "generation":
            return None
        if len(output) >= self.max_tokens:
            return "too long"
        # Frames, or two texts, say nothing of how long the output should be.
        if [spec.kind for spec in self.inputs] != ["tokens"]:
            return None
        shorter, longer = sorted((length, len(output)))
        return "length ratio" if longer > self.max_ratio * shorter + 10 else None
