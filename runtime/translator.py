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

from seq2edge.runtime.batch import Guidance
from seq2edge.runtime.batching import Batching, batches, windows
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.guide import Guide, Prefix, prefix_ids
from seq2edge.runtime.hypothesis import Hypothesis, Stop, length_penalty
from seq2edge.runtime.inputs import (
    SOURCE,
    Given,
    checked_examples,
    collate,
    example_length,
    real_positions,
)
from seq2edge.runtime.languages import in_languages, told
from seq2edge.runtime.manifest import InputSpec, Limits
from seq2edge.runtime.monitor import Number, Watch
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.pieces import PieceTokenizer
from seq2edge.runtime.records import Reader
from seq2edge.runtime.search import search
from seq2edge.runtime.sources import Sentence, Source, read_sources
from seq2edge.runtime.stepper import FloatArray, Stepper
from seq2edge.runtime.text import join
from seq2edge.runtime.vocabulary import Vocabulary

if TYPE_CHECKING:  # slow to import, and not needed to decode with another stepper
    from seq2edge.runtime.alignment import Alignment
    from seq2edge.runtime.branches import Branch
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.scoring import TargetScore
    from seq2edge.runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class Flags:
    """What was done to a text, or may have gone wrong with it."""

    split: bool = False  # too long, translated in pieces
    truncated: bool = False  # a part was left out: a character of too many tokens
    hit_length_limit: bool = False  # the translation (of a piece) was cut
    empty: bool = False  # nothing but spaces, not translated
    unknown: tuple[str, ...] = ()  # characters that the model doesn't know
    stopped: Stop = ""  # by what it was cut short; the best so far is the result


