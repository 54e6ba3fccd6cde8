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

from seq2edge.export.calibrate import (
    Batch,
    calibrate_encoder,
    calibrate_steps,
    second_moments,
)
from seq2edge.export.quantize import (
    encoder_activations,
    product_inputs,
    quantize,
    report,
)
from seq2edge.export.recipe import Calibration, Recipe, to_int8
from seq2edge.export.weights import WEIGHTS, write_graphs
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.fitting import UNSIGNED_WEIGHTS

Array = NDArray[Any]
VOCABULARY, WIDTH, HIDDEN = 60, 40, 48
RECIPE = Recipe(smallest=1000)


def draw(*shape: int, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    drawn = random.standard_normal(shape) * shape[-1] ** -0.5
    return np.asarray(drawn, np.float32)


TABLE = draw(VOCABULARY, WIDTH, seed=1)
TABLE[0] = 0  # padding


def graph(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Array]
) -> ModelProto:
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(made, opset_imports=[opset], ir_version=10)


def encoder() -> ModelProto:
    """Embedded tokens through a GRU; its last state, widened, is the first one."""
    nodes = [
        make_node("Gather", ["source table", "source"], ["embedded"]),
        make_node("Transpose", ["embedded"], ["time first"], perm=[1, 0, 2]),
        make_node(
            "GRU",
            ["time first", "encoder W", "R", "B", "source_lengths"],
            ["", "last"],
            hidden_size=24,
            linear_before_reset=1,
        ),
        make_node("Squeeze", ["last", "first axis"], ["final"]),
        make_node("MatMul", ["final", "bridge"], ["state.hidden"]),
    ]
    weights = {
        "source table": TABLE,
        "encoder W": draw(1, 72, WIDTH, seed=2),
        "R": draw(1, 72, 24, seed=3),
        "B": draw(1, 144, seed=4),
        "bridge": draw(24, HIDDEN, seed=5),
        "first axis": np.array([0]),
    }
    return graph(
        nodes,
        [
            ("source", TensorProto.INT64, ["batch", "source"]),
            ("source_lengths", TensorProto.INT32, ["batch"]),
        ],
        [("state.hidden", TensorProto.FLOAT, ["batch", HIDDEN])],
        weights,
    )


def decoder(tied: bool = True) -> ModelProto:
    """hidden = tanh(W e + U h + b), logits = E V hidden: every form of a product."""
    output = TABLE if tied else draw(VOCABULARY, WIDTH, seed=6)
    nodes = [
        make_node("Gather", ["target table", "token"], ["embedded"]),
        make_node("Gemm", ["embedded", "W", "b"], ["from input"], transB=1),
        make_node("MatMul", ["state.hidden", "U"], ["from state"]),
        make_node("Add", ["from input", "from state"], ["sum"]),
        make_node("Tanh", ["sum"], ["next.hidden"]),
        make_node("Transpose", ["V"], ["V transposed"], perm=[1, 0]),
        make_node("MatMul", ["next.hidden", "V transposed"], ["readout"]),
        make_node("Gemm", ["readout", "output"], ["logits"], transB=1),
    ]
    weights = {
        "target table": TABLE,
        "W": draw(HIDDEN, WIDTH, seed=7),
        "b": draw(HIDDEN, seed=8),
        "U": draw(HIDDEN, HIDDEN, seed=9),
        "V": draw(WIDTH, HIDDEN, seed=10),
        "output": output,
    }
    return graph(
        nodes,
        [
            ("token", TensorProto.INT64, ["rows"]),
            ("state.hidden", TensorProto.FLOAT, ["rows", HIDDEN]),
        ],
        [
            ("logits", TensorProto.FLOAT, ["rows", VOCABULARY]),
            ("next.hidden", TensorProto.FLOAT, ["rows", HIDDEN]),
        ],
        weights,
    )


def run(model: ModelProto | None, **feed: Array) -> dict[str, Array]:
    assert model is not None
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [port.name for port in session.get_outputs()]
    arrays = {name.replace("__", "."): array for name, array in feed.items()}
    return dict(zip(names, session.run(names, arrays), strict=True))


SOURCE = np.random.default_rng(0).integers(1, VOCABULARY, (6, 9))
LENGTHS = np.array([9, 3, 5, 1, 8, 2], np.int32)
TARGETS = [(5, 6, 7), (8,), (), (9, 10, 11, 12), (3, 3), (2,)]
INPUTS: dict[str, Array] = {"source": SOURCE, "source_lengths": LENGTHS}


