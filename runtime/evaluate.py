"""How good a bundle is on a test set, and how fast there.

BLEU and chrF (by sacreBLEU) and the share of exact results for one that writes; the
share of right labels for one that labels. A source that stands on several lines is run
once and judged by the references of all of them: that is how a test set with several
references is written line by line.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from seq2edge.runtime import schema
from seq2edge.runtime.batching import windows
from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.manifest import Task
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.runner import Output, Runner, run

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

    bleu: Metric | None  # of what writes
    chrf: Metric | None
    accuracy: float | None  # percentage of right labels, of what labels
    exact: float  # percentage of results that are all right, and equal a reference
    lines: int
    sentences: int  # sources, each counted and run once
    references: tuple[int, int]  # fewest and most different ones of a source
    tokens: int  # that were written, without end tokens; or labels
    seconds: float  # of the work; loading and scoring are left out
    sentences_per_second: float
    tokens_per_second: float
    hypotheses: tuple[str, ...]  # of the sources, in order of their first lines

    def text(self) -> str:
        """The result for a terminal."""
        return "\n".join([*self._scores(), *self._counts()])

    def _scores(self) -> Iterator[str]:
        for name, metric in (("BLEU", self.bleu), ("chrF", self.chrf)):
            if metric is not None:
                yield f"{name} {metric.score:.2f}  {metric.signature}"
        if self.accuracy is not None:
            yield f"accuracy {self.accuracy:.2f} % of {self.tokens} labels"
        yield f"exact {self.exact:.2f} %"

    def _counts(self) -> Iterator[str]:
        fewest, most = self.references
        counts = str(most) if fewest == most else f"{fewest} to {most}"
        units = "tokens" if self.accuracy is None else "labels"
        yield (
            f"{self.sentences} different sources on {self.lines} lines, "
            f"{counts} references each"
        )
        yield (
            f"{self.sentences_per_second:.1f} sentences a second, "
            f"{self.tokens_per_second:.1f} {units} a second"
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
    runner: Runner,
    sources: Sequence[str],
    references: Sequence[str],
    options: EvaluateOptions | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """Run the sources and compare with the references, line by line the same.

    `progress` is told how many of the different sources are done.
    """
    options = options or EvaluateOptions()
    labels = isinstance(runner, Predictor)
    # Rather now than after an hour's work.
    scorers = None if labels else Scorers.load(options.tokenize)
    grouped = group_references(sources, references)
    outputs: list[Output] = []
    start = time.perf_counter()
    for window in windows(grouped, runner.batching.lines):
        outputs += run(runner, window, options.search)
        progress(len(outputs))
    seconds = time.perf_counter() - start
    hypotheses, known = [each.text for each in outputs], list(grouped.values())
    bleu, chrf = scorers.score(hypotheses, known) if scorers else (None, None)
    tokens, counts = sum(each.units for each in outputs), [len(each) for each in known]
    return Evaluation(
        bleu=bleu,
        chrf=chrf,
        accuracy=_accuracy(runner, outputs, known) if labels else None,
        exact=exact_share(hypotheses, known),
        lines=len(sources),
        sentences=len(grouped),
        references=(min(counts), max(counts)),
        tokens=tokens,
        seconds=seconds,
        sentences_per_second=len(grouped) / seconds,
        tokens_per_second=tokens / seconds,
        hypotheses=tuple(hypotheses),
    )


def _accuracy(
    runner: Runner, outputs: Sequence[Output], references: Sequence[Sequence[str]]
) -> float:
    """Of labels against the first reference, which must have as many."""
    assert isinstance(runner, Predictor)
    found = [labels_of(one.text, runner.task) for one in outputs]
    expected = [labels_of(first, runner.task) for first, *_ in references]
    for number, (labels, right) in enumerate(zip(found, expected, strict=True)):
        if len(labels) != len(right):
            raise InputError(
                f"source {number + 1} has {len(labels)} labels and its reference "
                f"{len(right)}; give one for every word"
            )
    return label_accuracy(found, expected)


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


def exact_share(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
    """Percentage of hypotheses that are one of their references."""
    pairs = zip(hypotheses, references, strict=True)
    return 100 * sum(text in known for text, known in pairs) / len(hypotheses)


def labels_of(text: str, task: Task) -> list[str]:
    """The labels that a text gives: one for each position, or itself."""
    return text.split() if task == "tagging" else [text]


def label_accuracy(
    found: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]
) -> float:
    """Percentage of labels that are right; sequences pair up, and so do positions."""
    pairs = [
        one == other
        for labels, right in zip(found, expected, strict=True)
        for one, other in zip(labels, right, strict=True)
    ]
    return 100 * sum(pairs) / len(pairs)


def _metric(
    metric: Any, hypotheses: Sequence[str], streams: Sequence[Sequence[str | None]]
) -> Metric:
    result = metric.corpus_score(hypotheses, streams)
    return Metric(float(result.score), str(metric.get_signature()))
