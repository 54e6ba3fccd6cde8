"""Small random models, whose vocabulary is large enough for drafts and shortlists."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from traced_once import traced_once

from seq2edge.export import (
    ExportOptions,
    ModelSpec,
    QualityLimits,
    Recipe,
    Sample,
    drafting,
    export_model,
)
from seq2edge.models.build import build_model
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.runtime.bundle import Bundle, hash_files
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.shortlist import Shortlist
from seq2edge.runtime.shortlisted import AHEAD
from seq2edge.runtime.vocabulary import Vocabulary

SIZE = 1100  # tokens; smaller vocabularies get neither
VOCABULARY = Vocabulary(SIZE, pad=0, unknown=1, start=2, end=3)
DRAW = np.random.default_rng(3)
SENTENCES = [[*DRAW.integers(4, SIZE, size).tolist(), 3] for size in range(1, 13)]
TRANSFORMER: dict[str, Any] = {
    "source_vocabulary": SIZE,
    "target_vocabulary": SIZE,
    "size": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_heads": 2,
    "decoder_heads": 2,
    "encoder_feed_forward": 24,
    "decoder_feed_forward": 24,
    "max_positions": 128,
}
RECURRENT: dict[str, Any] = {
    "source_vocabulary": SIZE,
    "target_vocabulary": SIZE,
    "embedding_size": 12,
    "encoder_hidden": 8,
    "decoder_hidden": 16,
}
MODELS: dict[str, Any] = {
    "transformer": lambda: TransformerConfig(**TRANSFORMER),
    "ssru, untied": lambda: TransformerConfig(
        **TRANSFORMER | {"decoder": "ssru", "tie": "none"}
    ),
    "lstm": lambda: RecurrentConfig(**RECURRENT | {"cell": "lstm"}),
    "gru, output bias": lambda: RecurrentConfig(**RECURRENT | {"cell": "gru"}),
}


def exported(
    name: str,
    precision: Any,
    folder: Path,
    chooses: Any = "drafts",
    shortlist: Shortlist | None = None,
) -> Path:
    """A random model, large in its weights so that it says various things.

    shortlist: instead of one that is learned.
    """
    model = build_model(MODELS[name](), seed=5).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.5)
    spec = ModelSpec(
        name=name,
        vocabulary=VOCABULARY,
        limits=Limits(source_tokens=30, target_tokens=AHEAD + 5),
    )
    options = ExportOptions(
        precision=precision,
        recipe=Recipe(smallest=100, chooses=chooses),
        limits=QualityLimits(min_agreement=0.0),
    )
    with ExitStack() as stack:
        stack.enter_context(traced_once())
        if shortlist is not None:
            learned = mock.patch.object(drafting, "learn_shortlist")
            stack.enter_context(learned).return_value = shortlist
        export_model(model, Sample.of_ids(SENTENCES), folder, spec, options)
    return folder


def same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert [one.finished for one in found] == [one.finished for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            ours.token_log_probs, theirs.token_log_probs, rtol=0, atol=1e-4
        )


def with_shortlist(folder: Path, shortlist: Shortlist, tmp_path: Path) -> Path:
    """A copy of a bundle with another shortlist."""
    copy = tmp_path / "bundle"
    copy.mkdir()
    manifest = Bundle.load(folder).manifest
    for name in manifest.files:
        (copy / name).hardlink_to(folder / name)
    assert manifest.shortlist is not None
    (copy / manifest.shortlist).unlink()
    shortlist.save(copy / manifest.shortlist)
    replace(manifest, files=hash_files(copy)).write(copy)
    return copy


def nothing_of_a_source(common: list[int]) -> Shortlist:
    empty = np.zeros(0, np.int64)
    return Shortlist(np.array(common), np.zeros(SIZE, np.int64), empty)


def begin(folder: Path, batch: list[list[int]], speculates: bool = True) -> Any:
    """A batch under way in a bundle, padded."""
    engine = Engine.load(folder, EngineOptions(speculates=speculates))
    lengths = np.array([len(sentence) for sentence in batch], np.int32)
    source = np.zeros((len(batch), lengths.max()), np.int64)
    for row, sentence in zip(source, batch, strict=True):
        row[: len(sentence)] = sentence
    return engine.start({"source": source, "source_lengths": lengths})
