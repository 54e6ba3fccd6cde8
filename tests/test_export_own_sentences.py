"""A Hugging Face folder without a sample, compared on sentences of our own."""

import json
from pathlib import Path

import pytest
from hf_folders import marian_folder

from seq2edge.export import ExportOptions, export_checkpoint
from seq2edge.export.own_sentences import SENTENCES, own_sample
from seq2edge.models.loading import load_checkpoint
from seq2edge.runtime.manifest import PieceTokenizerSpec
from seq2edge.runtime.records import Reader
from seq2edge.runtime.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("marian")
    marian_folder(path, encoder_layers=1, decoder_layers=1)
    return path


@pytest.mark.parametrize("code", ["de", "deu", "deu_Latn", "de_DE", "DE"])
def test_sentences_are_of_the_source_language(code: str, folder: Path) -> None:
    info = load_checkpoint(folder).info
    assert isinstance(info.tokenizer, PieceTokenizerSpec)
    reader = Reader(info.inputs, load_tokenizer(info.tokenizer, folder), 64)
    german = SENTENCES["de", "deu", "ger"].splitlines()
    assert list(own_sample(code, None, reader).texts) == german
    everything = sum(len(text.splitlines()) for text in SENTENCES.values())
    unknown = own_sample("tlh", None, reader)
    assert len(unknown.texts) + unknown.too_long == everything


def test_the_certificate_says_what_was_compared(folder: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    bundle = tmp_path / "bundle"
    export_checkpoint(folder, bundle, ExportOptions(), notes.append)
    assert any("no sample is given" in note for note in notes)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    sample = manifest["certificate"]["sample"]
    assert sample["origin"].startswith("sentences that come with seq2edge")
    assert not sample["references"]
