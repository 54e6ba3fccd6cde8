"""Where a model looked: against the numpy model, on paper, and of a trained model."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_structures import writer
from toy_bundle import SENTENCES, VOCABULARY, ToyModel, toy_inputs, write_toy_bundle
from toy_decoding import UnaskedDecoding

from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime import SearchOptions, Translator
from seq2edge.runtime.alignment import NO_ALIGNMENT, Alignment, Words, align
from seq2edge.runtime.batching import Batching
from seq2edge.runtime.errors import InputError
from seq2edge.runtime.inputs import class_input, frames_input, tokens_input
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.units import replacements, source_units, target_units, text_of
from seq2edge.runtime.vocabulary import Vocabulary
from seq2edge.translations import json_line, plain_lines

DATA = Path(__file__).parent / "data"
END, START, UNKNOWN = VOCABULARY.end, VOCABULARY.start, VOCABULARY.unknown


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alignment") / "toy"
    write_toy_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def toy(folder: Path) -> Translator:
    return Translator.load(folder)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def trained(request: pytest.FixtureRequest) -> Translator:
    """Says each word in another language, in reverse order."""
    return Translator.load(DATA / f"toy-{request.param}")


def judged(source: Sequence[int], target: Sequence[int]) -> FloatArray:
    """The numpy model's attention for each token of a target."""
    decoding = ToyModel().start(toy_inputs([source]))
    read = [START, *target[:-1]]
    return np.concatenate([decoding.attended(np.array([t]), None, 1)[2] for t in read])


tokens = st.lists(st.integers(4, VOCABULARY.size - 1), max_size=8)
pairs = st.tuples(tokens.map(lambda ids: [*ids, END]), tokens)


@settings(deadline=None, max_examples=25)
@given(st.lists(pairs, min_size=1, max_size=7))
def test_a_ragged_batch_looks_where_each_alone_looks(
    toy: Translator, batch: list[tuple[list[int], list[int]]]
) -> None:
    sources, targets = [each[0] for each in batch], [each[1] for each in batch]
    found = toy.attention(sources, targets)
    for (source, target), attention in zip(batch, found, strict=True):
        assert attention.shape == (len(target), len(source))
        if target:
            np.testing.assert_allclose(attention.sum(axis=1), 1, atol=1e-5)
            np.testing.assert_allclose(attention, judged(source, target), atol=1e-4)


