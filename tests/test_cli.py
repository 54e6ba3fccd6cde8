"""The commands as a user meets them: output, exit codes, one sentence for an error."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from toy_bundle import SENTENCES

from seq2edge.cli import main

LINE = SENTENCES[0].encode() + b"\n"


@pytest.fixture
def bundle(toy: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(toy, tmp_path / "bundle"))


def seq2edge(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)


def assert_one_sentence(result: Result, *parts: str) -> None:
    """An error of the user's: exit code 1, one line on stderr, nothing on stdout."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("seq2edge: ")
    for part in parts:
        assert part in line


def test_translate_answers_each_argument(toy: Path) -> None:
    result = seq2edge("translate", toy, *SENTENCES)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == len(SENTENCES)
    alone = seq2edge("translate", toy, SENTENCES[1])
    assert alone.stdout.splitlines() == [result.stdout.splitlines()[1]]


def test_translate_reads_lines_and_keeps_empty_ones(toy: Path) -> None:
    text = f"{SENTENCES[0]}\n\n   \n{SENTENCES[1]}\r\n".encode()
    result = seq2edge("translate", toy, stdin=text)
    lines = result.stdout.split("\n")
    assert lines[1] == lines[2] == ""
    assert [lines[0], lines[3]] == seq2edge(
        "translate", toy, *SENTENCES[:2]
    ).stdout.splitlines()
    assert lines[4:] == [""]


def test_no_input_gives_no_output(toy: Path) -> None:
    result = seq2edge("translate", toy)
    assert (result.exit_code, result.stdout) == (0, "")


def test_translate_json_tells_everything(toy: Path) -> None:
    result = seq2edge("translate", toy, "--json", "--n-best", 2, SENTENCES[0], "")
    first, second = map(json.loads, result.stdout.splitlines())
    assert set(first) == {
        "text",
        "tokens",
        "score",
        "flags",
        "milliseconds",
        "alternatives",
    }
    assert first["text"] == seq2edge("translate", toy, SENTENCES[0]).stdout.strip()
    assert first["score"] < 0 < first["milliseconds"]
    assert len(first["alternatives"]) == 1
    assert second["flags"]["empty"] is True


