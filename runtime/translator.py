"""Text in, `Translation` out: tokenizer, search and stepper put together.

Sentences are sorted by length and decoded in batches of a bounded number of padded
tokens; results come in the order of the input. A text longer than the model takes is
cut (see `text`), and its pieces are sentences like any other. Nothing is lost silently:
the flags of a translation say what was done to its text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seq2edge.runtime.bundle import Bundle, Limits, Manifest
from seq2edge.runtime.errors import BundleError, ConfigError, InputError
from seq2edge.runtime.search import (
    Hypothesis,
    SearchOptions,
    length_penalty,
    search,
)
from seq2edge.runtime.stepper import Inputs, Stepper
from seq2edge.runtime.text import Piece, join, split
from seq2edge.runtime.vocabulary import Vocabulary

if TYPE_CHECKING:  # slow to import, and not needed to decode with another stepper
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.tokenizer import Tokenizer

SOURCE = "source"
SOURCE_LENGTHS = "source_lengths"

# A text of more characters than this for every token isn't even tokenized as a whole:
# a piece has 16 characters at most (SentencePiece's default), and memory is bounded.
_CHARACTERS_PER_TOKEN = 32
_FIRST_WINDOW = 16  # lines; each window is twice the last, so that output begins early
_WINDOW_CHARACTERS = 1 << 20


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


@dataclass(frozen=True)
class Batching:
    """How much is decoded at once; memory grows with it."""

    tokens: int = 2048  # of the source, padding included
    sentences: int = 32
    lines: int = 1024  # of a stream, read ahead and sorted by length

    def __post_init__(self) -> None:
        """Refuse a batch of nothing."""
        faults = [
            f"{name} {value} must be at least 1"
            for name, value in vars(self).items()
            if value < 1
        ]
        if faults:
            raise ConfigError(f"batching: {'; '.join(faults)}")


@dataclass(frozen=True, eq=False)
class Translator:
    """Translates with any stepper; threads may share it."""

    stepper: Stepper
    vocabulary: Vocabulary
    limits: Limits
    tokenizer: "Tokenizer | None" = None
    defaults: SearchOptions = field(default_factory=SearchOptions)
    batching: Batching = field(default_factory=Batching)

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
        _check_inputs(bundle)
        manifest = bundle.manifest
        return cls(
            stepper=Engine.load(bundle, engine_options),
            vocabulary=manifest.vocabulary,
            limits=manifest.limits,
            tokenizer=_load_tokenizer(bundle),
            defaults=default_options(manifest),
            batching=batching or Batching(),
        )

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
        self, source_ids: Sequence[Sequence[int]], options: SearchOptions | None = None
    ) -> list[list[Hypothesis]]:
        """Decode ids as the model was trained on them (usually with an end token).

        This needs no tokenizer, and cuts nothing: InputError names what is too long.
        """
        self._check_ids(source_ids)
        return self._decode(source_ids, options or self.defaults)

    def _check_ids(self, source_ids: Sequence[Sequence[int]]) -> None:
        limit = self.limits.source_tokens
        for index, ids in enumerate(source_ids):
            if not 0 < len(ids) <= limit:
                raise InputError(
                    f"sentence {index} has {len(ids)} tokens; "
                    f"this model takes from 1 to {limit}"
                )
            if min(ids) < 0:
                raise InputError(f"sentence {index} holds the negative id {min(ids)}")

    def _read(self, text: str) -> "_Source":
        """Tokenize a text, in pieces if it is too long."""
        if self.tokenizer is None:
            raise InputError("this bundle has no tokenizer; decode ids with generate()")
        tokenizer, limit = self.tokenizer, self.limits.source_tokens
        pieces, encoded = _tokenize(text, tokenizer, limit)
        blank = tokenizer.encode("")
        unknown = (tokenizer.unknown_characters(piece.text) for piece in pieces)
        return _Source(
            pieces=pieces,
            ids=[[] if ids == blank else _within(ids, limit) for ids in encoded],
            truncated=any(len(ids) > limit for ids in encoded),
            unknown=tuple(dict.fromkeys(chain(*unknown))),
        )

    def _decode(
        self, sources: Sequence[Sequence[int]], options: SearchOptions
    ) -> list[list[Hypothesis]]:
        results: list[list[Hypothesis]] = [[] for _ in sources]
        for batch in _batches([len(source) for source in sources], self.batching):
            chosen = [sources[index] for index in batch]
            max_lengths = [self._max_length(len(source), options) for source in chosen]
            found = search(
                self.stepper,
                batch_inputs(chosen),
                self.vocabulary,
                options,
                max_lengths,
            )
            for index, hypotheses in zip(batch, found, strict=True):
                results[index] = hypotheses
        return results

    def _max_length(self, source_length: int, options: SearchOptions) -> int:
        """Twice the source and ten more, unless the options say otherwise.

        It stops a model that repeats itself; what is right is hardly ever longer.
        """
        usual = max(2 * source_length + 10, options.min_length + 1)
        return min(options.max_length or usual, self.limits.target_tokens)

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
        assert self.tokenizer is not None  # _read has checked it
        chosen = [hypotheses[min(rank, len(hypotheses) - 1)] for hypotheses in found]
        decoded = iter([self.tokenizer.decode(one.tokens) for one in chosen])
        texts = [next(decoded) if ids else "" for ids in source.ids]
        return Alternative(
            text=join(source.pieces, texts),
            tokens=self.tokenizer.pieces([*chain(*(one.tokens for one in chosen))]),
            score=_score(chosen, options.length_penalty),
        )


@dataclass(frozen=True)
class _Source:
    """A text that has been tokenized."""

    pieces: list[Piece]
    ids: list[list[int]]  # of each piece; none where it is blank
    truncated: bool
    unknown: tuple[str, ...]

    @property
    def sentences(self) -> list[list[int]]:
        """What there is to decode."""
        return [ids for ids in self.ids if ids]


def default_options(manifest: Manifest) -> SearchOptions:
    """The search that a bundle's model was evaluated with."""
    defaults = manifest.search
    return SearchOptions(defaults.beam_size, defaults.length_penalty)


