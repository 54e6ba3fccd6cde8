import math
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_bundle import SENTENCES, toy_manifest, write_toy_bundle
from toy_bundle import VOCABULARY as TOY_VOCABULARY
from toy_decoding import UnaskedDecoding
from toy_tokenizer import ReadsOnly

from seq2edge.runtime.batching import Batching, batches
from seq2edge.runtime.errors import BundleError, ConfigError, InputError
from seq2edge.runtime.golden import Golden
from seq2edge.runtime.hypothesis import length_penalty
from seq2edge.runtime.manifest import Limits, TensorSpec
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray
from seq2edge.runtime.translator import Flags, Translation, Translator
from seq2edge.runtime.vocabulary import Vocabulary

PAD, UNKNOWN, START, END = range(4)
FIRST = 4  # id of the first character
CHARACTERS = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?123"
VOCABULARY = Vocabulary(FIRST + len(CHARACTERS), PAD, UNKNOWN, START, END)
RIGHT = 0.8  # probability of the right next token
OTHER = (1 - RIGHT) / (VOCABULARY.size - 1)


class CharacterTokenizer(ReadsOnly):
    """A token for every character, 😀 three; runs of spaces are one, as in reality."""

    tail = 1

    def lead(self, text: str) -> tuple[str, str]:
        return "", text

    def encode(self, text: str) -> list[int]:
        visible = "".join(sign if sign.isprintable() else " " for sign in text)
        plain = " ".join(visible.split()).replace("😀", "😀😀😀")
        ids = [CHARACTERS.find(character) + FIRST for character in plain]
        return [UNKNOWN if id_ < FIRST else id_ for id_ in ids] + [END]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        return tuple("?" if id_ < FIRST else CHARACTERS[id_ - FIRST] for id_ in ids)

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        signs = (sign for sign in text if sign.isprintable() and not sign.isspace())
        return tuple(dict.fromkeys(sign for sign in signs if sign not in CHARACTERS))


