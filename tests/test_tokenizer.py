import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.tokenizer import SentencePieceTokenizer

PAD, UNKNOWN, START, END = range(4)

ENGLISH = ["the cat sat on the mat.", "a dog ran to the house.", "it was hot."] * 9
GERMAN = ["die Katze saß auf der Matte.", "ein Hund lief.", "es war heiß."] * 9


def train(lines: list[str], end: int = END) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=PAD,
        unk_id=UNKNOWN,
        bos_id=START,
        eos_id=end,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def english() -> bytes:
    return train(ENGLISH)


@pytest.fixture(scope="session")
def german() -> bytes:
    return train(GERMAN)


def write(folder: Path, source: bytes, target: bytes) -> tuple[Path, Path]:
    paths = folder / "source.spm", folder / "target.spm"
    paths[0].write_bytes(source)
    paths[1].write_bytes(target)
    return paths


@pytest.fixture
def paths(tmp_path: Path, english: bytes, german: bytes) -> tuple[Path, Path]:
    return write(tmp_path, english, german)


@pytest.fixture(scope="session")
def tokenizer(
    tmp_path_factory: pytest.TempPathFactory, english: bytes, german: bytes
) -> SentencePieceTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return SentencePieceTokenizer.load(*write(folder, english, german))


def test_the_end_token_is_appended_only_if_asked_for(
    paths: tuple[Path, Path],
) -> None:
    with_end = SentencePieceTokenizer.load(*paths).encode("the cat")
    without = SentencePieceTokenizer.load(*paths, append_end=False).encode("the cat")
    assert with_end == [*without, END]
    assert END not in without


def test_source_and_target_have_their_own_pieces(
    tokenizer: SentencePieceTokenizer,
) -> None:
    assert tokenizer.source_size != tokenizer.target_size
    ids = tokenizer.encode_target("die Katze saß.")
    assert END not in ids
    assert tokenizer.decode(ids) == "die Katze saß."
    assert "".join(tokenizer.pieces(ids)) == "▁die▁Katze▁saß."
    assert tokenizer.encode("die Katze saß.")[:-1] != ids


def test_a_joint_tokenizer_is_one_object(tmp_path: Path, english: bytes) -> None:
    path = tmp_path / "joint.spm"
    path.write_bytes(english)
    tokenizer = SentencePieceTokenizer.load(path, tmp_path / "." / "joint.spm")
    assert tokenizer._source is tokenizer._target
    assert tokenizer.decode(tokenizer.encode("the cat sat.")) == "the cat sat."


def test_an_empty_text_has_no_pieces(tokenizer: SentencePieceTokenizer) -> None:
    for text in ("", " ", "\u00a0\u3000", "\x00\x01\x7f\x85", "\n\t", "\u200b"):
        assert tokenizer.encode(text) == [END]
        assert tokenizer.unknown_characters(text) == ()


@pytest.mark.parametrize("space", [*map(chr, range(32)), "\x7f", "\x85", "\u00a0"])
def test_control_characters_are_read_as_spaces(
    tokenizer: SentencePieceTokenizer, space: str
) -> None:
    expected = tokenizer.encode("the cat")
    assert UNKNOWN not in expected
    assert tokenizer.encode(f"{space}the{space}{space}cat{space}") == expected


def test_unknown_characters_are_named_once_and_in_order(
    tokenizer: SentencePieceTokenizer,
) -> None:
    assert tokenizer.unknown_characters("the cat sat.") == ()
    text = "the 😀😃 cat 漢 😀 sat Q"
    assert tokenizer.unknown_characters(text) == ("😀", "😃", "漢", "Q")


