"""`seq2edge profile --tune` as a user meets it, and who uses what it wrote."""

import json
import os
import shutil
from dataclasses import replace
from errno import EACCES
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from toy_bundle import SENTENCES

from seq2edge.cli import main
from seq2edge.runtime import engine, trials
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.tuning import Device, Setting, Trial, Tuning, Work, read, save

HERE = Device("Some CPU", 1, "1.32.0")
DEFAULT = Setting.of(EngineOptions())
TUNED = replace(DEFAULT, threads=2, arena=False)
SHORT = ("--repeat", 3, "--beam-size", 1)


@pytest.fixture
def bundle(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, on a device of one core."""
    monkeypatch.setattr(Device, "here", lambda: HERE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(toy, tmp_path / "bundle"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EngineOptions]:
    """The options of every engine that is made."""
    made: list[EngineOptions] = []
    init = engine.Engine.__init__

    def noted(self: engine.Engine, bundle: Bundle, options: EngineOptions) -> None:
        made.append(options)
        init(self, bundle, options)

    monkeypatch.setattr(engine.Engine, "__init__", noted)
    return made


def seq2edge(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)


def write_tuning(folder: Path, device: Device = HERE) -> Path:
    bundle = Bundle.load(folder)
    trial = Trial(TUNED, 1.0, 0.5, True, "50.0% faster than 1 thread")
    work = Work(sentences=6, batch_size=1, beam_size=4, rounds=5)
    return save(Tuning(bundle.fingerprint(), device, work, TUNED, (trial,)), bundle)


def test_tuning_prints_a_table_and_writes_the_choice(
    bundle: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record.json"
    result = seq2edge("profile", bundle, "--tune", *SHORT, "--json", record)
    assert result.exit_code == 0, result.output
    written = bundle / "tuning.json"
    tuning = read(written)
    lines = result.stdout.splitlines()
    for part in ("setting", "ms a sentence", "/ default"):
        assert part in lines[3]
    assert lines[4].startswith("1 thread ")
    assert lines[5].startswith("1 thread, no arena ")
    assert lines[6:] == [f"{tuning.chosen.text}: written to {written}"]
    assert "trying 1 thread, no arena" in result.stderr
    value = json.loads(record.read_text(encoding="utf-8"))
    assert (value["path"], value["written"]) == (str(bundle), str(written))
    assert value["tuning"] == json.loads(written.read_text(encoding="utf-8"))


def test_the_record_alone_can_be_printed(bundle: Path) -> None:
    result = seq2edge("profile", bundle, "--tune", *SHORT, "--json", "-")
    assert json.loads(result.stdout)["written"] == str(bundle / "tuning.json")


def test_a_damaged_tuning_is_made_anew(bundle: Path) -> None:
    path = bundle / "tuning.json"
    path.write_text("{", encoding="utf-8")
    for command in ("translate", "profile", "inspect"):
        result = seq2edge(command, bundle)
        assert result.exit_code == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"seq2edge: {path} is not valid JSON")
        assert "make it anew with `seq2edge profile BUNDLE --tune`" in line
    assert seq2edge("verify", bundle).exit_code == 0
    assert seq2edge("profile", bundle, "--tune", *SHORT).exit_code == 0
    assert seq2edge("translate", bundle).exit_code == 0


def test_a_folder_that_cannot_be_written_is_mentioned(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def refuse(path: Path, *given: Any, **named: Any) -> int:
        if path.parent == bundle:
            raise PermissionError(EACCES, os.strerror(EACCES), str(path))
        return write(path, *given, **named)

    old = write_tuning(bundle)
    monkeypatch.setattr(Path, "write_text", refuse)
    result = seq2edge("profile", bundle, "--tune", *SHORT)
    assert result.exit_code == 0, result.output
    (cached,) = (tmp_path / "cache" / "seq2edge").glob("*/tuning.json")
    assert result.stdout.splitlines()[-1].endswith(f"written to {cached}")
    notes = result.stderr.splitlines()[-2:]
    assert notes == [
        f"seq2edge: {bundle} can't be written; the tuning is in {cached}",
        f"seq2edge: {old} is used before it; remove that one",
    ]


def test_wrong_combinations_are_wrong_usage(bundle: Path) -> None:
    for wrong, message in (
        (("--compare", bundle), "no --compare"),
        (("--threads", 2), "no --threads"),
        (("--repeat", 2), "--repeat 3 or more"),
    ):
        result = seq2edge("profile", bundle, "--tune", *wrong)
        assert result.exit_code == 2
        assert message in result.stderr.splitlines()[-1]
    assert not (bundle / "tuning.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("translate", SENTENCES[0]),
        ("profile", *SHORT[:2], "--beam-size", 1),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_are_tuned_unless_they_are_given_threads(
    bundle: Path, asked: list[EngineOptions], arguments: tuple[object, ...]
) -> None:
    write_tuning(bundle)
    command, *rest = arguments
    assert seq2edge(command, bundle, *rest).exit_code == 0
    assert asked[0] == TUNED.options
    asked.clear()
    assert seq2edge(command, bundle, *rest, "--threads", 1).exit_code == 0
    assert asked[0] == EngineOptions(threads=1)


def test_every_command_says_where_its_threads_come_from() -> None:
    for command in ("translate", "score", "predict", "evaluate", "profile"):
        text = " ".join(seq2edge(command, "--help").stdout.split())
        assert "[default: that of the bundle's tuning, else 1]" in text


def test_inspect_says_whether_a_tuning_applies(bundle: Path) -> None:
    assert "tuning" not in seq2edge("inspect", bundle).stdout
    path = write_tuning(bundle)
    lines = seq2edge("inspect", bundle).stdout.splitlines()
    start = lines.index("tuning")
    assert lines[start + 1 : start + 3] == [
        f"  {path}",
        "  2 threads, no arena; applies here",
    ]
    write_tuning(bundle, replace(HERE, cores=8))
    text = seq2edge("inspect", bundle).stdout
    assert "no arena; not used here: measured with 8 core(s), where 1 may be" in text


def test_verify_does_not_know_a_tuning(
    bundle: Path, asked: list[EngineOptions]
) -> None:
    before = seq2edge("verify", bundle).stdout
    write_tuning(bundle)
    asked.clear()
    assert seq2edge("verify", bundle).stdout == before
    assert asked == [EngineOptions()]


def test_a_setting_that_is_refused_is_shown(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_: object) -> str:
        return "other results for 'a cat'"

    monkeypatch.setattr(trials, "difference", find)
    result = seq2edge("profile", bundle, "--tune", *SHORT)
    assert "-  refused: other results for 'a cat'" in result.stdout
    assert read(bundle / "tuning.json").chosen == DEFAULT
