"""A module of ours as a process of its own, asked by its standard input."""

import subprocess
import sys
from collections.abc import Mapping

from seq2edge.runtime.errors import Seq2EdgeError


def ask_process(
    module: str, request: str, fault: str, environment: Mapping[str, str] | None = None
) -> str:
    """What the module answers on its standard output.

    Seq2EdgeError is the fault and the last line that it complained with.
    """
    process = subprocess.run(
        [sys.executable, "-m", module],
        input=request,
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=environment,
    )
    if process.returncode:
        reason = process.stderr.strip().splitlines() or [
            f"it ended {process.returncode}"
        ]
        raise Seq2EdgeError(f"{fault}: {reason[-1]}")
    return process.stdout
