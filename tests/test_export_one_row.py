"""Of one row, what only arranges rows is left out, and what arranges more stays."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.one_row import for_one_row

FLOAT = TensorProto.FLOAT
NODES = (
    # (rows, 1, 4) to (batch, beam, 4) and back, as around what reads the source.
    make_node("Shape", ["memory.values"], ["batch"], start=0, end=1),
    make_node("Concat", ["batch", "rest", "size"], ["apart"], axis=0),
    make_node("Concat", ["rest", "one", "size"], ["together"], axis=0),
    make_node("Reshape", ["state.vectors", "apart"], ["beams"]),
    make_node("Add", ["beams", "bias"], ["added"]),
    make_node("Reshape", ["added", "together"], ["rows_again"]),
    make_node("Mul", ["rows_again", "bias"], ["next.vectors"]),
    # (batch, source, 4) to (batch, source * 4): of another shape in any case.
    make_node("Concat", ["batch", "rest"], ["flat"], axis=0),
    make_node("Reshape", ["memory.values", "flat"], ["flattened"]),
    make_node("ReduceSum", ["flattened", "one"], ["logits"], keepdims=1),
)


def decoder() -> ModelProto:
    value = helper.make_tensor_value_info
    constants: dict[str, NDArray[Any]] = {
        "rest": np.array([-1]),
        "one": np.array([1]),
        "size": np.array([4]),
        "bias": np.arange(1, 5, dtype=np.float32),
    }
    graph = helper.make_graph(
        NODES,
        "decoder",
        [
            value("memory.values", FLOAT, ["batch", "source", 4]),
            value("state.vectors", FLOAT, ["rows", 1, 4]),
        ],
        [
            value("logits", FLOAT, ["batch", 1]),
            value("next.vectors", FLOAT, ["rows", 1, 4]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def run(model: ModelProto, source: int) -> list[NDArray[np.float32]]:
    onnx.checker.check_model(model, full_check=True)
    draw = np.random.default_rng(1)
    feed = {"memory.values": (1, source, 4), "state.vectors": (1, 1, 4)}
    arrays = {n: draw.normal(size=s).astype(np.float32) for n, s in feed.items()}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found: list[NDArray[np.float32]] = session.run(None, arrays)
    return found


def test_reshapes_to_the_same_shape_go() -> None:
    model = decoder()
    lighter = for_one_row(model)
    kept = [node.output[0] for node in lighter.graph.node if node.op_type == "Reshape"]
    assert kept == ["flattened"]
    assert len(model.graph.node) == len(NODES)  # what was given is left alone
    for source in (1, 4, 9):
        for ours, theirs in zip(run(lighter, source), run(model, source), strict=True):
            assert (ours == theirs).all()


def test_a_result_keeps_its_name() -> None:
    model = decoder()
    model.graph.node.remove(model.graph.node[6])
    model.graph.node[5].output[0] = "next.vectors"
    lighter = for_one_row(model)
    kept = [node.output[0] for node in lighter.graph.node if node.op_type == "Reshape"]
    assert kept == ["next.vectors", "flattened"]
    for ours, theirs in zip(run(lighter, 3), run(model, 3), strict=True):
        assert (ours == theirs).all()
