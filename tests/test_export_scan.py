"""Recurrent operators in their int8 forms, judged by the float operator itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node
from toy_modules import END, START, TOYS, VOCABULARY, build

from seq2edge.export import (
    ExportOptions,
    ModelSpec,
    QualityLimits,
    Sample,
    export_model,
)
from seq2edge.export.calibrate import calibrate_encoder
from seq2edge.export.quantize import Quantized, encoder_activations, quantize, report
from seq2edge.export.recipe import NEVER, Calibration, Recipe
from seq2edge.export.weights import write_graphs
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.fitting import UNSIGNED_WEIGHTS
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.vocabulary import Vocabulary

Array = NDArray[Any]
FEATURES, HIDDEN = 11, 13  # odd: no vector of a processor is filled
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
SCAN = Recipe(
    smallest=1,
    scan_from_hidden=1,
    anchored_from_hidden=NEVER,
    relu_scan_from_hidden=1,
)
ANCHORED = replace(SCAN, anchored_from_hidden=1)
# kind, activation, recipe
FORMS: dict[str, tuple[str, str, Recipe]] = {
    "elman tanh": ("RNN", "Tanh", SCAN),
    "elman relu": ("RNN", "Relu", SCAN),
    "gru": ("GRU", "", SCAN),
    "gru apart": ("GRU", "", replace(SCAN, joined_to_hidden=0)),
    "lstm": ("LSTM", "", SCAN),
    "anchored lstm": ("LSTM", "", ANCHORED),
}
DIRECTIONS = ("forward", "reverse", "bidirectional")


def whole(*shape: int, seed: int) -> NDArray[np.float32]:
    """Weights that 7 bits hold exactly: multiples of 1/63 of each row's greatest."""
    integers = np.random.default_rng(seed).integers(-63, 64, shape)
    integers[..., 0] = 63
    return np.asarray(integers / np.float32(63) * shape[-1] ** -0.5, np.float32)


def operator(
    kind: str,
    activation: str = "",
    direction: str = "bidirectional",
    bias: bool = True,
    lengths: bool = True,
    initial: bool = False,
    outputs: str = "Y Y_h Y_c",
) -> ModelProto:
    """A graph of one recurrent operator; every output of it is one of the graph."""
    directions = 2 if direction == "bidirectional" else 1
    rows = GATES[kind] * HIDDEN
    weights = {
        "W": whole(directions, rows, FEATURES, seed=1),
        "R": whole(directions, rows, HIDDEN, seed=2) * np.float32(0.5),
    }
    if bias:
        weights["B"] = whole(directions, 2 * rows, seed=3) * np.float32(8)
    inputs = ["frames", "W", "R", "B" if bias else ""]
    inputs.append("frames_lengths" if lengths else "")
    given: list[tuple[str, int, list[str | int | None]]]
    given = [("frames", TensorProto.FLOAT, ["time", "batch", FEATURES])]
    given += [("frames_lengths", TensorProto.INT32, ["batch"])] if lengths else []
    states = ["h0", "c0"] if kind == "LSTM" else ["h0"]
    if initial:
        inputs += states
        given += [
            (name, TensorProto.FLOAT, [directions, "batch", HIDDEN]) for name in states
        ]
    attributes: dict[str, Any] = {"hidden_size": HIDDEN, "direction": direction}
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    if activation == "Relu":
        attributes["activations"] = ["Relu"] * directions
    wanted = outputs.split()[: 1 + len(states)]
    names = [name if name != "-" else "" for name in wanted]
    graph = helper.make_graph(
        [make_node(kind, inputs, names, **attributes)],
        "graph",
        [helper.make_tensor_value_info(*one) for one in given],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [None] * (4 if name == "Y" else 3)
            )
            for name in names
            if name
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def feed(lengths: list[int], **more: Array) -> dict[str, Array]:
    shape = (max(lengths), len(lengths), FEATURES)
    frames = np.random.default_rng(0).uniform(-1, 1, shape)
    return {
        "frames": np.asarray(frames, np.float32),
        "frames_lengths": np.array(lengths, np.int32),
        **more,
    }


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString())


