"""The parts of a profile are what was spent, and add up to the whole."""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import SENTENCES, VOCABULARY, write_toy_bundle
from toy_decoding import UnaskedDecoding
from toy_tokenizer import ReadsOnly

from seq2edge.runtime import profiling, resources
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.errors import BundleError, ConfigError, InputError, Seq2EdgeError
from seq2edge.runtime.footprint import measure_footprint
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.operators import most_expensive
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.profile_table import profile_table
from seq2edge.runtime.profiling import (
    OTHER,
    Contender,
    ProfileOptions,
    Spread,
    Timings,
    profile,
    summarize,
    take_turns,
)
from seq2edge.runtime.resources import Machine, resident_memory
from seq2edge.runtime.stepper import FloatArray, Inputs, IntArray
from seq2edge.runtime.timing import PARTS
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.workload import Workload


class FakeClock:
    """Time passes when it is spent, and a little at each reading."""

    def __init__(self, tick: float) -> None:
        self.now = 0.0
        self.tick = tick
        self.spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def spend(self, part: str, seconds: float) -> None:
        self.now += seconds
        self.spent[part] += seconds


@dataclass
class SlowTokenizer(ReadsOnly):
    """A word is a token; what it does takes its time."""

    clock: FakeClock

    tail = 1

    def lead(self, text: str) -> tuple[str, str]:
        return "", text

    def encode(self, text: str) -> list[int]:
        self.clock.spend("tokenize", 0.002)
        return [4 + len(word) for word in text.split()] + [VOCABULARY.end]

    def decode(self, ids: Sequence[int]) -> str:
        self.clock.spend("detokenize", 0.007)
        return " ".join("x" * (token - 4) for token in ids)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        self.clock.spend("detokenize", 0.001)
        return tuple(self.decode([token]) for token in ids)

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        self.clock.spend("tokenize", 0.001)
        return ()


@dataclass
class SlowStepper:
    """Gives each sentence as many tokens as it has; what it does takes its time."""

    clock: FakeClock
    order: list[str] = field(default_factory=list)  # names of what started, in turn
    name: str = ""

    def start(self, inputs: Inputs) -> "SlowDecoding":
        self.clock.spend("encode", 0.011)
        self.order.append(self.name)
        return SlowDecoding(self.clock, inputs["source_lengths"].astype(np.int64))


@dataclass
class SlowDecoding(UnaskedDecoding):
    clock: FakeClock
    left: IntArray

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        self.clock.spend("step", 0.005)
        self.left = self.left - 1
        best = np.where(self.left == 0, VOCABULARY.end, 6)
        return np.zeros((len(tokens), 1), np.float32), best[:, None]

    def keep(self, sentences: IntArray) -> None:
        self.clock.spend("search", 0.02)
        self.left = self.left[sentences]


WORKLOAD = Workload(
    sentences=("a b c", "d", "e f g h i", "j k"),
    batch_size=4,
    search=SearchOptions(beam_size=1),
    engine=EngineOptions(),
)


def slow_translator(clock: FakeClock) -> Translator:
    return Translator(
        SlowStepper(clock), VOCABULARY, Limits(50, 50), SlowTokenizer(clock)
    )


def timed(clock: FakeClock) -> Timings:
    contender = Contender(slow_translator(clock), WORKLOAD, clock)
    [measured] = take_turns([contender], WORKLOAD.calls() * 3)
    return summarize(measured)


def test_each_part_is_exactly_what_was_spent_in_it() -> None:
    clock = FakeClock(tick=0)
    timings = timed(clock)
    whole_ms = timings.whole.mean_ms * timings.calls
    assert whole_ms == pytest.approx(1000 * sum(clock.spent.values()))
    parts_ms = {part.name: part.spread.mean_ms * 3 for part in timings.parts}
    assert parts_ms.pop(OTHER) == pytest.approx(0)
    expected = {part: 1000 * seconds for part, seconds in clock.spent.items()}
    assert parts_ms == pytest.approx(expected)
    assert timings.one_step is not None
    assert timings.one_step.median_ms == pytest.approx(5)


def test_the_parts_add_up_to_the_whole_within_5_percent() -> None:
    timings = timed(FakeClock(tick=0.0002))
    assert 0.95 <= timings.accounted_share <= 1
    assert sum(part.share for part in timings.parts) == pytest.approx(1)


