"""The `seq2edge` command: options, messages and exit codes.

A command body parses, imports its room, calls one function and prints. Results go to
standard output, notes and progress to standard error. Exit codes: 0 done, 1 an error
that the user can mend (one sentence, no traceback), 2 wrong usage, 130 interrupted.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from seq2edge.runtime.errors import Seq2EdgeError
from seq2edge.search_options import (
    GroupedCommand,
    given_of,
    search_of,
    search_options,
)
from seq2edge.text_files import decode_lines, read_lines, write_text
from seq2edge.translating import Asked, asked_options, print_alternatives

if TYPE_CHECKING:
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.options import SearchOptions
    from seq2edge.runtime.predictor import Predictor
    from seq2edge.runtime.profiling import ProfileOptions
    from seq2edge.runtime.runner import Runner
    from seq2edge.runtime.scoring import Normalization

F = TypeVar("F", bound=Callable[..., Any])

TARGETS = (  # export.targets has them, with their recipes
    "portable",
    "x86-avx2",
    "x86-vnni",
    "arm-dotprod",
    "arm-i8mm",
    "small-memory",
    "native",
)
FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
_STANDARD_OUTPUT = Path("-")


class _Warnings(logging.Handler):
    """What the library warns of, as notes on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"seq2edge: {record.getMessage()}", err=True)


_WARNINGS = _Warnings(logging.WARNING)


class Main(click.Group):
    """A group whose commands end in one sentence, not in a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; turn what a user can cause into an exit code."""
        logging.getLogger("seq2edge").addHandler(_WARNINGS)  # added once, if again
        try:
            return super().invoke(context)
        except Seq2EdgeError as error:
            fail(str(error))
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "seq2edge":
                raise
            extra = "evaluate" if error.name == "sacrebleu" else "export"
            fail(
                f"`{context.invoked_subcommand}` needs the package {error.name}: "
                f"pip install 'seq2edge[{extra}]'"
            )
        except BrokenPipeError:  # the reader, e.g. `head`, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:  # e.g. the disk is full
            if error.strerror is None:
                raise
            place = f"{error.filename}: " if error.filename else ""
            fail(f"{place}{error.strerror}; mend that and run the command again")
        except (KeyboardInterrupt, click.Abort):
            click.echo("seq2edge: interrupted", err=True)
            sys.exit(128 + signal.SIGINT)


def fail(message: str) -> None:
    """Print one sentence on standard error and exit with 1."""
    click.echo(f"seq2edge: {message}", err=True)
    sys.exit(1)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="seq2edge")
def main() -> None:
    """Export PyTorch sequence-to-sequence models to ONNX; run them without torch."""


@main.command()
@click.argument("recipe", type=FILE)
@click.option(
    "--output", type=FOLDER, required=True, help="Folder of the checkpoint to write."
)
@click.option(
    "--data", type=FOLDER, help="Folder of the corpora [default: the recipe's own]."
)
def train(recipe: Path, output: Path, data: Path | None) -> None:
    """Train a model by RECIPE (TOML); the same command resumes a stopped run."""
    from seq2edge.models.recipe import Recipe
    from seq2edge.models.train import train as run
    from seq2edge.progress import TrainingProgress

    loaded = Recipe.load(recipe)
    try:
        print(run(loaded, data or recipe.parent, output, TrainingProgress()))
    except KeyboardInterrupt:
        click.echo("\nthe same command goes on from the last save", err=True)
        raise


def language_options(command: F) -> F:
    """What a multilingual model is told; `inspect` lists a bundle's languages."""
    for side in ("target", "source"):
        command = click.option(
            f"--{side}-language",
            metavar="CODE",
            help=f"The {side}'s, for a multilingual model, e.g. as deu_Latn "
            "[default: the model's own].",
        )(command)
    return command