@dataclass(frozen=True)
class Alternative:
    """Another translation; of a text in pieces, the next best of every piece."""

    text: str
    tokens: tuple[str, ...]
    score: float
    token_log_probs: tuple[float, ...] = ()  # as of a Translation


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
    # The model's own, of each of the tokens: without those of end tokens.
    token_log_probs: tuple[float, ...] = ()
    alignment: "Alignment | None" = None  # of the text, if it was asked for


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
        guide: Guide | None = None,
    ) -> Translation:
        """Translate one text; without options as the model was evaluated."""
        texts = [text]
        return self.translate_batch(texts, options, align, replace_unknowns, guide)[0]

    def translate_batch(
        self,
        texts: Sequence[str],
        options: SearchOptions | None = None,
        align: bool = False,
        replace_unknowns: bool = False,
        guide: Guide | None = None,
    ) -> list[Translation]:
        """Translate any number of texts, the longest with each other.

        align: say where in its text each translation comes from. replace_unknowns: put
        the source's own piece in place of an unknown token, which may then be
        written. Both ask the attention, in
        a second pass over the best of each, and raise InputError where there is none.
        guide: prefixes of the translations, who is told of tokens, and a deadline; a
        text that must be cut into pieces can't have a prefix (InputError).
        """
        options, guide = options or self.defaults, guide or Guide()
        if replace_unknowns:
            options = replace(options, allow_unknown=True)
        sources = read_sources(self, texts, guide)
        sentences = [source.sentences for source in sources]
        found = iter(self.decode_sentences([*chain(*sentences)], options, guide.watch))
        hypotheses = [[next(found) for _ in its] for its in sentences]
        translations = [
            self.write(source, its, options)
            for source, its in zip(sources, hypotheses, strict=True)
        ]
        if align or replace_unknowns:
            from seq2edge.runtime.looks import Asked, Decoded, show

            decoded = [
                Decoded(
                    source.lead,
                    source.pieces,
                    source.examples,
                    [first.tokens for first, *_ in its],
                    translation,
                )
                for source, its, translation in zip(
                    sources, hypotheses, translations, strict=True
                )
            ]
            return show(self, decoded, Asked(align, replace_unknowns))
        return translations

    def translate_stream(
        self,
        lines: Iterable[str],
        options: SearchOptions | None = None,
        align: bool = False,
        replace_unknowns: bool = False,
        guide: Guide | None = None,
    ) -> Iterator[Translation]:
        """Translate line by line, in order and in bounded memory.

        Up to `batching.lines` lines are read ahead, to be sorted by length; make it 1
        where a person waits for each translation. A deadline is that of the lines which
        are translated together.
        """
        guide, first = guide or Guide(), 0
        for window in windows(lines, self.batching.lines):
            part = guide.part(first, len(window))
            first += len(window)
            yield from self.translate_batch(
                window, options, align, replace_unknowns, part
            )

    def alternatives(
        self,
        text: str,
        prefix: Prefix = "",
        count: int = 5,
        options: SearchOptions | None = None,
    ) -> "list[Branch]":
        """What may follow a prefix: the `count` likeliest tokens, each gone on with.

        The likeliest token comes first, whatever the score of what follows it. n_best
        and prefix_bias of the options don't count here.
        """
        from seq2edge.runtime.branches import branches

        return branches(self, text, prefix, count, options or self.defaults)

    def generate(
        self,
        examples: Sequence[Given],
        options: SearchOptions | None = None,
        guide: Guide | None = None,
    ) -> list[list[Hypothesis]]:
        """Decode arrays as the model was trained on them, tokens with an end token.

        An example is a dict of arrays (see `inputs`), or just ids where one sequence of
        tokens is the input. This needs no tokenizer, and cuts nothing: InputError names
        what is too long.
        """
        checked = checked_examples(examples, self.inputs, self.limits.source_tokens)
        guide = guide or Guide()
        guide.check(len(checked))
        prefixes = guide.prefixes or [()] * len(checked)
        numbers = guide.numbers or range(len(checked))
        sentences = [
            Sentence(example, prefix_ids(self, prefix), Number(number))
            for example, prefix, number in zip(checked, prefixes, numbers, strict=True)
        ]
        return self.decode_sentences(sentences, options or self.defaults, guide.watch)

    def score(self, source: str, target: str) -> "TargetScore":
        """How probable the model finds a target for a source."""
        return self.score_batch([source], [target])[0]

    def score_batch(
        self, sources: Sequence[str], targets: Sequence[str]
    ) -> "list[TargetScore]":
        """The same of many; nothing is cut, and flags tell what has no score."""
        from seq2edge.runtime.scoring import score_texts

        return score_texts(self, sources, targets)

    def score_ids(
        self, examples: Sequence[Given], targets: Sequence[Sequence[int]]
    ) -> "list[TargetScore]":
        """The same of arrays and target ids, as `generate` takes and gives them.

        InputError names what is too long, or no id of a target.
        """
        from seq2edge.runtime.scoring import score_ids

        return score_ids(self, examples, targets)

    def attention(
        self, examples: Sequence[Given], targets: Sequence[Sequence[int]]
    ) -> list[FloatArray]:
        """Where the model looks while it reads given targets: (target, positions) each.

        Positions are those of every sequence of an example, one behind the other. No
        row is for the end token. InputError if the model has no attention to show.
        """
        from seq2edge.runtime.alignment import attentions

        limit = self.limits.source_tokens
        return attentions(self, checked_examples(examples, self.inputs, limit), targets)

    def decode_sentences(
        self, sentences: Sequence[Sentence], options: SearchOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        """The time of the watch begins here."""
        monitor = watch.begin() if watch else None
        results: list[list[Hypothesis]] = [[] for _ in sentences]
        lengths = [example_length(one.example, self.inputs) for one in sentences]
        for batch in batches(lengths, self.batching):
            chosen = [sentences[index] for index in batch]
            inputs = collate([one.example for one in chosen], self.inputs)
            covers = options.coverage_penalty > 0
            guidance = Guidance(
                prefixes=[one.prefix for one in chosen],
                numbers=[one.number for one in chosen],
                read=real_positions(inputs, self.inputs) if covers else None,
                monitor=monitor,
            )
            longest = [
                self._max_length(lengths[index], len(one.prefix), options)
                for index, one in zip(batch, chosen, strict=True)
            ]
            found = search(
                self.stepper, inputs, self.vocabulary, options, longest, guidance
            )
            for index, hypotheses in zip(batch, found, strict=True):
                results[index] = hypotheses
        return results

    def _max_length(self, source: int, prefix: int, options: SearchOptions) -> int:
        """By the source's length, unless the options say otherwise; in tokens.

        It stops a model that repeats itself; what is right is hardly ever longer. Where
        the source has no length, only the model's limit does. A prefix may be longer,
        and leaves room for as much as follows an empty source.
        """
        limit = self.limits.target_tokens
        ratio, constant = options.length_ratio, options.length_constant
        usual = max(int(ratio * source), prefix) + constant
        usual = max(usual, options.min_length + 1)
        if not source:
            usual = limit
        return min(options.max_length or usual, limit)

    def write(
        self, source: Source, found: list[list[Hypothesis]], options: SearchOptions
    ) -> Translation:
        """Put together what was found for each of a text's sentences."""
        ranks = range(max((len(hypotheses) for hypotheses in found), default=1))
        best, *others = (
            self._write_rank(source, found, rank, options) for rank in ranks
        )
        firsts = [hypotheses[0] for hypotheses in found]
        stops = [one.stopped for one in firsts if one.stopped]
        flags = Flags(
            split=len(found) > 1,
            truncated=source.truncated,
            hit_length_limit=not all(one.finished or one.stopped for one in firsts),
            empty=not found,
            unknown=source.unknown,
            stopped=stops[0] if stops else "",
        )
        return Translation(
            text=best.text,
            tokens=best.tokens,
            score=best.score,
            flags=flags,
            alternatives=tuple(others),
            token_log_probs=best.token_log_probs,
        )

    def _write_rank(
        self,
        source: Source,
        found: list[list[Hypothesis]],
        rank: int,
        options: SearchOptions,
    ) -> Alternative:
        """The rank'th best of every sentence, or its last where it has no more."""
        chosen = [hypotheses[min(rank, len(hypotheses) - 1)] for hypotheses in found]
        decoded = iter([self.decode(one.tokens) for one in chosen])
        texts = ["" if one is None else next(decoded) for one in source.examples]
        tokens = [*chain(*(one.tokens for one in chosen))]
        each = (one.token_log_probs[: len(one.tokens)] for one in chosen)
        return Alternative(
            text=join(source.pieces, texts),
            tokens=self.pieces(tokens),
            score=_score(chosen, options),
            token_log_probs=tuple(chain(*each)),
        )

    def pieces(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """Target ids as the vocabulary writes them; as numbers without a tokenizer."""
        return self.tokenizer.pieces(tokens) if self.tokenizer else _as_texts(tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of target ids; the ids themselves where there is no tokenizer."""
        if self.tokenizer is None:
            return " ".join(_as_texts(tokens))
        return self.tokenizer.decode(tokens)


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


def _score(hypotheses: Sequence[Hypothesis], options: SearchOptions) -> float:
    if len(hypotheses) < 2:
        return sum(one.score for one in hypotheses)
    log_prob = sum(one.log_prob for one in hypotheses)
    # At least 1: a deadline may have left no token.
    length = max(1, sum(len(one.token_log_probs) for one in hypotheses))
    alpha = options.length_penalty
    return log_prob / length_penalty(length, alpha, options.normalization)
