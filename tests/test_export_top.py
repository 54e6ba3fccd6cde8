"""Two stages find what one sort finds, whether or not a row divides into groups."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seq2edge.export.top import LONG, top

PRIME = 1031  # no groups of equal size
SIZES = [LONG - 1, PRIME, 1100, 8073]


def run(
    scores: NDArray[np.float32], count: int, single: bool
) -> list[NDArray[np.generic]]:
    nodes, constants = top(
        "scores", scores.shape[1], "count", ("best", "found"), single
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "top",
        [
            value("scores", TensorProto.FLOAT, ["rows", scores.shape[1]]),
            value("count", TensorProto.INT64, [1]),
        ],
        [
            value("best", TensorProto.FLOAT, ["rows", "k"]),
            value("found", TensorProto.INT64, ["rows", "k"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found: list[NDArray[np.generic]] = session.run(
        None, {"scores": scores, "count": np.array([count])}
    )
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("count", "single"), [(1, True), (1, False), (5, False)])
def test_the_largest_come_first_and_of_equals_the_first(
    size: int, count: int, single: bool
) -> None:
    drawn = np.random.default_rng(size).integers(0, 900, (7, size))
    scores = drawn.astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    best, found = run(scores, count, single)
    assert found.tolist() == order.tolist()
    assert best.tolist() == np.take_along_axis(scores, order, axis=1).tolist()


@pytest.mark.parametrize("size", SIZES)
def test_a_row_with_nothing_finite_left_gives_tokens_that_there_are(size: int) -> None:
    scores = np.full((2, size), -np.inf, np.float32)
    scores[0, size - 1] = 1
    best, found = run(scores, 3, False)
    assert found[0, 0] == size - 1
    assert best[0, 0] == 1
    assert 0 <= found.min() <= found.max() < size
