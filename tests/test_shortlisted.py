"""Heads that choose among a shortlist: a sentence gets its own tokens of it, always."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from large_vocabulary import SENTENCES, SIZE, VOCABULARY, begin, exported, same
from slow import slow_among

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
NAMES = slow_among(["transformer", "gru, output bias"], "gru, output bias")
NONE = np.zeros(0, int)


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: Any) -> Any:
    """Each bundle, exported when it is first asked for."""
    made: dict[str, Path] = {}

    def bundle(name: str, chooses: str, shortlist: Shortlist | None = None) -> Path:
        key = f"{name} {chooses} {shortlist and len(shortlist.common)}"
        if key not in made:
            folder = tmp_path_factory.mktemp("shortlisted") / "bundle"
            made[key] = exported(name, "int8", folder, chooses, shortlist)
        return made[key]

    return bundle


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, bundle_of: Any) -> Path:
    """A shortlist that gives every source token others."""
    made: Path = bundle_of(request.param, "shortlist", OF_FEW)
    return made


def _of_few(each: int = 40) -> Shortlist:
    of_source = np.random.default_rng(7).integers(4, SIZE, SIZE * each)
    return Shortlist(np.array([3, 5]), np.full(SIZE, each), of_source)


OF_FEW = _of_few()


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


@pytest.mark.parametrize("beam", [1, 4])
def test_a_shortlist_of_all_tokens_changes_nothing(bundle_of: Any, beam: int) -> None:
    everything = Shortlist(np.arange(SIZE), np.zeros(SIZE, int), NONE)
    changed = bundle_of("transformer", "shortlist", everything)
    expected = alone(bundle_of("transformer", "steps"), beam)
    assert len({token for one in expected for token in one.tokens}) > 9
    same(alone(changed, beam), expected)
    same(together(changed, beam), expected)


@pytest.mark.parametrize("beam", [1, 4])
def test_a_sentence_gets_its_own_candidates_in_any_batch(
    folder: Path, beam: int
) -> None:
    found = alone(folder, beam)
    for sentence, hypothesis in zip(SENTENCES, found, strict=True):
        own = OF_FEW.candidates(np.array(sentence))
        assert set(hypothesis.tokens) <= set(own.tolist())
    assert len({token for one in found for token in one.tokens}) > 9
    same(together(folder, beam), found)


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_length": 1}, {"max_length": AHEAD + 1, "forced_end": True}],
    ids=str,
)
def test_several_steps_at_once_are_what_single_ones_are(
    folder: Path, changes: dict[str, Any]
) -> None:
    same(alone(folder, 1, **changes), alone(folder, 1, speculates=False, **changes))


def test_a_shortlist_may_have_less_than_is_asked_for(bundle_of: Any) -> None:
    few = Shortlist(np.array([3, 5, 9]), np.zeros(SIZE, int), NONE)
    changed = bundle_of("transformer", "shortlist", few)
    found = alone(changed, 4)
    assert {token for one in found for token in one.tokens} == {5, 9}
    same(together(changed, 4), found)


def test_all_scores_are_of_all_tokens(bundle_of: Any) -> None:
    start = np.array([VOCABULARY.start])
    folders = (
        bundle_of("transformer", "shortlist", OF_FEW),
        bundle_of("transformer", "steps"),
    )
    ours, theirs = (begin(f, SENTENCES[5:6]).scores(start, None) for f in folders)
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


def test_padding_brings_no_candidates(bundle_of: Any) -> None:
    counts = np.zeros(SIZE, int)
    counts[0] = 1  # the padding's: token 77
    shortlist = Shortlist(np.array([3, 5, 6, 7]), counts, np.array([77]))
    decoding = begin(
        bundle_of("transformer", "shortlist", shortlist), [SENTENCES[1], SENTENCES[8]]
    )
    _, tokens = decoding.best(np.full(2, VOCABULARY.start), None, 4)
    assert sorted(tokens[0].tolist()) == sorted(tokens[1].tolist()) == [3, 5, 6, 7]


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
