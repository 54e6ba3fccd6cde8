"""Options that several commands of `seq2edge` have."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from seq2edge.runtime.engine import EngineOptions

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)


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
