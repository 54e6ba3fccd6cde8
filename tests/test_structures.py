"""Structures beside the shipped one: trained, exported to int8 and decoded."""

from pathlib import Path

import pytest
from toy_language import recipe, translate, write_corpus

from seq2edge.export import ExportOptions, export_checkpoint
from seq2edge.models.train import train
from seq2edge.runtime import Translator

Section = dict[str, object]
STRUCTURES: dict[str, tuple[Section, Section]] = {
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
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_keeps_its_quality_from_training_to_int8(
    name: str, tmp_path: Path
) -> None:
    model, tokenizer = STRUCTURES[name]
    write_corpus(tmp_path)
    asked = recipe(model, tokenizer, epochs=8)
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
