"""Scoring and aligning on the command line."""

import json
import math
import re
from pathlib import Path

import pytest
from test_cli import assert_one_sentence, seq2edge
from toy_bundle import SENTENCES

from seq2edge.runtime import Translator

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
PAGE = (ROOT / "docs" / "alignment-and-scoring.md").read_text(encoding="utf-8")
PAIRS = "".join(f"{text}\t{SENTENCES[1]}\n" for text in SENTENCES).encode()


def test_score_prints_log_probability_tokens_and_perplexity(toy: Path) -> None:
    result = seq2edge("score", toy, stdin=PAIRS)
    assert result.exit_code == 0
    expected = Translator.load(toy).score_batch(SENTENCES, [SENTENCES[1]] * 3)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    for (score, tokens, perplexity), one in zip(rows, expected, strict=True):
        assert float(score) == pytest.approx(one.log_prob, abs=1e-3)
        assert int(tokens) == len(one.tokens)
        assert float(perplexity) == pytest.approx(one.perplexity, rel=1e-3)
    total = sum(one.log_prob for one in expected)
    count = sum(len(one.tokens) for one in expected)
    note = f"3 pair(s), {count} tokens, perplexity {math.exp(-total / count):.4f}"
    assert result.stderr.startswith(f"seq2edge: {note}")


@pytest.mark.parametrize("normalize", ["tokens", "penalty"])
def test_score_normalizes_as_asked(toy: Path, normalize: str) -> None:
    translator = Translator.load(toy)
    result = seq2edge("score", toy, "--normalize", normalize, stdin=PAIRS)
    [one, *_] = translator.score_batch(SENTENCES, [SENTENCES[1]] * 3)
    defaults = translator.defaults
    expected = one.normalized(normalize, defaults)  # type: ignore[arg-type]
    assert float(result.stdout.split("\t")[0]) == pytest.approx(expected, abs=1e-3)


def test_score_reads_two_files_and_writes_json(toy: Path, tmp_path: Path) -> None:
    source, reference = tmp_path / "source", tmp_path / "reference"
    source.write_text(f"{SENTENCES[0]}\n\n{SENTENCES[1]}\n", encoding="utf-8")
    long = " ".join(SENTENCES * 4)
    reference.write_text(f"the\tdog\nthe dog\n{long}\n", encoding="utf-8")
    files = ("--source", source, "--reference", reference)
    result = seq2edge("score", toy, *files, "--json")
    first, second, third = map(json.loads, result.stdout.splitlines())
    assert sum(first["log_probs"]) == pytest.approx(first["log_prob"], abs=1e-4)
    assert first["score"] == first["log_prob"]
    assert len(first["tokens"]) == len(first["log_probs"])
    assert first["tokens"][-1] == "</s>"
    assert second["flags"] == {"no_source": True, "too_long": False, "unknown": False}
    assert third["flags"]["too_long"]
    assert third["score"] is third["perplexity"] is None
    plain = seq2edge("score", toy, *files)
    assert plain.stdout.splitlines()[1:] == ["nan\t0\tnan"] * 2
    assert "2 pair(s) have no score" in plain.stderr.splitlines()[-1]


def test_score_names_what_is_no_pair(toy: Path, tmp_path: Path) -> None:
    result = seq2edge("score", toy, stdin=b"no tab\n")
    assert_one_sentence(result, "SOURCE TAB TARGET is due", "'no tab'")
    source, reference = tmp_path / "source", tmp_path / "reference"
    source.write_text("a\nb\n", encoding="utf-8")
    reference.write_text("a\n", encoding="utf-8")
    result = seq2edge("score", toy, "--source", source, "--reference", reference)
    assert_one_sentence(result, "has 2 lines and", "give one target for each source")
    assert seq2edge("score", toy, "--source", source).exit_code == 2
    assert seq2edge("score", toy, stdin=b"").stdout == ""
    result = seq2edge("score", DATA / "toy-tagger-int8", stdin=PAIRS)
    assert_one_sentence(result, "writes no tokens, it does tagging")


def test_translate_prints_and_writes_alignments() -> None:
    bundle = DATA / "toy-fp32"
    result = seq2edge("translate", bundle, "--alignment", "one two red", "")
    assert result.stdout == "rot zwei eins\t2-0 1-1 0-2\n\t\n"
    result = seq2edge("translate", bundle, "--alignment", "--json", "one two red")
    alignment = json.loads(result.stdout)["alignment"]
    assert alignment["words"] == [[2, 0], [1, 1], [0, 2]]
    assert alignment["source_words"] == ["one", "two", "red"]
    plain = seq2edge("translate", bundle, "--replace-unknowns", "one two red")
    assert plain.stdout == "rot zwei eins\n"


def test_translate_says_where_there_is_no_attention(toy: Path) -> None:
    manifest = json.loads((toy / "manifest.json").read_text(encoding="utf-8"))
    del manifest["heads"]["attention"]
    (toy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    result = seq2edge("translate", toy, "--alignment", SENTENCES[0])
    assert_one_sentence(result, "shows no attention", "step_with_attention")


def test_the_page_shows_what_the_commands_print() -> None:
    pairs = "one two red\trot zwei eins\none two\teins zwei\n"
    assert repr(pairs) in PAGE
    scored = seq2edge("score", DATA / "toy-fp32", stdin=pairs.encode()).stdout
    command = ("translate", DATA / "toy-fp32", "--alignment", "one two red")
    for line in [*scored.splitlines(), *seq2edge(*command).stdout.splitlines()]:
        assert f"    {line}\n" in PAGE


def test_every_block_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) == 2
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "alignment-and-scoring.md", "exec"), namespace)
    matrix, alignment = namespace["matrix"], namespace["alignment"]
    assert matrix.shape == (2, 3)  # type: ignore[attr-defined]
    assert alignment.pharaoh == "2-0 1-1 0-2"  # type: ignore[attr-defined]
