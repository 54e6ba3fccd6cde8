"""Ids and texts are those of transformers' tokenizers, for any string."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hf_folders import ENGLISH, GERMAN, LANGUAGES, marian_folder, marian_tokenizer

from seq2edge.models.loading import load_checkpoint
from seq2edge.runtime.manifest import PieceTokenizerSpec
from seq2edge.runtime.pieces import LINE_BREAK, PieceTokenizer
from seq2edge.runtime.tokenizer import load_tokenizer

STRINGS = 1500
ODD = " \t\n\r\u00a0\u2003\u2028\u200b\u3000\x00\x01\x7f\x85\ufeff\ufffd"
SIGNS = "aäßeéñ漢字かなعربيไทย😀👩‍🚀①ﬁＡ½'\"“”«».,;:!?-–—<>/_▁0123456789"
PARTS = (
    *ENGLISH,
    *GERMAN,
    "</s>",
    "<unk>",
    "<pad>",
    "<s>",
    "<mask>",
    *(f">>{code}<<" for code in (*LANGUAGES, "xyz", "")),
    ">>",
    "<<",
    "",
    " ",
)


def strings() -> Iterator[str]:
    """Corpus words, special tokens and odd signs, in any order; and long ones."""
    draw = random.Random(5)
    words = " ".join(PARTS).split()
    yield from PARTS
    yield " ".join(ENGLISH * 40)
    for _ in range(STRINGS):
        parts = [
            draw.choice(
                (
                    draw.choice(words),
                    draw.choice(PARTS[len(ENGLISH) + len(GERMAN) :]),
                    "".join(draw.choices(SIGNS, k=draw.randint(1, 6))),
                    "".join(draw.choices(ODD, k=draw.randint(1, 3))),
                )
            )
            for _ in range(draw.randint(0, 8))
        ]
        yield draw.choice(("", " ")).join(parts)


def ours(folder: Path) -> PieceTokenizer:
    spec = load_checkpoint(folder).info.tokenizer
    assert isinstance(spec, PieceTokenizerSpec)
    tokenizer = load_tokenizer(spec, folder)
    assert isinstance(tokenizer, PieceTokenizer)
    return tokenizer


def assert_same_ids(mine: PieceTokenizer, theirs: Any) -> None:
    for text in strings():
        assert mine.encode(text) == theirs(text).input_ids, repr(text)


def assert_same_texts(mine: PieceTokenizer, theirs: Any, size: int) -> None:
    """Of random ids, special and unknown ones among them."""
    draw = random.Random(6)
    for _ in range(STRINGS):
        ids = draw.choices(range(size), k=draw.randint(0, 20))
        expected = theirs.decode(ids, skip_special_tokens=True)
        assert mine.decode(ids) == LINE_BREAK.sub(" ", expected), ids


@pytest.mark.parametrize("kind", ["joint", "multilingual", "separate"])
def test_marian_reads_and_writes_as_transformers_does(
    kind: str, tmp_path: Path
) -> None:
    languages = LANGUAGES if kind == "multilingual" else ()
    model = marian_folder(tmp_path, languages=languages, separate=kind == "separate")
    mine, theirs = ours(tmp_path), marian_tokenizer(tmp_path)
    assert_same_ids(mine, theirs)
    assert_same_texts(mine, theirs, model.config.decoder_vocab_size + 3)