@main.command()
@click.argument("checkpoint", type=FOLDER)
@click.argument("bundle", type=FOLDER)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8", "int4"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of the bundle's weights; int4 is int8 with a decoder's layers in "
    "four bits.",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    help="The processor that int8 and int4 are for; native is this one "
    "[default: portable].",
)
@click.option(
    "--sample",
    type=FILE,
    help="Lines of INPUT or INPUT TAB REFERENCE to judge by, a field for each input "
    "[default: the checkpoint's sample.tsv].",
)
@click.option(
    "--shortlist",
    is_flag=True,
    help="Let search choose among a thousand tokens and what a source's own may become "
    "(int8 and int4): faster, and part of what may be lost.",
)
@language_options
@click.option("--force", is_flag=True, help="Replace BUNDLE if it is one already.")
@click.option(
    "--min-exact",
    type=click.FloatRange(0, 1),
    default=0.999,
    show_default=True,
    help="Share of sentences that fp32 must decode exactly as PyTorch does.",
)
@click.option(
    "--max-bleu-loss",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="BLEU points that quantization may lose on the sample.",
)
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Percentage points that it may lose where right results are counted.",
)
def export(
    checkpoint: Path,
    bundle: Path,
    precision: str,
    target: str | None,
    sample: Path | None,
    shortlist: bool,
    source_language: str | None,
    target_language: str | None,
    force: bool,
    min_exact: float,
    max_bleu_loss: float,
    max_accuracy_loss: float,
) -> None:
    """Export CHECKPOINT to a verified BUNDLE; a failing export leaves none.

    CHECKPOINT is a folder of `seq2edge train`, or of Hugging Face transformers.
    """
    if target and precision == "fp32":
        raise click.UsageError("--target goes with --precision int8 or int4")
    if shortlist and precision == "fp32":
        raise click.UsageError("--shortlist goes with --precision int8 or int4")
    from seq2edge.export.parity import QualityLimits
    from seq2edge.export.pipeline import ExportOptions, export_checkpoint
    from seq2edge.progress import stages
    from seq2edge.runtime.languages import LanguagePair

    limits = QualityLimits(
        min_exact=min_exact,
        max_bleu_loss=max_bleu_loss,
        max_accuracy_loss=max_accuracy_loss,
    )
    options = ExportOptions(
        precision=precision,
        target=target,
        sample=sample,
        shortlist=shortlist,
        limits=limits,
        force=force,
        languages=LanguagePair(source_language, target_language),
    )
    with stages() as note:
        export_checkpoint(checkpoint, bundle, options, note)
    print(bundle)


def threads_option(command: F) -> F:
    """How many threads onnxruntime may have."""
    return click.option(
        "--threads",
        type=click.IntRange(1),
        help="Given, no tuning counts [default: that of the bundle's tuning, else 1].",
    )(command)


def engine_of(threads: int | None) -> "EngineOptions | None":
    """None leaves the engine to the bundle's tuning, and else to the defaults."""
    from seq2edge.runtime.engine import EngineOptions

    return None if threads is None else EngineOptions(threads=threads)


