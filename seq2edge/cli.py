"""The `seq2edge` command: options, messages and exit codes.

A command body parses, imports its room, calls one function and prints. Results go to
standard output, notes and progress to standard error. Exit codes: 0 done, 1 an error
that the user can mend (one sentence, no traceback), 2 wrong usage, 130 interrupted.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from seq2edge.runtime.errors import Seq2EdgeError
from seq2edge.text_files import decode_lines, read_lines, write_text

if TYPE_CHECKING:
    from seq2edge.runtime.search import SearchOptions

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)


class Main(click.Group):
    """A group whose commands end in one sentence, not in a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; turn what a user can cause into an exit code."""
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


@main.command()
@click.argument("checkpoint", type=FOLDER)
@click.argument("bundle", type=FOLDER)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="Arithmetic of the bundle's weights.",
)
@click.option(
    "--sample",
    type=FILE,
    help="Lines of SOURCE or SOURCE TAB REFERENCE to judge by "
    "[default: the checkpoint's sample.tsv].",
)
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
def export(
    checkpoint: Path,
    bundle: Path,
    precision: str,
    sample: Path | None,
    force: bool,
    min_exact: float,
    max_bleu_loss: float,
) -> None:
    """Export CHECKPOINT to a verified BUNDLE; a failing export leaves none."""
    from seq2edge.export.parity import Limits
    from seq2edge.export.pipeline import ExportOptions, export_checkpoint
    from seq2edge.progress import stages

    limits = Limits(min_exact=min_exact, max_bleu_loss=max_bleu_loss)
    options = ExportOptions(
        precision=precision, sample=sample, limits=limits, force=force
    )
    with stages() as note:
        export_checkpoint(checkpoint, bundle, options, note)
    print(bundle)


def search_options(command: F) -> F:
    """The options of commands that decode."""
    options = [
        click.option(
            "--beam-size",
            type=click.IntRange(1),
            help="1 is greedy [default: the bundle's own].",
        ),
        click.option(
            "--length-penalty",
            type=click.FloatRange(0),
            help="Alpha; 0 ranks by log-probability [default: the bundle's own].",
        ),
        click.option("--min-length", type=click.IntRange(0), default=0),
        click.option("--max-length", type=click.IntRange(1), help="Target tokens."),
        click.option("--threads", type=click.IntRange(1), default=1, show_default=True),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("bundle", type=FOLDER)
@click.argument("text", nargs=-1)
@search_options
@click.option("--n-best", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--errors",
    type=click.Choice(["strict", "replace"]),
    default="strict",
    show_default=True,
    help="What to do with invalid UTF-8.",
)
@click.option(
    "--read-ahead",
    type=click.IntRange(1),
    help="Lines read ahead to be sorted by length; 1 answers each line at once "
    "[default: 1 on a terminal, else 1024].",
)
def translate(
    bundle: Path,
    text: tuple[str, ...],
    n_best: int,
    as_json: bool,
    errors: str,
    read_ahead: int | None,
    threads: int,
    **search: Any,
) -> None:
    """Translate each TEXT, or standard input line by line.

    An empty line stays empty. What was done to a text beyond translating it (cut into
    sentences, truncated, unknown characters) is in the flags of --json, whose
    milliseconds are those of the lines translated together, divided by their number.
    """
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.translator import Batching, Translator, windows
    from seq2edge.translations import Losses, json_line, plain_lines

    stdin = sys.stdin.buffer
    batching = Batching(lines=read_ahead or (1 if stdin.isatty() else 1024))
    translator = Translator.load(bundle, EngineOptions(threads=threads), batching)
    options = _search(translator.defaults, n_best=n_best, **search)
    losses = Losses()
    lines = iter(text) if text else decode_lines(stdin, "standard input", errors)
    for window in windows(lines, batching.lines):
        began = time.perf_counter()
        translations = translator.translate_batch(window, options)
        milliseconds = 1000 * (time.perf_counter() - began) / len(window)
        for translation in translations:
            losses.add(translation)
            if as_json:
                print(json_line(translation, milliseconds))
            else:
                print(*plain_lines(translation, n_best), sep="\n")
        sys.stdout.flush()
    if not as_json:
        for note in losses.notes():
            click.echo(f"seq2edge: {note}", err=True)


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--source", type=FILE, required=True, help="A sentence a line.")
@click.option(
    "--reference",
    type=FILE,
    required=True,
    help="Its translation; lines that repeat a source give it several references.",
)
@click.option(
    "--tokenize", default="13a", show_default=True, help="sacreBLEU's, e.g. zh."
)
@search_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def evaluate(
    bundle: Path,
    source: Path,
    reference: Path,
    tokenize: str,
    threads: int,
    as_json: bool,
    **search: Any,
) -> None:
    """BLEU and chrF of BUNDLE's translations (sacreBLEU), and its speed."""
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.evaluate import EvaluateOptions
    from seq2edge.runtime.evaluate import evaluate as run
    from seq2edge.runtime.translator import Translator

    sources, references = read_lines(source), read_lines(reference)
    translator = Translator.load(bundle, EngineOptions(threads=threads))
    options = EvaluateOptions(_search(translator.defaults, **search), tokenize)
    result = run(translator, sources, references, options)
    if as_json:
        print(json.dumps(result.to_json(), ensure_ascii=False))
    else:
        print(result.text())


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--compare", type=FOLDER, help="A second bundle, measured in turns.")
@click.option(
    "--source", type=FILE, help="Sentences [default: the bundle's golden ones]."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True)
@click.option("--beam-size", type=click.IntRange(1), help="[default: the bundle's own]")
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "record", type=FILE, help="Write the record here; - prints it.")
def profile(
    bundle: Path,
    compare: Path | None,
    source: Path | None,
    threads: int,
    batch_size: int,
    beam_size: int | None,
    repeat: int,
    record: Path | None,
) -> None:
    """Where the time goes: load, first call, and every part of a sentence."""
    from seq2edge.runtime.engine import EngineOptions
    from seq2edge.runtime.profile_table import profile_table
    from seq2edge.runtime.profiling import ProfileOptions
    from seq2edge.runtime.profiling import profile as run

    sentences = read_lines(source) if source else None
    options = ProfileOptions(
        batch_size=batch_size,
        beam_size=beam_size,
        repeat=repeat,
        engine=EngineOptions(threads=threads),
    )
    report = run([bundle, compare] if compare else [bundle], sentences, options)
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n"
    if record == Path("-"):
        print(text, end="")
        return
    print(profile_table(report))
    if record:
        write_text(record, text)


def _search(defaults: "SearchOptions", **given: int | float | None) -> "SearchOptions":
    """The bundle's own search with what was given on the command line."""
    changes = {key: value for key, value in given.items() if value is not None}
    return dataclasses.replace(defaults, **changes)  # type: ignore[arg-type]


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
@click.option("--json", "as_json", is_flag=True, help="The manifest itself.")
def inspect(bundle: Path, as_json: bool) -> None:
    """What BUNDLE holds: contract, sizes, certificate, provenance."""
    from seq2edge.describe import describe_bundle
    from seq2edge.runtime.bundle import Bundle

    loaded = Bundle.load(bundle)
    if as_json:
        print(json.dumps(loaded.manifest.to_json(), indent=2, ensure_ascii=False))
    else:
        print(describe_bundle(loaded))