def ranges(model: ModelProto) -> Calibration:
    activations = product_inputs(model, RECIPE)
    readings = [np.array([1, *target], np.int64) for target in TARGETS]
    batches = [Batch(INPUTS, readings)]
    steps = calibrate_steps(encoder(), model, activations, batches)
    # Every range there may be, whatever the recipe of a test.
    every = replace(RECIPE, scan_from_hidden=1, relu_scan_from_hidden=1, smallest=500)
    names = encoder_activations(encoder(), every)
    return Calibration(calibrate_encoder(encoder(), names, [INPUTS]), steps)


def floats(model: ModelProto | None) -> dict[str, tuple[int, ...]]:
    """The float tensors of 1,000 numbers or more."""
    assert model is not None
    return {
        tensor.name: tuple(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= 1000
    }


def test_symmetric_integers_on_paper() -> None:
    weight = np.array([[2.1, -6.3, 4.24], [0.0, 0.0, 0.0]], np.float32)
    integers, scale = to_int8(weight, 1, 7)
    assert scale.ravel().tolist() == pytest.approx([0.1, 1.0])
    assert integers.tolist() == [[21, -63, 42], [0, 0, 0]]


def test_calibration_finds_the_range_of_every_product_input() -> None:
    found = ranges(decoder()).decoder
    assert list(found) == ["embedded", "state.hidden", "next.hidden", "readout"]
    # Rows that ended are not read: the extremes are those of the tokens given.
    read = TABLE[sorted({1, *(token for target in TARGETS for token in target)})]
    np.testing.assert_allclose(found["embedded"], (read.min(), read.max()))
    low, high = found["next.hidden"]
    assert -1 <= low < 0 < high <= 1


def test_moments_are_those_of_what_was_read_and_no_more() -> None:
    readings = [np.array([1, *target], np.int64) for target in TARGETS]
    names = ["embedded", "state.hidden", "next.hidden"]
    batches = [Batch(INPUTS, readings)]
    found = second_moments(encoder(), decoder(), names, batches)
    assert list(found) == names
    read = TABLE[[token for reading in readings for token in reading]]
    np.testing.assert_allclose(found["embedded"], read.T @ read, atol=1e-5)
    for name in ("state.hidden", "next.hidden"):  # an input of the graph, an output
        assert found[name].shape == (HIDDEN, HIDDEN)
        assert np.trace(found[name]) > 0


@pytest.mark.parametrize("tied", [True, False])
def test_int8_is_near_float_and_holds_no_large_float(tied: bool) -> None:
    model = decoder(tied)
    found = quantize(encoder(), model, ranges(model), RECIPE)
    assert floats(found.encoder) == {}
    assert floats(found.decoder) == {}
    state = run(encoder(), **INPUTS)["state.hidden"]
    near = run(found.encoder, **INPUTS)["state.hidden"]
    np.testing.assert_allclose(near, state, atol=0.02)
    token = np.arange(6)
    expected = run(model, token=token, state__hidden=state)
    logits = run(found.decoder, token=token, state__hidden=state)["logits"]
    error = np.abs(logits - expected["logits"]).std() / expected["logits"].std()
    assert error < 0.03


def test_every_weight_is_in_the_report_with_its_form() -> None:
    found = quantize(encoder(), decoder(), ranges(decoder()), RECIPE)
    result: dict[str, Any] = report(found, RECIPE)
    forms = {entry["weight"]: entry["forms"] for entry in result["quantized"]}
    assert forms == {
        "source table": ["table", "product"],  # tied: one table under three names
        "encoder W": ["stored"],
        "R": ["stored"],
        "bridge": ["product"],
        "W": ["product"],
        "U": ["product"],
        "V": ["product"],
    }
    skipped = {entry["weight"]: entry["reason"] for entry in result["skipped"]}
    assert skipped["B"] == "a vector"
    numbers = TABLE.size + 72 * WIDTH + 72 * 24 + 24 * HIDDEN
    numbers += HIDDEN * WIDTH + HIDDEN * HIDDEN + WIDTH * HIDDEN
    assert result["quantized_bytes"] == 4 * numbers
    assert result["weight_bytes"] == 4 * (numbers + 144 + HIDDEN)  # and the biases
    assert result["share"] > 0.95


def test_a_tied_table_is_on_disk_once(tmp_path: Path) -> None:
    sizes = {}
    for tied in (True, False):
        found = quantize(encoder(), decoder(tied), ranges(decoder(tied)), RECIPE)
        folder = tmp_path / str(tied)
        folder.mkdir()
        assert found.decoder is not None
        models = {"encoder.onnx": found.encoder, "decoder.onnx": found.decoder}
        write_graphs(models, folder)
        sizes[tied] = (folder / WEIGHTS).stat().st_size
        onnxruntime.InferenceSession(folder / "decoder.onnx")
    assert sizes[False] - sizes[True] >= TABLE.size


def test_stored_weights_are_float_once_the_graph_is_loaded(tmp_path: Path) -> None:
    found = quantize(encoder(), decoder(), ranges(decoder()), RECIPE)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(found.encoder.SerializeToString(), options)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in optimized.graph.node]
    # Only the looked-up rows are scaled at run time, after their two lookups.
    assert kinds.count("Cast") == 1
    assert kinds.count("Mul") == 1
    assert kinds.count("Gather") == 2


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    found = quantize(encoder(), decoder(), ranges(decoder()), RECIPE)
    state = draw(6, HIDDEN, seed=20)
    token = np.arange(6)
    together = run(found.decoder, token=token, state__hidden=state)["logits"]
    for row in range(6):
        alone = run(
            found.decoder,
            token=token[row : row + 1],
            state__hidden=state[row : row + 1],
        )["logits"]
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("tied", [True, False])
def test_weights_of_eight_bits_may_be_taken_as_unsigned(tied: bool) -> None:
    model = decoder(tied)
    recipe = replace(RECIPE, product_bits=8)
    found = quantize(encoder(), model, ranges(model), recipe).decoder
    assert found is not None
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(UNSIGNED_WEIGHTS, "1")
    session = onnxruntime.InferenceSession(found.SerializeToString(), options)
    feed: dict[str, Array] = {
        "token": np.arange(6),
        "state.hidden": draw(6, HIDDEN, seed=20),
    }
    [logits] = session.run(["logits"], feed)
    expected = run(model, **{k.replace(".", "__"): v for k, v in feed.items()})
    error = np.abs(logits - expected["logits"]).std() / expected["logits"].std()
    assert error < 0.03


