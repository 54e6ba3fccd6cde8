"""Whatever a bundle is for, behind one face: a line of input in, a line of output out.

For what must work with every bundle: replaying golden examples, measuring, evaluating.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from seq2edge.runtime.batching import Batching
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.golden import GoldenExample
from seq2edge.runtime.languages import in_languages
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.predictor import Predictor, log_softmax
from seq2edge.runtime.translator import Translator

if TYPE_CHECKING:
    from seq2edge.runtime.engine import EngineOptions

Runner: TypeAlias = Translator | Predictor


@dataclass(frozen=True)
class Output:
    """What came of one line."""

    text: str
    units: int  # tokens that were written, or labels


def load_runner(
    path: Path | str,
    engine_options: "EngineOptions | None" = None,
    batching: Batching | None = None,
    check_hashes: bool = True,
) -> Runner:
    """A Translator or a Predictor, by the bundle's task."""
    writes = Bundle.load(path, check_hashes=False).manifest.task == "generation"
    kind: type[Translator] | type[Predictor] = Translator if writes else Predictor
    return kind.load(path, engine_options, batching, check_hashes)


def told(runner: Runner, source: str | None, target: str | None) -> Runner:
    """The runner for these languages; ConfigError where it isn't told any."""
    if isinstance(runner, Translator):
        return runner.for_languages(source, target)
    in_languages(None, source, target)
    return runner


def run(
    runner: Runner, lines: Sequence[str], search: SearchOptions | None = None
) -> list[Output]:
    """Translate or label lines; a predictor has no use for search options."""
    if isinstance(runner, Predictor):
        return [
            Output(one.text, len(one.labels)) for one in runner.predict_batch(lines)
        ]
    found = runner.translate_batch(lines, search)
    return [Output(one.text, len(one.tokens)) for one in found]


def replay(runner: Runner, example: GoldenExample) -> GoldenExample:
    """The example as it comes out here; an exporter makes its examples so too."""
    reader = runner.reader
    if example.as_ids:
        reader = replace(reader, tokenizer=None)
    arrays = reader.read(example.text).example
    if isinstance(runner, Predictor):
        log_probs = log_softmax(runner.logits([arrays])[0]).reshape(
            -1, len(runner.labels)
        )
        labels, best = runner.best(log_probs)
        return replace(
            example,
            tokens=tuple(log_probs.argmax(axis=1).tolist()),
            text_out=" ".join(labels),
            score=float(sum(best)),
        )
    options = runner.defaults.with_beam(example.beam_size)
    [[best_found, *_]] = runner.generate([arrays], options)
    return replace(
        example,
        tokens=best_found.tokens,
        text_out=runner.decode(best_found.tokens),
        score=best_found.score,
    )
