"""Corpora with defects, batches of equal cost, recipes with faults."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2edge.models.batches import epoch_batches, make_batch
from seq2edge.models.corpus import by_frequency, read_corpus
from seq2edge.models.examples import CorpusEncoder, EncodedCorpus
from seq2edge.models.labels import IGNORED
from seq2edge.models.recipe import Recipe
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.inputs import SOURCE, Example
from seq2edge.runtime.manifest import InputSpec
from seq2edge.runtime.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=20, pad=0, unknown=1, start=2, end=3)


def pairs_of(sources: list[list[int]], targets: list[list[int]]) -> EncodedCorpus:
    examples: list[Example] = [{"source": np.array(ids)} for ids in sources]
    return EncodedCorpus("generation", (SOURCE,), examples, targets)


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
    assert corpus.inputs == [("good",), ("good too",)]
    assert corpus.outputs == ["gut", "auch gut"]
    assert corpus.defects == Counter(
        {"empty side": 1, "stray TAB": 1, "no TAB": 1, "invalid UTF-8": 1}
    )


def test_line_aligned_files_keep_their_pairs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n\nfour\tx\n", encoding="utf-8")
    (tmp_path / "b").write_text("eins\nzwei\ndrei\nvier\n", encoding="utf-8")
    corpus = read_corpus(["a", "b"], tmp_path)
    assert corpus.column(0) == ["one", "two"]
    assert corpus.outputs == ["eins", "zwei"]
    assert corpus.defects == Counter({"empty side": 1, "stray TAB": 1})


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n", encoding="utf-8")
    (tmp_path / "b").write_text("eins\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"2 lines and .* has 1"):
        read_corpus(["a", "b"], tmp_path)


@pytest.mark.parametrize("content", [b"", b"x\n\n"])
def test_a_corpus_without_lines_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.tsv").write_bytes(content)
    with pytest.raises(ConfigError, match="no usable line"):
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
    corpus = pairs_of(
        [[5] * source for source, _ in lengths],
        [[6] * target for _, target in lengths],
    )
    batches = epoch_batches(corpus, budget, seed=1, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        longest = max(max(lengths[i][0], lengths[i][1] + 1) for i in batch)
        assert longest * len(batch) <= budget
    again = epoch_batches(corpus, budget, seed=1, epoch=epoch)
    assert all(map(np.array_equal, batches, again))


def test_epochs_differ_in_order_not_in_number_of_batches() -> None:
    corpus = pairs_of([[5] * (i % 7 + 1) for i in range(90)], [[6]] * 90)
    first, second = (epoch_batches(corpus, 20, seed=1, epoch=e) for e in (0, 1))
    assert len(first) == len(second)  # the learning rate's schedule counts on it
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


def test_a_batch_moves_the_target_by_one() -> None:
    corpus = pairs_of([[5, 6, 3], [7, 3]], [[8], [9, 10]])
    batch = make_batch(corpus, [0, 1], VOCABULARY)
    assert batch.inputs["source"].tolist() == [[5, 6, 3], [7, 3, 0]]
    assert batch.inputs["source_lengths"].tolist() == [3, 2]
    assert batch.target is not None
    assert batch.target.tolist() == [[2, 8, 0], [2, 9, 10]]
    assert batch.expected.tolist() == [[8, 3, 0], [9, 10, 3]]
    assert batch.tokens == 5


def test_several_inputs_stand_in_columns_or_in_files(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text("a\tb\tc\nd\te\n", encoding="utf-8")
    names = ["article", "question"]
    corpus = read_corpus(["c.tsv"], tmp_path, names)
    assert corpus.inputs == [("a", "b")]
    assert corpus.outputs == ["c"]
    assert corpus.record(0) == "a\tb"
    assert corpus.defects == Counter({"no TAB": 1})
    for column in "abc":
        (tmp_path / column).write_text(f"{column}\n", encoding="utf-8")
    assert read_corpus(["a", "b", "c"], tmp_path, names).inputs == [("a", "b")]
    with pytest.raises(ConfigError, match=r"\[article, question, output\]"):
        read_corpus(["a", "b"], tmp_path, names)


def test_labels_come_by_frequency_and_then_by_the_alphabet() -> None:
    assert by_frequency(["b", "a", "c", "c", "a", "d"]) == ("a", "c", "b", "d")


FRAMES = InputSpec("sound", "frames", "float32", ("batch", "sound", 2), "sound_lengths")
KIND = InputSpec("kind", "class", "int64", ("batch",), None, ("x", "y"))


def test_lines_that_no_model_can_use_are_counted(tmp_path: Path) -> None:
    for length in (2, 3, 9):
        np.save(tmp_path / f"{length}.npy", np.ones((length, 2), np.float32))
    lines = [
        ("2.npy\tx", "A B"),
        ("3.npy\ty", "A B"),  # three frames
        ("9.npy\ty", "A A A A A A A A A"),
        ("4.npy\ty", "A A A A"),  # no such file
        ("3.npy\tz", "A A A"),  # no such class
        ("2.npy\ty", "A C"),
    ]
    text = "".join(f"{fields}\t{tags}\n" for fields, tags in lines)
    (tmp_path / "c.tsv").write_text(text, encoding="utf-8")
    corpus = read_corpus(["c.tsv"], tmp_path, ["sound", "kind"])
    encoder = CorpusEncoder(
        task="tagging",
        inputs=(FRAMES, KIND),
        labels=("A", "B"),
        tokenizer=None,
        folder=tmp_path,
        max_tokens=5,
        max_ratio=4.0,
    )
    encoded = encoder.encode(corpus)
    assert encoded.outputs == [[0, 1], [0, IGNORED]]
    assert encoded.readable == [0, 5]
    assert encoded.defects == Counter(
        {"number of tags": 1, "too long": 1, "unreadable input": 2}
    )
    batch = make_batch(encoded, [0, 1], None)
    assert batch.inputs["sound"].shape == (2, 2, 2)
    assert batch.inputs["kind"].tolist() == [0, 1]
    assert batch.expected.tolist() == [[0, 1], [0, IGNORED]]
    assert batch.tokens == 3
    assert batch.target is None


def test_one_label_an_example_is_a_column() -> None:
    examples: list[Example] = [{"source": np.array([5, 3])}] * 2
    corpus = EncodedCorpus("classification", (SOURCE,), examples, [[1], [0]])
    assert make_batch(corpus, [0, 1], None).expected.tolist() == [1, 0]
    assert corpus.lengths() == [(2, 1), (2, 1)]


MINIMAL = {"about": {"name": "x"}, "data": {"train": ["a"], "dev": ["b"]}}


def test_a_recipe_needs_only_its_name_and_data() -> None:
    recipe = Recipe.from_values(MINIMAL, "r.toml")
    assert recipe.training.adam_betas == (0.9, 0.98)
    config = recipe.model_config(50, 50)
    assert isinstance(config, RecurrentConfig)
    assert config.cell == "gru"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"training": {"epoch": 3}}, r"training\.epoch is not a known key"),
        ({"trainign": {}}, "trainign is not a known key"),
        ({"training": {"epochs": "3"}}, r"training\.epochs must be an integer"),
        ({"training": {"decay": "step"}}, r"training\.decay must be linear"),
        ({"training": {"epochs": 0}}, r"training\.epochs must be at least 1"),
        ({"model": {"cel": "gru"}}, "cel is not a known key"),
        ({"model": {"cell": "tanh"}}, "use one of elman, elman_relu, gru"),
        ({"data": {"train": ["a"]}}, r"data\.dev is missing"),
        ({"model": {"labels": 3}}, r"model\.labels follows from the corpora"),
        ({"model": {"task": "tagging"}}, r"tokenizer\.kind must be word in tagging"),
        ({"tokenizer": {"joint": False}}, r"tie = all needs tokenizer\.joint"),
        ({"tokenizer": {"kind": "words"}}, "unigram, bpe, word or char"),
        ({"evaluation": {"metric": "accuracy"}}, "metric must be auto, exact, bleu in"),
        (
            {"evaluation": {"metric": "bleu"}, "model": {"task": "classification"}},
            "metric must be auto, exact, accuracy in classification",
        ),
        ({"embedding": {"frozen": True}}, r"embedding\.frozen needs a file"),
        (
            {"embedding": {"frozen": True, "file": "v.txt"}},
            r"embedding\.frozen needs a model\.tie other than all",
        ),
        ({"embedding": {"file": "v.npy"}}, r"embedding\.vocabulary goes with"),
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
