import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from seq2edge.export.coverage import FloatArray
from seq2edge.export.four_bits import (
    add_four_bit_product,
    to_blocks,
    to_compensated_blocks,
)
from seq2edge.export.fragment import CONTRIB, Fragment
from seq2edge.runtime.processor import Processor

SIZE = 16


def draw(*shape: int, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    return np.asarray(random.standard_normal(shape), np.float32)


def session(
    weight: FloatArray, size: int = SIZE, bias: FloatArray | None = None
) -> onnxruntime.InferenceSession:
    out = Fragment("y")
    name = "" if bias is None else out.constant("bias", bias)
    inputs = weight.shape[1]
    add_four_bit_product(out, "x", to_blocks(weight, size), inputs, name)
    graph = helper.make_graph(
        out.nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, name) for name, a in out.constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString())


def test_a_block_on_paper() -> None:
    weight = np.zeros((1, 16), np.float32)
    weight[0, :3] = -0.7, 0.8, 0.1  # 15 steps of 0.1, of which 7 lie below 0
    found = to_blocks(weight, 16)
    assert found.scales == pytest.approx(0.1)
    assert found.zeros.tolist() == [[7]]
    assert found.integers[0, 0, :4].tolist() == [0, 15, 8, 7]


def test_blocks_of_zeros_and_of_one_sign_are_exact() -> None:
    weight = np.stack([np.zeros(32), np.full(32, 3.0), np.full(32, -2.0)])
    found = to_blocks(weight.astype(np.float32), 32)
    np.testing.assert_allclose(found.floats(), weight, rtol=1e-6)


def test_clipping_is_never_worse_than_the_whole_range() -> None:
    weight = draw(40, 64)
    weight[:, ::64] *= 5  # what stands out of its block
    blocks = weight.reshape(40, -1, SIZE)
    low, high = blocks.min(2, keepdims=True), blocks.max(2, keepdims=True)
    scale = (high - low) / 15
    zero = np.rint(-low / scale)
    plain = (np.clip(np.rint(blocks / scale) + zero, 0, 15) - zero) * scale
    found = to_blocks(weight, SIZE).floats().reshape(blocks.shape)
    errors = [((one - blocks) ** 2).sum() for one in (found, plain)]
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize("inputs", [64, 40])
def test_rounding_makes_up_for_itself_where_inputs_go_together(inputs: int) -> None:
    weight, mixed = draw(30, inputs), draw(12, inputs, seed=1)
    seen = draw(900, 12, seed=2) @ mixed + 0.1 * draw(900, inputs, seed=3)
    later = draw(900, 12, seed=4) @ mixed + 0.1 * draw(900, inputs, seed=5)
    both = to_compensated_blocks(weight, SIZE, seen.T @ seen), to_blocks(weight, SIZE)
    errors = [
        np.square(later @ (one.floats()[:, :inputs] - weight).T).sum() for one in both
    ]
    assert errors[0] < 0.3 * errors[1]


@pytest.mark.parametrize("scale", [0, 3])
def test_inputs_that_have_nothing_in_common_change_no_rounding(scale: int) -> None:
    weight = draw(30, 40)
    moments = scale * np.eye(40, dtype=np.float32)
    found, plain = to_compensated_blocks(weight, SIZE, moments), to_blocks(weight, SIZE)
    np.testing.assert_allclose(found.floats(), plain.floats(), atol=1e-6)


@pytest.mark.parametrize(("outputs", "inputs"), [(24, 64), (7, 40), (1, 16)])
@pytest.mark.parametrize("biased", [True, False])
def test_the_operator_multiplies_by_what_the_blocks_stand_for(
    outputs: int, inputs: int, biased: bool
) -> None:
    weight, rows = draw(outputs, inputs), draw(5, inputs, seed=1)
    bias = draw(outputs, seed=2) if biased else None
    found = session(weight, SIZE, bias).run(None, {"x": rows})[0]
    exact = to_blocks(weight, SIZE).floats()[:, :inputs]
    expected = rows @ exact.T + (0 if bias is None else bias)
    # What is left is the rounding of the rows to 8 bits.
    assert np.abs(found - expected).max() < 0.02 * np.sqrt(inputs)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_row_alone_gives_what_it_gives_among_others(size: int) -> None:
    # Without VNNI sums of up to 24 come in another order: 1.24e-5 on an EPYC 7003.
    most = 2e-5 if Processor.here().saturates else 1e-5
    product, rows = session(draw(48, 128), size), draw(6, 128, seed=1)
    together = product.run(None, {"x": rows})[0]
    for row in range(len(rows)):
        alone = product.run(None, {"x": rows[row : row + 1]})[0]
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-5, atol=most)