@pytest.mark.parametrize("missing", PARTS)
def test_without_any_part_they_would_not_add_up(missing: str) -> None:
    timings = timed(FakeClock(tick=0.0002))
    kept = tuple(part for part in timings.parts if part.name != missing)
    assert replace(timings, parts=kept).accounted_share < 0.95


def test_work_that_nobody_times_is_shown_as_other() -> None:
    clock = FakeClock(tick=0)
    measured = Contender(slow_translator(clock), WORKLOAD, clock).run(["a b"])
    late = replace(measured.call, end=measured.call.end + 0.5)
    timings = summarize([replace(measured, call=late)])
    assert timings.parts[-1].name == OTHER
    assert timings.parts[-1].spread.median_ms == pytest.approx(500)
    assert timings.accounted_share < 0.95


def test_tokens_steps_and_rates_are_counted() -> None:
    clock = FakeClock(tick=0)
    timings = timed(clock)
    assert (timings.calls, timings.sentences) == (3, 12)
    assert timings.tokens == 3 * (3 + 1 + 5 + 2)
    assert timings.steps == 3 * 6  # the longest has five tokens and its end
    seconds = sum(clock.spent.values())
    assert timings.tokens_per_second == pytest.approx(33 / seconds)
    assert timings.sentences_per_second == pytest.approx(12 / seconds)


def test_the_first_token_comes_with_the_first_step() -> None:
    clock = FakeClock(tick=0)
    contender = Contender(slow_translator(clock), WORKLOAD, clock)
    measured = contender.run(WORKLOAD.sentences)
    before = measured.call.part_seconds("tokenize") + 0.011 + 0.005
    assert measured.call.first_token_seconds() == pytest.approx(before)


def test_contenders_take_turns_call_by_call() -> None:
    clock = FakeClock(tick=0)
    order: list[str] = []
    contenders = []
    for name in "AB":
        stepper = SlowStepper(clock, order, name)
        translator = replace(slow_translator(clock), stepper=stepper)
        contenders.append(Contender(translator, WORKLOAD, clock))
    measured = take_turns(contenders, WORKLOAD.calls() * 2)
    assert order == ["A", "B", "A", "B"]
    assert [len(each) for each in measured] == [2, 2]


def test_a_spread_is_made_of_percentiles() -> None:
    spread = Spread.of(milliseconds / 1000 for milliseconds in range(101))
    assert spread.mean_ms == pytest.approx(50)
    assert spread.median_ms == pytest.approx(50)
    assert (spread.p90_ms, spread.p99_ms) == pytest.approx((90, 99))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("profile") / name for name in "ab"]
    for seed, folder in enumerate(folders):
        write_toy_bundle(folder, seed)
    return folders