def test_full_scale_inputs_and_weights_do_not_saturate() -> None:
    rows = 4
    nodes = [
        make_node("Gemm", ["state.hidden", "weight"], ["logits"], transB=1),
        make_node("Identity", ["state.hidden"], ["next.hidden"]),
    ]
    model = graph(
        nodes,
        [("state.hidden", TensorProto.FLOAT, ["rows", HIDDEN])],
        [
            ("logits", TensorProto.FLOAT, ["rows", HIDDEN]),
            ("next.hidden", TensorProto.FLOAT, ["rows", HIDDEN]),
        ],
        {"weight": np.ones((HIDDEN, HIDDEN), np.float32)},
    )
    known = Calibration(ranges(model).encoder, {"state.hidden": (0.0, 1.0)})
    found = quantize(encoder(), model, known, RECIPE)
    logits = run(found.decoder, state__hidden=np.ones((rows, HIDDEN), np.float32))
    # 255 * 63 * 2 fits the 16 bits in which kernels without VNNI add pairs.
    np.testing.assert_allclose(logits["logits"], HIDDEN, rtol=1e-5)


def test_a_product_without_int8_kernel_fails_by_name() -> None:
    model = decoder()
    product = next(node for node in model.graph.node if node.op_type == "Gemm")
    product.attribute.append(helper.make_attribute("alpha", 2.0))
    with pytest.raises(ExportError, match="weight W can't be quantized: Gemm"):
        quantize(encoder(), model, ranges(model), RECIPE)


def test_an_activation_that_calibration_missed_fails_by_name() -> None:
    known = ranges(decoder())
    decoding = {k: v for k, v in known.decoder.items() if k != "readout"}
    known = replace(known, decoder=decoding)
    with pytest.raises(ExportError, match="calibration never saw readout"):
        quantize(encoder(), decoder(), known, RECIPE)


