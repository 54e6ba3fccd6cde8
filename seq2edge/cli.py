"""The `seq2edge` command: its commands, messages and exit codes.

A command's body (in `commands/`) parses, imports its room, calls one function and
prints. Results go to standard output, notes and progress to standard error. Exit codes:
0 done, 1 an error that the user can mend (one sentence, no traceback), 2 wrong usage,
130 interrupted.
"""

import logging
import os
import signal
import sys
from typing import Any

import click

from seq2edge.commands.answering import predict, score, translate
from seq2edge.commands.building import export, train
from seq2edge.commands.checking import inspect, verify
from seq2edge.commands.measuring import evaluate, profile
from seq2edge.runtime.errors import Seq2EdgeError


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


for _command in (
    train,
    export,
    translate,
    score,
    predict,
    evaluate,
    profile,
    verify,
    inspect,
):
    main.add_command(_command)
