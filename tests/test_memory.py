"""The declared peak is above what a process holds, and not far above it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from seq2edge.cli import main
from seq2edge.describe import describe_bundle
from seq2edge.runtime import resources
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.footprint import measure_bare_process, measure_footprint
from seq2edge.runtime.manifest import FootprintSpec, Manifest
from seq2edge.runtime.memory import Work, declared_peaks, peak_bytes, usual_target
from seq2edge.runtime.resources import forget_peak, mapped_memory
from seq2edge.runtime.weighing import weigh
from seq2edge.runtime.workload import Workload

DATA = Path(__file__).parent / "data"
TOY = DATA / "toy-int8"
FOOTPRINT = FootprintSpec(
    loaded_bytes=1000,
    head_bytes={"greedy": 100, "beam": 200, "scores": 400},
    position_bytes=10,
    pair_bytes=1,
    row_bytes=50,
    row_source_bytes=2,
)

told = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells enough")


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return replace(Bundle.load(TOY).manifest, footprint=FOOTPRINT)


def measured(folder: Path, work: Work) -> int:
    """The peak of a process that translates as long as the work says."""
    defaults = Bundle.load(folder).manifest.search
    search = defaults and replace(
        defaults.with_beam(work.beam),
        max_length=work.target,
        min_length=work.target - 1,
    )
    lines = ("one two red dog sun " * 2,) * work.batch * 2
    workload = Workload(lines, work.batch, search, EngineOptions())
    peak = measure_footprint(folder, workload).peak_bytes
    assert peak is not None
    return peak


@told
@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("name", ["toy-int8", "toy-fp32", "toy-tagger-int8"])
def test_a_process_stays_below_the_peak_that_was_declared_elsewhere(
    name: str, batch: int
) -> None:
    manifest = Bundle.load(DATA / name).manifest
    peaks = declared_peaks(manifest, measure_bare_process())
    for peak in peaks:
        if peak.work.batch == batch:
            found = measured(DATA / name, peak.work)
            # A tenth for libraries that are larger than where the bundle was made.
            assert 0.6 * peak.bytes < found < 1.1 * peak.bytes


@told
def test_a_bundle_weighs_about_the_same_wherever_it_is_weighed() -> None:
    committed, here = Bundle.load(TOY).manifest.footprint, weigh(TOY)
    assert committed is not None
    assert here is not None
    assert here.loaded_bytes == pytest.approx(committed.loaded_bytes, rel=0.5)
    assert here.head_bytes.keys() == committed.head_bytes.keys()


def test_a_peak_adds_up_what_is_held_and_what_is_at_work(manifest: Manifest) -> None:
    empty = replace(manifest, memory=(), state=())
    nothing = Work(batch=0, beam=1, source=0, target=0)
    assert empty.search is not None
    free = replace(empty, search=replace(empty.search, forced_end=False))
    bare = peak_bytes(free, nothing, process_bytes=0)
    held = peak_bytes(free, nothing, process_bytes=100_000) - bare
    assert held == pytest.approx(105_000, abs=1)
    work = Work(batch=2, beam=1, source=10, target=5)
    encoding, stepping = 10 * 20 + 1 * 200, 2 * (50 + 2 * 10)
    at_work = peak_bytes(free, work, process_bytes=0) - bare
    assert at_work == pytest.approx(1.35 * (encoding + stepping), abs=1)


@pytest.mark.parametrize("axis", ["batch", "beam", "source", "target"])
def test_more_work_never_takes_less(manifest: Manifest, axis: str) -> None:
    work = Work(batch=2, beam=2, source=8, target=8)
    peaks = [
        peak_bytes(manifest, replace(work, **{axis: size}), 0) for size in range(2, 40)
    ]
    assert peaks == sorted(peaks)
    recurrent = axis == "target"  # its state doesn't grow
    assert (peaks[0] < peaks[-1]) is not recurrent


def test_an_end_that_is_forced_loads_the_scores_too(manifest: Manifest) -> None:
    work, search = Work(batch=1, beam=4, source=8, target=8), manifest.search
    assert search is not None
    usual, forced = (
        peak_bytes(replace(manifest, search=replace(search, forced_end=end)), work, 0)
        for end in (False, True)
    )
    assert forced - usual == pytest.approx(1.05 * 400, abs=1)


def test_lengths_are_those_that_a_search_comes_to(manifest: Manifest) -> None:
    assert manifest.search is not None
    limit = manifest.limits.target_tokens
    assert usual_target(manifest, 5) == 2 * 5 + 10
    assert usual_target(manifest, limit) == limit
    short = replace(manifest, search=replace(manifest.search, max_length=7))
    assert usual_target(short, limit) == 7


def test_inspect_prints_the_peaks_of_the_usual_work() -> None:
    lines = describe_bundle(Bundle.load(TOY)).splitlines()
    first = lines.index("memory of a process at most") + 1
    alone, beam, batch = lines[first : first + 3]
    assert "1 alone, greedy, 40 positions, 40 tokens" in alone
    assert "1 alone, beam 4" in beam
    assert "32 at once, beam 4" in batch
    assert all(line.endswith(" MB") for line in (alone, beam, batch))


def test_inspect_gives_the_peaks_as_json() -> None:
    result = CliRunner().invoke(main, ["inspect", str(TOY), "--json"])
    peaks = json.loads(result.stdout)["peaks"]
    assert [peak["work"]["batch"] for peak in peaks] == [1, 1, 32]
    assert all(5e7 < peak["bytes"] < 2e8 for peak in peaks)


def test_a_bundle_that_was_never_weighed_declares_nothing() -> None:
    bundle = Bundle.load(TOY)
    unweighed = replace(bundle.manifest, footprint=None)
    assert declared_peaks(unweighed, 0) == []
    shown = describe_bundle(replace(bundle, manifest=unweighed))
    assert "not known: the bundle was exported where" in shown


def test_a_system_that_keeps_its_peaks_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "_CLEAR", tmp_path / "absent" / "clear_refs")
    assert not forget_peak()


def test_mapped_files_are_those_of_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mappings = "".join(
        f"7f00-7f10 r--p 00000000 fd:01 12 {path}\nSize: {size} kB\nRss: 4 kB\n"
        for path, size in (
            (tmp_path / "weights.bin", 16),
            (tmp_path / "weights.bin", 8),
            ("/usr/lib/libc.so", 400),
            ("", 64),
        )
    )
    monkeypatch.setattr(resources, "_MAPS", tmp_path / "smaps")
    (tmp_path / "smaps").write_text(mappings, encoding="utf-8")
    mapped = mapped_memory(tmp_path)
    assert (mapped.mapped_bytes, mapped.resident_bytes) == (24 * 1024, 8 * 1024)
