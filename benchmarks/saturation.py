"""Do 8-bit products overflow without VNNI, and what keeps them right?

    python benchmarks/saturation.py [BUNDLE SOURCE]

Multiplies 255 by weights that are all 63 (7 bits) or all 127 (8 bits), in each operator
that int8 uses: as this processor is, and with VNNI hidden from onnxruntime
(`without_vnni.c`: Linux on x86, a compiler, and a processor that lets CPUID fault).
Prints the results over the right one, which is 1 where nothing overflows. With a
BUNDLE, translates the lines of SOURCE too, greedily and with beam 4, and counts those
that come out otherwise than with VNNI.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.fitting import UNSIGNED_WEIGHTS
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.processor import Processor
from seq2edge.runtime.translator import Translator

CONTRIB = "com.microsoft"
WIDTH = 64
SHARE = 0.01 / WIDTH  # of what an LSTM's gates are given: small, so that it is linear
ENTRIES = {"plain": (), "unsigned": ((UNSIGNED_WEIGHTS, "1"),)}
WEIGHTS = {"7 bits": 63, "8 bits": 127}
HIDDEN = {"VNNI hidden, AVX-512 kept": "avx512", "VNNI and AVX-512 hidden": "avx2"}


def product(weight: int) -> ModelProto:
    """MatMulInteger."""
    return _model([_multiply("x", "y")], weight)


def product_to_float(weight: int) -> ModelProto:
    """MatMulIntegerToFloat."""
    inputs = ["x", "w", "one", "one", "zero"]
    node = make_node("MatMulIntegerToFloat", inputs, ["y"], domain=CONTRIB)
    return _model([node], weight, TensorProto.FLOAT)


def product_in_a_subgraph(weight: int) -> ModelProto:
    """MatMulInteger in the body of a Scan, as of a recurrence; a Loop is as one."""
    ports = [
        make_tensor_value_info(name, kind, ["rows", WIDTH])
        for name, kind in (("step", TensorProto.UINT8), ("found", TensorProto.INT32))
    ]
    body = helper.make_graph([_multiply("step", "found")], "body", ports[:1], ports[1:])
    nodes = [
        make_node("Unsqueeze", ["x", "first"], ["steps"]),
        make_node("Scan", ["steps"], ["all"], body=body, num_scan_inputs=1),
        make_node("Squeeze", ["all", "first"], ["y"]),
    ]
    return _model(nodes, weight)


def lstm(weight: int) -> ModelProto:
    """DynamicQuantizeLSTM; its inputs of 1 are quantized to 255."""
    constants = {
        "W": np.full((1, WIDTH, 4 * WIDTH), weight, np.int8),
        "R": np.zeros((1, WIDTH, 4 * WIDTH), np.int8),
        "scales": np.full((1, 4 * WIDTH), SHARE / weight, np.float32),
        # Two, for onnxruntime can't make one unsigned twice.
        "W.zeros": np.zeros((1, 4 * WIDTH), np.int8),
        "R.zeros": np.zeros((1, 4 * WIDTH), np.int8),
    }
    nodes = [
        make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        make_node("Div", ["float", "most"], ["unit"]),
        make_node("Unsqueeze", ["unit", "first"], ["steps"]),
        make_node(
            "DynamicQuantizeLSTM",
            ["steps", "W", "R", *[""] * 5, "scales", "W.zeros", "scales", "R.zeros"],
            ["", "state"],
            domain=CONTRIB,
            hidden_size=WIDTH,
        ),
        make_node("Squeeze", ["state", "first"], ["y"]),
    ]
    return _model(nodes, weight, TensorProto.FLOAT, constants)


CASES = {
    "MatMulInteger": product,
    "MatMulIntegerToFloat": product_to_float,
    "MatMulInteger in a Scan": product_in_a_subgraph,
    "DynamicQuantizeLSTM": lstm,
}


def _multiply(activation: str, output: str) -> NodeProto:
    return make_node("MatMulInteger", [activation, "w", "zero"], [output])


def _model(
    nodes: list[NodeProto],
    weight: int,
    result: int = TensorProto.INT32,
    more: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> ModelProto:
    constants = {
        "w": np.full((WIDTH, WIDTH), weight, np.int8),
        "zero": np.array(0, np.uint8),
        "one": np.array(1, np.float32),
        "most": np.array(255, np.float32),
        "first": np.array([0]),
        **(more or {}),
    }
    graph = helper.make_graph(
        nodes,
        "case",
        [make_tensor_value_info("x", TensorProto.UINT8, ["rows", WIDTH])],
        [make_tensor_value_info("y", result, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def operators() -> dict[str, float]:
    """The result of each case, for 1, 5 and 32 rows the worst."""
    found = {}
    for name, make in CASES.items():
        for bits, weight in WEIGHTS.items():
            for entry, entries in ENTRIES.items():
                options = onnxruntime.SessionOptions()
                options.log_severity_level = 4
                for pair in entries:
                    options.add_session_config_entry(*pair)
                content = make(weight).SerializeToString()
                session = onnxruntime.InferenceSession(content, options)
                rows = [np.full((n, WIDTH), 255, np.uint8) for n in (1, 5, 32)]
                values = [session.run(None, {"x": one})[0].min() for one in rows]
                found[f"{name}, {bits}, {entry}"] = float(min(values))
    return found


def translations(bundle: Path, source: Path, fits: bool) -> list[str]:
    """Of every line; fits: as on a processor without VNNI."""
    instructions = {"avx2"} if fits else {"avx2", "avx512_vnni"}
    made = Processor("x86", frozenset(instructions))
    Processor.here = classmethod(lambda cls: made)  # type: ignore[assignment, method-assign]
    lines = source.read_text(encoding="utf-8").splitlines()
    translator = Translator.load(bundle, EngineOptions())
    return [
        translator.translate(line, SearchOptions(beam_size=beam_size)).text
        for beam_size in (1, 4)
        for line in lines
    ]


def run(hidden: str, library: Path, work: list[str]) -> Any:
    """What this file prints when it is run with something hidden."""
    environment = dict(os.environ)
    if hidden:
        environment |= {"LD_PRELOAD": str(library), "WITHOUT_VNNI": hidden}
    command = [sys.executable, __file__, *work]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def compare_operators(library: Path) -> None:
    """Print what comes of each case, over what VNNI makes of it."""
    right = run("", library, ["--work", "operators"])
    for title, hidden in HIDDEN.items():
        print(title)
        for case, value in run(hidden, library, ["--work", "operators"]).items():
            print(f"  {case:<44}{value / right[case]:6.3f}")


def compare_translations(library: Path, bundle: Path, source: Path) -> None:
    """Print how many lines come out otherwise."""
    files = [str(bundle), str(source)]
    right = run("", library, ["--work", "as it is", *files])
    for title, hidden in HIDDEN.items():
        for work in ("as it is", "fitted"):
            found = run(hidden, library, ["--work", work, *files])
            differing = sum(a != b for a, b in zip(right, found, strict=True))
            print(f"{title}, {work}: {differing} of {len(right)} translations differ")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.argument("source", type=click.Path(path_type=Path), required=False)
@click.option("--work", hidden=True, help="What a process of this one's own does.")
def main(bundle: Path | None, source: Path | None, work: str | None) -> None:
    """Compare this processor with itself without VNNI."""
    if work == "operators":
        print(json.dumps(operators()))
    elif work is not None:
        assert bundle
        assert source
        print(json.dumps(translations(bundle, source, work == "fitted")))
    else:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "without_vnni.so"
            code = Path(__file__).with_name("without_vnni.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, code], check=True)
            compare_operators(library)
            if bundle and source:
                compare_translations(library, bundle, source)


if __name__ == "__main__":
    main()
