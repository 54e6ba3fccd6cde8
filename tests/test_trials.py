"""A setting is kept if it pays and changes nothing; time passes only as it is told."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import VOCABULARY, write_toy_bundle
from toy_decoding import UnaskedDecoding

from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.profiling import ProfileOptions
from seq2edge.runtime.runner import Runner
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.trials import (
    Answer,
    Bench,
    Change,
    changes_to_try,
    chosen,
    difference,
    search_settings,
    tune,
)
from seq2edge.runtime.tuning import Device, Setting, Trial, Work
from seq2edge.runtime.tuning_table import tuning_table
from seq2edge.runtime.workload import Workload

DEFAULT = Setting.of(EngineOptions())
TWO_THREADS = replace(DEFAULT, threads=2)
NO_ARENA = replace(DEFAULT, arena=False)
WORKLOAD = Workload(
    sentences=("5 6 3", "7 3", "8 9 5 3"),
    batch_size=2,
    search=SearchOptions(beam_size=1),
    engine=EngineOptions(),
)
CALLS = 2  # of the workload
WARM_UP = CALLS  # to compare the answers
ROUND = CALLS + 1  # the first call of a pass isn't counted

Seconds = Callable[[], Iterator[float]]  # what each call takes


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class PacedStepper:
    """Gives each sentence as many tokens as it has; each call takes its time."""

    clock: Clock
    seconds: Iterator[float]
    token: int = 6
    log_prob: float = -0.5

    def start(self, inputs: Inputs) -> "PacedDecoding":
        self.clock.now += next(self.seconds)
        left = inputs["source_lengths"].astype(np.int64)
        return PacedDecoding(left, self.token, self.log_prob)


@dataclass
class PacedDecoding(UnaskedDecoding):
    left: IntArray
    token: int
    log_prob: float

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        self.left = self.left - 1
        best = np.where(self.left == 0, VOCABULARY.end, self.token)
        log_probs = np.full((len(tokens), 1), self.log_prob, np.float32)
        return log_probs, best[:, None]

    def keep(self, sentences: IntArray) -> None:
        self.left = self.left[sentences]


def always(seconds: float) -> Seconds:
    return lambda: repeat(seconds)


def by_round(*rounds: float) -> Seconds:
    def seconds() -> Iterator[float]:
        yield from repeat(rounds[0], WARM_UP)
        for each in rounds:
            yield from repeat(each, ROUND)

    return seconds


@dataclass
class Toy:
    """What each setting's calls take, and what is odd about it."""

    seconds: dict[Setting, Seconds]
    steppers: dict[Setting, dict[str, float]] = field(default_factory=dict)
    rests: list[float] = field(default_factory=list)

    def search(self, changes: list[Change], rounds: int = 4) -> list[Trial]:
        clock = Clock()

        def load(setting: Setting) -> Runner:
            seconds, odd = self.seconds[setting](), self.steppers.get(setting, {})
            stepper = PacedStepper(clock, seconds, **odd)  # type: ignore[arg-type]
            return Translator(stepper, VOCABULARY, Limits(50, 50))

        bench = Bench(load, WORKLOAD, rounds, clock, self.rests.append)
        return search_settings(bench, DEFAULT, changes, lambda _: None)


def test_a_faster_setting_is_kept() -> None:
    toy = Toy({DEFAULT: always(0.010), TWO_THREADS: always(0.008)})
    first, second = toy.search([{"threads": 2}])
    assert (first.setting, first.ratio, first.kept) == (DEFAULT, 1.0, True)
    assert first.median_ms == pytest.approx(10)
    assert (second.setting, second.kept) == (TWO_THREADS, True)
    assert second.median_ms == pytest.approx(8)
    assert second.ratio == pytest.approx(0.8)
    assert second.why == "20.0% faster than 1 thread, in 4 of 4 rounds"
    assert chosen([first, second]) == TWO_THREADS


@pytest.mark.parametrize(
    ("seconds", "why"),
    [
        (always(0.010), "not faster than 1 thread"),
        (always(0.012), "not faster than 1 thread"),
        (always(0.0098), "only 2.0% faster than 1 thread"),
        (
            by_round(0.005, 0.0101, 0.005, 0.0101),
            "24.5% faster than 1 thread, but in 2 of 4 rounds",
        ),
    ],
    ids=["as fast", "slower", "hardly faster", "faster by chance"],
)
def test_what_gains_too_little_or_too_seldom_is_not_kept(
    seconds: Seconds, why: str
) -> None:
    toy = Toy({DEFAULT: always(0.010), TWO_THREADS: seconds})
    found = toy.search([{"threads": 2}])
    assert not found[1].kept
    assert found[1].why == why
    assert chosen(found) == DEFAULT


def test_3_percent_are_enough() -> None:
    toy = Toy({DEFAULT: always(0.0100), TWO_THREADS: always(0.00969)})
    assert toy.search([{"threads": 2}])[1].kept


def test_each_change_is_made_to_the_best_so_far() -> None:
    both = replace(TWO_THREADS, arena=False)
    toy = Toy(
        {
            DEFAULT: always(0.010),
            TWO_THREADS: always(0.008),
            replace(DEFAULT, threads=4): always(0.009),
            both: always(0.004),
        }
    )
    found = toy.search([{"threads": 2}, {"threads": 4}, {"arena": False}])
    assert [trial.kept for trial in found] == [True, True, False, True]
    assert chosen(found) == both
    assert found[2].ratio == pytest.approx(0.9)  # to the default, by way of the best
    assert found[3].ratio == pytest.approx(0.4)
    assert found[3].why.startswith("50.0% faster than 2 threads")