def test_several_inputs_lie_one_behind_the_other_without_padding() -> None:
    inputs = (tokens_input("article"), tokens_input("question"))
    translator = Translator(
        stepper=TorchStepper(
            writer(inputs={"article": "tokens", "question": "tokens"})
        ),
        vocabulary=Vocabulary(12, pad=0, unknown=1, start=2, end=3),
        limits=Limits(20, 20),
        inputs=inputs,
    )
    examples = [
        {"article": [4, 5, 6, 7], "question": [8]},
        {"article": [9], "question": [5, 4, 10]},
    ]
    together = translator.attention(examples, [[4, 9, 11], [5]])
    assert [one.shape for one in together] == [(3, 5), (1, 4)]
    alone = replace(translator, batching=Batching(sentences=1))
    for one, other in zip(
        together, alone.attention(examples, [[4, 9, 11], [5]]), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    [found] = translator.translate_batch(["4 5 6 7\t8"], align=True)
    assert found.alignment is not None
    assert found.alignment.source == ("4", "5", "6", "7", "8")
    assert found.alignment.words is None
    assert len(found.alignment.attention) == len(found.tokens)


def test_frames_bear_their_numbers_and_a_class_has_no_position() -> None:
    config = {"inputs": {"sound": "frames", "style": "class"}, "features": 3}
    translator = Translator(
        stepper=TorchStepper(writer(**config, classes=2)),
        vocabulary=Vocabulary(12, pad=0, unknown=1, start=2, end=3),
        limits=Limits(20, 5),
        inputs=(frames_input("sound", 3), class_input("style", ["plain", "grand"])),
    )
    frames = np.arange(6, dtype=np.float32).reshape(2, 3)
    [attention] = translator.attention([{"sound": frames, "style": 1}], [[4, 5]])
    assert attention.shape == (2, 2)
    names = translator.reader.positions("sound.npy\tgrand", {"sound": frames})
    assert names == ("0", "1")


def test_words_are_what_spaces_part() -> None:
    words = Words.of((" a", "b", " ", "c", "", " d", " ⁇ ", "e", " f g", "h", " ", ""))
    assert words.texts == ("ab", "c", "d", "⁇", "e", "f", "gh")
    owners = [column.nonzero()[0].tolist() for column in words.matrix.T]
    assert owners == [[0], [0], [1], [1], [], [2], [3], [4], [5], [6], [], []]
    assert Words.of(()).texts == ()
    assert Words.of(("", " ")).matrix.shape == (0, 2)


def test_a_token_is_aligned_with_what_it_looked_at_most_if_that_is_text() -> None:
    attention = np.array(
        [[0.1, 0.2, 0.3, 0.4], [0.3, 0.3, 0.4, 0.0], [0.0, 0.1, 0.9, 0.0]], np.float32
    )
    found = align(
        ("▁a", "b", "▁c", ""), attention, ((" a", "b", " c", ""), (" x", " y", "z"))
    )
    # x looked at the end token; y and z together 0.7 on "ab" and 1.3 on "c".
    assert found.pairs == ((2, 1), (2, 2))
    assert found.source_words == ("ab", "c")
    assert found.target_words == ("x", "yz")
    assert found.words == ((1, 1),)
    assert found.pharaoh == "1-1"
    assert found.attention[0] == pytest.approx((0.1, 0.2, 0.3, 0.4))
    y = align(("▁a", "b", "▁c", ""), attention[1:2], ((" a", "b", " c", ""), (" y",)))
    assert y.pairs == ((2, 0),)
    assert y.words == ((0, 0),)  # 0.6 on both pieces of "ab"
    ids = align(("5", "6", "7", "3"), attention)
    assert ids.pairs == ((3, 0), (2, 1), (2, 2))
    assert ids.words is None
    assert ids.pharaoh == "3-0 2-1 2-2"


def test_a_word_is_aligned_if_a_piece_of_it_is() -> None:
    attention = np.array(
        [[0.2, 0.7, 0.1], [0.1, 0.0, 0.9], [0.4, 0.0, 0.6]], np.float32
    )
    found = align(("▁a", "▁b", ""), attention, ((" a", " b", ""), (" x", "y", " z")))
    assert found.pairs == ((1, 0),)
    assert found.words == ((1, 0),)  # "xy" by its first piece; "z" not


def test_the_sentences_of_a_text_lie_one_behind_the_other() -> None:
    one = align(("▁a", ""), np.array([[1, 0]], np.float32), ((" a", ""), (" x",)))
    two = align(
        ("▁b", "▁c"),
        np.array([[0, 1], [1, 0]], np.float32),
        ((" b", " c"), (" y", " z")),
    )
    found = NO_ALIGNMENT + one + two
    assert found == Alignment(
        source=("▁a", "", "▁b", "▁c"),
        attention=((1, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)),
        pairs=((0, 0), (3, 1), (2, 2)),
        source_words=("a", "b", "c"),
        target_words=("x", "y", "z"),
        words=((0, 0), (2, 1), (1, 2)),
    )


WORDS = {"one": "eins", "two": "zwei", "red": "rot", "dog": "Hund", "sun": "Sonne"}
TEXTS = [" ".join(words) for words in itertools.permutations(WORDS, 3)]


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_model_that_reverses_aligns_in_reverse(
    trained: Translator, beam_size: int
) -> None:
    found = trained.translate_batch(TEXTS, SearchOptions(beam_size), align=True)
    right = total = 0
    for source, one in zip(TEXTS, found, strict=True):
        alignment = one.alignment
        assert alignment is not None
        assert alignment.source_words == tuple(source.split())
        assert alignment.target_words == tuple(one.text.split())
        assert len(alignment.attention) == len(one.tokens)
        assert {len(row) for row in alignment.attention} == {len(alignment.source)}
        pairs = alignment.words
        assert pairs is not None
        total += len(alignment.target_words)
        right += sum(
            WORDS[alignment.source_words[i]] == alignment.target_words[j]
            for i, j in pairs
        )
    assert right >= 0.9 * total


def test_alignment_changes_nothing_else(trained: Translator) -> None:
    plain = trained.translate_batch(TEXTS[:9])
    aligned = trained.translate_batch(TEXTS[:9], align=True, replace_unknowns=True)
    assert all(one.alignment is None for one in plain)
    assert [replace(one, alignment=None) for one in aligned] == plain
    assert trained.translate(TEXTS[0], align=True) == aligned[0]
    [*streamed] = trained.translate_stream(TEXTS[:9], align=True)
    assert [one.alignment for one in streamed] == [one.alignment for one in aligned]


def test_a_text_in_pieces_is_aligned_as_a_whole(trained: Translator) -> None:
    limit = trained.limits.source_tokens
    text = "\n".join(["one two red"] * limit)
    found = trained.translate(text, align=True)
    assert found.flags.split
    alignment = found.alignment
    assert alignment is not None
    assert alignment.source_words == tuple(text.split())
    assert len(alignment.attention) == len(found.tokens)
    np.testing.assert_allclose(np.array(alignment.attention).sum(axis=1), 1, atol=1e-5)
    assert alignment.words is not None
    assert len(alignment.words) >= 0.9 * 3 * limit
    near = [source // 3 == target // 3 for source, target in alignment.words]
    assert sum(near) >= 0.9 * len(near)  # in the same sentence


def test_a_blank_text_has_an_empty_alignment(trained: Translator) -> None:
    found = trained.translate_batch(["", "one two"], align=True)
    assert found[0].alignment == NO_ALIGNMENT
    assert found[1].alignment != NO_ALIGNMENT
    assert list(plain_lines(found[0], 1)) == ["\t"]


def test_a_bundle_without_attention_says_so(toy: Translator) -> None:
    stepper = TorchStepper(writer(attention="none"))
    bare = Translator(
        stepper=stepper,
        vocabulary=Vocabulary(12, pad=0, unknown=1, start=2, end=3),
        limits=Limits(20, 20),
    )
    with pytest.raises(InputError, match="no step_with_attention to ask"):
        bare.attention([[4, 3]], [[5]])
    with pytest.raises(InputError, match="no step_with_attention to ask"):
        bare.translate("4 5 3", align=True)
    with pytest.raises(InputError, match="this bundle reads no text"):
        bare.translate("4 5 3", replace_unknowns=True)


@dataclass(frozen=True)
class Scripted:
    """Says these tokens and looks at these positions, whatever it reads."""

    tokens: tuple[int, ...]
    places: tuple[int, ...]

    def start(self, inputs: Inputs) -> "ScriptedDecoding":
        return ScriptedDecoding(self, inputs["source"].shape[1])


@dataclass
class ScriptedDecoding(UnaskedDecoding):
    script: Scripted
    positions: int
    step: int = 0

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        said = (*self.script.tokens, END)[self.step]
        self.step += 1
        best = np.full((len(tokens), count), said)
        return np.zeros(best.shape, np.float32), best

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        attention = np.full((len(tokens), self.positions), 0.1, np.float32)
        attention[:, self.script.places[self.step]] = 0.9
        return *self.best(tokens, parents, count), attention

    def keep(self, sentences: IntArray) -> None:
        pass


def test_an_unknown_token_becomes_what_it_looked_at(toy: Translator) -> None:
    tokenizer = toy.tokenizer
    assert tokenizer is not None
    source = "the ☃ sat"
    pieces = tokenizer.source_pieces(source)
    snow = pieces.index("☃")
    said = tokenizer.encode_target("a cat")
    script = Scripted((*said, UNKNOWN, *said), (0,) * len(said) + (snow,) + (0,) * 9)
    written = replace(toy, stepper=script, defaults=SearchOptions(1))
    plain = written.translate(source, SearchOptions(1, allow_unknown=True), align=True)
    assert plain.text.split() == ["a", "cat", "⁇", "a", "cat"]
    found = written.translate(source, align=True, replace_unknowns=True)
    assert found.text == "a cat ☃ a cat"
    assert found.tokens == plain.tokens
    assert found.alignment is not None
    assert found.alignment.target_words == ("a", "cat", "☃", "a", "cat")
    assert found.alignment.words is not None
    assert (1, 2) in found.alignment.words
    assert written.translate(source, replace_unknowns=True).alignment is None


class Told(SentencePieceTokenizer):
    """Reads a text behind "<7>" with that id in front."""

    LEAD = "<7>"

    def lead(self, text: str) -> tuple[str, str]:
        told = text.startswith(self.LEAD)
        return (self.LEAD, text[len(self.LEAD) :]) if told else ("", text)

    def encode(self, text: str) -> list[int]:
        lead, rest = self.lead(text)
        return [7] * bool(lead) + super().encode(rest)

    def source_pieces(self, text: str) -> tuple[str, ...]:
        lead, rest = self.lead(text)
        return ("",) * bool(lead) + super().source_pieces(rest)


def test_a_language_in_front_is_no_text(toy: Translator, folder: Path) -> None:
    model = folder / "joint.spm"
    told = replace(toy, tokenizer=Told.load(model, model))
    long = " ".join(SENTENCES * 3)
    found = told.translate_batch([f"<7>{SENTENCES[0]}", f"<7>{long}"], align=True)
    for text, one in zip((SENTENCES[0], long), found, strict=True):
        assert one.alignment is not None
        assert one.alignment.source_words == tuple(text.split())
        assert one.alignment.source[0] == one.alignment.source[-1] == ""
    assert found[1].flags.split
    bare = told.score_batch([f"<7>{SENTENCES[0]}", "<7>"], ["a", "a"])
    assert [one.flags.no_source for one in bare] == [False, True]


UNITS = (" the", " New", "York", " ", "☃", "!", "")


@pytest.mark.parametrize(
    ("looked", "expected"),
    [
        ((0, 0), " the"),  # a word
        ((2, 0), "York"),  # within a word: no space
        ((4, 0), " ☃"),  # the space before it is a piece of its own
        ((3, 1), " New"),  # a space is no text
        ((6, 5), "!"),  # nor is an end token: the next best
    ],
)
def test_a_replacement_is_text_with_its_space(
    looked: tuple[int, int], expected: str
) -> None:
    attention = np.zeros((2, len(UNITS)), np.float32)
    attention[1, looked[1]] = 0.4
    attention[1, looked[0]] = 0.6
    found = replacements(UNITS, attention, [5, UNKNOWN], UNKNOWN)
    assert found == {1: expected}
    assert replacements(("", " "), attention[:, :2], [5, UNKNOWN], UNKNOWN) == {}


def test_replaced_text_has_its_spaces_where_they_belong(toy: Translator) -> None:
    tokenizer = toy.tokenizer
    assert tokenizer is not None
    cat, mat = tokenizer.encode_target("cat"), tokenizer.encode_target("mat")
    tokens = [*cat, UNKNOWN, UNKNOWN, *mat]
    first = len(cat)
    replaced = {first: " New", first + 1: "York"}
    assert text_of(tokenizer, tokens, replaced) == "cat NewYork mat"
    assert text_of(tokenizer, tokens, {}) == tokenizer.decode(tokens)
    assert text_of(tokenizer, [UNKNOWN], {0: " x"}) == "x"
    units = target_units(tokenizer, tokens, UNKNOWN, replaced)
    assert Words.of(units).texts == ("cat", "NewYork", "mat")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, VOCABULARY.size - 1), max_size=12))
