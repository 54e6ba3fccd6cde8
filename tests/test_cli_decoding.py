"""The options of decoding as a user meets them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from seq2edge.cli import main
from seq2edge.runtime import SearchOptions, Translator

DATA = Path(__file__).parent / "data"
TOY = DATA / "toy-fp32"
TEXT = "one red dog"  # Hund rot eins


def translate(*arguments: object, bundle: Path = TOY, stdin: str = "") -> Result:
    command = ["translate", str(bundle), *map(str, arguments)]
    return CliRunner().invoke(main, command, input=stdin)


def printed(*arguments: object, **given: Any) -> list[str]:
    result = translate(*arguments, **given)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


EXPECTED = [
    ([], "Hund rot eins"),
    (["--prefix", "rot"], "rot rot eins"),
    (["--prefix-ids", "17 17"], None),
    (["--prefix", "rot", "--prefix-bias", "0.1"], "Hund rot eins"),
    (["--beam-rule", "transformers", "--early-stopping", "yes"], "Hund rot eins"),
    (["--length-normalization", "power", "--length-penalty", 1], "Hund rot eins"),
    (["--coverage-penalty", "0.2", "--length-ratio", "1.5"], "Hund rot eins"),
    (["--max-length", 2, "--beam-size", 1], "Hund rot"),
    (["--sample", "--top-k", 1], "Hund rot eins"),
    (["--sample", "--temperature", 0.01, "--top-p", 0.5, "--seed", 3], "Hund rot eins"),
    (["--allow-unknown", "--no-repeat-ngram", 1], "Hund rot eins"),
    (["--deadline-ms", 1e9], "Hund rot eins"),
]


@pytest.mark.parametrize(("arguments", "expected"), EXPECTED)
def test_an_option_does_what_it_says(
    arguments: list[object], expected: str | None
) -> None:
    [line] = printed(TEXT, *arguments)
    assert expected in (None, line)


def test_options_are_those_of_the_library() -> None:
    given = ["--repetition-penalty", 3, "--min-length", 6, "--no-repeat-ngram", 2]
    options = SearchOptions(
        repetition_penalty=3.0, min_length=6, no_repeat_ngram_size=2
    )
    assert printed(TEXT, *given) == [Translator.load(TOY).translate(TEXT, options).text]


def test_what_is_suppressed_is_text_or_ids() -> None:
    tokenizer = Translator.load(TOY).tokenizer
    assert tokenizer is not None
    [hund] = tokenizer.encode_target("Hund")
    [by_text] = printed(TEXT, "--suppress", "Hund")
    assert "Hund" not in by_text
    assert printed(TEXT, "--suppress-ids", hund) == [by_text]
    [neither] = printed(TEXT, "--suppress", "Hund", "--suppress-ids", "4 5")
    assert "Hund" not in neither


def test_a_line_has_the_same_sample_in_any_window() -> None:
    arguments = ["--sample", "--temperature", 3, "--n-best", 2]
    lines = f"{TEXT}\n" * 5
    together = printed(*arguments, stdin=lines)
    assert printed(*arguments, "--read-ahead", 2, stdin=lines) == together
    assert len(set(together)) == 10


def test_alternatives_have_ranks_and_scores() -> None:
    rows = [
        line.split("\t")
        for line in printed(TEXT, "--alternatives", 3, "--prefix", "Hund")
    ]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert all(row[3].startswith("Hund") for row in rows)
    [line] = printed(TEXT, "--alternatives", 3, "--prefix", "Hund", "--json")
    records = json.loads(line)["alternatives"]
    assert [one["text"] for one in records] == [row[3] for row in rows]
    assert [f"{one['log_prob']:.4f}" for one in records] == [row[1] for row in rows]


def test_tokens_are_printed_before_their_translation() -> None:
    lines = printed("--stream-tokens", TEXT, "red")
    assert lines[:4] == ["0\t0\t0\t▁Hund", "0\t0\t0\t▁rot", "0\t0\t0\t▁eins", lines[3]]
    assert lines[3:] == ["Hund rot eins", "1\t0\t0\t▁rot", "rot"]
    first, *_ = printed("--stream-tokens", "--json", TEXT)
    assert json.loads(first) == {"text": 0, "piece": 0, "sample": 0, "token": "▁Hund"}


def test_token_scores_are_in_json_where_they_are_asked_for() -> None:
    arguments = ["--json", "--n-best", 2, "--beam-size", 2, TEXT]
    [line] = printed(*arguments)
    assert "token_log_probs" not in line
    record = json.loads(printed(*arguments, "--token-scores")[0])
    for one in (record, *record["alternatives"]):
        assert len(one["token_log_probs"]) == len(one["tokens"])


def test_a_deadline_is_in_the_flags_and_in_a_note() -> None:
    result = translate("--deadline-ms", 1e-6, TEXT)
    assert (result.exit_code, result.stdout) == (0, "\n")
    assert "1 result(s) were stopped by the deadline" in result.stderr
    [line] = printed("--deadline-ms", 1e-6, "--json", TEXT)
    assert json.loads(line)["flags"]["stopped"] == "deadline"


def test_a_bundle_that_reads_frames_takes_the_options_too() -> None:
    frames = DATA / "toy-frames-int8"
    sound = frames / "golden" / "0.sound.npy"
    [plain] = printed(sound, bundle=frames)
    arguments = ["--coverage-penalty", 0.1, "--no-repeat-ngram", 3, "--prefix-ids", 4]
    [line] = printed(sound, *arguments, bundle=frames)
    assert line
    assert plain


WRONG = [
    (1, "temperature", ["--temperature", 2]),
    (1, "top_k, seed", ["--top-k", 2, "--seed", 4]),
    (1, "temperature 0.0 must be above 0", ["--sample", "--temperature", 0]),
    (1, "top_p 2.0", ["--sample", "--top-p", 2]),
    (1, "n_best 5 is above beam_size 2", ["--n-best", 5, "--beam-size", 2]),
    (1, "early_stopping is for", ["--early-stopping", "yes"]),
    (1, "coverage_penalty is for", ["--coverage-penalty", 1, "--sample"]),
    (1, "prefix holds id 400", ["--prefix-ids", 400]),
    (1, "leaves no room", ["--prefix-ids", "4 5 6", "--max-length", 3]),
    (1, "suppressed or forced_first holds id 99", ["--suppress-ids", 99]),
    (1, "one token or more", ["--suppress", ""]),
    (2, "not both", ["--prefix", "a", "--prefix-ids", "4"]),
    (2, "--prefix-bias needs --prefix", ["--prefix-bias", 0.5]),
    (2, "--token-scores", ["--token-scores"]),
    (2, "ids with spaces", ["--prefix-ids", "a"]),
    (2, "ids with spaces", ["--suppress-ids", "a 5"]),
    (2, "without --n-best, --alignment", ["--alternatives", 2, "--n-best", 2]),
    (2, "without --deadline-ms", ["--alternatives", 2, "--deadline-ms", 2]),
    (2, "--alternatives", ["--alternatives", 0]),
    (2, "--deadline-ms", ["--deadline-ms", 0]),
    (2, "leave out --beam-size", ["--sample", "--beam-size", 2]),
]


@pytest.mark.parametrize(("code", "part", "arguments"), WRONG)
def test_what_cannot_be_meant_is_one_sentence(
    code: int, part: str, arguments: list[object]
) -> None:
    if "--n-best, --alignment" in part:
        arguments = [*arguments, "--alignment"]
    result = translate(TEXT, *arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert part in result.stderr.splitlines()[-1]
    assert code == 2 or len(result.stderr.splitlines()) == 1


def test_help_is_in_groups() -> None:
    text = translate("--help").stdout
    heads = ["Options:", "Of each line:", "Search:", "What may be written:"]
    places = [text.index(head) for head in (*heads, "Sampling:")]
    assert places == sorted(places)
    assert text.count("--n-best") == text.count("--top-k") == 1


def test_evaluate_takes_the_search_but_labels_have_none(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    source, reference = tmp_path / "source", tmp_path / "reference"
    source.write_text(f"{TEXT}\n", encoding="utf-8")
    reference.write_text("rot\n", encoding="utf-8")
    files = ["--source", str(source), "--reference", str(reference), "--json"]
    command = ["evaluate", str(TOY), *files, "--max-length", "2", "--suppress", "Hund"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "Hund" not in json.loads(result.stdout)["hypotheses"][0]
    command = ["evaluate", str(DATA / "toy-tagger-int8"), *files, "--beam-size", "2"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "beam_size: this bundle labels, and searches nothing" in result.stderr
