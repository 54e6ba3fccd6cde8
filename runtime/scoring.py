"""How probable a model finds a target that is given, beside what it would write itself.

The target is read token by token (teacher forcing) over the scores head, the end token
behind it; the start token has no probability. What a search reports for a hypothesis is
what comes out here for its tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from seq2edge.runtime.batching import batches
from seq2edge.runtime.errors import InputError
from seq2edge.runtime.forcing import forced
from seq2edge.runtime.guide import target_ids
from seq2edge.runtime.hypothesis import length_penalty
from seq2edge.runtime.inputs import (
    Example,
    Given,
    checked_examples,
    collate,
    example_length,
)
from seq2edge.runtime.options import SearchOptions

if TYPE_CHECKING:
    from seq2edge.runtime.translator import Translator

Normalization = Literal["none", "tokens", "penalty"]
LogProbs: TypeAlias = tuple[float, ...]


@dataclass(frozen=True)
class ScoreFlags:
    """Why a pair has no score, or what is odd about it."""

    no_source: bool = False  # nothing but spaces to read: not scored
    too_long: bool = False  # source or target, for the model: not scored
    unknown: bool = False  # the target has tokens that the vocabulary lacks

    @property
    def scored(self) -> bool:
        """Whether there is a score."""
        return not (self.no_source or self.too_long)


@dataclass(frozen=True)
class TargetScore:
    """What a model thinks of a target; without log-probabilities if it has no score."""

    tokens: tuple[str, ...]  # pieces of the target vocabulary, the end token last
    log_probs: LogProbs  # natural logarithms, one a token
    flags: ScoreFlags = field(default_factory=ScoreFlags)

    @property
    def log_prob(self) -> float:
        """Of the whole target; NaN without a score."""
        return math.fsum(self.log_probs) if self.flags.scored else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability of a token, the end token's too."""
        return perplexity(self.log_prob, len(self.log_probs))

    def normalized(self, by: Normalization, options: SearchOptions) -> float:
        """The log-probability as it is, over its tokens, or as a search ranks it."""
        tokens = max(1, len(self.log_probs))
        alpha, kind = options.length_penalty, options.normalization
        penalties = {"tokens": tokens, "penalty": length_penalty(tokens, alpha, kind)}
        return self.log_prob / penalties.get(by, 1)


def perplexity(log_prob: float, tokens: int) -> float:
    """Of so many tokens with this log-probability in all; NaN without any."""
    if not tokens:
        return math.nan
    try:
        return math.exp(-log_prob / tokens)
    except OverflowError:
        return math.inf


def score_texts(
    translator: "Translator", sources: Sequence[str], targets: Sequence[str]
) -> list[TargetScore]:
    """Score a target for each source; flags tell which couldn't be."""
    _check_pairs(sources, targets)
    examples, ids, flags = [], [], []
    for source, text in zip(sources, targets, strict=True):
        example, too_long = _read_source(translator, source)
        target = _read_target(translator, text)
        examples.append(example)
        ids.append(target)
        flags.append(
            ScoreFlags(
                no_source=example is None,
                too_long=too_long or len(target) >= translator.limits.target_tokens,
                unknown=translator.vocabulary.unknown in target,
            )
        )
    return _scored(translator, examples, ids, flags)


def score_ids(
    translator: "Translator",
    examples: Sequence[Given],
    targets: Sequence[Sequence[int]],
) -> list[TargetScore]:
    """The same of arrays and ids; InputError names the first that can't be scored."""
    _check_pairs(examples, targets)
    limits = translator.limits
    checked = checked_examples(examples, translator.inputs, limits.source_tokens)
    for place, target in enumerate(targets):
        _check_target(translator, target, f"target {place}")
    unknown = translator.vocabulary.unknown
    flags = [ScoreFlags(unknown=unknown in target) for target in targets]
    return _scored(translator, checked, targets, flags)


