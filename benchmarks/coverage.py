"""The share of weight bytes that int8 reaches, in translation models of usual size.

    python benchmarks/coverage.py

Every row of docs/structures.md that reads and writes tokens, with each cell, at 256
hidden units and 8,000 tokens; random weights, since only sizes count.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from structures import VOCABULARY, Structure, configure, structures

from seq2edge.export import (
    ExportOptions,
    Limits,
    ModelSpec,
    QualityLimits,
    Sample,
    export_model,
)
from seq2edge.models.build import build_model
from seq2edge.models.inputs import input_specs
from seq2edge.models.recurrent_config import CELLS, RecurrentConfig

SIZE, HIDDEN = 8000, 256
OPTIONS = ExportOptions("int8", limits=QualityLimits(min_agreement=0.0, min_exact=0.0))


def usual(structure: Structure, cell: str) -> RecurrentConfig:
    """Two layers of two directions, as wide as a small product's."""
    small = configure(structure, cell, 2, 2)
    return replace(
        small,
        source_vocabulary=SIZE,
        target_vocabulary=SIZE,
        embedding_size=HIDDEN,
        encoder_hidden=HIDDEN // 2,
        decoder_hidden=HIDDEN,
    )


def measure(config: RecurrentConfig) -> tuple[float, list[str]]:
    """Share of weight bytes, and what was left out that is no bias."""
    random = np.random.default_rng(0)
    classes = tuple(map(str, range(config.classes)))
    inputs = input_specs(config, classes)
    examples = [
        {
            spec.name: random.integers(4, SIZE, 3 + n)
            if spec.kind == "tokens"
            else np.int64(n % config.classes)
            for spec in inputs
        }
        for n in range(6)
    ]
    vocabulary = replace(VOCABULARY, size=SIZE)
    spec = ModelSpec("usual", vocabulary, Limits(20, 6), inputs=inputs)
    with tempfile.TemporaryDirectory() as folder:
        module = build_model(config, 0).eval()
        path = Path(folder) / "bundle"
        manifest: Any = export_model(module, Sample.of(examples), path, spec, OPTIONS)
    report = manifest.quantization
    left = [one["weight"] for one in report["skipped"] if one["reason"] == "small"]
    return float(report["share"]), left


def rows() -> Iterator[tuple[Structure, str, float, list[str]]]:
    """Each structure that translates, with each cell."""
    for structure in structures():
        kinds = set(structure.keys.get("inputs", {"source": "tokens"}).values())
        if "task" in structure.keys or "tokens" not in kinds:
            continue
        for cell in CELLS:
            yield structure, cell, *measure(usual(structure, cell))


def main() -> None:
    """Print a row each, and the least."""
    shares = []
    print("| structure | cell | share of weight bytes | small matrices left out |")
    print("|---|---|---|---|")
    for structure, cell, share, left in rows():
        shares.append(share)
        names = ", ".join(left) or "none"
        print(f"| {structure.name} | {cell} | {share:.2%} | {names} |", flush=True)
    print(f"\n{min(shares):.2%} at least, of {len(shares)} models")


if __name__ == "__main__":
    main()