def _check_inputs(bundle: Bundle) -> None:
    inputs = [(one.name, one.kind, one.lengths) for one in bundle.manifest.inputs]
    if inputs != [(SOURCE, "tokens", SOURCE_LENGTHS)]:
        names = ", ".join(f"{name} ({kind})" for name, kind, _ in inputs)
        raise BundleError(
            f"{bundle.path} can't translate: its inputs are {names}, not one sequence "
            f"of tokens named {SOURCE}; decode with its Engine and `search`"
        )


def _load_tokenizer(bundle: Bundle) -> "Tokenizer | None":
    spec, size = bundle.manifest.tokenizer, bundle.manifest.vocabulary.size
    if spec is None:
        return None
    from seq2edge.runtime.tokenizer import SentencePieceTokenizer

    source, target = bundle.file(spec.source), bundle.file(spec.target)
    tokenizer = SentencePieceTokenizer.load(source, target, spec.append_end)
    if tokenizer.target_size > size:
        raise BundleError(
            f"{target} has {tokenizer.target_size} pieces, but the model's vocabulary "
            f"only {size}; export it again with its own tokenizer"
        )
    return tokenizer


def _tokenize(
    text: str, tokenizer: "Tokenizer", limit: int
) -> tuple[list[Piece], list[list[int]]]:
    """Pieces of a text and the ids of each; all within the limit that can be."""
    known: dict[str, list[int]] = {}

    def fits(piece: str) -> bool:
        if len(piece) > _CHARACTERS_PER_TOKEN * limit:
            return False
        ids = tokenizer.encode(piece)
        if len(ids) <= limit:
            known[piece] = ids
        return len(ids) <= limit

    pieces = split(text, fits)
    texts = [piece.text for piece in pieces]
    return pieces, [known.get(one) or tokenizer.encode(one) for one in texts]


def _within(ids: list[int], limit: int) -> list[int]:
    """At most so many ids, the last (an end token) among them."""
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _batches(lengths: Sequence[int], batching: Batching) -> Iterator[list[int]]:
    """Indices of sentences of about the same length, the short ones first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = lengths[index] * (len(batch) + 1)
        if batch and (padded > batching.tokens or len(batch) == batching.sentences):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def batch_inputs(sources: Sequence[Sequence[int]]) -> Inputs:
    """Pad a batch; with 0, which every vocabulary has, as padding is never read."""
    lengths = np.array([len(source) for source in sources], dtype=np.int32)
    padded = np.zeros((len(sources), lengths.max()), dtype=np.int64)
    for row, source in enumerate(sources):
        padded[row, : len(source)] = source
    return {SOURCE: padded, SOURCE_LENGTHS: lengths}


def _score(hypotheses: Sequence[Hypothesis], alpha: float) -> float:
    if not hypotheses:
        return 0.0
    log_prob = sum(one.log_prob for one in hypotheses)
    length = sum(len(one.tokens) + one.finished for one in hypotheses)
    return log_prob / length_penalty(length, alpha)


def windows(lines: Iterable[str], most: int) -> Iterator[list[str]]:
    """Runs of lines, growing to `most`, to be translated one run at a time.

    None has many characters unless a line has them, so that memory is bounded.
    """
    window: list[str] = []
    size, characters = min(_FIRST_WINDOW, most), 0
    for line in lines:
        window.append(line)
        characters += len(line)
        if len(window) == size or characters >= _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
            size = min(2 * size, most)
    if window:
        yield window