def test_a_machine_that_grows_slow_slows_both() -> None:
    """Were the default measured once, at its fastest, the better one would lose."""
    growing = [0.010, 0.020, 0.040, 0.080]
    slow = by_round(*repeat(0.010, 4), *growing)
    fast = by_round(*[0.9 * seconds for seconds in growing])
    found = Toy({DEFAULT: slow, TWO_THREADS: fast}).search([{"threads": 2}])
    assert found[1].kept
    assert found[1].ratio == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"token": 7}, "other results for '5 6 3'"),
        ({"log_prob": -0.6}, "a score of '5 6 3' differs by "),
    ],
    ids=["token", "score"],
)
def test_a_setting_that_changes_a_result_is_refused(
    odd: dict[str, float], why: str
) -> None:
    seconds = {DEFAULT: always(0.010), TWO_THREADS: always(0.001)}
    toy = Toy(seconds, {TWO_THREADS: odd})
    found = toy.search([{"threads": 2}])
    assert (found[1].kept, found[1].median_ms, found[1].ratio) == (False, None, None)
    assert found[1].why.startswith(why)
    assert chosen(found) == DEFAULT


def test_a_score_may_differ_by_rounding() -> None:
    before = [Answer("a", ("x",), (-1.5,))]
    assert difference(before, [Answer("a", ("x",), (-1.50009,))]) == ""
    assert difference(before, [Answer("a", ("x",), (-1.5002,))]) != ""


def test_threads_that_spin_come_to_rest_before_others_are_measured() -> None:
    spinning = replace(TWO_THREADS, spinning=True)
    toy = Toy({DEFAULT: always(0.010), NO_ARENA: always(0.02), spinning: always(0.02)})
    toy.search([{"arena": False}])
    assert toy.rests == []
    toy.search([{"threads": 2, "spinning": True}], rounds=3)
    assert len(toy.rests) == 2 * 3


def test_threads_are_doubled_up_to_the_cores() -> None:
    assert changes_to_try(1, drafts=False) == [{"arena": False}]
    changes = changes_to_try(6, drafts=True)
    threads = [change["threads"] for change in changes if "threads" in change]
    assert threads == [2, 2, 4, 4, 6, 6]
    assert changes[:2] == [
        {"threads": 2, "spinning": False},
        {"threads": 2, "spinning": True},
    ]
    assert changes[-2:] == [{"arena": False}, {"speculates": False}]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("trials") / "toy"
    write_toy_bundle(folder)
    return Bundle.load(folder)


def on_cores(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("Some CPU", cores, "1.32.0")
    monkeypatch.setattr(Device, "here", lambda: device)


def test_a_bundle_is_tuned_on_the_work_of_a_profile(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cores(2, monkeypatch)
    options = ProfileOptions(batch_size=2, beam_size=2, repeat=3)
    notes: list[str] = []
    tuning = tune(bundle, ["a cat", "", "the dog ran"], options, notes.append)
    assert tuning.device == Device("Some CPU", 2, "1.32.0")
    assert tuning.work == Work(2, 2, 2, 3)
    assert tuning.bundle == bundle.fingerprint()
    assert tuning.chosen == chosen(tuning.trials)
    tried = [trial.setting for trial in tuning.trials]
    assert tried[:2] == [DEFAULT, TWO_THREADS]
    assert tried[2] == replace(TWO_THREADS, spinning=True)
    assert not tried[3].arena
    assert len(tried) == len(notes) == 4  # no drafts in batches, nor in this bundle


def test_a_table_says_why(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cores(1, monkeypatch)
    tuning = tune(bundle, ["a cat"], ProfileOptions(beam_size=1, repeat=3))
    refused = Trial(TWO_THREADS, None, None, False, "other results for 'a'")
    table = tuning_table(replace(tuning, trials=(*tuning.trials, refused)))
    lines = table.splitlines()
    assert lines[0] == "Some CPU, 1 core; onnxruntime 1.32.0"
    assert lines[1] == "1 sentence, 1 a call, 3 rounds; beam 1"
    assert lines[3].split() == ["setting", "ms", "a", "sentence", "/", "default"]
    assert lines[4].endswith("1.00  kept: the default")
    assert lines[5].startswith("1 thread, no arena")
    assert lines[6].endswith("-  refused: other results for 'a'")


def test_what_cannot_be_tuned_is_said(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="repeat is 2, and tuning needs 3 or more"):
        tune(bundle, options=ProfileOptions(repeat=2))
    with pytest.raises(ConfigError, match="leave them out"):
        tune(bundle, options=ProfileOptions(engine=EngineOptions()))


def test_labels_are_compared_like_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cores(1, monkeypatch)
    tagger = Bundle.load(Path(__file__).parent / "data" / "toy-tagger-int8")
    tuning = tune(tagger, ["the dog runs"], ProfileOptions(repeat=3))
    assert tuning.work.beam_size is None
    assert all(trial.median_ms is not None for trial in tuning.trials)
