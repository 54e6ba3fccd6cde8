"""Process start to first translation, and where that time goes.

    python benchmarks/start_up.py BUNDLE [--runs 15]

Alternates a bare interpreter, one that imports numpy, one that imports onnxruntime too,
and the whole command; prints the median of each, whole processes from outside.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
from installed import environment

TEXT = "I will be with you right away."


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--runs", default=15, show_default=True)
def main(bundle: Path, runs: int) -> None:
    """Print medians in milliseconds."""
    cli = [sys.executable, "-m", "seq2edge"]
    commands = {
        "python alone": [sys.executable, "-c", "pass"],
        "... importing numpy": [sys.executable, "-c", "import numpy"],
        "... and onnxruntime": [sys.executable, "-c", "import onnxruntime"],
        "... and sentencepiece, click": [
            sys.executable,
            "-c",
            "import onnxruntime, sentencepiece, click",
        ],
        "seq2edge translate, greedy": [
            *[*cli, "translate", str(bundle), "--beam-size", "1", TEXT],
        ],
        "seq2edge translate, the bundle's beam": [*cli, "translate", str(bundle), TEXT],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs + 1):  # the first warms the file cache
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment())
            if run:
                times[name].append(1000 * (time.perf_counter() - begin))
    for name, spent in times.items():
        print(
            f"{name:<40}{statistics.median(spent):8.0f} ms "
            f"({min(spent):.0f} to {max(spent):.0f})"
        )


if __name__ == "__main__":
    main()
