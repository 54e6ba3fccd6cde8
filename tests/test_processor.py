"""What a processor says of itself, and what follows for 8-bit products."""

import platform
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from seq2edge.runtime import processor
from seq2edge.runtime.processor import (
    Processor,
    fields,
    linux_instructions,
    macos_instructions,
)

X86 = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n\n" * 2
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"
CONTRIB = "com.microsoft"
INT32, FLOAT = TensorProto.INT32, TensorProto.FLOAT


def here(
    monkeypatch: pytest.MonkeyPatch, machine: str, system: str, cpuinfo: Path
) -> Processor:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(processor, "CPUINFO", cpuinfo)
    processor._here.cache_clear()
    try:
        return Processor.here()
    finally:
        processor._here.cache_clear()


@pytest.mark.parametrize(
    ("machine", "text", "family", "expected"),
    [
        ("x86_64", X86, "x86", {"fpu", "avx2", "avx512_vnni"}),
        ("aarch64", ARM, "arm", {"fp", "asimd", "asimddp", "i8mm"}),
        ("riscv64", "isa\t: rv64imafdcv\n", "unknown", None),
        ("x86_64", "", "x86", None),
    ],
)
def test_linux_lists_the_instructions(
    machine: str,
    text: str,
    family: str,
    expected: set[str] | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    found = here(monkeypatch, machine, "linux", tmp_path / "cpuinfo")
    assert found.family == family
    assert found.instructions == expected


def test_only_the_family_is_known_where_nothing_can_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = here(monkeypatch, "AMD64", "win32", tmp_path / "absent")
    assert found == Processor("x86", None)
    assert not found.has("avx2")


def test_macos_answers_by_its_own_names() -> None:
    m1 = {"hw.optional.arm.FEAT_DotProd": 1, "hw.optional.arm.FEAT_I8MM": 0}
    assert macos_instructions(lambda name: m1[name]) == frozenset({"asimddp"})
    assert macos_instructions(lambda name: 1) == frozenset({"asimddp", "i8mm"})
    assert macos_instructions(lambda name: None) is None


@pytest.mark.parametrize(
    ("family", "instructions", "saturates"),
    [
        ("x86", {"avx2"}, True),
        ("x86", {"avx2", "avx512f", "avx512bw"}, True),
        ("x86", {"avx2", "avx_vnni"}, False),
        ("x86", {"avx512_vnni"}, False),
        ("x86", None, True),  # not known to be safe
        ("arm", {"asimd"}, False),
        ("arm", None, False),
        ("unknown", None, False),
    ],
)
def test_only_x86_without_vnni_saturates(
    family: processor.Family, instructions: set[str] | None, saturates: bool
) -> None:
    known = None if instructions is None else frozenset(instructions)
    assert Processor(family, known).saturates == saturates


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_this_processor_is_read() -> None:
    assert Processor.here().instructions == linux_instructions(
        fields(processor.CPUINFO)
    )


def session(operator: str, weight: int) -> onnxruntime.InferenceSession:
    """64 uint8 inputs times 64 outputs, whose weights are all the same."""
    weights = np.full((64, 64), weight, np.int8)
    constants = {"w": weights, "zero": np.array(0, np.uint8)}
    if operator == "MatMulInteger":
        inputs, domain, result = ["x", "w", "zero"], "", INT32
    else:
        inputs, domain, result = ["x", "w", "one", "one", "zero"], CONTRIB, FLOAT
        constants["one"] = np.array(1, np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"], domain=domain)],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", 64])],
        [helper.make_tensor_value_info("y", result, ["rows", 64])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("operator", ["MatMulInteger", "MatMulIntegerToFloat"])
@pytest.mark.parametrize("weight", [63, 127, -127])
def test_extreme_products_are_exact_unless_the_processor_saturates(
    operator: str, weight: int
) -> None:
    if abs(weight) == 127 and Processor.here().saturates:
        pytest.skip("8 bits overflow on this processor, which is what `saturates` says")
    product = session(operator, weight)
    for rows in (1, 5, 32):
        found = product.run(None, {"x": np.full((rows, 64), 255, np.uint8)})[0]
        np.testing.assert_array_equal(found, np.full((rows, 64), 64 * 255 * weight))
