"""A tuning counts where it was made, and nowhere else."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest
from toy_bundle import SENTENCES

from seq2edge.runtime.bundle import TUNING, Bundle, hash_files, unlisted_files
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.errors import BundleError, OutputError
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.profile_table import profile_table
from seq2edge.runtime.profiling import ProfileOptions, profile
from seq2edge.runtime.translator import Translator
from seq2edge.runtime.tuned import engine_options
from seq2edge.runtime.tuning import (
    Device,
    Setting,
    Trial,
    Tuning,
    Work,
    applying,
    find,
    read,
    save,
)
from seq2edge.runtime.verify import verify

HERE = Device("Some CPU", 4, "1.32.0")
TAGGER = Path(__file__).parent / "data" / "toy-tagger-int8"
DEFAULT = Setting.of(EngineOptions())
TUNED = Setting(threads=2, spinning=True, arena=False, speculates=False)


@pytest.fixture
def bundle(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """One that may be written to, on a device of our own, with an empty cache."""
    monkeypatch.setattr(Device, "here", lambda: HERE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "bundle").mkdir()
    for path in toy.iterdir():
        (tmp_path / "bundle" / path.name).write_bytes(path.read_bytes())
    return Bundle.load(tmp_path / "bundle")


def tuning_of(bundle: Bundle, device: Device = HERE) -> Tuning:
    first = Trial(DEFAULT, 2.0, 1.0, True, "the default")
    second = Trial(
        TUNED, 1.0, 0.5, True, "50.0% faster than 1 thread, in 5 of 5 rounds"
    )
    work = Work(sentences=6, batch_size=1, beam_size=None, rounds=5)
    return Tuning(bundle.fingerprint(), device, work, TUNED, (first, second))


def make_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the superuser too, who may write where nobody else may."""
    write = Path.write_text

    def refuse(path: Path, *given: Any, **named: Any) -> int:
        if path.parent == folder:
            raise PermissionError(EACCES, os.strerror(EACCES), str(path))
        return write(path, *given, **named)

    monkeypatch.setattr(Path, "write_text", refuse)


def test_what_is_written_is_read_again_and_leaves_no_other_file(bundle: Bundle) -> None:
    before = set(bundle.path.iterdir())
    path = save(tuning_of(bundle), bundle)
    assert set(bundle.path.iterdir()) == {*before, path}
    assert path == bundle.path / "tuning.json"
    assert read(path) == tuning_of(bundle)
    assert engine_options(bundle) == TUNED.options
    save(replace(tuning_of(bundle), chosen=DEFAULT), bundle)
    assert engine_options(bundle) == EngineOptions()


def test_without_a_tuning_the_default_holds(bundle: Bundle) -> None:
    assert engine_options(bundle) == EngineOptions()
    assert [*find(bundle)] == []


def test_an_engine_that_is_given_no_options_is_tuned(bundle: Bundle) -> None:
    expected = Translator.load(bundle.path).translate_batch(SENTENCES)
    save(tuning_of(bundle), bundle)
    assert Engine.load(bundle).options == TUNED.options
    translator = Translator.load(bundle.path)
    assert isinstance(translator.stepper, Engine)
    assert translator.stepper.options == TUNED.options
    assert translator.translate_batch(SENTENCES) == expected


def test_a_predictor_is_tuned_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagger = Bundle.load(TAGGER)
    make_read_only(TAGGER, monkeypatch)  # what is committed stays as it is
    save(tuning_of(tagger), tagger)
    labeller = Predictor.load(TAGGER).labeller
    assert isinstance(labeller, Engine)
    assert labeller.options == TUNED.options


def test_given_options_win(bundle: Bundle) -> None:
    (bundle.path / TUNING).write_text("damaged, and nobody looks at it")
    for options in (EngineOptions(), EngineOptions(threads=3)):
        translator = Translator.load(bundle.path, options)
        assert isinstance(translator.stepper, Engine)
        assert translator.stepper.options == options


@pytest.mark.parametrize(
    ("device", "obstacle"),
    [
        (
            replace(HERE, processor="Other CPU"),
            "measured on Other CPU, and this is Some CPU",
        ),
        (replace(HERE, cores=8), "measured with 8 core(s), where 4 may be used here"),
        (
            replace(HERE, onnxruntime="1.31.2"),
            "measured with onnxruntime 1.31.2, and this is 1.32.0",
        ),
    ],
    ids=["processor", "cores", "onnxruntime"],
)
def test_a_tuning_of_another_device_is_passed_over(
    bundle: Bundle, device: Device, obstacle: str
) -> None:
    save(tuning_of(bundle, device), bundle)
    assert engine_options(bundle) == EngineOptions()
    [found] = find(bundle)
    assert found.obstacle == obstacle


def test_a_patch_of_onnxruntime_is_no_other_device(bundle: Bundle) -> None:
    save(tuning_of(bundle, replace(HERE, onnxruntime="1.32.9")), bundle)
    assert engine_options(bundle) == TUNED.options


