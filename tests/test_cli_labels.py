"""The commands on bundles that tag words and transcribe frames."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from seq2edge.cli import main
from seq2edge.runtime import Predictor

DATA = Path(__file__).parent / "data"
TAGGER, FRAMES = DATA / "toy-tagger-int8", DATA / "toy-frames-int8"
WRITES = DATA / "toy-int8"
SOUND = FRAMES / "golden" / "0.sound.npy"


def seq2edge(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)


def test_predict_tags_each_line() -> None:
    result = seq2edge("predict", TAGGER, stdin=b"the light light\n\nthe dog runs\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "ARTICLE NOUN VERB",
        "",
        "ARTICLE NOUN VERB",
    ]


def test_a_stream_answers_word_by_word_and_begins_anew() -> None:
    text = b"the light\nlight\n\nthe light\n"
    result = seq2edge("predict", TAGGER, "--stream", stdin=text)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "the\tARTICLE",
        "light\tNOUN",
        "light\tVERB",
        "",
        "the\tARTICLE",
        "light\tNOUN",
    ]


def test_a_stream_says_what_the_whole_pass_says() -> None:
    predictor = Predictor.load(TAGGER)
    text = "the dog runs the light light the sun shines"
    whole = predictor.predict(text)
    stream = predictor.stream()
    for word, label, log_prob in zip(
        text.split(), whole.labels, whole.log_probs, strict=True
    ):
        found, probability = stream.push(word)
        assert found == label
        assert probability == pytest.approx(log_prob, abs=1e-5)


def test_json_tells_everything() -> None:
    result = seq2edge("predict", TAGGER, "--json", "the cat runs")
    record = json.loads(result.stdout)
    assert record["words"] == ["the", "cat", "runs"]
    assert record["flags"]["unknown"] == ["cat"]
    assert len(record["labels"]) == len(record["log_probs"]) == 3
    assert record["milliseconds"] > 0


def test_frames_are_transcribed_from_a_file() -> None:
    golden = json.loads((FRAMES / "golden.json").read_text(encoding="utf-8"))
    result = seq2edge("translate", FRAMES, SOUND, "--beam-size", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == golden["examples"][0]["text_out"]


def test_bundles_of_all_tasks_verify_profile_and_show(tmp_path: Path) -> None:
    for bundle in (TAGGER, FRAMES):
        assert seq2edge("verify", bundle).exit_code == 0
        shown = seq2edge("inspect", bundle)
        assert shown.exit_code == 0, shown.output
        record = tmp_path / "record.json"
        result = seq2edge("profile", bundle, "--repeat", 1, "--json", record)
        assert result.exit_code == 0, result.output
        [profile] = json.loads(record.read_text(encoding="utf-8"))["profiles"]
        parts = {part["name"]: part["share"] for part in profile["timings"]["parts"]}
        assert sum(parts.values()) == pytest.approx(1)
        assert parts["encode"] > 0
        assert profile["timings"]["one_step"]["median_ms"] > 0
    assert "goes position by position" in seq2edge("inspect", TAGGER).stdout


def test_evaluate_counts_right_labels(tmp_path: Path) -> None:
    source, reference = tmp_path / "words", tmp_path / "tags"
    source.write_text("the dog runs\nthe sun shines\n", encoding="utf-8")
    reference.write_text("ARTICLE NOUN VERB\nARTICLE NOUN NOUN\n", encoding="utf-8")
    command = ["evaluate", TAGGER, "--source", source, "--reference", reference]
    result = seq2edge(*command)
    assert result.exit_code == 0, result.output
    assert "accuracy 83.33 % of 6 labels" in result.stdout
    assert "exact 50.00 %" in result.stdout
    record = json.loads(seq2edge(*command, "--json").stdout)
    assert record["accuracy"] == pytest.approx(100 * 5 / 6)
    assert record["bleu"] is None
    reference.write_text("ARTICLE NOUN VERB\nARTICLE\n", encoding="utf-8")
    result = seq2edge(*command)
    assert result.exit_code == 1
    assert "source 2 has 3 labels and its reference 1" in result.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["predict", WRITES, "x"], "it writes tokens; use `seq2edge translate`"),
        (["translate", TAGGER, "x"], "it does tagging; use `seq2edge predict`"),
        (["translate", FRAMES, "gone.npy"], "gone.npy can't be read as a .npy file"),
        (["translate", FRAMES, __file__], "can't be read as a .npy file"),
    ],
)
def test_what_a_bundle_cannot_do_is_one_sentence(
    command: list[object], message: str
) -> None:
    result = seq2edge(*command)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert message in line


def test_a_recording_of_another_shape_is_one_sentence(tmp_path: Path) -> None:
    for array, message in (
        (np.zeros((3, 9), np.float32), "(time, 4) is due"),
        (np.zeros((0, 4), np.float32), "with one frame at least"),
        (np.full((3, 4), np.nan, np.float32), "holds a number that is not finite"),
        (np.array(["a", "b"]), "holds no array of numbers"),
    ):
        np.save(tmp_path / "odd.npy", array)
        result = seq2edge("translate", FRAMES, tmp_path / "odd.npy")
        assert result.exit_code == 1
        [line] = result.stderr.splitlines()
        assert message in line


def test_a_recording_that_is_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    sound = np.load(SOUND)
    np.save(tmp_path / "long.npy", np.tile(sound, (40, 1)))
    result = seq2edge("translate", FRAMES, tmp_path / "long.npy", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["flags"]["truncated"]


def test_a_golden_recording_that_is_missing_is_found(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(FRAMES, tmp_path / "bundle"))
    (bundle / "golden" / "1.sound.npy").unlink()
    result = seq2edge("verify", bundle)
    assert result.exit_code == 1
    assert "missing files: golden/1.sound.npy" in result.stderr
