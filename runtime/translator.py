"""Text in, `Translation` out: reader, search and stepper put together.

Text is what most models read; others read several texts, feature frames, a vector or a
class, written as `records` says.

Sentences are sorted by length and decoded in batches of a bounded number of padded
tokens; results come in the order of the input. A text longer than the model takes is
cut (see `text`), and its pieces are sentences like any other. Nothing is lost silently:
the flags of a translation say what was done to its text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seq2edge.runtime.alignment import Alignment, attentions
from seq2edge.runtime.batching import Batching, batches, windows
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.hypothesis import Hypothesis, length_penalty
from seq2edge.runtime.inputs import (
    SOURCE,
    Example,
    Given,
    checked_examples,
    collate,
    example_length,
)
from seq2edge.runtime.languages import in_languages, told
from seq2edge.runtime.looks import Asked, Decoded, show
from seq2edge.runtime.manifest import InputSpec, Limits
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.pieces import PieceTokenizer
from seq2edge.runtime.records import Reader
from seq2edge.runtime.scoring import TargetScore, score_ids, score_texts
from seq2edge.runtime.search import search
from seq2edge.runtime.stepper import FloatArray, Stepper
from seq2edge.runtime.text import Piece, join, split
from seq2edge.runtime.vocabulary import Vocabulary

if TYPE_CHECKING:  # slow to import, and not needed to decode with another stepper
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.tokenizer import Tokenizer

# A text of more characters than this for every token isn't even tokenized as a whole:
# a piece has 16 characters at most (SentencePiece's default), and memory is bounded.
_CHARACTERS_PER_TOKEN = 32


@dataclass(frozen=True)
class Flags:
    """What was done to a text, or may have gone wrong with it."""

    split: bool = False  # too long, translated in pieces
    truncated: bool = False  # a part was left out: a character of too many tokens
    hit_length_limit: bool = False  # the translation (of a piece) was cut
    empty: bool = False  # nothing but spaces, not translated
    unknown: tuple[str, ...] = ()  # characters that the model doesn't know


@dataclass(frozen=True)
class Alternative:
    """Another translation; of a text in pieces, the next best of every piece."""

    text: str
    tokens: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class Translation:
    """A text in the other language.

    score is the log-probability over the length penalty, as in `Hypothesis`; of a text
    in pieces, their summed log-probabilities over the penalty of their summed lengths.
    """

    text: str
    tokens: tuple[str, ...]  # pieces of the target vocabulary, without end token
    score: float
    flags: Flags
    alternatives: tuple[Alternative, ...] = ()  # n_best - 1 at most
    alignment: Alignment | None = None  # of the text, if it was asked for


@dataclass(frozen=True, eq=False)
class Translator:
    """Translates with any stepper; threads may share it."""

    stepper: Stepper
    vocabulary: Vocabulary
    limits: Limits
    tokenizer: "Tokenizer | None" = None  # without one a text is its ids
    defaults: SearchOptions = field(default_factory=SearchOptions)
    batching: Batching = field(default_factory=Batching)
    inputs: tuple[InputSpec, ...] = (SOURCE,)
    folder: Path = field(default_factory=Path)  # that names of files are relative to

    @classmethod
    def load(
        cls,
        path: Path | str,
        engine_options: "EngineOptions | None" = None,
        batching: Batching | None = None,
        check_hashes: bool = True,
    ) -> "Translator":
        """Load a bundle; BundleError says what is wrong with it."""
        from seq2edge.runtime.engine import Engine

        bundle = Bundle.load(path, check_hashes)
        manifest = bundle.manifest
        vocabulary, defaults = manifest.vocabulary, manifest.search
        if manifest.task != "generation" or vocabulary is None or defaults is None:
            raise BundleError(
                f"{bundle.path} writes no tokens, it does {manifest.task}; "
                "use `seq2edge predict` or Predictor"
            )
        return cls(
            stepper=Engine.load(bundle, engine_options),
            vocabulary=vocabulary,
            limits=manifest.limits,
            tokenizer=_load_tokenizer(bundle, vocabulary),
            defaults=defaults,
            batching=batching or Batching(),
            inputs=manifest.inputs,
        )

    def for_languages(
        self, source: str | None = None, target: str | None = None
    ) -> "Translator":
        """The same, told other languages; None leaves one as it is.

        ConfigError names the known codes, or says that this model isn't told any.
        """
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, PieceTokenizer):
            in_languages(None, source, target)
            return self
        tokenizer = tokenizer.in_languages(source, target)
        spec = tokenizer.spec.languages
        vocabulary, defaults = told(spec, self.vocabulary, self.defaults)
        return replace(
            self, tokenizer=tokenizer, vocabulary=vocabulary, defaults=defaults
        )

    @cached_property
    def reader(self) -> Reader:
        """Reads lines of input."""
        longest = self.limits.source_tokens
        return Reader(self.inputs, self.tokenizer, longest, self.folder)

    def translate(
        self,
        text: str,
        options: SearchOptions | None = None,
        align: bool = False,
        replace_unknowns: bool = False,
    ) -> Translation:
        """Translate one text; without options as the model was evaluated."""
        return self.translate_batch([text], options, align, replace_unknowns)[0]

    def translate_batch(
        self,
        texts: Sequence[str],
        options: SearchOptions | None = None,
        align: bool = False,
        replace_unknowns: bool = False,
    ) -> list[Translation]:
        """Translate any number of texts, the longest with each other.

        align: say where in its text each translation comes from. replace_unknowns: put
        the source's own piece in place of an unknown token. Both ask the attention, in
        a second pass over the best of each, and raise InputError where there is none.
        """
        options = options or self.defaults
        sources = [self._read(text) for text in texts]
        sentences = [*chain(*(source.sentences for source in sources))]
        found = iter(self._decode(sentences, options))
        decoded = []
        for source in sources:
            hypotheses = [next(found) for _ in source.sentences]
            translation = self._write(source, hypotheses, options)
            decoded.append(source.decoded(hypotheses, translation))
        if align or replace_unknowns:
            return show(self, decoded, Asked(align, replace_unknowns))
        return [text.translation for text in decoded]

    def translate_stream(
        self,
        lines: Iterable[str],
        options: SearchOptions | None = None,
        align: bool = False,
        replace_unknowns: bool = False,
    ) -> Iterator[Translation]:
        """Translate line by line, in order and in bounded memory.

        Up to `batching.lines` lines are read ahead, to be sorted by length; make it 1
        where a person waits for each translation.
        """
        for window in windows(lines, self.batching.lines):
            yield from self.translate_batch(window, options, align, replace_unknowns)

    def generate(
        self, examples: Sequence[Given], options: SearchOptions | None = None
    ) -> list[list[Hypothesis]]:
        """Decode arrays as the model was trained on them, tokens with an end token.

        An example is a dict of arrays (see `inputs`), or just ids where one sequence of
        tokens is the input. This needs no tokenizer, and cuts nothing: InputError names
        what is too long.
        """
        checked = checked_examples(examples, self.inputs, self.limits.source_tokens)
        return self._decode(checked, options or self.defaults)

    def score(self, source: str, target: str) -> TargetScore:
        """How probable the model finds a target for a source."""
        return self.score_batch([source], [target])[0]

    def score_batch(
        self, sources: Sequence[str], targets: Sequence[str]
    ) -> list[TargetScore]:
        """The same of many; nothing is cut, and flags tell what has no score."""
        return score_texts(self, sources, targets)

    def score_ids(
        self, examples: Sequence[Given], targets: Sequence[Sequence[int]]
    ) -> list[TargetScore]:
        """The same of arrays and target ids, as `generate` takes and gives them.

        InputError names what is too long, or no id of a target.
        """
        return score_ids(self, examples, targets)

    def attention(
        self, examples: Sequence[Given], targets: Sequence[Sequence[int]]
    ) -> list[FloatArray]:
        """Where the model looks while it reads given targets: (target, positions) each.

        Positions are those of every sequence of an example, one behind the other. No
        row is for the end token. InputError if the model has no attention to show.
        """
        limit = self.limits.source_tokens
        return attentions(self, checked_examples(examples, self.inputs, limit), targets)

    def _read(self, text: str) -> "_Source":
        """What there is to decode of a text, in pieces if it is too long."""
        reader = self.reader
        if self.tokenizer is not None and reader.reads_text:
            return self._read_text(text, self.tokenizer)
        if not text.strip():
            return _Source([], [], False, ())
        record = reader.read(text)
        piece = Piece(text, "")
        return _Source([piece], [record.example], record.cut, record.unknown)

    def _read_text(self, text: str, tokenizer: "Tokenizer") -> "_Source":
        limit, name = self.limits.source_tokens, self.inputs[0].name
        lead, text = tokenizer.lead(text)
        pieces, encoded = _tokenize(lead, text, tokenizer, limit)
        blank = tokenizer.encode(lead)
        unknown = (tokenizer.unknown_characters(lead + one.text) for one in pieces)
        return _Source(
            pieces=pieces,
            examples=[
                None
                if ids == blank
                else {name: np.array(_within(ids, limit, tokenizer.tail), np.int64)}
                for ids in encoded
            ],
            truncated=any(len(ids) > limit for ids in encoded),
            unknown=tuple(dict.fromkeys(chain(*unknown))),
        )

    def _decode(
        self, examples: Sequence[Example], options: SearchOptions
    ) -> list[list[Hypothesis]]:
        results: list[list[Hypothesis]] = [[] for _ in examples]
        lengths = [example_length(example, self.inputs) for example in examples]
        for batch in batches(lengths, self.batching):
            found = search(
                self.stepper,
                collate([examples[index] for index in batch], self.inputs),
                self.vocabulary,
                options,
                [self._max_length(lengths[index], options) for index in batch],
            )
            for index, hypotheses in zip(batch, found, strict=True):
                results[index] = hypotheses
        return results

    def _max_length(self, source_length: int, options: SearchOptions) -> int:
        """By the source's length, unless the options say otherwise.

        It stops a model that repeats itself; what is right is hardly ever longer. Where
        the source has no length, only the model's limit does.
        """
        limit = self.limits.target_tokens
        ratio, constant = options.length_ratio, options.length_constant
        usual = max(int(ratio * source_length) + constant, options.min_length + 1)
        if not source_length:
            usual = limit
        return min(options.max_length or usual, limit)

    def _write(
        self, source: "_Source", found: list[list[Hypothesis]], options: SearchOptions
    ) -> Translation:
        """Put together what was found for each of a text's sentences."""
        ranks = range(max((len(hypotheses) for hypotheses in found), default=1))
        best, *others = (
            self._write_rank(source, found, rank, options) for rank in ranks
        )
        flags = Flags(
            split=len(found) > 1,
            truncated=source.truncated,
            hit_length_limit=not all(hypotheses[0].finished for hypotheses in found),
            empty=not found,
            unknown=source.unknown,
        )
        return Translation(best.text, best.tokens, best.score, flags, tuple(others))

    def _write_rank(
        self,
        source: "_Source",
        found: list[list[Hypothesis]],
        rank: int,
        options: SearchOptions,
    ) -> Alternative:
        """The rank'th best of every sentence, or its last where it has no more."""
        chosen = [hypotheses[min(rank, len(hypotheses) - 1)] for hypotheses in found]
        decoded = iter([self.decode(one.tokens) for one in chosen])
        texts = ["" if one is None else next(decoded) for one in source.examples]
        tokens = [*chain(*(one.tokens for one in chosen))]
        return Alternative(
            text=join(source.pieces, texts),
            tokens=self.pieces(tokens),
            score=_score(chosen, options),
        )

    def pieces(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """Target ids as the vocabulary writes them; as numbers without a tokenizer."""
        return self.tokenizer.pieces(tokens) if self.tokenizer else _as_texts(tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of target ids; the ids themselves where there is no tokenizer."""
        if self.tokenizer is None:
            return " ".join(_as_texts(tokens))
        return self.tokenizer.decode(tokens)


@dataclass(frozen=True)
class _Source:
    """A text that has been read."""

    pieces: list[Piece]
    examples: list[Example | None]  # of each piece; None where it is blank
    truncated: bool
    unknown: tuple[str, ...]

    @property
    def sentences(self) -> list[Example]:
        """What there is to decode."""
        return [example for example in self.examples if example is not None]

    def decoded(
        self, hypotheses: Sequence[list[Hypothesis]], translation: Translation
    ) -> Decoded:
        """With the best of what was found for each sentence."""
        best = [found[0].tokens for found in hypotheses]
        return Decoded(self.pieces, self.examples, best, translation)


def _load_tokenizer(bundle: Bundle, vocabulary: Vocabulary) -> "Tokenizer | None":
    spec = bundle.manifest.tokenizer
    if spec is None:
        return None
    from seq2edge.runtime.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(spec, bundle.path)
    if tokenizer.target_size > vocabulary.size:
        raise BundleError(
            f"{bundle.file(spec.target)} has {tokenizer.target_size} pieces, but the "
            f"model's vocabulary only {vocabulary.size}; export it again with its own "
            "tokenizer"
        )
    return tokenizer


def _as_texts(tokens: Sequence[int]) -> tuple[str, ...]:
    return tuple(map(str, tokens))


def _tokenize(
    lead: str, text: str, tokenizer: "Tokenizer", limit: int
) -> tuple[list[Piece], list[list[int]]]:
    """Pieces of a text and the ids of each behind the lead; all that can be fit."""
    known: dict[str, list[int]] = {}

    def fits(piece: str) -> bool:
        if len(piece) > _CHARACTERS_PER_TOKEN * limit:
            return False
        ids = tokenizer.encode(lead + piece)
        if len(ids) <= limit:
            known[piece] = ids
        return len(ids) <= limit

    pieces = split(text, fits)
    texts = [piece.text for piece in pieces]
    return pieces, [known.get(one) or tokenizer.encode(lead + one) for one in texts]


def _within(ids: list[int], limit: int, tail: int) -> list[int]:
    """At most so many ids, the last ones (an end token) among them."""
    if len(ids) <= limit:
        return ids
    return [*ids[: limit - tail], *ids[len(ids) - tail :]]


def _score(hypotheses: Sequence[Hypothesis], options: SearchOptions) -> float:
    if len(hypotheses) < 2:
        return sum(one.score for one in hypotheses)
    log_prob = sum(one.log_prob for one in hypotheses)
    length = sum(len(one.token_log_probs) for one in hypotheses)
    alpha = options.length_penalty
    return log_prob / length_penalty(length, alpha, options.normalization)