def test_units_make_the_words_of_the_text(toy: Translator, ids: list[int]) -> None:
    tokenizer = toy.tokenizer
    assert tokenizer is not None
    units = target_units(tokenizer, ids, UNKNOWN, {})
    assert Words.of(units).texts == tuple(tokenizer.decode(ids).split())


@given(st.text("the cat☃sano.  ", max_size=20))
def test_source_pieces_are_those_of_its_ids(toy: Translator, text: str) -> None:
    tokenizer = toy.tokenizer
    assert tokenizer is not None
    pieces = tokenizer.source_pieces(text)
    assert len(pieces) == len(tokenizer.encode(text))
    assert Words.of(source_units(pieces)).texts == tuple(text.split())


def test_json_and_lines_hold_the_alignment(trained: Translator) -> None:
    options = SearchOptions(4, n_best=2)
    found = trained.translate(TEXTS[0], options, align=True)
    alignment = found.alignment
    assert alignment is not None
    record = json.loads(json_line(found, 1.0))
    assert record["alignment"]["words"] == [
        list(pair) for pair in alignment.words or ()
    ]
    assert record["alignment"]["source"] == list(alignment.source)
    np.testing.assert_allclose(
        record["alignment"]["attention"], alignment.attention, atol=1e-4
    )
    assert list(plain_lines(found, 1)) == [f"{found.text}\t{alignment.pharaoh}"]
    first, second = plain_lines(found, 2)
    assert first.endswith(f"\t{found.text}\t{alignment.pharaoh}")
    assert second.endswith(found.alternatives[0].text)
    assert "alignment" not in json.loads(json_line(replace(found, alignment=None), 1))
