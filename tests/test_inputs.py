"""Lines to arrays, and arrays to batches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from toy_tokenizer import ReadsOnly

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.inputs import (
    SOURCE,
    as_example,
    check_example,
    class_input,
    collate,
    example_length,
    frames_input,
    tokens_input,
    vector_input,
)
from seq2edge.runtime.records import Reader

INPUTS = (
    tokens_input("text"),
    frames_input("sound", 2),
    vector_input("colour", 3),
    class_input("style", ("plain", "grand")),
)
ONE = {"text": [5, 6, 7], "sound": [[1, 2]], "colour": [1, 2, 3], "style": 1}
OTHER = {"text": [8], "sound": [[3, 4], [5, 6]], "colour": [0, 0, 1], "style": 0}


def test_a_batch_is_padded_and_knows_its_lengths() -> None:
    examples = [as_example(each, INPUTS) for each in (ONE, OTHER)]
    batch = collate(examples, INPUTS)
    assert batch["text"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["text_lengths"].tolist() == [3, 1]
    assert batch["text_lengths"].dtype == np.int32
    assert batch["sound"].tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert batch["sound_lengths"].tolist() == [1, 2]
    assert batch["colour"].shape == (2, 3)
    assert batch["style"].tolist() == [1, 0]
    assert [example_length(each, INPUTS) for each in examples] == [3, 2]


def test_plain_ids_are_the_only_input() -> None:
    example = as_example([4, 5], (SOURCE,))
    assert example["source"].tolist() == [4, 5]
    with pytest.raises(InputError, match="plain ids can't be read here"):
        as_example([4, 5], INPUTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": [1.5]}, "text is no int64 array"),
        ({"text": [[1]]}, r"text has shape \(1, 1\); give \(text\)"),
        ({"colour": [1, 2]}, r"colour has shape \(2,\); give \(3\)"),
        ({"sound": [[1, 2, 3]]}, r"sound has shape \(1, 3\)"),
        ({"text": []}, "text has 0 tokens; this model takes from 1 to 4"),
        ({"text": [1] * 5}, "text has 5 tokens"),
        ({"text": [-1]}, "holds the negative id -1"),
        ({"style": 2}, "style is 2; this model knows 0 to 1"),
        ({"colour": [1, 2, np.nan]}, "colour holds a number that is not finite"),
        ({"more": 1}, "the example has text, sound, colour, style, more"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    if change.get("text") == []:
        change = {"text": np.zeros(0, np.int64)}
    with pytest.raises(InputError, match=message):
        check_example(as_example({**ONE, **change}, INPUTS), INPUTS, 4)


def test_a_line_has_a_field_for_every_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.int32))
    reader = Reader(INPUTS, None, 10, tmp_path)
    record = reader.read("4 5\ta.npy\t1,2 3\tgrand")
    assert record.example["text"].tolist() == [4, 5]
    assert record.example["sound"].dtype == np.float32
    assert record.example["colour"].tolist() == [1, 2, 3]
    assert int(record.example["style"]) == 1
    assert not record.cut


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("4 5", "has 1 field.*text TAB sound TAB colour TAB style is due"),
        ("\ta.npy\t1 2 3\tplain", "text is empty"),
        ("4\tgone.npy\t1 2 3\tplain", "gone.npy can't be read"),
        ("4\ttext.npy\t1 2 3\tplain", "text.npy can't be read as a .npy file"),
        ("4\tpickle.npy\t1 2 3\tplain", "pickle.npy can't be read"),
        ("4\ta.npy\t1 2\tplain", "colour has 2 numbers, where 3 are due"),
        ("4\ta.npy\t1 x 3\tplain", "colour must be numbers"),
        ("4\ta.npy\t1 inf 3\tplain", "colour holds a number that is not finite"),
        ("4\ta.npy\t1 2 3\tred", "style 'red' is not known; give one of plain, grand"),
    ],
)
def test_a_field_that_cannot_be_read_is_named(
    tmp_path: Path, line: str, message: str
) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("not an array", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        Reader(INPUTS, None, 10, tmp_path).read(line)


def test_an_empty_text_beside_another_input_is_refused() -> None:
    class Ends(ReadsOnly):
        """Appends an end token, so that no text is without ids."""

        tail = 1

        def lead(self, text: str) -> tuple[str, str]:
            return "", text

        def encode(self, text: str) -> list[int]:
            return [*(ord(letter) for letter in text), 3]

        def decode(self, ids: Sequence[int]) -> str:
            return "".join(map(chr, ids))

        def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
            return tuple(map(chr, ids))

        def unknown_characters(self, text: str) -> tuple[str, ...]:
            return ()

    inputs = (tokens_input("passage"), tokens_input("question"))
    reader = Reader(inputs, Ends(), 10)
    assert reader.read("a\tb").example["question"].tolist() == [ord("b"), 3]
    with pytest.raises(InputError, match="passage is empty"):
        reader.read(" \tb")


def test_what_is_too_long_is_cut_and_marked(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12).reshape(6, 2))
    inputs = (tokens_input("text"), frames_input("sound", 2))
    record = Reader(inputs, None, 4, tmp_path).read("1 2 3 4 5\ta.npy")
    assert record.cut
    assert record.example["text"].tolist() == [1, 2, 3, 4]
    assert record.example["sound"].shape == (4, 2)


def test_a_text_that_is_the_only_input_may_hold_tabs() -> None:
    assert Reader((SOURCE,), None, 10).fields("4\t5") == ["4\t5"]
