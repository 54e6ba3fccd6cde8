"""What counts the steps is known before a Loop, and comes out of it as it did."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.step_loop import GOES_ON, ROWS, STEPS, Plan, Value, loop_head

WHOLE, FLOAT = TensorProto.INT64, TensorProto.FLOAT
SIZE, LONGEST = 6, 12
DRAW = np.random.default_rng(4)
WEIGHTS: dict[str, NDArray[Any]] = {
    "by_token": DRAW.normal(size=(SIZE, SIZE)).astype(np.float32),
    "by_position": DRAW.normal(size=(LONGEST, SIZE)).astype(np.float32),
    "offset": np.array(2),
    "step": np.array(1),
    "two": np.array(2),
}
LOOKUP = (
    make_node("Add", ["state.position", "offset"], ["place"]),
    make_node("Gather", ["by_position", "place"], ["placed"]),
)
END = 5


def decoder(*lookup: NodeProto, step: str = "step") -> ModelProto:
    """A position's logits beside those of the token before."""
    value = helper.make_tensor_value_info
    nodes = [
        *lookup,
        make_node("Gather", ["by_token", "token"], ["told"]),
        make_node("Add", ["told", "placed"], ["logits"]),
        make_node("Add", ["state.position", step], ["next.position"]),
    ]
    ports = [value(name, WHOLE, [ROWS]) for name in ("token", "state.position")]
    results = [
        value("logits", FLOAT, [ROWS, SIZE]),
        value("next.position", WHOLE, [ROWS]),
    ]
    weights = [numpy_helper.from_array(array, n) for n, array in WEIGHTS.items()]
    graph = helper.make_graph(nodes, "decoder", ports, results, weights)
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


PLAN = Plan(
    inputs=[Value("token", WHOLE, [ROWS])],
    carried=[(Value("carried.token", WHOLE, [ROWS]), "token", "chosen")],
    reads=["logits"],
    before=[],
    choosing=[
        make_node("ArgMax", ["logits"], ["chosen"], axis=1, keepdims=0),
        make_node("Equal", ["chosen", "end"], ["ended"]),
        make_node("Squeeze", ["ended"], ["over"]),
        make_node("Not", ["over"], [GOES_ON]),
    ],
    told={"all_logits": Value("logits", FLOAT, [ROWS, SIZE])},
    behind=[],
    results=[Value("all_logits", FLOAT, [STEPS, ROWS, SIZE])],
    constants={"end": np.array([END])},
)


def run(model: ModelProto, position: int, steps: int) -> list[NDArray[Any]]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {"token": [3], "state.position": [position], "steps": [steps]}
    arrays = {name: np.array(value) for name, value in feed.items()}
    found: list[NDArray[Any]] = session.run(["all_logits", "next.position"], arrays)
    return found


def body_of(model: ModelProto) -> set[str]:
    [loop] = [node for node in model.graph.node if node.op_type == "Loop"]
    [body] = [field.g for field in loop.attribute if field.name == "body"]
    return {name for node in body.node for name in node.input}


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize(("position", "steps"), [(0, 1), (0, 10), (4, 6), (3, 7)])
def test_all_comes_out_as_it_did(keeps: bool, position: int, steps: int) -> None:
    plan = replace(PLAN, keeps_states=keeps)
    model = decoder(*LOOKUP)
    expected = run(loop_head(model, plan), position, steps)
    counting = loop_head(model, replace(plan, one_row=True))
    assert "by_position" not in body_of(counting)
    found = run(counting, position, steps)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours == theirs).all()


def test_some_of_the_runs_above_end_before_their_steps() -> None:
    logits, _ = run(loop_head(decoder(*LOOKUP), PLAN), 0, 10)
    assert 1 < len(logits) < 10
    assert logits[-1].argmax() == END


def test_what_goes_on_by_two_is_carried() -> None:
    model = decoder(*LOOKUP, step="two")
    plan = replace(PLAN, keeps_states=True)
    expected = run(loop_head(model, plan), 0, 4)
    held = loop_head(model, replace(plan, one_row=True))
    assert "by_position" in body_of(held)
    for ours, theirs in zip(run(held, 0, 4), expected, strict=True):
        assert (ours == theirs).all()


def test_what_also_reads_the_token_stays() -> None:
    mixed = (
        make_node("Mul", ["state.position", "token"], ["mixed"]),
        make_node("Mod", ["mixed", "two"], ["place"]),
        make_node("Gather", ["by_position", "place"], ["placed"]),
    )
    expected = run(loop_head(decoder(*mixed), PLAN), 1, 5)
    counting = loop_head(decoder(*mixed), replace(PLAN, one_row=True))
    assert "by_position" in body_of(counting)
    for ours, theirs in zip(run(counting, 1, 5), expected, strict=True):
        assert (ours == theirs).all()
