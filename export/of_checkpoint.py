"""What a checkpoint tells its export: the sample, and what the bundle says of it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from seq2edge.export.own_sentences import own_sample
from seq2edge.export.parity import Note
from seq2edge.export.sample import Sample
from seq2edge.export.spec import ModelSpec
from seq2edge.models.checkpoint import SAMPLE, Checkpoint
from seq2edge.runtime.manifest import PieceTokenizerSpec, Task
from seq2edge.runtime.records import Reader
from seq2edge.runtime.tokenizer import load_tokenizer


def sample_of(checkpoint: Checkpoint, given: Path | None, note: Note) -> Sample:
    """The sample that is given, the checkpoint's, or sentences of our own."""
    info = checkpoint.info
    path, spec = given or checkpoint.path / SAMPLE, info.tokenizer
    tokenizer = load_tokenizer(spec, checkpoint.path) if spec else None
    reader = Reader(info.inputs, tokenizer, info.limits.source_tokens, path.parent)
    if given or path.is_file() or not isinstance(spec, PieceTokenizerSpec):
        return Sample.read(path, reader)
    note(
        "no sample is given: comparing on sentences that come with seq2edge, without "
        "references; --sample takes lines of SOURCE TAB REFERENCE"
    )
    return own_sample(info.about.source_language, spec.languages, reader)


def spec_of(checkpoint: Checkpoint) -> ModelSpec:
    """What its bundle holds beside the graphs."""
    path, info = checkpoint.path, checkpoint.info
    tokenizer = info.tokenizer
    names = tokenizer.files if tokenizer else set()
    given = {} if info.search is None else {"search": info.search}
    return ModelSpec(
        name=info.about.name,
        vocabulary=info.vocabulary,
        task=cast(Task, info.model.task),  # the config has checked it
        labels=info.labels,
        inputs=info.inputs,
        limits=info.limits,
        metric=info.metric,
        tokenizer=tokenizer,
        tokenizer_files={name: path / name for name in names},
        provenance={
            **_without_name(asdict(info.about)),
            "checkpoint": path.resolve().name,
            "checkpoint_sha256": _sha256(checkpoint.weights),
        },
        **given,
    )


def _without_name(about: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in about.items() if key != "name"}


def _sha256(files: Sequence[Path]) -> str:
    """Of one file, or of the parts of one in their order."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