def test_unknown_characters_come_normalized(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.unknown_characters("the\u00a0cat") == ()
    assert tokenizer.unknown_characters("e\u0301") == ("é",)
    assert tokenizer.unknown_characters("Ａ ａ ﬁ") == ("A", "f")


def test_unknown_characters_need_no_end_token(paths: tuple[Path, Path]) -> None:
    tokenizer = SentencePieceTokenizer.load(*paths, append_end=False)
    assert tokenizer.unknown_characters("Q the") == ("Q",)


def test_broken_text_is_an_unknown_character(
    tokenizer: SentencePieceTokenizer,
) -> None:
    # Half of a surrogate pair, and what decoding invalid UTF-8 leaves.
    for text in ("the \ud83d cat", "the \ufffd cat"):
        assert tokenizer.encode(text) == tokenizer.encode("the cat")
        assert tokenizer.unknown_characters(text) == ("\ufffd",)


def test_ids_without_a_piece_are_decoded_as_unknown(
    tokenizer: SentencePieceTokenizer,
) -> None:
    word = tokenizer.encode_target("es")[0]
    pieces = tokenizer.pieces([tokenizer.target_size, word, -1])
    assert pieces[0] == pieces[2] == "<unk>" != pieces[1]
    assert tokenizer.decode([10**9]) == tokenizer.decode([UNKNOWN])


def test_decoding_no_ids_gives_no_text(tokenizer: SentencePieceTokenizer) -> None:
    assert tokenizer.decode([]) == ""
    assert tokenizer.pieces([]) == ()


def test_a_missing_model_is_an_error(paths: tuple[Path, Path]) -> None:
    source, target = paths
    target.unlink()
    with pytest.raises(BundleError) as caught:
        SentencePieceTokenizer.load(source, target)
    assert str(caught.value) == (
        f"{target}: the tokenizer can't be read (No such file or directory); "
        "restore the file or export the bundle again"
    )


def test_a_damaged_model_is_an_error(
    paths: tuple[Path, Path], english: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = paths
    damaged = [b"", b"no model", english[:100], english[:-7], bytes(1000)]
    for content in damaged:
        source.write_bytes(content)
        with pytest.raises(BundleError) as caught:
            SentencePieceTokenizer.load(source, target)
        assert str(caught.value) == (
            f"{source}: damaged, or not a SentencePiece model; "
            "restore the file or export the bundle again"
        )
    assert capfd.readouterr() == ("", "")


def test_an_end_token_that_the_model_lacks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "endless.spm"
    path.write_bytes(train(ENGLISH, end=-1))
    with pytest.raises(BundleError, match="no end token"):
        SentencePieceTokenizer.load(path, path)
    assert SentencePieceTokenizer.load(path, path, append_end=False).encode("the")


@given(st.text(st.characters(exclude_categories=()) | st.sampled_from("\ufffd▁")))
def test_any_text_is_encoded(tokenizer: SentencePieceTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids[-1] == END
    assert all(0 <= id_ < tokenizer.source_size for id_ in ids)
    broken = "\ufffd" in text or any("\ud800" <= sign <= "\udfff" for sign in text)
    assert bool(tokenizer.unknown_characters(text)) == (UNKNOWN in ids or broken)


@given(st.lists(st.integers(-5, 100)))
def test_any_ids_are_decoded(tokenizer: SentencePieceTokenizer, ids: list[int]) -> None:
    assert isinstance(tokenizer.decode(ids), str)
    assert len(tokenizer.pieces(ids)) == len(ids)


def test_threads_share_a_tokenizer(tokenizer: SentencePieceTokenizer) -> None:
    texts = [f"the cat {'sat on ' * (index % 7)}mat Q{index}" for index in range(400)]

    def work(text: str) -> tuple[list[int], tuple[str, ...], str]:
        ids = tokenizer.encode(text)
        return ids, tokenizer.unknown_characters(text), tokenizer.decode(ids)

    expected = [work(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, texts)) == expected


def test_words_are_read_one_by_one_even_where_they_are_unknown(tmp_path: Path) -> None:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat .", "a cat ran ."]),
        model_writer=written,
        model_type="word",
        vocab_size=100,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        minloglevel=2,
    )
    path = tmp_path / "word.spm"
    path.write_bytes(written.getvalue())
    words = SentencePieceTokenizer.load(path, path, append_end=False, words=True)
    ids = words.encode("the  foo bar\tcat \u200b")
    assert len(ids) == 5  # SentencePiece alone makes one piece of foo and bar
    assert ids[1:3] == [1, 1]
    assert words.decode([ids[0], ids[3]]) == "the cat"
    assert words.unknown_characters("the foo cat bar foo") == ("foo", "bar")
    assert words.tail == 0
