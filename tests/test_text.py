import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seq2edge.runtime.text import Piece, join, split


class AtMost:
    """Whether a text has at most so many characters; counts what it is shown."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.characters_read = 0

    def __call__(self, text: str) -> bool:
        self.characters_read += len(text)
        return len(text) <= self.most


def texts(text: str, most: int) -> list[str]:
    return [piece.text for piece in split(text, AtMost(most))]


def test_a_text_that_fits_is_one_piece_as_it_is() -> None:
    text = " One. Two.\tThree. "
    assert split(text, AtMost(len(text))) == [Piece(text)]


def test_every_sentence_of_a_long_text_is_a_piece() -> None:
    text = 'Come in! "Why?" she asked... He left.  Then it rained (a lot). End'
    assert split(text, AtMost(40)) == [
        Piece("Come in!", " "),
        Piece('"Why?" she asked...', " "),
        Piece("He left.", "  "),
        Piece("Then it rained (a lot).", " "),
        Piece("End"),
    ]


def test_abbreviations_initials_and_numbers_end_no_sentence() -> None:
    text = "Mr. Smith met J. S. Bach on the 3. Mai, approx. at noon. They sang."
    assert texts(text, 60) == [text[:-11], "They sang."]


def test_a_line_break_ends_a_sentence() -> None:
    assert texts("a title\nand more words", 20) == ["a title", "and more words"]


def test_chinese_and_japanese_sentences_need_no_space() -> None:
    text = "我喜欢你。你喜欢我吗？「是的。」他说。"
    assert texts(text, 8) == [
        "我喜欢你。",
        "你喜欢我吗？",
        "「是的。」",
        "他说。",
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("नमस्ते दुनिया। यह ठीक है।", 2),
        ("هل أنت هنا؟ نعم أنا هنا", 2),
        ("Ը՞նչ։ Լավ եմ։", 2),
        ("Er rief: „Halt!“ Dann lief er.", 2),
        ("«Стой!» Он ушёл.", 2),
    ],
)
def test_other_scripts_have_sentences_too(text: str, sentences: int) -> None:
    assert len(texts(text, len(text) - 1)) == sentences


def test_a_long_sentence_is_cut_at_the_clause_end_nearest_to_its_middle() -> None:
    text = "Yes, when it rains and when it pours, we all stay in the house, mostly"
    assert split(text, AtMost(40)) == [
        Piece("Yes, when it rains and when it pours,", " "),
        Piece("we all stay in the house, mostly"),
    ]


def test_a_long_clause_is_cut_at_the_space_nearest_to_its_middle() -> None:
    assert split("aaaa bbbb  cccc dddd", AtMost(10)) == [
        Piece("aaaa bbbb", "  "),
        Piece("cccc dddd"),
    ]


def test_a_long_word_is_cut_in_the_middle() -> None:
    assert texts("abcdefgh", 4) == ["abcd", "efgh"]


def test_a_character_stays_with_what_modifies_it() -> None:
    family = "👨\u200d👩\u200d👧"
    assert texts("e\u0301" * 3, 4) == ["e\u0301e\u0301", "e\u0301"]
    assert texts("a" + family + "bb", 6) == ["a" + family, "bb"]
    assert texts("a👍🏽d", 3) == ["a👍🏽", "d"]


def test_a_single_character_is_a_piece_whether_it_fits_or_not() -> None:
    assert texts("abc", 0) == ["a", "b", "c"]


def test_control_characters_are_cut_at_like_spaces() -> None:
    assert split("aaaa\x00\x01bbbb", AtMost(5)) == [
        Piece("aaaa", "\x00\x01"),
        Piece("bbbb"),
    ]


def test_translations_are_joined_by_one_space() -> None:
    pieces = split("One.   Two.\nThree.", AtMost(6))
    assert join(pieces, ["Eins.", "Zwei.", "Drei."]) == "Eins. Zwei. Drei."


def test_chinese_needs_no_space_as_target_and_gets_none_as_source() -> None:
    source = split("One two. Three four.", AtMost(12))
    assert join(source, ["一二。", "三四。"]) == "一二。三四。"
    source = split("一二三。四五六。", AtMost(5))
    assert join(source, ["One.", "Two."]) == "One. Two."
    assert join(source, ["One", "二。"]) == "One二。"


def test_words_that_were_cut_are_joined_without_a_space() -> None:
    assert join(split("abcdefgh", AtMost(4)), ["AB", "CD"]) == "ABCD"
    # Chinese and Thai have no spaces between words, so that no cut is within one.
    assert join(split("一二三四", AtMost(2)), ["AB", "CD"]) == "AB CD"
    assert join(split("กขคง", AtMost(2)), ["AB", "CD"]) == "AB CD"


def test_a_piece_without_translation_leaves_no_second_space() -> None:
    pieces = split("One. Two. Three.", AtMost(6))
    assert join(pieces, ["Eins.", "", "Drei."]) == "Eins. Drei."
    assert join(pieces, ["", "Zwei.", ""]) == "Zwei."
    assert join(pieces, ["", "", ""]) == ""


marks = st.sampled_from(".,!?…\"')“»。，」")
spaces = st.sampled_from(" \n\t\x00\x85\u00a0\u200b\u3000")
letters = st.sampled_from("aBé1中ก👍🏽\u0301\u200d")
nasty = st.text(alphabet=marks | spaces | letters | st.characters(), max_size=80)


@given(text=nasty, most=st.integers(1, 20))
@example(text=" ", most=1)
@example(text=". " * 20, most=1)
@example(text="\n\n\n", most=1)
@example(text="。」。」", most=1)
def test_nothing_is_lost_and_every_piece_fits(text: str, most: int) -> None:
    pieces = split(text, AtMost(most))
    assert "".join(piece.text + piece.spaces for piece in pieces) == text
    assert all(len(piece.text) <= most for piece in pieces)
    for character in "".join(piece.spaces for piece in pieces):
        assert character.isspace() or unicodedata.category(character) == "Cc"


@pytest.mark.parametrize("unit", ["x", ".", " ", ". ", "A. ", "a, ", "。", "e\u0301"])
def test_the_work_on_a_long_text_grows_as_its_length_times_its_logarithm(
    unit: str,
) -> None:
    text = unit * (100_000 // len(unit))
    fits = AtMost(100)
    pieces = split(text, fits)
    assert "".join(piece.text + piece.spaces for piece in pieces) == text
    # Halving 100,000 characters down to 100 takes ten rounds.
    assert fits.characters_read <= 12 * len(text)


@given(st.lists(st.sampled_from(["Eins.", "二。", "drei", ""]), min_size=1))
def test_joining_never_makes_or_loses_letters(translations: list[str]) -> None:
    pieces = [Piece(f"s{index}", " ") for index in range(len(translations))]
    joined = join(pieces, translations)
    assert joined.replace(" ", "") == "".join(translations)
    assert "  " not in joined
    assert joined == joined.strip()
