"""Corpora with defects, batches of equal cost, recipes with faults."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2edge.models.batches import EncodedCorpus, epoch_batches, make_batch
from seq2edge.models.corpus import read_corpus
from seq2edge.models.recipe import Recipe
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=20, pad=0, unknown=1, start=2, end=3)


def test_defective_lines_are_counted_not_fatal(tmp_path: Path) -> None:
    lines = [
        b"good\tgut",
        b"\tleer",
        b"a\tb\tc",
        b"no tab",
        b"bad\t\xff\xfe",
        b"good too \tauch gut\r",
    ]
    (tmp_path / "c.tsv").write_bytes(b"\n".join(lines) + b"\n")
    corpus = read_corpus(["c.tsv"], tmp_path)
    assert corpus.sources == ["good", "good too"]
    assert corpus.targets == ["gut", "auch gut"]
    assert corpus.defects == Counter(
        {"empty side": 1, "stray TAB": 1, "no TAB": 1, "invalid UTF-8": 1}
    )


def test_line_aligned_files_keep_their_pairs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n\nfour\tx\n", encoding="utf-8")
    (tmp_path / "b").write_text("eins\nzwei\ndrei\nvier\n", encoding="utf-8")
    corpus = read_corpus(["a", "b"], tmp_path)
    assert list(zip(corpus.sources, corpus.targets, strict=True)) == [
        ("one", "eins"),
        ("two", "zwei"),
    ]
    assert corpus.defects == Counter({"empty side": 1, "stray TAB": 1})


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "b").write_text("eins\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"2 lines and .* has 1"):
        read_corpus(["a", "b"], tmp_path)


@pytest.mark.parametrize("content", [b"", b"x\n\n"])
def test_a_corpus_without_pairs_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.tsv").write_bytes(content)
    with pytest.raises(ConfigError, match="no usable pair"):
        read_corpus(["c.tsv"], tmp_path)


def test_a_missing_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.tsv: can't be read"):
        read_corpus(["nowhere.tsv"], tmp_path)


Lengths = st.lists(
    st.tuples(st.integers(1, 15), st.integers(1, 15)), min_size=1, max_size=60
)


@given(Lengths, st.integers(16, 100), st.integers(0, 5))
def test_batches_cover_every_pair_once_within_budget(
    lengths: list[tuple[int, int]], budget: int, epoch: int
) -> None:
    corpus = EncodedCorpus(
        [[5] * source for source, _ in lengths],
        [[6] * target for _, target in lengths],
        Counter(),
    )
    batches = epoch_batches(corpus, budget, seed=1, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = max(max(lengths[i][0], lengths[i][1] + 1) for i in batch)
        assert longest * len(batch) <= budget
    again = epoch_batches(corpus, budget, seed=1, epoch=epoch)
    assert all(map(np.array_equal, batches, again))


def test_epochs_differ_in_order_not_in_number_of_batches() -> None:
    corpus = EncodedCorpus(
        [[5] * (i % 7 + 1) for i in range(90)], [[6]] * 90, Counter()
    )
    first, second = (epoch_batches(corpus, 20, seed=1, epoch=e) for e in (0, 1))
    assert len(first) == len(second)  # the learning rate's schedule counts on it
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


def test_a_batch_moves_the_target_by_one() -> None:
    corpus = EncodedCorpus([[5, 6, 3], [7, 3]], [[8], [9, 10]], Counter())
    batch = make_batch(corpus, [0, 1], VOCABULARY)
    assert batch.source.tolist() == [[5, 6, 3], [7, 3, 0]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target.tolist() == [[2, 8, 0], [2, 9, 10]]
    assert batch.expected.tolist() == [[8, 3, 0], [9, 10, 3]]
    assert batch.tokens == 5


MINIMAL = {"about": {"name": "x"}, "data": {"train": ["a"], "dev": ["b"]}}


def test_a_recipe_needs_only_its_name_and_data() -> None:
    recipe = Recipe.from_values(MINIMAL, "r.toml")
    assert recipe.training.adam_betas == (0.9, 0.98)
    assert recipe.model_config(50, 50).cell == "gru"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"training": {"epoch": 3}}, r"training\.epoch is not a known key"),
        ({"trainign": {}}, "trainign is not a known key"),
        ({"training": {"epochs": "3"}}, r"training\.epochs must be an integer"),
        ({"training": {"decay": "step"}}, r"training\.decay must be linear"),
        ({"training": {"epochs": 0}}, r"training\.epochs must be at least 1"),
        ({"model": {"cel": "gru"}}, "cel is not a known key"),
        ({"model": {"cell": "tanh"}}, "use one of gru, lstm"),
        ({"data": {"train": ["a"]}}, r"data\.dev is missing"),
    ],
)
def test_a_faulty_recipe_is_refused_by_name(
    section: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.from_values({**MINIMAL, **section}, "r.toml")


def test_a_recipe_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    with pytest.raises(ConfigError, match="no such recipe"):
        Recipe.load(path)
    path.write_text("[about\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a readable TOML"):
        Recipe.load(path)