def test_n_best_lines_have_rank_and_score(toy: Path) -> None:
    result = seq2edge("translate", toy, "--n-best", 3, SENTENCES[0])
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    scores = [float(row[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "text",
    [
        "nul \x00 and bell \x07",
        "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "x" * 100_000,
        "\u00a0\u2028\u3000",
    ],
    ids=["control", "emoji", "endless", "spaces"],
)
def test_odd_text_is_translated_line_for_line(toy: Path, text: str) -> None:
    lines = f"{text}\n{SENTENCES[0]}\n".encode()
    result = seq2edge("translate", toy, "--beam-size", 1, "--json", stdin=lines)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.rstrip("\n").split("\n")]
    assert len(records) == 2
    assert records[0]["flags"]["split"] == (len(text) > 1000)


def test_a_cut_translation_is_mentioned(toy: Path) -> None:
    result = seq2edge("translate", toy, "--max-length", 1, SENTENCES[0])
    assert result.exit_code == 0
    assert "1 result(s) were cut at the length limit" in result.stderr


def test_invalid_utf8_names_the_line(toy: Path) -> None:
    text = SENTENCES[0].encode() + b"\nab\xffc\n"
    result = seq2edge("translate", toy, stdin=text)
    assert_one_sentence(result, "line 2", "byte 3 is 0xff", "--errors replace")
    replaced = seq2edge("translate", toy, "--errors", "replace", stdin=text)
    assert replaced.exit_code == 0
    assert len(replaced.stdout.splitlines()) == 2


def test_a_missing_bundle_is_one_sentence(tmp_path: Path) -> None:
    for command in ("translate", "verify", "inspect", "profile"):
        result = seq2edge(command, tmp_path / "nowhere")
        assert_one_sentence(result, "nowhere", "does not exist")


def test_a_flipped_bit_is_found(bundle: Path) -> None:
    weights = bundle / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    for command in ("translate", "verify"):
        result = seq2edge(command, bundle)
        assert_one_sentence(result, "damaged", "weights.bin")


def test_a_truncated_file_is_found(bundle: Path) -> None:
    graph = bundle / "encoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-10])
    assert_one_sentence(seq2edge("translate", bundle), "encoder.onnx", "size")


def test_a_missing_tokenizer_is_named(bundle: Path) -> None:
    name = json.loads((bundle / "manifest.json").read_text())["tokenizer"]["source"]
    (bundle / name).unlink()
    assert_one_sentence(seq2edge("translate", bundle, "x"), "missing", name)


def test_a_newer_format_asks_for_an_upgrade(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"format": 1', '"format": 99'), encoding="utf-8")
    assert_one_sentence(seq2edge("translate", bundle, "x"), "99", "upgrade")


def test_a_path_that_leaves_the_bundle_is_refused(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("encoder.onnx", "../encoder.onnx"))
    assert_one_sentence(seq2edge("translate", bundle, "x"), "../encoder.onnx")


def test_verify_replays_the_golden_examples(toy: Path) -> None:
    result = seq2edge("verify", toy)
    assert result.exit_code == 0
    assert "6 of 6 golden examples the same" in result.stdout


def test_verify_fails_where_an_example_differs(bundle: Path) -> None:
    golden = json.loads((bundle / "golden.json").read_text(encoding="utf-8"))
    golden["examples"][0]["tokens"].append(5)
    text = json.dumps(golden)
    (bundle / "golden.json").write_text(text, encoding="utf-8")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    entry = {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    manifest["files"]["golden.json"] = entry
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    result = seq2edge("verify", bundle)
    assert result.exit_code == 1
    assert "tokens (" in result.stdout
    assert "doesn't give its golden results" in result.stderr


def test_inspect_shows_contract_and_sizes(toy: Path) -> None:
    result = seq2edge("inspect", toy)
    assert result.exit_code == 0
    for part in ("memory", "state", "weights.bin", "sha256", "vocabulary", "beam"):
        assert part in result.stdout
    manifest = json.loads(seq2edge("inspect", toy, "--json").stdout)
    assert manifest["format"] == 1


def test_evaluate_prints_scores_with_signatures(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    outputs = seq2edge("translate", toy, *SENTENCES).stdout
    source, reference = tmp_path / "s", tmp_path / "r"
    source.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    reference.write_text(outputs, encoding="utf-8")
    arguments = ("evaluate", toy, "--source", source, "--reference", reference)
    record = json.loads(seq2edge(*arguments, "--json").stdout)
    assert record["chrf"]["score"] == pytest.approx(100)
    assert "tok:13a" in record["bleu"]["signature"]
    assert record["sentences_per_second"] > 0
    text = seq2edge(*arguments).stdout
    assert "BLEU" in text
    assert "sentences a second" in text
    reference.write_text("one\n", encoding="utf-8")
    assert_one_sentence(seq2edge(*arguments), "3 sources and 1 references")


def test_profile_prints_a_table_and_writes_the_record(
    toy: Path, tmp_path: Path
) -> None:
    record = tmp_path / "profile.json"
    arguments = ("profile", toy, "--repeat", 1, "--beam-size", 2, "--json", record)
    result = seq2edge(*arguments)
    assert result.exit_code == 0, result.output
    for part in ("tokenize", "encode", "step", "search", "detokenize", "p99"):
        assert part in result.stdout
    (profile,) = json.loads(record.read_text(encoding="utf-8"))["profiles"]
    assert profile["timings"]["steps"] > 0


def test_a_record_that_cannot_be_written_is_one_sentence(
    toy: Path, tmp_path: Path
) -> None:
    target = tmp_path / "missing" / "profile.json"
    result = seq2edge("profile", toy, "--repeat", 1, "--json", target)
    assert result.exit_code == 1
    assert "can't be written" in result.stderr


def test_a_misspelt_recipe_key_is_one_sentence(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[about]\nname = "x"\n[data]\ntrain = ["a"]\ndevv = ["b"]\n')
    result = seq2edge("train", recipe, "--output", tmp_path / "out")
    assert_one_sentence(result, "data.devv is not a known key")
    assert not (tmp_path / "out").exists()


def test_wrong_usage_exits_with_two(toy: Path) -> None:
    assert seq2edge("translate").exit_code == 2
    assert seq2edge("translate", toy, "--beam-size", 0).exit_code == 2
    assert seq2edge("transalte", toy).exit_code == 2


@contextlib.contextmanager
def answering(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has answered its first line and waits for more."""
    command = [sys.executable, "-m", "seq2edge", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(LINE)
        process.stdin.flush()
        assert process.stdout.readline()
        yield process


def test_a_closed_pipe_ends_quietly(toy: Path) -> None:
    with answering("translate", toy, "--read-ahead", 1) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(LINE)
        process.stdin.flush()
        assert process.stderr.read() == b""
        assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_an_interrupt_is_one_line(toy: Path) -> None:
    with answering("translate", toy, "--read-ahead", 1) as process:
        assert process.stderr
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"seq2edge: interrupted\n"
        assert process.wait() == 130


def test_text_without_end_of_line_is_translated(toy: Path) -> None:
    result = seq2edge("translate", toy, stdin=SENTENCES[0].encode())
    assert len(result.stdout.splitlines()) == 1


def test_a_byte_order_mark_is_no_text(toy: Path) -> None:
    with io.BytesIO() as marked:
        marked.write(b"\xef\xbb\xbf" + SENTENCES[0].encode())
        result = seq2edge("translate", toy, stdin=marked.getvalue())
    assert result.stdout == seq2edge("translate", toy, SENTENCES[0]).stdout
