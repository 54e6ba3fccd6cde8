"""`seq2edge evaluate` and `profile`: how good a bundle is, and how fast."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seq2edge.commands.options import (
    FILE,
    FOLDER,
    engine_of,
    language_options,
    threads_option,
)
from seq2edge.commands.search_options import (
    GroupedCommand,
    given_of,
    search_of,
    search_options,
)
from seq2edge.text_files import read_lines, write_text

if TYPE_CHECKING:
    from seq2edge.runtime.options import SearchOptions
    from seq2edge.runtime.profiling import ProfileOptions
    from seq2edge.runtime.runner import Runner

_STANDARD_OUTPUT = Path("-")


@click.command(cls=GroupedCommand)
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


@click.command()
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