def _scored(
    translator: "Translator",
    examples: Sequence[Example | None],
    targets: Sequence[Sequence[int]],
    flags: Sequence[ScoreFlags],
) -> list[TargetScore]:
    """Run what can be scored through the model."""
    end = translator.vocabulary.end
    ended = [(*target, end) for target in targets]
    fit = {
        index: example
        for index, example in enumerate(examples)
        if example is not None and flags[index].scored
    }
    log_probs: list[LogProbs] = [()] * len(ended)
    found = _log_probs(translator, [*fit.values()], [ended[index] for index in fit])
    for index, values in zip(fit, found, strict=True):
        log_probs[index] = values
    return [
        TargetScore(translator.pieces(target), values, flag)
        for target, values, flag in zip(ended, log_probs, flags, strict=True)
    ]


def _log_probs(
    translator: "Translator",
    examples: Sequence[Example],
    targets: Sequence[Sequence[int]],
) -> list[LogProbs]:
    """The log-probability of every token of every target."""
    inputs, start = translator.inputs, translator.vocabulary.start
    found: list[list[float]] = [[] for _ in targets]
    lengths = [
        max(example_length(example, inputs), len(target))
        for example, target in zip(examples, targets, strict=True)
    ]
    for batch in batches(lengths, translator.batching):
        arrays = collate([examples[index] for index in batch], inputs)
        decoding = translator.stepper.start(arrays)
        for step in forced(decoding, [targets[index] for index in batch], start):
            scores = decoding.scores(step.tokens, None)
            due = scores[np.arange(len(step.due)), step.due]
            if np.isnan(due).any():
                raise InputError(
                    "the model gives a log-probability that is no number; check its "
                    "weights and input"
                )
            for sentence, value in zip(step.sentences, due.tolist(), strict=True):
                found[batch[sentence]].append(value)
    return [tuple(values) for values in found]


def _read_source(translator: "Translator", text: str) -> tuple[Example | None, bool]:
    """A source whole, and whether it had to be cut; None where it is blank."""
    if not text.strip():
        return None, False
    reader, tokenizer = translator.reader, translator.tokenizer
    record = reader.read(text)
    if tokenizer is not None and reader.reads_text:
        [ids] = record.example.values()
        if ids.tolist() == tokenizer.encode(tokenizer.lead(text)[0]):
            return None, False
    return record.example, record.cut


def _read_target(translator: "Translator", text: str) -> list[int]:
    """The ids of a target, without end token; with the first that a search forces."""
    ids = target_ids(translator, text)
    if translator.tokenizer is not None:
        first = translator.defaults.forced_first  # a language, which is scored, too
        return ids if first is None else [first, *ids]
    if faulty := _faulty(translator, ids):
        raise InputError(f"the target {text[:60]!r} {faulty}")
    return ids


def _check_pairs(sources: Sequence[object], targets: Sequence[object]) -> None:
    if len(sources) != len(targets):
        raise InputError(
            f"there are {len(sources)} sources and {len(targets)} targets; "
            "give one target for each source"
        )


def _check_target(translator: "Translator", target: Sequence[int], name: str) -> None:
    longest = translator.limits.target_tokens
    if len(target) >= longest:
        raise InputError(
            f"{name} has {len(target)} tokens; with its end token this model takes "
            f"{longest}"
        )
    if faulty := _faulty(translator, target):
        raise InputError(f"{name} {faulty}")


def _faulty(translator: "Translator", target: Sequence[int]) -> str:
    """What is wrong with the ids of a target, or nothing."""
    vocabulary = translator.vocabulary
    special = {vocabulary.pad, vocabulary.start, vocabulary.end}
    for token in target:
        if not 0 <= token < vocabulary.size:
            return f"holds {token}, and this model's ids are 0 to {vocabulary.size - 1}"
        if token in special:
            return f"holds {token}; give it without padding, start and end token"
    return ""
