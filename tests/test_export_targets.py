"""Each target is a recipe, native is one of the others, and fp32 has none."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from seq2edge.cli import main
from seq2edge.commands.building import TARGETS as OFFERED
from seq2edge.export.recipe import Recipe
from seq2edge.export.spec import ExportOptions
from seq2edge.export.targets import NATIVE, TARGETS, native_target, recipe_of
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.processor import Family, Processor


def test_the_command_offers_every_target() -> None:
    assert list(OFFERED) == [*TARGETS, NATIVE]
    assert isinstance(main.commands["export"], click.Command)


def test_eight_bits_are_for_processors_that_hold_them() -> None:
    bits = {name: recipe.product_bits for name, recipe in TARGETS.items()}
    assert bits == {
        "portable": 7,
        "x86-avx2": 7,
        "x86-vnni": 8,
        "arm-dotprod": 8,
        "arm-i8mm": 8,
        "small-memory": 7,
    }


def test_a_small_memory_holds_no_second_decoder_and_fewer_floats() -> None:
    small, portable = TARGETS["small-memory"], TARGETS["portable"]
    assert small.chooses == "steps"
    assert small.scan_from_hidden < portable.scan_from_hidden
    assert small.anchored_from_hidden < portable.anchored_from_hidden


def test_portable_is_the_default() -> None:
    assert ExportOptions("int8").quantization == TARGETS["portable"]
    assert TARGETS["portable"] == Recipe(target="portable")


@pytest.mark.parametrize(
    ("family", "instructions", "target"),
    [
        ("x86", {"avx2", "avx512_vnni"}, "x86-vnni"),
        ("x86", {"avx2", "avx_vnni"}, "x86-vnni"),
        ("x86", {"avx2", "avx512f"}, "x86-avx2"),
        ("x86", {"sse2"}, "portable"),
        ("x86", None, "portable"),
        ("arm", {"asimd", "asimddp", "i8mm"}, "arm-i8mm"),
        ("arm", {"asimd", "asimddp"}, "arm-dotprod"),
        ("arm", {"asimd"}, "portable"),
        ("unknown", None, "portable"),
    ],
)
def test_native_is_the_target_of_the_processor(
    family: Family, instructions: set[str] | None, target: str
) -> None:
    known = None if instructions is None else frozenset(instructions)
    assert native_target(Processor(family, known)) == target


def test_native_is_written_by_its_real_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Processor("arm", frozenset({"asimddp"}))
    monkeypatch.setattr(Processor, "here", classmethod(lambda cls: made))
    assert ExportOptions("int8", target=NATIVE).quantization.target == "arm-dotprod"


def test_int4_changes_the_decoder_layers_of_a_target_alone() -> None:
    int8 = ExportOptions("int8", target="x86-vnni").quantization
    int4 = ExportOptions("int4", target="x86-vnni").quantization
    assert (int8.layer_bits, int4.layer_bits) == (8, 4)
    assert int4.product_bits == 8
    assert int4.target == "x86-vnni"


def test_an_unknown_target_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ExportError, match=r"'pdp11' is none of portable, .*, native"):
        recipe_of("pdp11")
    with pytest.raises(ExportError, match="'pdp11'"):
        ExportOptions("int8", target="pdp11")


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ExportError, match="fp32 has no target 'portable'"):
        ExportOptions("fp32", target="portable")
    with pytest.raises(ExportError, match="give one of the two"):
        ExportOptions("int8", target="portable", recipe=Recipe())
    with pytest.raises(ExportError, match="precision int4"):
        ExportOptions("int8", recipe=Recipe(layer_bits=4))


def test_a_target_of_fp32_is_wrong_usage(tmp_path: Path) -> None:
    command = ["export", str(tmp_path), str(tmp_path / "out"), "--target", "native"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--target goes with --precision int8 or int4" in result.stderr
