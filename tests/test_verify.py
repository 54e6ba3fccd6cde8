"""A bundle that decodes otherwise than where it was made is found out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_bundle import BEAM_SIZES, SENTENCES, toy_manifest, write_toy_bundle

from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.golden import Golden, GoldenExample
from seq2edge.runtime.runner import replay
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.verify import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_bundle(tmp_path / "toy")
    return tmp_path / "toy"


def change_first(
    folder: Path, change: Callable[[GoldenExample], GoldenExample]
) -> None:
    """Change the first golden example, and keep the manifest true to its file."""
    golden = Golden.read(folder)
    first, *rest = golden.examples
    replace(golden, examples=(change(first), *rest)).write(folder)
    toy_manifest(folder).write(folder)


def test_a_sound_bundle_passes(folder: Path) -> None:
    (folder / "notes.txt").touch()
    result = verify(folder)
    assert result.passed
    assert result.files == len(toy_manifest(folder).files) - 1
    assert result.unlisted == ("notes.txt",)
    assert result.examples == len(SENTENCES) * len(BEAM_SIZES)
    assert result.largest_score_difference < 1e-4  # numpy made them
    assert json.loads(json.dumps(result.to_json()))["passed"] is True
    assert "6 of 6 golden examples the same" in result.text()
    assert "unchecked: notes.txt" in result.text()


def test_another_token_is_a_difference(folder: Path) -> None:
    change_first(folder, lambda one: replace(one, tokens=(5, *one.tokens[1:])))
    result = verify(folder)
    assert not result.passed
    [difference] = result.differences
    assert difference.expected.text == SENTENCES[0]
    assert "tokens (5, " in difference.describe()
    assert "with beam 1" in difference.describe()
    assert "\n" not in difference.describe()
    assert result.text().endswith(difference.describe())
    assert "5 of 6 golden examples the same" in result.text()
    assert result.to_json()["passed"] is False


def test_another_text_of_the_same_tokens_is_a_difference(folder: Path) -> None:
    change_first(folder, lambda one: replace(one, text_out="something else"))
    [difference] = verify(folder).differences
    assert "text_out 'something else', here " in difference.describe()
    assert "tokens" not in difference.describe()


def test_a_score_may_differ_within_the_tolerance_only(folder: Path) -> None:
    change_first(folder, lambda one: replace(one, score=one.score + 0.01))
    result = verify(folder)
    assert not result.passed
    assert result.largest_score_difference == pytest.approx(0.01, abs=1e-4)
    replace(Golden.read(folder), score_tolerance=0.02).write(folder)
    toy_manifest(folder).write(folder)
    assert verify(folder).passed


def test_the_tolerance_has_a_default(folder: Path) -> None:
    value = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    del value["score_tolerance"]
    (folder / "golden.json").write_text(json.dumps(value), encoding="utf-8")
    toy_manifest(folder).write(folder)
    assert verify(folder).score_tolerance == 1e-3


def test_a_damaged_file_is_an_error_not_a_difference(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[5000] ^= 1
    (folder / "weights.bin").write_bytes(content)
    with pytest.raises(BundleError, match=r"damaged files.*weights\.bin"):
        verify(folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"examples": []}', "has no examples"),
        ('{"examples": [{"text": "a"}]}', r"examples\[0\]\.beam_size is missing"),
        ("[]", "must be an object"),
        ('{"examples"', "not valid JSON"),
    ],
)
def test_bad_examples_are_refused(folder: Path, content: str, expected: str) -> None:
    (folder / "golden.json").write_text(content, encoding="utf-8")
    toy_manifest(folder).write(folder)
    with pytest.raises(BundleError, match=rf"golden\.json.*{expected}"):
        verify(folder)


def test_a_bundle_without_examples_says_so(folder: Path) -> None:
    (folder / "golden.json").unlink()
    toy_manifest(folder).write(folder)
    with pytest.raises(BundleError, match=r"golden\.json is missing"):
        verify(folder)


def test_examples_are_made_by_replaying_them(folder: Path) -> None:
    blank = GoldenExample("the dog ran", False, 4, (), "", 0.0)
    made = replay(Translator.load(folder), blank)
    assert made.tokens
    Golden((made,)).write(folder)
    assert Golden.read(folder).examples == (made,)
