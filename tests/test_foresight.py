"""Beams that are run ahead end in what single steps give, whatever interferes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from large_vocabulary import SENTENCES, VOCABULARY, begin, exported, same

from seq2edge.runtime import foresight
from seq2edge.runtime.decoding import GraphDecoding
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.foresight import ForesightDecoding
from seq2edge.runtime.hypothesis import Hypothesis
from seq2edge.runtime.stepper import Outlook
from seq2edge.runtime.timing import STEP, Recorder, TimedStepper
from seq2edge.runtime.translator import Translator

KINDS: dict[str, tuple[str, Any]] = {
    "all tokens": ("lstm", "drafts"),
    "shortlist": ("transformer", "shortlist"),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(
    request: pytest.FixtureRequest, bundle_of: Callable[[str, Any], Path]
) -> Path:
    return bundle_of(*KINDS[request.param])


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], Path]:
    """Each bundle, exported when it is first asked for."""
    made: dict[tuple[str, str], Path] = {}

    def bundle(name: str, chooses: Any) -> Path:
        if (name, chooses) not in made:
            folder = tmp_path_factory.mktemp("foresight") / "bundle"
            made[name, chooses] = exported(name, "int8", folder, chooses)
        return made[name, chooses]

    return bundle


def beams(folder: Path, ahead: bool, **changes: Any) -> list[list[Hypothesis]]:
    translator = Translator.load(folder, EngineOptions(speculates=ahead))
    search = replace(translator.defaults, beam_size=4, n_best=4)
    search = replace(search, **changes)
    return [translator.generate([each], search)[0] for each in SENTENCES]


def equal(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs)
        scores = [one.score for one in theirs]
        np.testing.assert_allclose([one.score for one in ours], scores, atol=1e-4)


RULES: list[dict[str, Any]] = [
    {},
    {"beam_rule": "transformers"},
    {"beam_rule": "transformers", "early_stopping": True},
    {"beam_rule": "transformers", "early_stopping": "never"},
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"beam_size": 2, "n_best": 1},
        {"max_length": 1},
        {"max_length": 5},
        {"max_length": 6, "forced_end": True},
        {"min_length": 3},
        {"suppressed": ((7,), (9,), (11, 12))},
        {"no_repeat_ngram_size": 2, "max_length": 9},
        {"forced_first": 17},
    ],
    ids=str,
)
def test_beams_come_out_as_step_by_step(
    folder: Path, rule: dict[str, Any], changes: dict[str, Any]
) -> None:
    given = {**rule, **changes}
    equal(beams(folder, ahead=True, **given), beams(folder, ahead=False, **given))


def test_a_long_search_is_several_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = beams(folder, ahead=False)
    monkeypatch.setattr(foresight, "FORESEEN", 3)
    equal(beams(folder, ahead=True), expected)


def test_steps_are_run_together_indeed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all of the above would hold of nothing."""
    runs: list[int] = []
    foresee = ForesightDecoding.foresee

    def counted(self: ForesightDecoding, tokens: Any, outlook: Outlook) -> Any:
        found = foresee(self, tokens, outlook)
        runs.append(found.steps if found else 0)
        return found

    monkeypatch.setattr(ForesightDecoding, "foresee", counted)
    beams(folder, ahead=True, beam_rule="transformers")
    assert len(runs) >= len(SENTENCES)
    assert max(runs) > 5


def test_a_profile_notes_the_steps_of_a_run(folder: Path) -> None:
    recorder = Recorder(perf_counter)
    loaded = Translator.load(folder)
    translator = replace(loaded, stepper=TimedStepper(loaded.stepper, recorder))
    search = replace(loaded.defaults, beam_size=4, beam_rule="transformers")
    [[best]], call = recorder.call(lambda: translator.generate([SENTENCES[7]], search))
    runs = [span.steps for span in call.spans if span.part == STEP]
    assert len(runs) < len(best.tokens) <= sum(runs)


def outlook(most: int) -> Outlook:
    bans = np.zeros(VOCABULARY.size, np.float32)
    return Outlook(None, np.zeros(1, np.float32), bans, 8, 8, 4, 4, most)


def test_who_asks_for_something_else_gets_it(folder: Path) -> None:
    """What was foreseen and not followed never happened."""
    ahead, steps = (begin(folder, SENTENCES[7:8], each) for each in (True, False))
    start = np.array([VOCABULARY.start])
    foreseen = ahead.foresee(start, outlook(6))
    seen = foreseen.follow(start, None)
    expected = steps.best(start, None, 8)
    np.testing.assert_allclose(seen.log_probs, expected[0], atol=1e-4)
    assert seen.tokens.tolist() == expected[1].tolist()
    other, parents = np.array([20, 30]), np.array([0, 0])
    assert foreseen.follow(other, parents) is None
    for ask in ("best", "scores", "logits", "attended"):
        more = (4,) if ask in ("best", "attended") else ()
        ours = getattr(ahead, ask)(other, parents, *more)
        theirs = getattr(steps, ask)(other, parents, *more)
        first = (ours[0], theirs[0]) if more else (ours, theirs)
        np.testing.assert_allclose(*first, atol=1e-4)
        parents = np.array([1, 0])
        ahead.foresee(other, outlook(2)._replace(parents=parents, beam=2))


def test_a_model_without_finite_scores_is_refused_as_step_by_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = GraphDecoding.several

    def broken(self: Any, name: Any, feed: Any, rows: int) -> Any:
        totals, log_probs, *rest = run(self, name, feed, rows)
        return [totals, log_probs * np.nan, *rest]

    expected = beams(folder, ahead=False)
    monkeypatch.setattr(GraphDecoding, "several", broken)
    equal(beams(folder, ahead=True), expected)
