"""Resident memory of `seq2edge translate` while it reads many lines.

    python benchmarks/stream_memory.py BUNDLE TEST.tsv [--lines 100000]

Repeats the corpus's sources, shuffled anew each time, and prints the process's resident
memory (Linux) as its output goes by. It must be flat after the warm-up.
"""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click


def sources(corpus: Path) -> Iterator[str]:
    """The corpus's sources for ever, in a new order each time."""
    lines = corpus.read_text(encoding="utf-8").splitlines()
    texts = [line.partition("\t")[0] for line in lines]
    shuffle = random.Random(1).shuffle
    while True:
        shuffle(texts)
        yield from texts


def resident_megabytes(pid: int) -> float:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise ProcessLookupError(pid)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("--lines", default=100_000, show_default=True)
@click.option("--beam-size", default=1, show_default=True)
def main(bundle: Path, corpus: Path, lines: int, beam_size: int) -> None:
    """Feed the lines and watch."""
    command = [sys.executable, "-m", "seq2edge", "translate", str(bundle)]
    with subprocess.Popen(
        [*command, "--beam-size", str(beam_size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        feeder = threading.Thread(target=_feed, args=(process, corpus, lines))
        feeder.start()
        assert process.stdout
        done = 0
        for done, _ in enumerate(process.stdout, start=1):
            if done % (lines // 20) == 0:
                megabytes = resident_megabytes(process.pid)
                print(f"{done:>8} lines {megabytes:8.1f} MB", flush=True)
        feeder.join()
    print(f"{done} of {lines} lines came back, exit code {process.returncode}")


def _feed(process: "subprocess.Popen[str]", corpus: Path, lines: int) -> None:
    assert process.stdin
    with process.stdin as stdin:
        stdin.writelines(f"{text}\n" for text in islice(sources(corpus), lines))


if __name__ == "__main__":
    main()
