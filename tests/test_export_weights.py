from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seq2edge.export.weights import PAGE, WEIGHTS, shared_tables, write_graphs
from seq2edge.runtime.errors import ExportError

Weight = NDArray[np.float32]


def product(name: str, weight: Weight, bias: Weight) -> onnx.ModelProto:
    """x @ weight + bias, its weight under this name."""
    rows, columns = weight.shape
    nodes = [
        helper.make_node("MatMul", ["x", name], ["xw"]),
        helper.make_node("Add", ["xw", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weight, name), numpy_helper.from_array(bias, "bias")],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def draw(*shape: int, seed: int = 0) -> Weight:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def places(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length of every external tensor of a graph."""
    model = onnx.load(str(path), load_external_data=False)
    found = {}
    for tensor in model.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            assert entries["location"] == WEIGHTS
            found[tensor.name] = int(entries["offset"]), int(entries["length"])
    return found


def test_graphs_compute_the_same_from_one_file(tmp_path: Path) -> None:
    weight, other, bias = draw(64, 48), draw(64, 48, seed=1), draw(48)
    models = {
        "a.onnx": product("w", weight, bias),
        "b.onnx": product("other name", weight, bias),
        "c.onnx": product("w", other, bias),
    }
    write_graphs(models, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*models, WEIGHTS}
    x = draw(3, 64, seed=2)
    for name, expected in (("a", weight), ("b", weight), ("c", other)):
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        np.testing.assert_allclose(
            session.run(None, {"x": x})[0], x @ expected + bias, rtol=1e-4, atol=1e-4
        )


def test_identical_tensors_are_stored_once(tmp_path: Path) -> None:
    weight, bias = draw(64, 48), draw(48)
    write_graphs(
        {"a.onnx": product("w", weight, bias), "b.onnx": product("v", weight, bias)},
        tmp_path,
    )
    assert places(tmp_path / "a.onnx")["w"] == places(tmp_path / "b.onnx")["v"]
    assert (tmp_path / WEIGHTS).stat().st_size == weight.nbytes


def test_large_tensors_start_on_a_page_and_small_ones_stay_inline(
    tmp_path: Path,
) -> None:
    models = {
        f"{size}.onnx": product("w", draw(size, 200, seed=size), draw(200))
        for size in (3, 90, 91, 92)
    }
    write_graphs(models, tmp_path)
    for size in (90, 91, 92):
        offset, length = places(tmp_path / f"{size}.onnx")["w"]
        assert offset % PAGE == 0
        assert length == size * 200 * 4
    assert "bias" not in places(tmp_path / "3.onnx")
    assert "w" in places(tmp_path / "3.onnx")


def test_the_models_given_stay_as_they_were(tmp_path: Path) -> None:
    model = product("w", draw(64, 48), draw(48))
    before = model.SerializeToString()
    write_graphs({"a.onnx": model}, tmp_path)
    assert model.SerializeToString() == before


def test_an_invalid_graph_is_not_accepted(tmp_path: Path) -> None:
    model = product("w", draw(64, 48), draw(48))
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=r"a\.onnx is no valid ONNX graph: .*NoSuch"):
        write_graphs({"a.onnx": model}, tmp_path)


def lookup(**tables: Weight) -> onnx.ModelProto:
    """Rows of each table, under its name."""
    nodes = [
        helper.make_node("Gather", [name, "ids"], [f"of_{name}"]) for name in tables
    ]
    outputs = [
        helper.make_tensor_value_info(
            f"of_{name}", TensorProto.FLOAT, ["n", table.shape[1]]
        )
        for name, table in tables.items()
    ]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        outputs,
        [numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def test_tables_of_two_graphs_are_shared_by_names_that_mean_one(tmp_path: Path) -> None:
    table, other, small = draw(300, 64), draw(300, 64, seed=1), draw(30, 16)
    models = {
        "a.onnx": lookup(words=table, mine=other, few=small),
        "b.onnx": lookup(tokens=table, few=small),
        "c.onnx": lookup(words=other, tokens=table),
        "d.onnx": product("w", draw(64, 300, seed=3), draw(300)),
        "e.onnx": product("w", draw(64, 300, seed=3), draw(300)),
    }
    write_graphs(models, tmp_path)
    first, second = shared_tables(tmp_path, models)
    assert first.names == ("tokens",)  # words means two
    assert (first.dtype, first.shape, first.file) == ("float32", (300, 64), WEIGHTS)
    content = (tmp_path / WEIGHTS).read_bytes()[first.offset :][: table.nbytes]
    assert content == table.tobytes()
    assert second.names == ("mine",)
