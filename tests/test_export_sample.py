from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from toy_tokenizer import ReadsOnly

from seq2edge.export.sample import Sample, infer_inputs
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.inputs import (
    SOURCE,
    class_input,
    frames_input,
    tokens_input,
    vector_input,
)
from seq2edge.runtime.manifest import InputSpec
from seq2edge.runtime.records import Reader


class Letters(ReadsOnly):
    """One id a letter, and an end token."""

    tail = 1

    def lead(self, text: str) -> tuple[str, str]:
        return "", text

    def encode(self, text: str) -> list[int]:
        return [*(ord(letter) for letter in text), 0]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(id_) for id_ in ids)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(chr(id_) for id_ in ids)

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        return ()


def read(
    folder: Path,
    content: bytes,
    longest: int = 50,
    inputs: Sequence[InputSpec] = (SOURCE,),
) -> Sample:
    path = folder / "sample.tsv"
    path.write_bytes(content)
    return Sample.read(path, Reader(inputs, Letters(), longest, folder))


def sources(sample: Sample) -> list[list[int]]:
    return [example["source"].tolist() for example in sample.examples]


def test_equal_sources_are_one_with_all_their_references(tmp_path: Path) -> None:
    sample = read(tmp_path, b"a\tx\nb\ty\na\tz\na\tx\n")
    assert sample.texts == ("a", "b")
    assert sample.references == (("x", "z"), ("y",))
    assert sources(sample) == [[97, 0], [98, 0]]


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
    with pytest.raises(ExportError, match=r"sample.tsv.*needs examples"):
        read(tmp_path, content)


def test_what_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="line 2: not UTF-8"):
        read(tmp_path, b"a\tx\n\xff\xfe\ty\n")


def test_a_missing_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"missing\.tsv: the sample can't be read"):
        Sample.read(tmp_path / "missing.tsv", Reader([SOURCE], Letters(), 9))


def test_ids_need_no_text() -> None:
    assert sources(Sample.of_ids([[1, 2], [3]])) == [[1, 2], [3]]
    with pytest.raises(ExportError, match="none empty"):
        Sample.of_ids([[1], []])


def test_every_kind_of_input_is_read_from_its_field(tmp_path: Path) -> None:
    frames = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.npy", frames)
    inputs = [
        tokens_input("text"),
        frames_input("sound", 2),
        vector_input("colour", 3),
        class_input("style", ("plain", "grand")),
    ]
    line = b"ab\ta.npy\t1 2.5 -3\tgrand\tthe reference\n"
    sample = read(tmp_path, line, inputs=inputs)
    [example] = sample.examples
    assert example["text"].tolist() == [97, 98, 0]
    np.testing.assert_array_equal(example["sound"], frames)
    assert example["colour"].tolist() == [1, 2.5, -3]
    assert int(example["style"]) == 1
    assert sample.references == (("the reference",),)
    assert sample.texts == ("ab\ta.npy\t1 2.5 -3\tgrand",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"ab\tref\n", "2 input fields are due"),
        (b"ab\t\tref\n", "none empty"),
        (b"ab\tpurple\n", "'purple' is not known; give one of plain, grand"),
    ],
)
def test_a_field_that_cannot_be_read_is_named(
    tmp_path: Path, line: bytes, message: str
) -> None:
    inputs = [tokens_input("text"), class_input("style", ("plain", "grand"))]
    if message.startswith("2 input"):
        line = b"ab\n"
    with pytest.raises(ExportError, match=message):
        read(tmp_path, line, inputs=inputs)


def test_inputs_are_found_in_the_arrays() -> None:
    sample = Sample.of(
        [{"ids": [1, 2], "frames": np.zeros((4, 5)), "vector": np.zeros(3)}]
    )
    assert infer_inputs(sample) == (
        tokens_input("ids"),
        frames_input("frames", 5),
        vector_input("vector", 3),
    )
    with pytest.raises(ExportError, match=r"class_input\('kind', labels\)"):
        infer_inputs(Sample.of([{"kind": np.int64(2)}]))
    with pytest.raises(ExportError, match="kind of the sample has 2 axes"):
        infer_inputs(Sample.of([{"kind": np.zeros((2, 2), np.int64)}]))
