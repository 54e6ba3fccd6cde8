"""Every row of docs/structures.md, from a recipe's keys to a verified int8 bundle."""

from pathlib import Path
from typing import Any

import pytest
import torch
from slow import slow_among
from structures import Structure, build, configure, structures
from toy_language import recipe, translate, write_corpus

from seq2edge.export import (
    ExportOptions,
    QualityLimits,
    Recipe,
    export_checkpoint,
    export_model,
)
from seq2edge.models.recurrent_config import CELLS
from seq2edge.models.train import train
from seq2edge.runtime import Translator
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.verify import verify

ROWS = list(structures())
NAMES = [row.name for row in ROWS]
# The recipe's rule would leave layers as narrow as these in fp32.
INT8 = ExportOptions(
    "int8",
    limits=QualityLimits(min_agreement=0.0),
    recipe=Recipe(smallest=256, scan_from_hidden=1, anchored_from_hidden=1),
)
Section = dict[str, object]


def test_the_table_has_a_row_for_every_structure() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 28
    keys = [structure.keys for structure in ROWS]
    wanted: dict[str, set[str]] = {
        "task": {"tagging", "classification"},
        "summary": {"last", "mapped", "sum"},
        "summary_use": {"state", "input", "both"},
        "context": {"output", "upper", "input", "input_feeding"},
        "attention": {
            "none",
            "additive",
            "dot",
            "general",
            "scaled_dot",
            "multi_head",
        },
    }
    for key, values in wanted.items():
        assert values <= {str(row[key]) for row in keys if key in row}
    kinds = {kind for row in keys for kind in row.get("inputs", {}).values()}
    assert kinds == {"tokens", "frames", "vector", "class"}


# What each of these has, another row has too, in another combination.
COMBINED = {
    "frame tagger",
    "vector, every step",
    "vector, first step",
    "class, first step",
    "c = h_T, every step",
    "c = h_T, both",
    "c = q(h_T), as state",
    "c = q(h_T), both",
    "c = q(h_1 + ... + h_T), as state",
    "c = q(h_1 + ... + h_T), every step",
    "c = q(h_T), every step",
    "attention and c at every step",
    "c = h_T, as state",
    "dot attention",
    "additive attention",
    "general attention, input feeding",
    "scaled dot attention",
    "general attention, upper layers",
    "text and class",
    "classifier of two texts",
}


@pytest.mark.parametrize("name", slow_among(NAMES, *COMBINED))
def test_a_row_exports_and_equals_pytorch(name: str, tmp_path: Path) -> None:
    number = NAMES.index(name)
    structure, threads = ROWS[number], torch.get_num_threads()
    torch.set_num_threads(1)
    config = _config(structure, CELLS[number % len(CELLS)])
    built = build(structure, config, steps=30)
    torch.set_num_threads(threads)
    export_model(built.module, built.sample, tmp_path / "bundle", built.spec, INT8)
    verification = verify(tmp_path / "bundle")
    assert verification.passed
    manifest: Any = Bundle.load(tmp_path / "bundle").manifest
    fp32 = manifest.certificate["fp32"]
    searches = [fp32[key] for key in ("greedy", "beam") if key in fp32] or [fp32]
    # A near tie may fall otherwise on another processor; the export explains it.
    examples = len(built.sample.examples)
    assert all(one["exact"] >= examples - 1 for one in searches)
    assert ("stream" in manifest.heads) == (structure.name == "streaming tagger")
    forms = {
        form for one in manifest.quantization["quantized"] for form in one["forms"]
    }
    if config.sequences:
        unbounded = config.cell == "elman_relu"
        assert forms & ({"stored"} if unbounded else {"scan", "anchored"})
    # Such small models are biases to a part; no matrix is left out.
    reasons = {one["reason"] for one in manifest.quantization["skipped"]}
    assert reasons <= {"a bias", "a vector", "small"}


def _config(structure: Structure, cell: str) -> Any:
    """Two layers of two directions, where the structure allows them."""
    for directions, depth in ((2, 2), (1, 2), (2, 1)):
        try:
            return configure(structure, cell, directions, depth)
        except ConfigError:
            continue
    raise AssertionError(structure.name)


TRAINED: dict[str, tuple[Section, Section]] = {
    "input feeding, two tokenizers": (
        {
            "cell": "lstm",
            "attention": "additive",
            "context": "input_feeding",
            "decoder_layers": 1,
            "tie": "output",
        },
        {"joint": False, "vocabulary_size": 22, "source_vocabulary_size": 20},
    ),
    "context fed to the cell": (
        {
            "cell": "gru",
            "attention": "dot",
            "context": "input",
            "encoder_layers": 1,
            "decoder_hidden": 64,
            "tie": "none",
        },
        {"vocabulary_size": 28, "kind": "bpe"},
    ),
    "transformer": (
        {
            "architecture": "transformer",
            "size": 48,
            "encoder_layers": 2,
            "encoder_heads": 4,
            "decoder_heads": 4,
            "encoder_feed_forward": 64,
            "decoder_feed_forward": 64,
            "max_positions": 40,
        },
        {"vocabulary_size": 28},
    ),
    "SSRU decoder, post-norm, learned positions, two tokenizers": (
        {
            "architecture": "transformer",
            "size": 48,
            "encoder_layers": 2,
            "encoder_heads": 4,
            "decoder_heads": 4,
            "encoder_feed_forward": 64,
            "decoder_feed_forward": 64,
            "max_positions": 40,
            "decoder": "ssru",
            "norm": "post",
            "positions": "learned",
            "tie": "output",
        },
        {"joint": False, "vocabulary_size": 22, "source_vocabulary_size": 20},
    ),
}


@pytest.mark.parametrize(
    "name",
    slow_among(
        TRAINED,
        "context fed to the cell",
        "transformer",
        "SSRU decoder, post-norm, learned positions, two tokenizers",
    ),
)
def test_a_structure_keeps_its_quality_from_training_to_int8(
    name: str, tmp_path: Path
) -> None:
    model, tokenizer = TRAINED[name]
    write_corpus(tmp_path)
    gentle = {"epochs": 12, "learning_rate": 3e-3, "warmup_steps": 60}
    training = gentle if "architecture" in model else {"epochs": 8}
    asked = recipe(model, tokenizer, **training)
    checkpoint = train(asked, tmp_path, tmp_path / "trained", lambda event: None)
    bundle = tmp_path / "bundle"
    manifest = export_checkpoint(checkpoint, bundle, ExportOptions(precision="int8"))
    assert manifest.tokenizer is not None
    joint = manifest.tokenizer.source == manifest.tokenizer.target
    assert joint == tokenizer.get("joint", True)
    lines = (tmp_path / "dev.tsv").read_text(encoding="utf-8").splitlines()
    sources = [line.partition("\t")[0] for line in lines]
    found = Translator.load(bundle).translate_batch(sources)
    right = sum(
        one.text == translate(source)
        for source, one in zip(sources, found, strict=True)
    )
    assert right >= 0.9 * len(sources)
