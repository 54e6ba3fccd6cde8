"""Where a process with a bundle has its memory, and its peaks against the declared.

    python benchmarks/memory.py BUNDLE [--beam-size 1]

Prints the resident memory after each part is loaded, anonymous (the process's own)
apart from file (code and tables, which processes share); then, each in a new process,
the peak of works up to the bundle's limits, all translations as long as the work says.
Linux alone tells so much.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.footprint import measure_bare_process
from seq2edge.runtime.manifest import Manifest
from seq2edge.runtime.memory import Work, peak_bytes

PARTS = """
import sys
from pathlib import Path

def tell(part):
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    resident, own, file = (
        int(kib[name]) * 1.024e-3 for name in ("VmRSS", "RssAnon", "RssFile")
    )
    print(f"{part:<36}{resident:9.1f}{own:11.1f}{file:8.1f}")

print(f"{'MB after':<36}{'resident':>9}{'anonymous':>11}{'file':>8}")
tell("python")
import numpy
tell("numpy")
import onnxruntime
tell("onnxruntime")
import seq2edge.runtime.translator, seq2edge.runtime.engine, seq2edge.runtime.tokenizer
tell("seq2edge.runtime, sentencepiece")
from seq2edge.runtime.engine import Engine
from seq2edge.runtime.translator import Translator
engine = Engine.load(sys.argv[1])
tell("encoder")
from seq2edge.runtime.tokenizer import load_tokenizer
manifest = engine.bundle.manifest
spec = manifest.tokenizer
tokenizer = spec and load_tokenizer(spec, engine.bundle.path)
translator = Translator(
    engine, manifest.vocabulary, manifest.limits, tokenizer, manifest.search,
    inputs=manifest.inputs,
)
tell("tokenizer")
options = translator.defaults.with_beam(int(sys.argv[2]))
text = sys.argv[3]
translator.translate(text, options)
tell("first sentence and its heads")
for _ in range(20):
    translator.translate(text, options)
tell("20 more")
"""
PEAK = """
import sys
import numpy as np
from dataclasses import replace
from seq2edge.runtime import Translator
from seq2edge.runtime.batching import Batching
from seq2edge.runtime.resources import resident_memory
batch, beam, source, target = map(int, sys.argv[2:])
batching = Batching(batch * source, batch)
translator = Translator.load(sys.argv[1], batching=batching)
ids = np.random.default_rng(0).integers(10, translator.vocabulary.size, (batch, source))
options = replace(
    translator.defaults.with_beam(beam), max_length=target, min_length=target - 1
)
for _ in range(2):
    translator.generate([*ids], options)
print(resident_memory().peak_bytes)
"""


def works(manifest: Manifest) -> Iterator[Work]:
    """Alone and in batches, short and as long as may be."""
    limits, search = manifest.limits, manifest.search
    beam = search.beam_size if search else 1
    source, target = limits.source_tokens - 2, limits.target_tokens - 2
    sizes = [(1, 1, 20, 20), (1, 1, source, target), (1, beam, source, target)]
    sizes += [(1, beam, 30, 40), (8, beam, 60, 60), (32, 1, 60, 60)]
    sizes += [(32, beam, 60, 60), (32, beam, 20, 130), (4, beam, source, 100)]
    for batch, width, reads, writes in sizes:
        yield Work(batch, width, min(reads, source), min(writes, target))


def _run(script: str, *arguments: Any) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--beam-size", default=1, show_default=True)
@click.option("--text", default="I will be with you right away.")
def main(bundle: Path, beam_size: int, text: str) -> None:
    """Print both tables."""
    print(_run(PARTS, bundle, beam_size, text))
    manifest, bare = Bundle.load(bundle).manifest, measure_bare_process()
    ratios = []
    print("batch  beam  source  target  declared MB  measured MB  measured / declared")
    for work in works(manifest):
        sizes = (work.batch, work.beam, work.source, work.target)
        declared = peak_bytes(manifest, work, bare)
        measured = int(_run(PEAK, bundle, *sizes))
        ratios.append(measured / declared)
        print(
            f"{work.batch:5}{work.beam:6}{work.source:8}{work.target:8}"
            f"{declared / 1e6:13.1f}{measured / 1e6:13.1f}{ratios[-1]:21.2f}"
        )
    print(f"from {min(ratios):.2f} to {max(ratios):.2f} of what was declared")


if __name__ == "__main__":
    main()
