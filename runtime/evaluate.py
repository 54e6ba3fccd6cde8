"""BLEU and chrF of a bundle on a test set, by sacreBLEU, and its speed there.

A source that stands on several lines is translated once and judged by the references of
all of them: that is how a test set with several references is written line by line.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from seq2edge.runtime import schema
from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.search import SearchOptions
from seq2edge.runtime.translator import Translator

# sacreBLEU's tokenizers that need no download.
TOKENIZERS = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none")


@dataclass(frozen=True)
class EvaluateOptions:
    """How to translate a test set and judge it."""

    search: SearchOptions | None = None  # None: as the model was evaluated
    tokenize: str = "13a"  # for BLEU; "zh" or "char" where words have no spaces

    def __post_init__(self) -> None:
        """Refuse a tokenizer that sacreBLEU doesn't have, or would download."""
        if self.tokenize not in TOKENIZERS:
            raise ConfigError(
                f"tokenize {self.tokenize!r} is not known; "
                f"give one of {', '.join(TOKENIZERS)}"
            )


@dataclass(frozen=True)
class Metric:
    """A score and how sacreBLEU says it was made."""

    score: float
    signature: str


@dataclass(frozen=True)
class Evaluation:
    """Quality and speed on a test set."""

    bleu: Metric
    chrf: Metric
    lines: int
    sentences: int  # sources, each counted and translated once
    references: tuple[int, int]  # fewest and most different ones of a source
    tokens: int  # of the translations, without end tokens
    seconds: float  # of translating; loading and scoring are left out
    sentences_per_second: float
    tokens_per_second: float
    hypotheses: tuple[str, ...]  # of the sources, in order of their first lines

    def text(self) -> str:
        """The result for a terminal."""
        fewest, most = self.references
        counts = str(most) if fewest == most else f"{fewest} to {most}"
        return "\n".join(
            [
                f"BLEU {self.bleu.score:.2f}  {self.bleu.signature}",
                f"chrF {self.chrf.score:.2f}  {self.chrf.signature}",
                f"{self.sentences} different sources on {self.lines} lines, "
                f"{counts} references each",
                f"{self.sentences_per_second:.1f} sentences a second, "
                f"{self.tokens_per_second:.1f} tokens a second",
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return schema.to_json(self)


@dataclass(frozen=True)
class Scorers:
    """sacreBLEU's BLEU and chrF; ConfigError says what is missing for them."""

    bleu: Any
    chrf: Any

    @classmethod
    def load(cls, tokenize: str = "13a") -> "Scorers":
        """Import sacreBLEU, which the runtime otherwise does without."""
        try:
            import sacrebleu

            # force: it leaves out a warning about full stops behind a space.
            return cls(sacrebleu.BLEU(tokenize=tokenize, force=True), sacrebleu.CHRF())
        except ImportError:
            raise ConfigError(
                "BLEU and chrF need sacreBLEU; pip install 'seq2edge[evaluate]'"
            ) from None
        except RuntimeError:  # a package that only this tokenizer needs
            raise ConfigError(
                f"tokenize {tokenize!r} needs more; "
                f"pip install 'sacrebleu[{tokenize[:2]}]'"
            ) from None

    def score(
        self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[Metric, Metric]:
        """BLEU and chrF of hypotheses, each with one or more references of its own."""
        # Wanted are the first references of all, the second of all, ...; None is none.
        streams = [list(stream) for stream in zip_longest(*references)]
        bleu = _metric(self.bleu, hypotheses, streams)
        return bleu, _metric(self.chrf, hypotheses, streams)


def evaluate(
    translator: Translator,
    sources: Sequence[str],
    references: Sequence[str],
    options: EvaluateOptions | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """Translate the sources and compare with the references, line by line the same.

    `progress` is told how many of the different sources are done.
    """
    options = options or EvaluateOptions()
    scorers = Scorers.load(options.tokenize)  # rather now than after an hour's work
    grouped = group_references(sources, references)
    hypotheses, tokens = [], 0
    start = time.perf_counter()
    for translation in translator.translate_stream(grouped, options.search):
        hypotheses.append(translation.text)
        tokens += len(translation.tokens)
        progress(len(hypotheses))
    seconds = time.perf_counter() - start
    bleu, chrf = scorers.score(hypotheses, list(grouped.values()))
    counts = [len(each) for each in grouped.values()]
    return Evaluation(
        bleu=bleu,
        chrf=chrf,
        lines=len(sources),
        sentences=len(grouped),
        references=(min(counts), max(counts)),
        tokens=tokens,
        seconds=seconds,
        sentences_per_second=len(grouped) / seconds,
        tokens_per_second=tokens / seconds,
        hypotheses=tuple(hypotheses),
    )


def group_references(
    sources: Sequence[str], references: Sequence[str]
) -> dict[str, list[str]]:
    """The different references of each source, both in order of appearance."""
    if len(sources) != len(references):
        raise InputError(
            f"{len(sources)} sources and {len(references)} references don't pair up; "
            "give files with as many lines"
        )
    if not sources:
        raise InputError("there is nothing to evaluate; give files that hold sentences")
    grouped: dict[str, dict[str, None]] = {}
    for source, reference in zip(sources, references, strict=True):
        grouped.setdefault(source, {})[reference] = None
    return {source: list(found) for source, found in grouped.items()}


def _metric(
    metric: Any, hypotheses: Sequence[str], streams: Sequence[Sequence[str | None]]
) -> Metric:
    result = metric.corpus_score(hypotheses, streams)
    return Metric(float(result.score), str(metric.get_signature()))
