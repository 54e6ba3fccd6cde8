"""M2M100, NLLB and mBART compute, read and write here what they do in transformers."""

from pathlib import Path

import pytest
import torch
from hf_multilingual import KINDS, multilingual_folder, tokenizer_of
from hf_parity import assert_same, assert_same_ids, assert_same_texts
from safetensors.torch import load_file, save_file

from seq2edge.models.loading import load_checkpoint
from seq2edge.models.transformer import Transformer
from seq2edge.runtime.errors import CheckpointError
from seq2edge.runtime.languages import LanguagePair
from seq2edge.runtime.manifest import PieceTokenizerSpec
from seq2edge.runtime.pieces import PieceTokenizer
from seq2edge.runtime.tokenizer import load_tokenizer


@pytest.mark.parametrize("name", KINDS)
def test_logits_ids_and_texts_are_those_of_transformers(
    name: str, tmp_path: Path
) -> None:
    kind = KINDS[name]
    model = multilingual_folder(tmp_path, name, max_position_embeddings=40)
    loaded = load_checkpoint(tmp_path, LanguagePair(kind.source, kind.target))
    assert isinstance(loaded.module, Transformer)
    assert_same(model, loaded.module)
    spec = loaded.info.tokenizer
    assert isinstance(spec, PieceTokenizerSpec)
    mine = load_tokenizer(spec, tmp_path)
    assert isinstance(mine, PieceTokenizer)
    theirs = tokenizer_of(tmp_path, name, src_lang=kind.source)
    assert_same_ids(mine, theirs)
    assert_same_texts(mine, theirs, len(theirs))


def test_positions_of_an_older_m2m100_are_checked_and_not_used(tmp_path: Path) -> None:
    model = multilingual_folder(tmp_path, "m2m100")
    file, languages = tmp_path / "model.safetensors", LanguagePair("en", "de")
    weights = load_file(file)
    name = "model.decoder.embed_positions.weights"
    table = model.model.decoder.embed_positions.weights.detach().clone()
    save_file({**weights, name: table}, file)
    module = load_checkpoint(tmp_path, languages).module
    assert isinstance(module, Transformer)
    assert_same(model, module)
    save_file({**weights, name: torch.roll(table, 1, 0)}, file)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path, languages)
