"""Ids and texts are those of transformers' tokenizers, for any string."""

from pathlib import Path

import pytest
from hf_folders import LANGUAGES, marian_folder, marian_tokenizer
from hf_parity import assert_same_ids, assert_same_texts

from seq2edge.models.loading import load_checkpoint
from seq2edge.runtime.manifest import PieceTokenizerSpec
from seq2edge.runtime.pieces import PieceTokenizer
from seq2edge.runtime.tokenizer import load_tokenizer


def ours(folder: Path) -> PieceTokenizer:
    spec = load_checkpoint(folder).info.tokenizer
    assert isinstance(spec, PieceTokenizerSpec)
    tokenizer = load_tokenizer(spec, folder)
    assert isinstance(tokenizer, PieceTokenizer)
    return tokenizer


@pytest.mark.parametrize("kind", ["joint", "multilingual", "separate"])
def test_marian_reads_and_writes_as_transformers_does(
    kind: str, tmp_path: Path
) -> None:
    languages = LANGUAGES if kind == "multilingual" else ()
    model = marian_folder(tmp_path, languages=languages, separate=kind == "separate")
    mine, theirs = ours(tmp_path), marian_tokenizer(tmp_path)
    assert_same_ids(mine, theirs)
    assert_same_texts(mine, theirs, model.config.decoder_vocab_size + 3)
