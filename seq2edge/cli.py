"""The `seq2edge` command: options, messages and exit codes.

A command body parses, imports its room, calls one function and prints. Results go to
standard output, notes and progress to standard error. Exit codes: 0 done, 1 an error
that the user can mend (one sentence, no traceback), 2 wrong usage, 130 interrupted.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from seq2edge.runtime.errors import InputError, Seq2EdgeError

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
    print(run(loaded, data or recipe.parent, output, TrainingProgress()))
