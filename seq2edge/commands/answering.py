"""`seq2edge translate`, `predict` and `score`: an answer for each line."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seq2edge.commands.options import (
    FILE,
    FOLDER,
    F,
    engine_of,
    language_options,
    threads_option,
)
from seq2edge.commands.search_options import GroupedCommand, search_of, search_options
from seq2edge.commands.translating import Asked, asked_options, print_alternatives
from seq2edge.runtime.errors import InputError
from seq2edge.text_files import decode_lines, read_lines

if TYPE_CHECKING:
    from seq2edge.runtime.predictor import Predictor
    from seq2edge.runtime.scoring import Normalization


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


@click.command(cls=GroupedCommand)
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


@click.command()
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
        raise InputError(
            f"{source} has {len(sources)} lines and {reference} {len(references)}; "
            "give one target for each source"
        )
    pairs = zip(sources, references, strict=True)
    return ("\t".join((one, other.replace("\t", " "))) for one, other in pairs)


@click.command()
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
