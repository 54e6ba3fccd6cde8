"""Word vectors from files come to the rows of their words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_tasks import TASKS

from seq2edge.models.checkpoint import Checkpoint
from seq2edge.models.pretrained import fill_embedding
from seq2edge.models.recipe import EmbeddingRecipe
from seq2edge.models.train import train
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.tokenizer import load_tokenizer

PIECES = [None, None, "▁the", "▁Dog", "ing", ",", "▁cat", "▁"]
VECTORS = {"the": [1.0, 2.0], "dog": [3.0, 4.0], ",": [5.0, 6.0], "ing": [7.0, 8.0]}
GLOVE = "".join(f"{word} {a} {b}\n" for word, (a, b) in VECTORS.items())


def filled(folder: Path, **recipe: Any) -> tuple[nn.Embedding, dict[str, Any]]:
    table = nn.Embedding(len(PIECES), 2)
    nn.init.constant_(table.weight, 9)
    event = fill_embedding(table, PIECES, EmbeddingRecipe(**recipe), folder)
    return table, event


def write(folder: Path, text: str) -> str:
    (folder / "v.txt").write_text(text, encoding="utf-8")
    return "v.txt"


def check(table: nn.Embedding, event: dict[str, Any]) -> None:
    """Three words are there; a piece inside of words is none of them."""
    rows = table.weight.detach().numpy()
    wanted = {2: [1, 2], 3: [3, 4], 5: [5, 6]}
    for row in range(len(PIECES)):
        np.testing.assert_array_equal(rows[row], wanted.get(row, [9, 9]))
    assert event["event"] == "embedding"
    assert (event["found"], event["missing"]) == (3, 3)
    assert event["examples"] == ["ing", "cat", "▁"]


def test_glove_has_no_header(tmp_path: Path) -> None:
    table, event = filled(tmp_path, file=write(tmp_path, GLOVE))
    check(table, event)
    assert event["bad_lines"] == 0
    assert table.weight.requires_grad


def test_word2vec_has_a_header_and_spaces_at_the_end(tmp_path: Path) -> None:
    text = "4 2\n" + GLOVE.replace("\n", " \n")
    table, event = filled(tmp_path, file=write(tmp_path, text))
    check(table, event)
    assert event["bad_lines"] == 0


def test_a_table_has_its_words_in_a_file_beside_it(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array(list(VECTORS.values())))
    words = write(tmp_path, "".join(f"{word}\n" for word in VECTORS))
    table, event = filled(tmp_path, file="v.npy", vocabulary=words)
    check(table, event)


def test_bad_lines_are_counted_and_the_first_of_a_word_counts(tmp_path: Path) -> None:
    lines = [
        GLOVE.encode(),
        b"\n",  # blank
        b"the 0 0\n",  # once more
        b"cat 1\n",  # too short
        b"cat 1 nan\n",
        b"cat one two\n",
        b"c\xff\xfet 1 2\n",
        "new\u00a0york 1 2\n".encode(),  # a word with a space in it
        b"at the end 1 2\n",
        b" 1 2\n",  # no word
    ]
    (tmp_path / "v.txt").write_bytes(b"".join(lines))
    table, event = filled(tmp_path, file="v.txt")
    check(table, event)
    assert event["bad_lines"] == 6


def test_a_header_may_follow_blank_lines(tmp_path: Path) -> None:
    text = "\n4 2\n" + GLOVE
    table, event = filled(tmp_path, file=write(tmp_path, text))
    check(table, event)


@pytest.mark.parametrize("text", ["1 3\nthe 1 2 3\n", "the 1 2 3\n", "\nthe 1\n"])
def test_vectors_of_another_size_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.embedding_size is 2; make it"):
        filled(tmp_path, file=write(tmp_path, text))


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    words = write(tmp_path, "one\ntwo\n")
    np.save(tmp_path / "v.npy", np.ones((3, 2)))
    with pytest.raises(ConfigError, match=r"3 rows and .* 2 words"):
        filled(tmp_path, file="v.npy", vocabulary=words)
    np.save(tmp_path / "v.npy", np.ones((2, 4)))
    with pytest.raises(ConfigError, match="vectors of 4 numbers"):
        filled(tmp_path, file="v.npy", vocabulary=words)
    np.save(tmp_path / "v.npy", np.ones(2))
    with pytest.raises(ConfigError, match="no table of numbers"):
        filled(tmp_path, file="v.npy", vocabulary=words)
    (tmp_path / "v.npy").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"no \.npy file"):
        filled(tmp_path, file="v.npy", vocabulary=words)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt can't be read"):
        filled(tmp_path, file="nowhere.txt")


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_vectors_stay_where_they_are_in_training(
    frozen: bool, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    task = TASKS["classifier"]
    task.write(tmp_path)
    draw = np.random.default_rng(1)
    vectors = {word: draw.normal(size=16) for word in ("good", "bad", "not")}
    write(
        tmp_path,
        "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in vectors.items()),
    )
    recipe = task.recipe(
        training={"epochs": 2, "save_every": 5},
        embedding={"file": "v.txt", "frozen": frozen},
    )
    events: list[dict[str, Any]] = []
    loaded = Checkpoint.load(train(recipe, tmp_path, tmp_path / "out", events.append))
    torch.set_num_threads(threads)
    [event] = [each for each in events if each["event"] == "embedding"]
    assert event["found"] == 3
    assert event["missing"] == 5
    assert loaded.info.tokenizer is not None
    tokenizer = load_tokenizer(loaded.info.tokenizer, loaded.path)
    table = loaded.module.source_embedding.weight
    for word, vector in vectors.items():
        row = table[tokenizer.encode(word)[0]]
        wanted = torch.tensor(vector).half().float()
        assert torch.allclose(row, wanted, atol=2e-3) == frozen
