"""The rows of docs/structures.md as models and samples, for matrix and tests."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from brief_training import draw_example, expected_output, teach

from seq2edge.export import ModelSpec, Sample
from seq2edge.models.build import build_model
from seq2edge.models.inputs import input_specs
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.recurrent_network import RecurrentNetwork
from seq2edge.runtime import manifest
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.vocabulary import Vocabulary

TABLE = Path(__file__).parents[1] / "docs" / "structures.md"
VOCABULARY = Vocabulary(size=60, pad=0, unknown=1, start=2, end=3)
LABELS = ("a", "b", "c", "d", "e")
WIDTH = 32  # of an encoder output, both directions together, and of the decoder
CLASSES = ("w", "x", "y", "z")
LONGEST = 24
SAMPLE = 64  # examples
ROW = re.compile(r"^\| ([^|`]+?) \| [^|]*\| (`.+`) \|$")


@dataclass(frozen=True)
class Structure:
    """A row of the table."""

    name: str
    keys: Mapping[str, Any]  # of [model]


@dataclass(frozen=True)
class Built:
    """A structure that has learned its toy task, and what an export needs beside it."""

    config: RecurrentConfig
    module: RecurrentNetwork
    spec: ModelSpec
    sample: Sample
    outputs: tuple[tuple[int, ...], ...]  # what is right for each of the sample


def structures() -> Iterator[Structure]:
    """All rows, read from the page that users read."""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if (row := ROW.match(line)) and row[1] != "structure":
            keys = "\n".join(re.findall(r"`([^`]+)`", row[2]))
            yield Structure(row[1], tomllib.loads(keys))


def configure(
    structure: Structure, cell: str, directions: int, depth: int
) -> RecurrentConfig:
    """A small model; ConfigError if the structure forbids the combination."""
    task = structure.keys.get("task", "generation")
    values: dict[str, Any] = {
        "source_vocabulary": VOCABULARY.size,
        "target_vocabulary": VOCABULARY.size,
        "labels": 0 if task == "generation" else len(LABELS),
        "cell": cell,
        "bidirectional": directions == 2,
        "encoder_layers": depth,
        "decoder_layers": depth,
        "embedding_size": 24,
        "encoder_hidden": WIDTH // directions,
        "decoder_hidden": WIDTH,
        "dropout": 0.0,
        "tie": "none" if task != "generation" else "output",
        **structure.keys,
    }
    return RecurrentConfig(**values)


def build(
    structure: Structure, config: RecurrentConfig, steps: int, seed: int = 0
) -> Built:
    """A model after so many updates, and examples that it was not taught by."""
    module = build_model(config, seed)
    inputs = input_specs(config, CLASSES[: config.classes])
    teach(module, inputs, VOCABULARY, seed, steps)
    writes = config.task == "generation"
    spec = ModelSpec(
        name=structure.name,
        task=config.task,  # type: ignore[arg-type]
        vocabulary=VOCABULARY if writes else None,
        labels=() if writes else LABELS,
        inputs=inputs,
        limits=manifest.Limits(LONGEST, LONGEST),
        search=SearchOptions(beam_size=3, length_penalty=0.6),
    )
    random = np.random.default_rng(seed + 1)
    drawn = [draw_example(inputs, random, LONGEST // 2) for _ in range(SAMPLE)]
    outputs = tuple(tuple(expected_output(config, each)) for _, each in drawn)
    return Built(config, module, spec, Sample.of([one for one, _ in drawn]), outputs)
