"""Heads that choose among a shortlist: a sentence gets its own tokens of it, always."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from large_vocabulary import SENTENCES, SIZE, VOCABULARY, exported, same, with_shortlist

from seq2edge.cli import main
from seq2edge.export import ExportOptions
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.shortlist import Shortlist
from seq2edge.runtime.shortlisted import AHEAD, ShortlistedDecoding
from seq2edge.runtime.translator import Translator

Pair = tuple[Path, Path]


@pytest.fixture(scope="module", params=["transformer", "gru, output bias"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Pair:
    """One model's bundle with a shortlist, and one without."""
    folder: Path = tmp_path_factory.mktemp("shortlisted")
    return (
        exported(request.param, "int8", folder / "shortlist", "shortlist"),
        exported(request.param, "int8", folder / "steps", "steps"),
    )


@pytest.fixture(scope="module")
def folder(pair: Pair) -> Path:
    return pair[0]


def alone(
    folder: Path, beam: int, speculates: bool = True, **changes: Any
) -> list[Hypothesis]:
    translator = Translator.load(folder, EngineOptions(speculates=speculates))
    search = replace(translator.defaults.with_beam(beam), n_best=1, **changes)
    return [translator.generate([each], search)[0][0] for each in SENTENCES]


def together(folder: Path, beam: int) -> list[Hypothesis]:
    """In one batch, of which a sentence leaves when it has ended."""
    engine = Engine.load(folder)
    translator = replace(Translator.load(folder), stepper=engine)
    search = replace(translator.defaults.with_beam(beam), n_best=1)
    return [best for best, *_ in translator.generate(SENTENCES, search)]


def of_few(each: int = 40) -> Shortlist:
    """The end token, and of each source token others."""
    of_source = np.random.default_rng(7).integers(4, SIZE, SIZE * each)
    return Shortlist(np.array([3]), np.full(SIZE, each), of_source)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_shortlist_of_all_tokens_changes_nothing(
    pair: Pair, beam: int, tmp_path: Path
) -> None:
    shortlisted, steps = pair
    everything = Shortlist(np.arange(SIZE), np.zeros(SIZE, int), np.zeros(0, int))
    changed = with_shortlist(shortlisted, everything, tmp_path)
    expected = alone(steps, beam)
    assert len({token for one in expected for token in one.tokens}) > 9
    same(alone(changed, beam), expected)
    same(together(changed, beam), expected)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_sentence_gets_its_own_candidates_in_any_batch(
    folder: Path, beam: int, tmp_path: Path
) -> None:
    shortlist = of_few()
    changed = with_shortlist(folder, shortlist, tmp_path)
    found = alone(changed, beam)
    for sentence, hypothesis in zip(SENTENCES, found, strict=True):
        own = shortlist.candidates(np.array(sentence))
        assert set(hypothesis.tokens) <= set(own.tolist())
    assert len({token for one in found for token in one.tokens}) > 9
    same(together(changed, beam), found)


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_length": 1}, {"max_length": AHEAD + 1, "forced_end": True}],
    ids=str,
)
def test_several_steps_at_once_are_what_single_ones_are(
    folder: Path, changes: dict[str, Any]
) -> None:
    same(alone(folder, 1, **changes), alone(folder, 1, speculates=False, **changes))


def test_more_than_the_shortlist_has_come_from_all_tokens(
    pair: Pair, tmp_path: Path
) -> None:
    shortlisted, steps = pair
    none = Shortlist(np.array([3, 9]), np.zeros(SIZE, int), np.zeros(0, int))
    changed = with_shortlist(shortlisted, none, tmp_path)
    same(alone(changed, 4), alone(steps, 4))


def begin(folder: Path, batch: list[list[int]], speculates: bool = True) -> Any:
    engine = Engine.load(folder, EngineOptions(speculates=speculates))
    lengths = np.array([len(sentence) for sentence in batch], np.int32)
    source = np.zeros((len(batch), lengths.max()), np.int64)
    for row, sentence in zip(source, batch, strict=True):
        row[: len(sentence)] = sentence
    return engine.start({"source": source, "source_lengths": lengths})


def test_all_scores_are_of_all_tokens(pair: Pair) -> None:
    start = np.array([VOCABULARY.start])
    ours, theirs = (
        begin(folder, SENTENCES[5:6]).scores(start, None) for folder in pair
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert ours.shape == (1, SIZE)


def test_one_sentence_goes_ahead_and_a_batch_by_steps(folder: Path) -> None:
    assert hasattr(begin(folder, SENTENCES[:1]), "ahead")
    slow = begin(folder, SENTENCES[:1], speculates=False)
    assert isinstance(slow, ShortlistedDecoding)
    assert not hasattr(slow, "ahead")
    assert not hasattr(begin(folder, SENTENCES[:2]), "ahead")
    log_probs, tokens = begin(folder, SENTENCES[4:5]).ahead(np.array([2]), 3)
    assert log_probs.shape == tokens.shape
    assert 1 <= tokens.shape[1] <= 3


def test_padding_brings_no_candidates(folder: Path, tmp_path: Path) -> None:
    counts = np.zeros(SIZE, int)
    counts[0] = 1  # the padding's: token 77
    shortlist = Shortlist(np.array([3, 5]), counts, np.array([77]))
    changed = with_shortlist(folder, shortlist, tmp_path)
    decoding = begin(changed, [SENTENCES[1], SENTENCES[8]])
    _, tokens = decoding.best(np.full(2, VOCABULARY.start), None, 2)
    assert sorted(tokens[0].tolist()) == sorted(tokens[1].tolist()) == [3, 5]


def test_the_bundle_says_what_its_shortlist_is(folder: Path) -> None:
    manifest = Bundle.load(folder).manifest
    usual, more = {"greedy", "beam", "scores", "attention"}, {"shortlist", "ahead"}
    assert manifest.heads.keys() == usual | more | {"beam_ahead"}
    certificate: Any = manifest.certificate
    figures = certificate["shortlist"]
    assert figures["sentences"] == figures["identical"] == len(SENTENCES)
    assert figures["identical_beams"] == len(SENTENCES)
    assert 0 <= figures["missed_tokens"] <= 1
    assert 1 < figures["candidates"] <= SIZE
    assert "int8" in certificate


def test_what_can_have_no_shortlist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="use int8 or int4"):
        ExportOptions(shortlist=True)
    arguments = ["export", str(tmp_path), str(tmp_path / "out"), "--shortlist"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "--shortlist goes with --precision int8 or int4" in result.output
