from pathlib import Path

import pytest

from seq2edge.export.sample import Sample
from seq2edge.runtime.errors import ExportError


class Letters:
    """One id a letter, and an end token."""

    def encode(self, text: str) -> list[int]:
        return [*(ord(letter) for letter in text), 0]


def read(folder: Path, content: bytes, longest: int = 50) -> Sample:
    path = folder / "sample.tsv"
    path.write_bytes(content)
    return Sample.read(path, Letters(), longest)


def test_equal_sources_are_one_with_all_their_references(tmp_path: Path) -> None:
    sample = read(tmp_path, b"a\tx\nb\ty\na\tz\na\tx\n")
    assert sample.texts == ("a", "b")
    assert sample.references == (("x", "z"), ("y",))
    assert sample.sources == ((97, 0), (98, 0))


def test_several_references_may_stand_on_one_line(tmp_path: Path) -> None:
    assert read(tmp_path, b"a\tx\ty\n").references == (("x", "y"),)


def test_plain_lines_have_no_references(tmp_path: Path) -> None:
    sample = read(tmp_path, b"a\n\n  \nb\r\n")
    assert sample.texts == ("a", "b")
    assert sample.references == ()


def test_one_source_without_reference_leaves_none(tmp_path: Path) -> None:
    assert read(tmp_path, b"a\tx\nb\n").references == ()


def test_sentences_that_are_too_long_are_counted(tmp_path: Path) -> None:
    sample = read(tmp_path, b"aaaa\tx\nb\ty\n", longest=3)
    assert sample.texts == ("b",)
    assert sample.too_long == 1
    assert sample.references == (("y",),)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\tx\n"])
def test_a_sample_without_sentences_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ExportError, match=r"sample.tsv.*needs sentences"):
        read(tmp_path, content)


def test_what_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="line 2: not UTF-8"):
        read(tmp_path, b"a\tx\n\xff\xfe\ty\n")


def test_a_missing_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"missing\.tsv: the sample can't be read"):
        Sample.read(tmp_path / "missing.tsv", Letters(), 9)


def test_ids_need_no_text() -> None:
    assert Sample.of_ids([[1, 2], [3]]).sources == ((1, 2), (3,))
    with pytest.raises(ExportError, match="none empty"):
        Sample.of_ids([[1], []])