def run(model: ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    loaded = session(model)
    names = [port.name for port in loaded.get_outputs()]
    taken = {port.name: inputs[port.name] for port in loaded.get_inputs()}
    return dict(zip(names, loaded.run(names, taken), strict=True))


def int8(model: ModelProto, recipe: Recipe) -> Quantized:
    """With the widest ranges that the tests' inputs have."""
    ranges = dict.fromkeys(encoder_activations(model, recipe), (-1.0, 1.0))
    if "Y" in ranges:  # a ReLU's
        ranges["Y"] = (0.0, float(run(model, feed([40] * 4))["Y"].max()))
    return quantize(model, None, Calibration(ranges), recipe)


def kinds(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def near(found: Array, expected: Array) -> None:
    """Weights are exact, so what differs is the rounding of the activations."""
    assert found.shape == expected.shape
    spread = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() < 0.04 * spread
    assert np.abs(found - expected).mean() < 0.006 * spread


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_int8_says_what_the_float_operator_says(
    form: str, direction: str, bias: bool
) -> None:
    kind, activation, recipe = FORMS[form]
    model = operator(kind, activation, direction, bias)
    found = int8(model, recipe).encoder
    assert not kinds(found) & GATES.keys()
    for lengths in ([1], [9], [2, 5, 1, 5], [3, 3, 12, 1, 7, 8, 2, 4]):
        inputs = feed(lengths)
        expected, got = run(model, inputs), run(found, inputs)
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            near(got[name], values)
        for row, length in enumerate(lengths):
            assert (got["Y"][length:, :, row] == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_row_alone_equals_the_same_row_in_a_padded_batch(form: str) -> None:
    kind, activation, recipe = FORMS[form]
    found = int8(operator(kind, activation), recipe).encoder
    lengths = [6, 2, 9, 1, 9, 4, 7, 3]
    inputs = feed(lengths)
    together = run(found, inputs)
    for row, length in enumerate(lengths):
        alone = run(
            found,
            {
                "frames": inputs["frames"][:length, row : row + 1],
                "frames_lengths": inputs["frames_lengths"][row : row + 1],
            },
        )
        np.testing.assert_array_equal(
            alone["Y"][:, :, 0], together["Y"][:length, :, row]
        )
        for name in alone.keys() - {"Y"}:
            np.testing.assert_array_equal(alone[name][:, 0], together[name][:, row])


@pytest.mark.parametrize("form", FORMS)
def test_what_lies_in_the_padding_changes_nothing(form: str) -> None:
    kind, activation, recipe = FORMS[form]
    found = int8(operator(kind, activation), recipe).encoder
    inputs = feed([3, 7, 1])
    one = run(found, inputs)
    steps = np.arange(7)[:, None]
    inputs["frames"][steps >= inputs["frames_lengths"]] = 1e4
    for name, values in run(found, inputs).items():
        np.testing.assert_array_equal(values, one[name])


@pytest.mark.parametrize("form", FORMS)
def test_two_exports_and_two_runs_are_the_same(form: str) -> None:
    kind, activation, recipe = FORMS[form]
    first, second = (int8(operator(kind, activation), recipe) for _ in range(2))
    one, two = (made.encoder.SerializeToString() for made in (first, second))
    assert one == two
    loaded = session(first.encoder)
    runs = [loaded.run(None, feed([4, 2])) for _ in range(2)]
    for before, after in zip(*runs, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_without_tokens_gives_zeros(form: str) -> None:
    kind, activation, recipe = FORMS[form]
    model = operator(kind, activation)
    inputs = feed([4, 0])
    got = run(int8(model, recipe).encoder, inputs)
    for name, expected in run(model, inputs).items():
        rows = 2 if name == "Y" else 1
        np.testing.assert_array_equal(got[name].take(1, rows), expected.take(1, rows))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_without_lengths_every_row_is_as_long_as_the_batch(
    form: str, direction: str
) -> None:
    kind, activation, recipe = FORMS[form]
    model = operator(kind, activation, direction, lengths=False)
    found = int8(model, recipe).encoder
    inputs = feed([6] * 3)
    expected, got = run(model, inputs), run(found, inputs)
    for name, values in expected.items():
        near(got[name], values)


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("kind", GATES)
def test_a_given_first_state_is_where_the_rows_begin(kind: str, lengths: bool) -> None:
    model = operator(kind, lengths=lengths, initial=True)
    found = int8(model, ANCHORED).encoder
    assert "DynamicQuantizeLSTM" not in kinds(found)
    random = np.random.default_rng(4)
    starts = {
        name: np.asarray(random.uniform(-1, 1, (2, 4, HIDDEN)), np.float32)
        for name in ("h0", "c0")
    }
    inputs = feed([5, 5, 2, 4] if lengths else [5] * 4, **starts)
    expected, got = run(model, inputs), run(found, inputs)
    for name, values in expected.items():
        near(got[name], values)


@pytest.mark.parametrize("outputs", ["Y - -", "- Y_h -", "- - Y_c", "- Y_h Y_c"])
@pytest.mark.parametrize("recipe", [SCAN, ANCHORED])
def test_outputs_that_no_one_reads_are_left_out(outputs: str, recipe: Recipe) -> None:
    model = operator("LSTM", outputs=outputs)
    inputs = feed([5, 2])
    expected, got = run(model, inputs), run(int8(model, recipe).encoder, inputs)
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        near(got[name], values)


def test_an_anchored_lstm_keeps_its_rows_apart_where_states_saturate() -> None:
    model = operator("LSTM")
    bias = next(t for t in model.graph.initializer if t.name == "B")
    wide = numpy_helper.to_array(bias) * np.float32(30)
    bias.CopyFrom(numpy_helper.from_array(wide, "B"))
    found = int8(model, ANCHORED).encoder
    inputs = feed([30] * 4)
    together = run(found, inputs)["Y"]
    assert np.abs(together).max() > 0.999
    for row in range(4):
        alone = run(
            found,
            {
                "frames": inputs["frames"][:, row : row + 1],
                "frames_lengths": inputs["frames_lengths"][:1],
            },
        )
        np.testing.assert_array_equal(alone["Y"][:, :, 0], together[:, :, row])


@pytest.mark.parametrize("form", FORMS)
def test_the_loaded_session_computes_in_int8(form: str, tmp_path: Path) -> None:
    kind, activation, recipe = FORMS[form]
    found = int8(operator(kind, activation), recipe).encoder
    write_graphs({"encoder.onnx": found}, tmp_path)  # checks the graph, too
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(tmp_path / "encoder.onnx", options)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    nodes = [*optimized.graph.node]
    scans = [node for node in nodes if node.op_type == "Scan"]
    bodies = [a.g for scan in scans for a in scan.attribute if a.name == "body"]
    if recipe is ANCHORED and kind == "LSTM":
        assert "DynamicQuantizeLSTM" in kinds(optimized)
    else:
        assert len(bodies) == (1 if form == "gru" else 2)
        for body in bodies:
            inside = [node.op_type for node in body.node]
            products = {"MatMulInteger", "MatMulIntegerToFloat"}
            assert sum(kind in products for kind in inside) == 2 // len(bodies)
            assert not {"MatMul", "Gemm", "DequantizeLinear"} & {*inside}
        outside = [node.op_type for node in nodes]
        assert outside.count("MatMulIntegerToFloat") == 2
    least = min(array.size for array in matrices(operator(kind, activation)))
    large = [t for t in optimized.graph.initializer if np.prod(t.dims) >= least / 2]
    assert large
    assert {t.data_type for t in large} == {TensorProto.INT8}


def matrices(model: ModelProto) -> list[Array]:
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [array for array in arrays if array.ndim == 3]


@pytest.mark.parametrize("form", FORMS)
def test_every_weight_is_in_the_report_under_its_form(form: str) -> None:
    kind, activation, recipe = FORMS[form]
    found: Any = report(int8(operator(kind, activation), recipe), recipe)
    name = "anchored" if form == "anchored lstm" else "scan"
    forms = {entry["weight"]: entry["forms"] for entry in found["quantized"]}
    assert forms == {"W": [name], "R": [name]}
    assert [entry["weight"] for entry in found["skipped"]] == ["B"]


@pytest.mark.parametrize("kind", GATES)
def test_narrow_layers_stay_float_operators_with_stored_weights(kind: str) -> None:
    model = operator(kind)
    recipe = Recipe(smallest=1)
    quantized = int8(model, recipe)
    assert kind in kinds(quantized.encoder)
    found: Any = report(quantized, recipe)
    assert {form for e in found["quantized"] for form in e["forms"]} == {"stored"}


def test_a_layer_whose_state_has_no_bound_stays_float_unless_asked() -> None:
    recipe = replace(SCAN, relu_scan_from_hidden=NEVER)
    assert "RNN" in kinds(int8(operator("RNN", "Relu"), recipe).encoder)
    assert "Scan" in kinds(int8(operator("RNN", "Tanh"), recipe).encoder)


@pytest.mark.parametrize(
    ("attribute", "value"), [("clip", 3.0), ("activations", ["Tanh", "Tanh"] * 2)]
)
def test_an_operator_that_does_something_else_stays_as_it_is(
    attribute: str, value: Any
) -> None:
    model = operator("GRU")
    node = model.graph.node[0]
    node.attribute.append(helper.make_attribute(attribute, value))
    assert "GRU" in kinds(int8(model, SCAN).encoder)


def test_a_range_that_calibration_missed_fails_by_name() -> None:
    with pytest.raises(ExportError, match="calibration never saw frames"):
        quantize(operator("GRU"), None, Calibration(), SCAN)


def test_calibration_reads_rows_without_their_padding() -> None:
    model = operator("RNN", "Relu")
    node = make_node("Transpose", ["batch first"], ["frames"], perm=[1, 0, 2])
    model.graph.node.insert(0, node)
    model.graph.input[0].name = "batch first"
    model.graph.input[1].name = "batch first_lengths"
    model.graph.node[1].input[4] = "batch first_lengths"
    inputs = feed([3, 7, 1])
    frames = inputs["frames"].transpose(1, 0, 2).copy()
    real = np.arange(7) < inputs["frames_lengths"][:, None]
    frames[~real] = 50.0
    batch = {"batch first": frames, "batch first_lengths": inputs["frames_lengths"]}
    names = encoder_activations(model, SCAN)
    assert names == ["frames", "Y"]
    ranges = calibrate_encoder(model, names, [batch])
    read = frames[real]
    np.testing.assert_allclose(ranges["frames"], (read.min(), read.max()))
    np.testing.assert_allclose(
        ranges["Y"], (0, run(model, batch)["Y"].max()), rtol=1e-5
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_anchored_lstm_may_have_unsigned_weights_of_eight_bits(
    direction: str,
) -> None:
    model = operator("LSTM", direction=direction)
    found = int8(model, replace(ANCHORED, product_bits=8)).encoder
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(UNSIGNED_WEIGHTS, "1")
    loaded = onnxruntime.InferenceSession(found.SerializeToString(), options)
    inputs = feed([5, 1, 9])
    names = [port.name for port in loaded.get_outputs()]
    expected = run(model, inputs)
    for name, values in zip(names, loaded.run(names, inputs), strict=True):
        near(values, expected[name])


def test_a_model_without_a_decoder_is_quantized() -> None:
    found = int8(operator("GRU"), SCAN)
    assert found.decoder is None
    assert kinds(found.encoder) >= {"Scan"}


@pytest.mark.parametrize("kind", TOYS)
def test_a_strangers_module_is_exported_with_its_encoder_in_int8(
    kind: Any, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    lengths = [*range(1, 13)] * 2
    sources = [[*random.integers(4, VOCABULARY, n).tolist(), END] for n in lengths]
    spec = ModelSpec(
        name="stranger",
        vocabulary=Vocabulary(VOCABULARY, pad=0, unknown=3, start=START, end=END),
        limits=Limits(source_tokens=30, target_tokens=20),
    )
    # Random weights are near ties all over: a tenth of the tokens may well change.
    options = ExportOptions(
        "int8", recipe=ANCHORED, limits=QualityLimits(min_agreement=0.8)
    )
    export_model(build(kind), Sample.of_ids(sources), tmp_path / "toy", spec, options)
    manifest = json.loads((tmp_path / "toy" / "manifest.json").read_text("utf-8"))
    found = manifest["quantization"]
    forms = {entry["weight"]: entry["forms"] for entry in found["quantized"]}
    recurrent = [form for name, form in forms.items() if ".onnx_" in name]
    assert recurrent
    assert {form for one in recurrent for form in one} <= {"scan", "anchored"}
    reasons = {entry["reason"] for entry in found["skipped"]}
    assert reasons <= {"a bias", "a vector"}
    encoder = onnx.load(tmp_path / "toy" / "encoder.onnx", load_external_data=False)
    assert not kinds(encoder) & {*GATES, "MatMul", "Gemm"}
