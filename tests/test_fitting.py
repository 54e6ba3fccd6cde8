"""A bundle is right on every processor that takes it, and says where it is slow."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from toy_bundle import SENTENCES, toy_inputs, toy_manifest, write_toy_bundle

from seq2edge.cli import main
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.fitting import UNSIGNED_WEIGHTS
from seq2edge.runtime.processor import Family, Processor
from seq2edge.runtime.translator import Translator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_bundle(tmp_path / "toy")
    return tmp_path / "toy"


def put_on(
    monkeypatch: pytest.MonkeyPatch, family: Family, *instructions: str
) -> Processor:
    """The processor that is at hand from now on."""
    made = Processor(family, frozenset(instructions))
    monkeypatch.setattr(Processor, "here", classmethod(lambda cls: made))
    return made


def quantized(
    folder: Path, target: str | None, bits: int, form: str = "product"
) -> Path:
    """The toy bundle with a manifest that says so."""
    quantization: dict[str, Any] = {
        "target": target,
        "product_bits": bits,
        "quantized": [{"weight": "W", "bytes": 4, "forms": [form]}],
    }
    replace(toy_manifest(folder), quantization=quantization).write(folder)
    return folder


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert all("\n" not in message for message in found)
    return found


def test_wide_products_are_unsigned_on_x86_without_vnni(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_on(monkeypatch, "x86", "avx2")
    given = EngineOptions(session_entries=(("session.x", "2"), (UNSIGNED_WEIGHTS, "0")))
    engine = Engine.load(quantized(folder, "x86-vnni", 8), given)
    assert dict(engine.options.session_entries) == {
        "session.x": "2",
        UNSIGNED_WEIGHTS: "1",
    }
    assert not engine.options.speculates
    (message,) = warnings(caplog)
    assert str(folder) in message
    assert "export it with --target x86-avx2 or portable" in message


def test_wide_recurrences_are_refused_on_x86_without_vnni(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on(monkeypatch, "x86", "avx2")
    with pytest.raises(BundleError, match=r"8-bit products in a recurrence.*--target"):
        Engine.load(quantized(folder, "x86-vnni", 8, "scan"))


def test_a_recipe_of_ones_own_is_watched_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_on(monkeypatch, "x86", "avx2")
    Engine.load(quantized(folder, None, 8))
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("target", "bits", "family", "instructions"),
    [
        ("x86-vnni", 8, "x86", ("avx2", "avx_vnni")),
        ("x86-avx2", 7, "x86", ("avx2",)),
        ("portable", 7, "x86", ()),
        ("portable", 7, "arm", ()),
        ("small-memory", 7, "arm", ()),
        ("arm-dotprod", 8, "arm", ("asimd",)),
        ("arm-i8mm", 8, "unknown", ()),
        (None, 8, "arm", ()),
    ],
)
def test_nothing_is_said_where_nothing_is_wrong(
    target: str | None,
    bits: int,
    family: Family,
    instructions: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_on(monkeypatch, family, *instructions)
    options = EngineOptions()
    engine = Engine.load(quantized(folder, target, bits, "scan"), options)
    assert engine.options == options
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("target", "family", "instruction", "named"),
    [
        ("arm-i8mm", "x86", "avx512_vnni", "for Arm"),
        ("x86-vnni", "arm", "i8mm", "for x86"),
    ],
)
def test_another_family_is_only_warned_of(
    target: str,
    family: Family,
    instruction: str,
    named: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_on(monkeypatch, family, instruction)
    options = EngineOptions()
    assert Engine.load(quantized(folder, target, 8), options).options == options
    (message,) = warnings(caplog)
    assert named in message
    assert "--target native" in message


def test_the_results_stay_those_of_the_bundle(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Engine.load(folder).start(toy_inputs([[5, 6, 3]]))
    put_on(monkeypatch, "x86", "avx2")
    found = Engine.load(quantized(folder, "x86-vnni", 8)).start(toy_inputs([[5, 6, 3]]))
    for one, other in zip(
        expected.best(np.array([2]), None, 1),
        found.best(np.array([2]), None, 1),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_the_processor_is_not_asked_where_it_does_not_matter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(cls: type[Processor]) -> Processor:
        raise AssertionError("the processor was asked")

    monkeypatch.setattr(Processor, "here", classmethod(fail))
    Translator.load(folder)
    Translator.load(quantized(folder, "portable", 7))


def test_the_command_warns_on_standard_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on(monkeypatch, "x86", "avx2")
    quantized(folder, "x86-vnni", 8)
    for _ in range(2):  # once a command, however many there were
        result = CliRunner().invoke(main, ["translate", str(folder), SENTENCES[0]])
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("seq2edge: ")
        assert "VNNI" in line