class CopyStepper:
    """Says the source again, with probability 0.8 a token; notes the batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def start(self, inputs: Inputs) -> "CopyDecoding":
        source, lengths = inputs["source"], inputs["source_lengths"]
        assert source.dtype == np.int64
        assert lengths.dtype == np.int32
        assert source.shape == (len(lengths), lengths.max())
        self.batches.append(source.shape)
        return CopyDecoding(
            [row[:length].tolist() for row, length in zip(source, lengths, strict=True)]
        )


class CopyDecoding(UnaskedDecoding):
    def __init__(self, sources: list[list[int]]) -> None:
        self.sources = sources
        self.step = 0

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        log_probs = self.scores(tokens, parents)
        order = np.argsort(-log_probs, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(log_probs, order, axis=1), order

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        beam = len(tokens) // len(self.sources)
        log_probs = np.full((len(tokens), VOCABULARY.size), math.log(OTHER))
        for row in range(len(tokens)):
            source = self.sources[row // beam]
            right = source[min(self.step, len(source) - 1)]
            log_probs[row, right] = math.log(RIGHT)
        self.step += 1
        return log_probs.astype(np.float32)

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return self.scores(tokens, parents)

    def keep(self, sentences: IntArray) -> None:
        self.sources = [self.sources[index] for index in sentences]


class EndlessStepper(CopyStepper):
    """Never ends: it says `a` for ever."""

    def start(self, inputs: Inputs) -> CopyDecoding:
        return CopyDecoding([[FIRST + 1] for _ in inputs["source"]])


GREEDY = SearchOptions(beam_size=1, allow_unknown=True)  # the copier says it again


def copier(
    source_tokens: int = 100,
    target_tokens: int = 100,
    stepper: CopyStepper | None = None,
    batching: Batching | None = None,
) -> Translator:
    return Translator(
        stepper=stepper or CopyStepper(),
        vocabulary=VOCABULARY,
        limits=Limits(source_tokens, target_tokens),
        tokenizer=CharacterTokenizer(),
        defaults=GREEDY,
        batching=batching or Batching(),
    )


def test_a_translation_has_text_tokens_and_score() -> None:
    translation = copier().translate("cat")
    assert translation.text == "cat"
    assert translation.tokens == ("c", "a", "t")
    assert translation.flags == Flags()
    assert translation.alternatives == ()
    # Three letters and the end token: 4 log 0.8 over ((5 + 4) / 6) ** 0.6.
    assert translation.score == pytest.approx(4 * math.log(0.8) / 1.5**0.6)


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n \x00\x01", "\u3000\u00a0", "\x00" * 10_000]
)
def test_an_empty_line_comes_back_empty_and_is_never_decoded(text: str) -> None:
    stepper = CopyStepper()
    translation = copier(stepper=stepper).translate(text)
    assert translation == Translation("", (), 0.0, Flags(empty=True), ())
    assert stepper.batches == []


def test_empty_lines_keep_their_places_in_a_batch() -> None:
    stepper = CopyStepper()
    translations = copier(stepper=stepper).translate_batch(["", "cat", " ", "a dog"])
    assert [one.text for one in translations] == ["", "cat", "", "a dog"]
    assert [one.flags.empty for one in translations] == [True, False, True, False]
    assert stepper.batches == [(2, 6)]


def test_no_texts_give_no_translations() -> None:
    assert copier().translate_batch([]) == []
    assert [*copier().translate_stream([])] == []
    assert copier().generate([]) == []


def test_unknown_characters_are_flagged() -> None:
    translation = copier().translate("漢 cat é 漢")
    assert translation.flags == Flags(unknown=("漢", "é"))


def test_options_replace_the_defaults() -> None:
    translation = copier().translate("cat", SearchOptions(beam_size=3, n_best=3))
    assert translation.text == "cat"
    assert len(translation.alternatives) == 2
    scores = [translation.score, *(other.score for other in translation.alternatives)]
    assert scores == sorted(scores, reverse=True)
    for other in translation.alternatives:
        assert other.text == "".join(other.tokens) != "cat"


def test_a_long_text_is_split_at_sentence_ends() -> None:
    stepper = CopyStepper()
    translation = copier(source_tokens=12, stepper=stepper).translate(
        "The cat sat.  A dog ran. It"
    )
    # 12 letters and the end token are too many: the first sentence is halved.
    assert translation.text == "The cat sat. A dog ran. It"
    assert translation.flags == Flags(split=True)
    assert sorted(stepper.batches) == [(4, 11)]


def test_the_score_of_a_split_text_is_of_all_its_pieces() -> None:
    translation = copier(source_tokens=5).translate("abc. abc.")
    assert translation.text == "abc. abc."
    assert translation.tokens == tuple("abc.abc.")
    # Two pieces of four tokens and the end.
    expected = 10 * math.log(0.8) / length_penalty(10, 0.6)
    assert translation.score == pytest.approx(expected)


def test_alternatives_of_a_split_text_join_those_of_its_pieces() -> None:
    options = SearchOptions(beam_size=2, n_best=2, allow_unknown=True)
    [other] = copier(source_tokens=5).translate("abc. abd.", options).alternatives
    first = copier(source_tokens=5).translate("abc.", options).alternatives[0]
    second = copier(source_tokens=5).translate("abd.", options).alternatives[0]
    assert other.text == f"{first.text} {second.text}"
    assert other.tokens == first.tokens + second.tokens


def test_a_character_of_too_many_tokens_is_truncated() -> None:
    translation = copier(source_tokens=3).translate("😀")
    assert translation.flags == Flags(truncated=True, unknown=("😀",))
    assert copier(source_tokens=4).translate("😀").flags.truncated is False


def test_a_translation_that_was_cut_is_flagged() -> None:
    translation = copier(target_tokens=3).translate("abcdef")
    assert translation.text == "abc"
    assert translation.flags == Flags(hit_length_limit=True)
    assert copier(target_tokens=7).translate("abcdef").flags == Flags()


def test_the_maximal_length_comes_from_the_sentence_itself() -> None:
    translator = copier(stepper=EndlessStepper(), target_tokens=30)
    # "ab" has 3 tokens with the end: 2 * 3 + 10 = 16; the long one meets the limit.
    texts = ["ab", "abcdefghijklmn"]
    assert [len(one.text) for one in translator.translate_batch(texts)] == [16, 30]
    options = SearchOptions(beam_size=1, max_length=20)
    results = translator.translate_batch(texts, options)
    assert [len(one.text) for one in results] == [20, 20]
    options = SearchOptions(beam_size=1, max_length=99)
    assert len(translator.translate("ab", options).text) == 30


def test_a_minimal_length_above_the_usual_maximum_is_reached() -> None:
    translation = copier().translate("ab", SearchOptions(beam_size=1, min_length=40))
    assert len(translation.tokens) == 40
    assert not translation.flags.hit_length_limit


def test_a_hundred_thousand_characters_without_a_space() -> None:
    stepper = CopyStepper()
    batching = Batching(tokens=1000)
    translator = copier(source_tokens=100, stepper=stepper, batching=batching)
    text = "abcdefghij" * 10_000
    translation = translator.translate(text)
    assert translation.text == text
    assert translation.flags == Flags(split=True)
    assert all(rows * longest <= 1000 for rows, longest in stepper.batches)


def test_a_text_that_is_one_token_is_split_too_where_it_is_huge() -> None:
    class Greedy(CharacterTokenizer):
        """A run of unknown characters is one token, as SentencePiece has it."""

        longest = 0

        def encode(self, text: str) -> list[int]:
            self.longest = max(self.longest, len(text))
            return [UNKNOWN, END] if text else [END]

    tokenizer = Greedy()
    translator = replace(copier(source_tokens=10), tokenizer=tokenizer)
    assert translator.translate("漢" * 100_000).flags.split
    assert tokenizer.longest <= 320


def test_batches_are_sorted_and_within_their_budget() -> None:
    stepper = CopyStepper()
    batching = Batching(tokens=20, sentences=3)
    texts = ["a" * length for length in (9, 1, 30, 2, 4, 3, 1, 1, 5)]
    translations = copier(stepper=stepper, batching=batching).translate_batch(texts)
    assert [one.text for one in translations] == texts
    # With the end token: 2 2 2 | 3 4 5 | 6 10 | 31.
    assert stepper.batches == [(3, 2), (3, 5), (2, 10), (1, 31)]


@pytest.mark.parametrize("name", ["tokens", "sentences", "lines"])
def test_a_batch_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"batching: {name} 0 must be at least 1"):
        Batching(**{name: 0})  # type: ignore[arg-type]


def test_unpadded_batches_hold_sources_of_one_length() -> None:
    lengths = [3, 5, 3, 5, 5, 1, 5]
    found = batches(lengths, Batching(sentences=3, unpadded=True))
    assert list(found) == [[5], [0, 2], [1, 3, 4], [6]]


nasty_texts = st.lists(
    st.text(st.sampled_from(CHARACTERS) | st.sampled_from("漢é😀\x00\n")),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(
    texts=nasty_texts,
    limit=st.integers(2, 40),
    tokens=st.integers(1, 60),
    sentences=st.integers(1, 5),
)
def test_batches_change_nothing_and_nothing_is_lost(
    texts: list[str], limit: int, tokens: int, sentences: int
) -> None:
    batching = Batching(tokens, sentences)
    translator = copier(limit, 1000, batching=batching)
    together = translator.translate_batch(texts)
    assert together == [copier(limit, 1000).translate(text) for text in texts]
    for text, translation in zip(texts, together, strict=True):
        visible = [sign for sign in text if sign.isprintable() and sign != " "]
        if "😀" not in text:
            assert len([sign for sign in translation.text if sign != " "]) == len(
                visible
            )
        known = [sign for sign in visible if sign in CHARACTERS]
        assert [sign for sign in translation.text if sign not in " ?"] == [
            sign for sign in known if sign != "?"
        ]
        assert translation.flags.empty == (not visible)
        assert set(translation.flags.unknown) == set(visible) - set(CHARACTERS)


class Lines:
    """A source of lines that notes how many were read."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            self.read += 1
            yield line