def line_options(command: F) -> F:
    """The options of commands that answer line by line."""
    options = [
        click.option("--n-best", type=click.IntRange(1), default=1, show_default=True),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
        click.option(
            "--errors",
            type=click.Choice(["strict", "replace"]),
            default="strict",
            show_default=True,
            help="What to do with invalid UTF-8.",
        ),
        click.option(
            "--read-ahead",
            type=click.IntRange(1),
            help="Lines read ahead to be sorted by length; 1 answers each line at once "
            "[default: 1 on a terminal, else 1024].",
        ),
        click.option(
            "--unpadded",
            is_flag=True,
            help="Put only texts of one length into a batch: slower, and equal to each "
            "alone to the last bit.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command(cls=GroupedCommand)
@click.argument("bundle", type=FOLDER)
@click.argument("text", nargs=-1)
@language_options
@line_options
@threads_option
@asked_options
@search_options
def translate(
    bundle: Path,
    text: tuple[str, ...],
    source_language: str | None,
    target_language: str | None,
    n_best: int,
    as_json: bool,
    errors: str,
    read_ahead: int | None,
    unpadded: bool,
    threads: int | None,
    **given: Any,
) -> None:
    """Translate each TEXT, or standard input line by line.

    So does every bundle that writes tokens: it summarises, answers, transcribes. Where
    it reads something else than one text, a line has a field for each input, TAB
    between them: text, a class, numbers of a vector, or a .npy file of frames.

    An empty line stays empty. What was done to a text beyond translating it (cut into
    sentences, truncated, unknown characters) is in the flags of --json, whose
    milliseconds are those of the lines translated together, divided by their number.
    """
    from seq2edge.runtime.batching import Batching
    from seq2edge.runtime.translator import Translator

    asked = Asked.take(given, as_json=as_json, n_best=n_best)
    read_ahead = read_ahead or (1 if asked.at_once else _read_ahead())
    batching = Batching(lines=read_ahead, unpadded=unpadded)
    translator = Translator.load(bundle, engine_of(threads), batching)
    translator = translator.for_languages(source_language, target_language)
    bias = asked.prefix_bias
    options = search_of(translator, given, n_best=n_best, prefix_bias=bias)
    lines = _lines(text, errors)
    if asked.alternatives is not None:
        print_alternatives(translator, options, asked, lines)
        return
    work = asked.worker(translator, options)
    _answer(lines, read_ahead, work, asked.show, notes=not as_json)


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--source", type=FILE, help="An input a line.")
@click.option("--reference", type=FILE, help="Its target, a line each.")
@click.option(
    "--normalize",
    type=click.Choice(["none", "tokens", "penalty"]),
    default="none",
    show_default=True,
    help="Divide the log-probability by the tokens, or by the bundle's own length "
    "penalty.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@language_options
@threads_option
def score(
    bundle: Path,
    source: Path | None,
    reference: Path | None,
    source_language: str | None,
    target_language: str | None,
    normalize: "Normalization",
    as_json: bool,
    threads: int | None,
) -> None:
    """How probable BUNDLE finds given targets: lines of SOURCE TAB TARGET.

    They come from standard input, or from the lines of --source and --reference. Prints
    for each the log-probability of the target with its end token, its tokens and its
    perplexity. A pair that is too long or has no source has none: nan.
    """
    from seq2edge.runtime.batching import windows
    from seq2edge.runtime.translator import Translator
    from seq2edge.scores import Corpus, pair_of, score_json, score_line

    if (source is None) != (reference is None):
        raise click.UsageError("give both --source and --reference, or neither")
    translator = Translator.load(bundle, engine_of(threads))
    translator = translator.for_languages(source_language, target_language)
    lines = _pairs(source, reference) if source and reference else _lines((), "strict")
    corpus = Corpus()
    show = score_json if as_json else score_line
    for window in windows(lines, _read_ahead()):
        pairs = [pair_of(line) for line in window]
        for result in translator.score_batch(*zip(*pairs, strict=True)):
            corpus.add(result)
            print(show(result, result.normalized(normalize, translator.defaults)))
        sys.stdout.flush()
    if not as_json:
        for note in corpus.notes():
            click.echo(f"seq2edge: {note}", err=True)


def _pairs(source: Path, reference: Path) -> Iterator[str]:
    """The lines of two files, TAB between them; one in a target is read as a space."""
    sources, references = read_lines(source), read_lines(reference)
    if len(sources) != len(references):
        fail(
            f"{source} has {len(sources)} lines and {reference} {len(references)}; "
            "give one target for each source"
        )
    pairs = zip(sources, references, strict=True)
    return ("\t".join((one, other.replace("\t", " "))) for one, other in pairs)


@main.command()
@click.argument("bundle", type=FOLDER)
@click.argument("text", nargs=-1)
@threads_option
@click.option(
    "--stream",
    is_flag=True,
    help="Tag word by word as they come: a line holds one or more words, its label "
    "follows at once; an empty line begins a new text.",
)
@line_options
def predict(
    bundle: Path,
    text: tuple[str, ...],
    threads: int | None,
    stream: bool,
    n_best: int,
    as_json: bool,
    errors: str,
    read_ahead: int | None,
    unpadded: bool,
) -> None:
    """Tag or classify each TEXT, or standard input line by line.

    A tagger prints a label for every word, a classifier one for the whole line (with
    --n-best the likeliest ones and their probabilities). Where the bundle reads
    something else than one text, a line is written as for `translate`.
    """
    from seq2edge.runtime.batching import Batching
    from seq2edge.runtime.predictor import Predictor
    from seq2edge.translations import prediction_json, prediction_lines

    batching = Batching(lines=read_ahead or _read_ahead(), unpadded=unpadded)
    predictor = Predictor.load(bundle, engine_of(threads), batching)
    lines = _lines(text, errors)
    if stream:
        _tag_stream(predictor, lines)
        return
    show = (
        prediction_json
        if as_json
        else lambda one, _: "\n".join(prediction_lines(one, n_best))
    )
    _answer(lines, batching.lines, predictor.predict_batch, show, notes=not as_json)


def _tag_stream(predictor: "Predictor", lines: Iterable[str]) -> None:
    """Answer every word at once: word TAB label."""
    tagging = predictor.stream()
    for line in lines:
        if not line.strip():
            tagging = predictor.stream()
            print(flush=True)
        for word in line.split():
            print(f"{word}\t{tagging.push(word)[0]}", flush=True)


def _read_ahead() -> int:
    return 1 if sys.stdin.isatty() else 1024


def _lines(text: tuple[str, ...], errors: str) -> Iterator[str]:
    """The arguments, or standard input."""
    if text:
        return iter(text)
    return decode_lines(sys.stdin.buffer, "standard input", errors)


def _answer(
    lines: Iterable[str],
    read_ahead: int,
    work: Callable[[list[str]], Sequence[Any]],
    show: Callable[[Any, float], str],
    notes: bool,
) -> None:
    """Print what comes of each line, and on standard error what was lost."""
    from seq2edge.runtime.batching import windows
    from seq2edge.translations import Losses

    losses = Losses()
    for window in windows(lines, read_ahead):
        began = time.perf_counter()
        results = work(window)
        milliseconds = 1000 * (time.perf_counter() - began) / len(window)
        for result in results:
            losses.add(result)
            print(show(result, milliseconds))
        sys.stdout.flush()
    if notes:
        for note in losses.notes():
            click.echo(f"seq2edge: {note}", err=True)


@main.command(cls=GroupedCommand)
@click.argument("bundle", type=FOLDER)
@click.option("--source", type=FILE, required=True, help="An input a line.")
@click.option(
    "--reference",
    type=FILE,
    required=True,
    help="Its translation, tags or class; lines that repeat a source give it several "
    "references.",
)
@click.option(
    "--tokenize", default="13a", show_default=True, help="sacreBLEU's, e.g. zh."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@language_options
@threads_option
@search_options
def evaluate(
    bundle: Path,
    source: Path,
    reference: Path,
    tokenize: str,
    source_language: str | None,
    target_language: str | None,
    threads: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """How good BUNDLE is on a test set, and how fast.

    BLEU and chrF (sacreBLEU) and the share of exact results of a bundle that writes;
    the share of right labels of one that labels.
    """
    from seq2edge.runtime.evaluate import EvaluateOptions
    from seq2edge.runtime.evaluate import evaluate as run
    from seq2edge.runtime.runner import load_runner, told

    sources, references = read_lines(source), read_lines(reference)
    runner = load_runner(bundle, engine_of(threads))
    runner = told(runner, source_language, target_language)
    options = EvaluateOptions(_search_of_any(runner, given), tokenize)
    result = run(runner, sources, references, options)
    if as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        print(result.text())


def _search_of_any(runner: "Runner", given: dict[str, Any]) -> "SearchOptions | None":
    """None where a bundle labels, which is no search: nothing may be given then."""
    from seq2edge.runtime.errors import ConfigError
    from seq2edge.runtime.translator import Translator

    if isinstance(runner, Translator):
        return search_of(runner, given)
    if names := given_of(given):
        raise ConfigError(
            f"{', '.join(names)}: this bundle labels, and searches nothing"
        )
    return None


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--compare", type=FOLDER, help="A second bundle, measured in turns.")
@click.option(
    "--source", type=FILE, help="Input lines [default: the bundle's golden ones]."
)
@threads_option
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True)
@click.option("--beam-size", type=click.IntRange(1), help="[default: the bundle's own]")
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--tune",
    is_flag=True,
    help="Find the fastest threads, spinning, arena and heads for this device, and "
    "write them where the runtime finds them.",
)
@click.option("--json", "record", type=FILE, help="Write the record here; - prints it.")
def profile(
    bundle: Path,
    compare: Path | None,
    source: Path | None,
    threads: int | None,
    batch_size: int,
    beam_size: int | None,
    repeat: int,
    tune: bool,
    record: Path | None,
) -> None:
    """Where the time goes: load, first call, and every part of a sentence.

    With --tune, which settings of the engine take the least of it on this device. They
    change no result, and are written beside the bundle's files, or into the user's
    cache; commands that are given no --threads then use them.
    """
    from seq2edge.runtime.profile_table import profile_table
    from seq2edge.runtime.profiling import ProfileOptions
    from seq2edge.runtime.profiling import profile as run

    sentences = read_lines(source) if source else None
    options = ProfileOptions(
        batch_size=batch_size,
        beam_size=beam_size,
        repeat=repeat,
        engine=engine_of(threads),
    )
    if tune:
        if compare or threads:
            wrong = "--compare" if compare else "--threads"
            raise click.UsageError(f"--tune tries settings of one bundle: no {wrong}")
        _tune(bundle, sentences, options, record)
        return
    report = run([bundle, compare] if compare else [bundle], sentences, options)
    if record != _STANDARD_OUTPUT:
        print(profile_table(report))
    _write_record(record, report.to_json())


def _tune(
    folder: Path,
    sentences: Sequence[str] | None,
    options: "ProfileOptions",
    record: Path | None,
) -> None:
    from seq2edge.progress import stages
    from seq2edge.runtime.bundle import Bundle
    from seq2edge.runtime.schema import to_json
    from seq2edge.runtime.trials import LEAST_ROUNDS
    from seq2edge.runtime.trials import tune as run
    from seq2edge.runtime.tuning import applying, save
    from seq2edge.runtime.tuning_table import tuning_table

    if options.repeat < LEAST_ROUNDS:
        raise click.UsageError(f"--tune needs --repeat {LEAST_ROUNDS} or more")
    bundle = Bundle.load(folder)
    with stages() as note:
        tuning = run(bundle, sentences, options, note)
    if record != _STANDARD_OUTPUT:
        print(tuning_table(tuning))
    path = save(tuning, bundle)
    if record != _STANDARD_OUTPUT:
        print(f"{tuning.chosen.text}: written to {path}")
    written = {"path": str(folder), "written": str(path), "tuning": to_json(tuning)}
    _write_record(record, written)
    if path.parent != folder:
        click.echo(
            f"seq2edge: {folder} can't be written; the tuning is in {path}", err=True
        )
    if (found := applying(bundle)) and found.path != path:
        click.echo(
            f"seq2edge: {found.path} is used before it; remove that one", err=True
        )


def _write_record(record: Path | None, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if record == _STANDARD_OUTPUT:
        print(text, end="")
    elif record:
        write_text(record, text)


@main.command()
@click.argument("bundle", type=FOLDER)
def verify(bundle: Path) -> None:
    """Check BUNDLE's hashes and replay its golden examples on this machine."""
    from seq2edge.runtime.verify import verify as run

    result = run(bundle)
    print(result.text())
    if not result.passed:
        fail(f"{bundle} doesn't give its golden results on this machine")


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="The manifest itself, and the declared peaks of memory.",
)
def inspect(bundle: Path, as_json: bool) -> None:
    """What BUNDLE holds: contract, sizes, memory, certificate, provenance."""
    from seq2edge.describe import describe_bundle, peaks_here
    from seq2edge.runtime.bundle import Bundle

    loaded = Bundle.load(bundle)
    if as_json:
        peaks = [asdict(peak) for peak in peaks_here(loaded.manifest)]
        record = {**loaded.manifest.to_json(), "peaks": peaks}
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        print(describe_bundle(loaded))
