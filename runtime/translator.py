"""Text in, `Translation` out: reader, search and stepper put together.

Text is what most models read; others read several texts, feature frames, a vector or a
class, written as `records` says.

Sentences are sorted by length and decoded in batches of a bounded number of padded
tokens; results come in the order of the input. A text longer than the model takes is
cut (see `text`), and its pieces are sentences like any other. Nothing is lost silently:
the flags of a translation say what was done to its text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seq2edge.runtime.batching import Batching, batches, windows
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.inputs import (
    SOURCE,
    Example,
    Given,
    checked_examples,
    collate,
    example_length,
)
from seq2edge.runtime.manifest import InputSpec, Limits, Manifest
from seq2edge.runtime.records import Reader
from seq2edge.runtime.search import (
    Hypothesis,
    SearchOptions,
    length_penalty,
    search,
)
from seq2edge.runtime.stepper import Stepper
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
        if manifest.task != "generation" or manifest.vocabulary is None:
            raise BundleError(
                f"{bundle.path} writes no tokens, it does {manifest.task}; "
                "use `seq2edge predict` or Predictor"
            )
        return cls(
            stepper=Engine.load(bundle, engine_options),
            vocabulary=manifest.vocabulary,
            limits=manifest.limits,
            tokenizer=_load_tokenizer(bundle, manifest.vocabulary),
            defaults=default_options(manifest),
            batching=batching or Batching(),
            inputs=manifest.inputs,
        )

    @cached_property
    def reader(self) -> Reader:
        """Reads lines of input."""
        longest = self.limits.source_tokens
        return Reader(self.inputs, self.tokenizer, longest, self.folder)

    def translate(self, text: str, options: SearchOptions | None = None) -> Translation:
        """Translate one text; without options as the model was evaluated."""
        return self.translate_batch([text], options)[0]

    def translate_batch(
        self, texts: Sequence[str], options: SearchOptions | None = None
    ) -> list[Translation]:
        """Translate any number of texts, the longest with each other."""
        options = options or self.defaults
        sources = [self._read(text) for text in texts]
        sentences = [*chain(*(source.sentences for source in sources))]
        found = iter(self._decode(sentences, options))
        return [
            self._write(source, [next(found) for _ in source.sentences], options)
            for source in sources
        ]

    def translate_stream(
        self, lines: Iterable[str], options: SearchOptions | None = None
    ) -> Iterator[Translation]:
        """Translate line by line, in order and in bounded memory.

        Up to `batching.lines` lines are read ahead, to be sorted by length; make it 1
        where a person waits for each translation.
        """
        for window in windows(lines, self.batching.lines):
            yield from self.translate_batch(window, options)

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
        """Twice the source and ten more, unless the options say otherwise.

        It stops a model that repeats itself; what is right is hardly ever longer. Where
        the source has no length, only the model's limit does.
        """
        limit = self.limits.target_tokens
        usual = max(2 * source_length + 10, options.min_length + 1)
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
        pieces = self.tokenizer.pieces if self.tokenizer else _as_texts
        return Alternative(
            text=join(source.pieces, texts),
            tokens=pieces(tokens),
            score=_score(chosen, options.length_penalty),
        )

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


def default_options(manifest: Manifest) -> SearchOptions:
    """The search that a bundle's model was evaluated with."""
    defaults = manifest.search
    assert defaults is not None  # the manifest's own checks
    return SearchOptions(defaults.beam_size, defaults.length_penalty)


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


def _score(hypotheses: Sequence[Hypothesis], alpha: float) -> float:
    if not hypotheses:
        return 0.0
    log_prob = sum(one.log_prob for one in hypotheses)
    length = sum(len(one.tokens) + one.finished for one in hypotheses)
    return log_prob / length_penalty(length, alpha)