def test_a_stream_comes_out_in_order_and_reads_ahead_no_further_than_allowed() -> None:
    texts = ["ab" * (index % 7) + "." for index in range(500)]
    lines = Lines(texts)
    translator = copier(batching=Batching(lines=64))
    ahead = []
    for index, translation in enumerate(translator.translate_stream(lines)):
        assert translation.text == texts[index]
        ahead.append(lines.read - index)
    assert ahead[0] == 16
    assert max(ahead) == 64


def test_a_stream_of_one_line_windows_answers_at_once() -> None:
    lines = Lines(["one", "two", "three"])
    stream = copier(batching=Batching(lines=1)).translate_stream(lines)
    for read, text in enumerate(lines.lines, start=1):
        assert next(stream).text == text
        assert lines.read == read


def test_a_stream_of_long_lines_reads_fewer_ahead() -> None:
    lines = Lines([" " * 700_000] * 6)
    stream = copier().translate_stream(lines)
    assert next(stream).flags.empty
    assert lines.read == 2


def test_lines_keep_no_line_break() -> None:
    translations = copier().translate_stream(["a cat\n", "\n", "a dog\r\n"])
    assert [one.text for one in translations] == ["a cat", "", "a dog"]


def test_generate_takes_ids_and_gives_ids_without_a_tokenizer() -> None:
    translator = replace(copier(), tokenizer=None)
    sources = [[7, 8, END], [9, END], [END]]
    results = translator.generate(sources, GREEDY)
    assert [found[0].tokens for found in results] == [(7, 8), (9,), ()]
    assert [len(found) for found in translator.generate(sources)] == [1, 1, 1]
    assert translator.translate(f"7 8 {END}").text == "7 8"
    with pytest.raises(InputError, match="no tokenizer; give ids"):
        translator.translate("cat")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "example 1: source has 0 tokens; this model takes from 1 to 4"),
        ([5] * 5, "example 1: source has 5 tokens; this model takes from 1 to 4"),
        ([5, -1], "example 1: source holds the negative id -1"),
    ],
)
def test_ids_that_no_model_takes_are_refused(ids: list[int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        copier(source_tokens=4).generate([[5], ids])
    assert str(caught.value) == message


def test_threads_share_a_translator() -> None:
    translator = copier(source_tokens=20)
    generator = random.Random(7)
    texts = [
        "".join(generator.choices(CHARACTERS, k=generator.randrange(60)))
        for _ in range(60)
    ]
    expected = [copier(source_tokens=20).translate(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(translator.translate, texts)) == expected


@dataclass(frozen=True)
class Toy:
    folder: Path
    translator: Translator


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    folder = tmp_path_factory.mktemp("bundles") / "toy"
    write_toy_bundle(folder)
    return Toy(folder, Translator.load(folder))


def test_a_loaded_bundle_translates_its_golden_examples(toy: Toy) -> None:
    examples = Golden.read(toy.folder).examples
    assert examples
    for example in examples:
        options = replace(toy.translator.defaults, beam_size=example.beam_size)
        translation = toy.translator.translate(example.text, options)
        assert translation.text == example.text_out
        assert translation.score == pytest.approx(example.score, abs=1e-4)
        assert not translation.flags.split


def test_a_loaded_bundle_has_its_manifest_as_limits_and_defaults(toy: Toy) -> None:
    assert toy.translator.vocabulary == TOY_VOCABULARY
    assert toy.translator.limits == Limits(50, 50)
    assert toy.translator.defaults == SearchOptions(4, 0.6)


def test_a_loaded_bundle_gives_the_same_alone_and_in_batches(toy: Toy) -> None:
    words = " ".join(SENTENCES).split()
    generator = random.Random(3)
    texts = [
        " ".join(generator.choices(words, k=generator.randrange(1, 40)))
        for _ in range(40)
    ]
    for options in (GREEDY, SearchOptions(beam_size=4)):
        alone = [toy.translator.translate(text, options) for text in texts]
        together = toy.translator.translate_batch(texts, options)
        with ThreadPoolExecutor(4) as pool:
            threaded = pool.map(
                lambda text, options=options: toy.translator.translate(text, options),
                texts,
            )
            assert [*threaded] == alone
        assert [one.tokens for one in together] == [one.tokens for one in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)


def test_a_bundle_without_its_tokenizer_file_is_refused(
    toy: Toy, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(toy.folder, folder)
    (folder / "joint.spm").unlink()
    with pytest.raises(BundleError, match=r"joint\.spm"):
        Translator.load(folder)


def test_a_bundle_with_another_tokenizer_is_refused(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(toy.folder, folder)
    manifest = toy_manifest(folder)
    vocabulary = replace(TOY_VOCABULARY, size=TOY_VOCABULARY.size - 1)
    replace(manifest, vocabulary=vocabulary).write(folder)
    with pytest.raises(BundleError, match="40 pieces, but the model's vocabulary only"):
        Translator.load(folder)


def test_a_bundle_that_labels_is_refused(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(toy.folder, folder)
    labels = {
        "task": "classification",
        "memory": (),
        "outputs": (TensorSpec("logits", "float32", ("batch", 2)),),
        "labels": ("good", "bad"),
        "heads": {},
    }
    replace(toy_manifest(folder), **labels).write(folder)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"classification; use `seq2edge predict`"):
        Translator.load(folder)


def test_importing_the_room_imports_nothing_slow() -> None:
    program = (
        "import sys, seq2edge.runtime as room;"
        "slow = {'numpy', 'onnxruntime', 'sentencepiece'};"
        "assert not slow & set(sys.modules), slow & set(sys.modules);"
        "room.SearchOptions;"
        "assert not {'onnxruntime', 'sentencepiece'} & set(sys.modules);"
        "room.Translator, room.Translation, room.Hypothesis;"
        "assert not {'onnxruntime', 'sentencepiece'} & set(sys.modules);"
        "room.EngineOptions;"
        "assert not {'torch', 'onnx', 'seq2edge.export'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_room_has_no_other_names() -> None:
    import seq2edge.runtime as room

    assert all(hasattr(room, name) for name in room.__all__)
    assert all(first < second for first, second in pairwise(room.__all__))
    assert not hasattr(room, "Misspelt")
