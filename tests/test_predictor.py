"""Labels by a model in numpy: each token's label is its id modulo the labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundle import write_toy_bundle
from toy_tokenizer import ReadsOnly

from seq2edge.runtime.batching import Batching
from seq2edge.runtime.errors import BundleError, InputError
from seq2edge.runtime.inputs import frames_input
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.stepper import FloatArray, Inputs

LABELS = ("zero", "one", "two")


class WordTokenizer(ReadsOnly):
    """w5 is 5, and any other word 1, which is unknown."""

    tail = 0

    def lead(self, text: str) -> tuple[str, str]:
        return "", text

    def encode(self, text: str) -> list[int]:
        return [self.id(word) for word in text.split()]

    @staticmethod
    def id(word: str) -> int:
        known = word.startswith("w") and word[1:].isdigit()
        return int(word[1:]) if known else 1

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{id_}" for id_ in ids)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(f"w{id_}" for id_ in ids)

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        return tuple(word for word in text.split() if self.id(word) == 1)


@dataclass
class Modulo:
    """Past a sequence's end it says something absurd."""

    whole: bool = False  # a classifier: the sum of the ids

    def logits(self, inputs: Inputs) -> FloatArray:
        source = inputs["source"].astype(np.int64)
        lengths = inputs["source_lengths"].astype(np.int64)
        inside = np.arange(source.shape[1]) < lengths[:, None]
        if self.whole:
            return self._logits((source * inside).sum(axis=1))
        logits = self._logits(source)
        logits[~inside] = np.nan
        return logits

    @staticmethod
    def _logits(ids: Any) -> FloatArray:
        result: FloatArray = 3 * np.eye(len(LABELS), dtype=np.float32)[ids % 3]
        return result

    def stream(self, rows: int) -> "ModuloStream":
        return ModuloStream()


class ModuloStream:
    def push(self, positions: Any) -> FloatArray:
        return Modulo._logits(positions)


def tagger(longest: int = 50) -> Predictor:
    return Predictor(
        labeller=Modulo(),
        task="tagging",
        labels=LABELS,
        limits=Limits(longest, 0),
        tokenizer=WordTokenizer(),
        streams=True,
    )


CLASSIFIER = replace(
    tagger(), labeller=Modulo(whole=True), task="classification", streams=False
)


def test_a_tagger_labels_every_word() -> None:
    found = tagger().predict("w4 w6  w5")
    assert found.words == ("w4", "w6", "w5")
    assert found.labels == ("one", "zero", "two")
    assert found.text == "one zero two"
    assert found.ranking == ()
    expected = 3 - np.log(np.exp(3) + 2)
    assert found.log_probs == pytest.approx([expected] * 3, abs=1e-6)


def test_a_classifier_gives_one_label_and_ranks_all() -> None:
    found = CLASSIFIER.predict("w4 w4")
    assert found.labels == ("two",)
    assert found.words == ()
    assert [label for label, _ in found.ranking] == ["two", "zero", "one"]
    total = sum(np.exp(log_prob) for _, log_prob in found.ranking)
    assert total == pytest.approx(1, abs=1e-6)


def test_a_long_text_is_tagged_in_pieces_and_says_so() -> None:
    text = " ".join(f"w{i}" for i in range(11))
    found = tagger(longest=4).predict(text)
    assert found.labels == tagger().predict(text).labels
    assert len(found.words) == 11
    assert found.flags.split
    assert not tagger().predict(text).flags.split


def test_a_long_text_is_cut_for_a_classifier_which_says_so() -> None:
    short = replace(CLASSIFIER, limits=Limits(2, 0))
    found = short.predict("w1 w1 w5")
    assert found.flags.truncated
    assert found.labels == ("two",)


def test_nothing_is_lost_silently() -> None:
    empty, unknown = tagger().predict_batch(["  ", "w3 foo w4 bar foo"])
    assert empty.flags.empty
    assert empty.labels == ()
    assert unknown.flags.unknown == ("foo", "bar")
    assert len(unknown.labels) == 5


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(2, 30), min_size=1, max_size=9), max_size=12),
    st.integers(1, 5),
    st.integers(1, 40),
)
def test_a_text_comes_out_the_same_in_any_batch(
    texts: list[list[int]], sentences: int, tokens: int
) -> None:
    lines = [" ".join(f"w{i}" for i in text) for text in texts]
    batched = replace(tagger(), batching=Batching(tokens, sentences))
    alone = [tagger().predict(line) for line in lines]
    assert batched.predict_batch(lines) == alone
    assert list(batched.predict_stream(lines)) == alone


def test_a_stream_says_what_the_whole_pass_says() -> None:
    stream = tagger().stream()
    assert [stream.push(word)[0] for word in ("w4", "w6", "w5")] == [
        "one",
        "zero",
        "two",
    ]
    assert stream.push(7)[0] == "one"
    with pytest.raises(InputError, match="is 2 words; push one at a time"):
        stream.push("w1 w2")
    with pytest.raises(InputError, match="reads in one direction"):
        CLASSIFIER.stream()


def test_a_bundle_without_tokenizer_takes_ids() -> None:
    bare = replace(tagger(), tokenizer=None)
    assert bare.predict("4 6 5").labels == ("one", "zero", "two")
    [logits] = bare.logits([[4, 6, 5]])
    assert logits.argmax(axis=1).tolist() == [1, 0, 2]
    assert bare.stream().push("4")[0] == bare.stream().push(4)[0] == "one"
    with pytest.raises(InputError, match="no tokenizer; give ids"):
        bare.predict("cat")
    with pytest.raises(InputError, match="no tokenizer; give ids"):
        bare.stream().push("cat")


def test_numbers_that_are_none_are_refused() -> None:
    class Broken(Modulo):
        def logits(self, inputs: Inputs) -> FloatArray:
            return super().logits(inputs) * np.float32(np.nan)

    with pytest.raises(InputError, match="no finite log-probability"):
        replace(tagger(), labeller=Broken()).predict("w4")


def test_frames_come_from_files_beside_the_text(tmp_path: Path) -> None:
    class Loudest(Modulo):
        def logits(self, inputs: Inputs) -> FloatArray:
            result: FloatArray = inputs["sound"].astype(np.float32)
            return result

    np.save(tmp_path / "a.npy", np.eye(3, dtype=np.float32)[[2, 0, 1]])
    listens = replace(
        tagger(),
        labeller=Loudest(),
        tokenizer=None,
        inputs=(frames_input("sound", 3),),
        folder=tmp_path,
    )
    assert listens.predict("a.npy").labels == ("two", "zero", "one")
    stream = listens.stream()
    with pytest.raises(InputError, match="frame by frame; push arrays of 3 numbers"):
        stream.push("a.npy")
    with pytest.raises(InputError, match="push arrays of 3 numbers"):
        stream.push(np.zeros(4))
    with pytest.raises(InputError, match=r"b.npy can't be read as a .npy file"):
        listens.predict("b.npy")
    np.save(tmp_path / "c.npy", np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"shape \(2, 4\), where \(time, 3\) is due"):
        listens.predict("c.npy")


def test_a_bundle_that_writes_is_refused(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "toy")
    with pytest.raises(BundleError, match="use `seq2edge translate`"):
        Predictor.load(tmp_path / "toy")
