"""Scores are sacreBLEU's own, with every reference of a source."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from toy_bundle import SENTENCES, write_toy_bundle

from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.evaluate import (
    EvaluateOptions,
    Evaluation,
    Metric,
    Scorers,
    evaluate,
    group_references,
)
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.translator import Translator


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    folder = tmp_path_factory.mktemp("evaluate") / "toy"
    write_toy_bundle(folder)
    # Without the unknown token this random model writes too few words for BLEU.
    options = SearchOptions(allow_unknown=True)
    return replace(Translator.load(folder), defaults=options)


def test_references_of_one_source_come_together() -> None:
    grouped = group_references(["a", "b", "a", "a"], ["A", "B", "AA", "A"])
    assert grouped == {"a": ["A", "AA"], "b": ["B"]}
    assert list(grouped) == ["a", "b"]


def test_files_of_different_length_are_refused() -> None:
    with pytest.raises(InputError, match="2 sources and 1 references don't pair up"):
        group_references(["a", "b"], ["A"])
    with pytest.raises(InputError, match="nothing to evaluate"):
        group_references([], [])


def bleu(result: Evaluation) -> Metric:
    assert result.bleu is not None
    return result.bleu


def chrf(result: Evaluation) -> Metric:
    assert result.chrf is not None
    return result.chrf


def test_perfect_translations_score_100(translator: Translator) -> None:
    own = [one.text for one in translator.translate_batch(SENTENCES)]
    longer = [f"{text} and some more words" for text in own]
    seen: list[int] = []
    result = evaluate(translator, SENTENCES, own, progress=seen.append)
    assert bleu(result).score == pytest.approx(100)
    assert chrf(result).score == pytest.approx(100)
    assert result.hypotheses == tuple(own)
    assert seen == [3]
    assert result.exact == 100
    worse = evaluate(translator, SENTENCES, longer)
    assert 0 < chrf(worse).score < 100


def test_any_of_several_references_counts(translator: Translator) -> None:
    own = [one.text for one in translator.translate_batch(SENTENCES)]
    sources = [*SENTENCES, SENTENCES[0], SENTENCES[0], SENTENCES[1]]
    references = ["wrong", own[1], own[2], own[0], "wrong too", own[1]]
    result = evaluate(translator, sources, references)
    assert (result.lines, result.sentences) == (6, 3)
    assert result.references == (1, 3)
    assert bleu(result).score == pytest.approx(100)
    assert "nrefs:var" in bleu(result).signature
    assert "nrefs:var" in chrf(result).signature
    text = result.text()
    assert text.startswith(f"BLEU 100.00  {bleu(result).signature}\nchrF 100.00  ")
    assert "3 different sources on 6 lines, 1 to 3 references each" in text


def test_speed_and_signature_are_told(translator: Translator) -> None:
    options = EvaluateOptions(search=SearchOptions(beam_size=1), tokenize="char")
    result = evaluate(translator, SENTENCES, SENTENCES, options)
    greedy = translator.translate_batch(SENTENCES, SearchOptions(beam_size=1))
    assert result.tokens == sum(len(one.tokens) for one in greedy)
    assert result.sentences_per_second == pytest.approx(3 / result.seconds)
    assert result.tokens_per_second == pytest.approx(result.tokens / result.seconds)
    assert "tok:char" in bleu(result).signature
    assert json.loads(json.dumps(result.to_json()))["references"] == [1, 1]


def test_scores_equal_those_worked_out_on_paper() -> None:
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples; no brevity penalty.
    found, _ = Scorers.load().score(["a b c d e"], [["a b c d f"]])
    assert found.score == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_without_sacrebleu_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, translator: Translator
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigError, match=r"pip install 'seq2edge\[evaluate\]'"):
        evaluate(translator, SENTENCES, SENTENCES)


def test_an_unknown_tokenizer_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match="tokenize 'moses' is not known; give one"):
        EvaluateOptions(tokenize="moses")


def test_the_module_is_imported_without_sacrebleu() -> None:
    script = "import sys, seq2edge.runtime.evaluate; print('sacrebleu' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
