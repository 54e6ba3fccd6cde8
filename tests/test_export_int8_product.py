import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from seq2edge.export.fragment import CONTRIB, Fragment
from seq2edge.export.int8_product import WIDE, Activation, add_int8_product

INPUTS = 40
RANDOM = np.random.default_rng(0)
SCALE, ZERO = np.array(1 / 127, np.float32), np.array(128, np.uint8)


def session(
    outputs: int, bias: bool, few_rows: bool
) -> tuple[set[str], onnxruntime.InferenceSession]:
    """The operators of a product of random integers, and the product."""
    out = Fragment("it")
    random = np.random.default_rng(1)
    matrix = random.integers(-63, 64, (INPUTS, outputs)).astype(np.int8)
    scales = random.uniform(0.5, 1, outputs).astype(np.float32)
    scale, zero = out.constant("scale", SCALE), out.constant("zero", ZERO)
    add_int8_product(
        out,
        Activation("x", scale, zero, SCALE),
        out.constant("matrix", matrix),
        scales,
        "it.product",
        out.constant("bias", scales * 3) if bias else "",
        few_rows,
    )
    graph = helper.make_graph(
        out.nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", INPUTS])],
        [helper.make_tensor_value_info("it.product", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, name) for name, a in out.constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    kinds = {node.op_type for node in out.nodes}
    return kinds, onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("bias", [True, False])
def test_both_forms_of_a_product_give_the_same(bias: bool) -> None:
    rows = RANDOM.integers(0, 256, (6, INPUTS)).astype(np.uint8)
    for outputs, apart in ((WIDE - 1, False), (WIDE, True)):
        kinds, many = session(outputs, bias, few_rows=False)
        assert kinds == {"MatMulIntegerToFloat"}
        kinds, few = session(outputs, bias, few_rows=True)
        assert ("MatMulInteger" in kinds) == apart
        expected = many.run(None, {"x": rows})[0]
        found = few.run(None, {"x": rows})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("few_rows", [True, False])
def test_a_row_alone_gives_what_it_gives_among_others(few_rows: bool) -> None:
    rows = RANDOM.integers(0, 256, (6, INPUTS)).astype(np.uint8)
    _, product = session(WIDE + 3, bias=True, few_rows=few_rows)
    together = product.run(None, {"x": rows})[0]
    for row in range(len(rows)):
        alone = product.run(None, {"x": rows[row : row + 1]})[0]
        np.testing.assert_array_equal(alone[0], together[row])
