"""M2M100, NLLB and mBART compute, read and write here what they do in transformers."""

from pathlib import Path

import pytest
from hf_multilingual import KINDS, multilingual_folder, tokenizer_of
from hf_parity import assert_same, assert_same_ids, assert_same_texts

from seq2edge.models.loading import load_checkpoint
from seq2edge.models.transformer import Transformer
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