def test_a_weight_hidden_in_a_subgraph_fails_by_name() -> None:
    model = encoder()
    branch = helper.make_graph(
        [make_node("MatMul", ["final", "bridge"], ["branch out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("branch out", TensorProto.FLOAT, None)],
    )
    nodes = [node for node in model.graph.node if node.op_type != "MatMul"]
    nodes.append(make_node("Constant", [], ["yes"], value_int=1))
    nodes.append(make_node("Cast", ["yes"], ["really"], to=TensorProto.BOOL))
    nodes.append(
        make_node(
            "If", ["really"], ["state.hidden"], then_branch=branch, else_branch=branch
        )
    )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    recipe = Recipe(smallest=500)
    with pytest.raises(ExportError, match="int8 did not reach: bridge"):
        quantize(model, decoder(), ranges(decoder()), recipe)


def test_a_recipe_of_other_bits_is_refused() -> None:
    with pytest.raises(ExportError, match="product_bits is 4"):
        Recipe(product_bits=4)
    with pytest.raises(ExportError, match="layer_bits is 2"):
        Recipe(layer_bits=2)
    with pytest.raises(ExportError, match="block_size is 20"):
        Recipe(block_size=20)


@pytest.mark.parametrize("tied", [True, False])
def test_int4_is_for_the_layers_of_a_decoder_alone(tied: bool) -> None:
    model = decoder(tied)
    recipe = replace(RECIPE, layer_bits=4)
    found = quantize(encoder(), model, ranges(model), recipe)
    result: dict[str, Any] = report(found, recipe)
    forms = {entry["weight"]: entry["forms"] for entry in result["quantized"]}
    output = {"source table": ["table", "product"]}
    if not tied:
        output = {"source table": ["table"], "output": ["product"]}
    assert forms == output | {
        "encoder W": ["stored"],
        "R": ["stored"],
        "bridge": ["product"],
        "W": ["four bits"],
        "U": ["four bits"],
        "V": ["four bits"],
    }
    assert result["layer_bits"] == 4
    int8 = quantize(encoder(), model, ranges(model), RECIPE)
    assert found.encoder == int8.encoder
    state = run(encoder(), **INPUTS)["state.hidden"]
    token = np.arange(6)
    expected = run(model, token=token, state__hidden=state)["logits"]
    logits = run(found.decoder, token=token, state__hidden=state)["logits"]
    assert np.abs(logits - expected).std() / expected.std() < 0.1


def test_an_output_layer_with_a_bias_of_its_own_stays_int8() -> None:
    model = decoder()
    gemm = model.graph.node[-1]
    gemm.output[0] = "without bias"
    model.graph.node.append(make_node("Add", ["without bias", "bias"], ["logits"]))
    bias = draw(VOCABULARY, seed=40)
    model.graph.initializer.append(numpy_helper.from_array(bias, "bias"))
    recipe = replace(RECIPE, layer_bits=4)
    found = quantize(encoder(), model, ranges(model), recipe).decoder
    assert found is not None
    kinds = [node.op_type for node in found.graph.node]
    assert kinds.count("MatMulNBits") == 3
    assert kinds.count("MatMulIntegerToFloat") == 1


def test_one_weight_may_be_read_in_several_ways() -> None:
    square = draw(HIDDEN, HIDDEN, seed=30)
    nodes = [
        make_node("Transpose", ["weight"], ["turned"], perm=[1, 0]),
        make_node("MatMul", ["x", "weight"], ["one way"]),
        make_node("MatMul", ["x", "turned"], ["the other"]),
        make_node("Gather", ["weight", "token"], ["row"]),
        make_node("Sub", ["one way", "the other"], ["difference"]),
        make_node("Add", ["difference", "row"], ["sum"]),
        make_node("MatMul", ["sum", "weight"], ["product"]),
        make_node("Concat", ["product", "weight"], ["y"], axis=0),
    ]
    model = graph(
        nodes,
        [
            ("x", TensorProto.FLOAT, ["rows", HIDDEN]),
            ("token", TensorProto.INT64, ["rows"]),
        ],
        [("y", TensorProto.FLOAT, ["both", HIDDEN])],
        {"weight": square},
    )
    inputs: dict[str, Array] = {"x": draw(5, HIDDEN, seed=31), "token": np.arange(5)}
    activations = encoder_activations(model, RECIPE)
    ranges = calibrate_encoder(model, activations, [inputs])
    found = quantize(model, None, Calibration(ranges), RECIPE).encoder
    expected, near = (run(made, **inputs)["y"] for made in (model, found))
    assert np.abs(near - expected).max() < 0.02 * np.abs(expected).max()