def test_a_bundle_is_profiled_on_its_golden_sentences(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    report = profile(folders[:1], options=ProfileOptions(repeat=2))
    [result] = report.profiles
    assert report.sentences == len(SENTENCES)
    assert report.beam_size == 4
    assert result.timings.calls == 2 * len(SENTENCES)
    assert result.bundle_bytes == sum(p.stat().st_size for p in folders[0].iterdir())
    assert 0 < len(result.encoder_operators) <= 10
    assert 0 < len(result.step_operators) <= 10
    assert result.memory.peak_bytes
    assert result.memory.peak_bytes > 1e7
    assert result.load_ms > 0
    assert result.first_call_ms > 0
    assert list(tmp_path.iterdir()) == []  # onnxruntime's profile is gone


@pytest.mark.parametrize(("beam_size", "kind"), [(1, "ArgMax"), (4, "TopK")])
def test_the_step_is_the_one_that_the_search_takes(
    folders: list[Path], beam_size: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = partial(most_expensive, count=1000)  # not the slowest ten, which vary
    monkeypatch.setattr(profiling, "most_expensive", every)
    options = ProfileOptions(batch_size=2, beam_size=beam_size, repeat=1)
    report = profile(folders[:1], ["a cat", "a bird"], options)
    [result] = report.profiles
    assert kind in {operator.kind for operator in result.step_operators}
    assert kind in profile_table(report)


def test_two_bundles_stand_side_by_side(folders: list[Path]) -> None:
    options = ProfileOptions(batch_size=2, beam_size=1, repeat=1)
    report = profile(folders, ["a cat", "", "the dog ran", "a bird"], options)
    assert report.sentences == 3  # an empty line is none
    assert [each.timings.calls for each in report.profiles] == [2, 2]
    table = profile_table(report)
    for expected in ("ms a call", "median", "p99", "B / A", "one step"):
        assert expected in table
    # Which are the ten slowest differs from run to run: the table has those measured.
    for operator in report.profiles[0].step_operators:
        assert operator.kind in table
    assert table.count("the parts add up to") == 2
    assert all(line == line.rstrip() for line in table.splitlines())
    record = json.loads(json.dumps(report.to_json()))
    assert record["options"]["engine"] is None
    assert record["profiles"][0]["engine"]["threads"] == 1
    assert record["machine"]["versions"].keys() >= {"seq2edge", "onnxruntime"}
    assert record["profiles"][1]["path"] == str(folders[1])


def test_what_cannot_be_profiled_is_said(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sentence to profile"):
        profile(folders[:1], ["", " "])
    with pytest.raises(ConfigError, match="give a bundle"):
        profile([])
    with pytest.raises(BundleError, match="does not exist"):
        profile([folders[0], tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="batch_size 0 and repeat -1 must be"):
        ProfileOptions(batch_size=0, repeat=-1)
    with pytest.raises(ConfigError, match="beam_size 0"):
        ProfileOptions(beam_size=0)
    with pytest.raises(ConfigError, match="leave it out"):
        ProfileOptions(engine=EngineOptions(profile=tmp_path))


def test_a_process_that_cannot_measure_says_why(tmp_path: Path) -> None:
    with pytest.raises(Seq2EdgeError, match=r"memory can't be measured: .*not exist"):
        measure_footprint(tmp_path / "nowhere", WORKLOAD)


def kernel(node: str, kind: str, microseconds: int) -> dict[str, object]:
    name, args = f"{node}_kernel_time", {"op_name": kind}
    return {"cat": "Node", "name": name, "dur": microseconds, "args": args}


def test_operators_are_ranked_over_all_runs(tmp_path: Path) -> None:
    run = {"cat": "Session", "name": "model_run", "dur": 100, "args": {}}
    load = {"cat": "Session", "name": "model_loading_uri", "dur": 9999, "args": {}}
    fence = {"cat": "Node", "name": "a_fence_before", "dur": 99, "args": {}}
    first = [load, run, fence, kernel("a", "MatMul", 30), kernel("b", "Tanh", 5)]
    second = [run, kernel("a", "MatMul", 20), kernel("b", "Tanh", 75)]
    paths = [tmp_path / "first.json", tmp_path / "second.json"]
    for path, events in zip(paths, (first, second), strict=True):
        path.write_text(json.dumps(events), encoding="utf-8")
    top, following = most_expensive(paths)
    assert (top.node, top.kind, top.calls, top.total_us) == ("b", "Tanh", 2, 80)
    assert top.share == pytest.approx(0.4)
    assert following.node == "a"
    assert most_expensive(paths, count=1) == (top,)


@pytest.mark.skipif(sys.platform != "linux", reason="compares /proc with getrusage")
def test_memory_is_told_without_proc_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    memory = resident_memory()
    assert memory.now_bytes
    assert memory.peak_bytes
    assert memory.now_bytes <= memory.peak_bytes
    monkeypatch.setattr(resources, "_STATUS", tmp_path / "absent")
    fallback = resident_memory()
    assert fallback.now_bytes is None
    assert fallback.peak_bytes == pytest.approx(memory.peak_bytes, rel=0.2)


def test_a_machine_is_described_without_proc_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "CPUINFO", tmp_path / "absent")
    machine = Machine.here()
    assert machine.processor
    assert machine.instructions == ()
    assert machine.cores >= 1


def test_a_processor_of_each_kind_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "CPUINFO", tmp_path / "cpuinfo")
    intel = "model name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n\n" * 2
    (tmp_path / "cpuinfo").write_text(intel, encoding="utf-8")
    assert Machine.here().processor == "Some CPU"
    assert Machine.here().instructions == ("avx2", "avx512_vnni")
    arm = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"
    arm += "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
    (tmp_path / "cpuinfo").write_text(arm, encoding="utf-8")
    assert Machine.here().instructions == ("asimd", "asimddp", "i8mm")
    assert Machine.here().processor.endswith(" 0x41 0xd0b")