def test_a_tuning_of_another_bundle_is_passed_over(bundle: Bundle) -> None:
    save(tuning_of(bundle), bundle)
    replace(bundle.manifest, name="exported again").write(bundle.path)
    assert engine_options(Bundle.load(bundle.path)) == EngineOptions()
    [found] = find(bundle)
    assert found.obstacle == "measured with another bundle"


def test_what_cannot_be_written_goes_to_the_cache(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(bundle.path.iterdir())
    make_read_only(bundle.path, monkeypatch)
    path = save(tuning_of(bundle), bundle)
    cache = tmp_path / "cache" / "seq2edge"
    assert path == cache / bundle.fingerprint() / "tuning.json"
    assert set(bundle.path.iterdir()) == before
    assert engine_options(bundle) == TUNED.options


def test_the_folder_comes_before_the_cache(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = save(replace(tuning_of(bundle), chosen=DEFAULT), bundle)
    with monkeypatch.context() as patch:
        make_read_only(bundle.path, patch)
        cached = save(tuning_of(bundle), bundle)
    assert [found.path for found in find(bundle)] == [inside, cached]
    assert engine_options(bundle) == DEFAULT.options
    save(tuning_of(bundle, replace(HERE, cores=1)), bundle)  # of no use here
    found = applying(bundle)
    assert found is not None
    assert found.path == cached


def test_the_cache_is_in_the_home_of_the_user_unless_told(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, which means nothing")
    make_read_only(bundle.path, monkeypatch)
    path = save(tuning_of(bundle), bundle)
    assert path.is_relative_to(tmp_path / "home" / ".cache" / "seq2edge")


def test_where_nothing_can_be_written_both_places_are_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    make_read_only(bundle.path, monkeypatch)
    with pytest.raises(OutputError, match=r"bundle \(Perm.* or .*cache.* \(Not a dir"):
        save(tuning_of(bundle), bundle)


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda value: value.pop("device"), "device is missing"),
        (lambda value: value.update(more=1), "more is not a known key"),
        (lambda value: value["chosen"].update(threads=0), "chosen: threads is 0"),
        (lambda value: value["chosen"].update(arena=1), "chosen.arena must be true or"),
        (lambda value: value.update(trials=[{}]), r"trials\[0\].setting is missing"),
    ],
    ids=["missing", "unknown", "range", "type", "nested"],
)
def test_a_damaged_tuning_says_what_to_do(
    bundle: Bundle, edit: Edit, fault: str
) -> None:
    path = save(tuning_of(bundle), bundle)
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    path.write_text(json.dumps(value), encoding="utf-8")
    message = rf"tuning\.json is no tuning: .*{fault}.*remove it, or make it anew"
    with pytest.raises(BundleError, match=message):
        Translator.load(bundle.path)


@pytest.mark.parametrize("content", [b"", b'{"bundle": "a', b"\xff\xfe", b"[" * 99999])
def test_what_is_no_json_says_what_to_do(bundle: Bundle, content: bytes) -> None:
    (bundle.path / TUNING).write_bytes(content)
    with pytest.raises(BundleError, match="remove it, or make it anew") as caught:
        engine_options(bundle)
    assert "export" not in str(caught.value)


def test_a_tuning_is_no_part_of_the_bundle(bundle: Bundle) -> None:
    fingerprint, size = bundle.fingerprint(), bundle.bytes
    save(tuning_of(bundle), bundle)
    assert TUNING not in hash_files(bundle.path)
    again = Bundle.load(bundle.path)
    assert unlisted_files(again) == []
    assert (again.fingerprint(), again.bytes) == (fingerprint, size)
    result = verify(bundle.path)
    assert result.passed
    assert result.unlisted == ()
    (bundle.path / TUNING).write_text("damaged")
    assert verify(bundle.path) == result


def test_a_profile_is_measured_as_tuned_unless_told(bundle: Bundle, toy: Path) -> None:
    save(tuning_of(bundle), bundle)
    options = ProfileOptions(beam_size=1, repeat=1)
    report = profile([bundle.path, toy], SENTENCES[:1], options)
    assert [one.engine for one in report.profiles] == [TUNED.options, EngineOptions()]
    lines = profile_table(report).splitlines()
    assert f"A: toy fp32, {bundle.path}, {TUNED.text}" in lines
    assert f"B: toy fp32, {toy}, 1 thread" in lines
    given = replace(options, engine=EngineOptions(threads=1))
    [told] = profile([bundle.path], SENTENCES[:1], given).profiles
    assert told.engine == EngineOptions(threads=1)


def test_a_setting_is_told_in_words() -> None:
    assert DEFAULT.text == "1 thread"
    assert TUNED.text == "2 threads, spinning, no arena, no drafts"
    assert Setting.of(TUNED.options) == TUNED


def test_a_start_without_a_tuning_costs_nothing_for_it(bundle: Bundle) -> None:
    script = (
        "import sys; from seq2edge.runtime import Translator; "
        f"Translator.load({str(bundle.path)!r}); "
        "print({'seq2edge.runtime.tuning', 'importlib.metadata'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
