"""A decoder's step for one row of one sentence: what only arranges rows is left out.

Rows are batch * beam, and what reads the source wants them apart, (batch, beam, size);
of one row both are the same. A step of a transformer has two such Reshapes a layer.
Without them, and without what computes their shapes, steps of two layers in a Loop take
0.96 of the time (EPYC of Zen 5).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto
from onnx.helper import (
    make_node,
    make_tensor_value_info,
    tensor_dtype_to_np_dtype,
)

from seq2edge.export.calibrate import session_of
from seq2edge.export.prune import names_read, prune

_ONE = ("batch", "rows")
# What has its own shape after a Reshape at two sizes has it always: sizes are products
# of the graph's axes and of constants.
_LEAST = (2, 3)  # of the other axes; each has another size
Shapes = dict[str, list[int]]


def for_one_row(decoder: ModelProto) -> ModelProto:
    """A copy without the Reshapes that change nothing of a single row."""
    model = ModelProto()
    model.CopyFrom(decoder)
    idle = _idle(decoder)
    nodes = [node for node in model.graph.node if node.output[0] not in idle]
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = _written(name, idle)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    prune(model.graph)
    return model


def _written(name: str, idle: Mapping[str, str]) -> str:
    """What stands in for what an idle Reshape writes."""
    while name in idle:
        name = idle[name]
    return name


def _idle(decoder: ModelProto) -> dict[str, str]:
    """What such Reshapes write, and what they read."""
    graph = decoder.graph
    fixed = {value.name for value in graph.output}
    fixed |= {name for node in graph.node for name in names_read(node) - {*node.input}}
    idle = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Reshape" and node.output[0] not in fixed
    }
    if not idle:
        return idle
    names = list(dict.fromkeys([*idle, *idle.values()]))
    for shapes in _shapes(decoder, names):
        idle = {new: old for new, old in idle.items() if shapes[new] == shapes[old]}
    return idle


def _shapes(decoder: ModelProto, names: list[str]) -> list[Shapes]:
    """The shapes of values at each of the sizes; what is computed is of zeros."""
    model = ModelProto()
    model.CopyFrom(decoder)
    graph = model.graph
    del graph.output[:]
    for name in names:
        graph.node.append(make_node("Shape", [name], [f"{name}.shape"]))
        told = make_tensor_value_info(f"{name}.shape", TensorProto.INT64, [None])
        graph.output.append(told)
    prune(graph)
    session = session_of(model)
    found, axes = [], _free_axes(graph)
    for least in _LEAST:
        sizes = {axis: least + more for more, axis in enumerate(axes)}
        shapes = session.run(None, {v.name: _zeros(v, sizes) for v in graph.input})
        found.append(dict(zip(names, (each.tolist() for each in shapes), strict=True)))
    return found


def _free_axes(graph: GraphProto) -> list[str]:
    """The names of the axes that aren't of one row."""
    axes = [axis for v in graph.input for axis in v.type.tensor_type.shape.dim]
    return sorted({axis.dim_param for axis in axes} - {"", *_ONE})


def _zeros(value: ValueInfoProto, sizes: Mapping[str, int]) -> NDArray[Any]:
    """An input of one row."""
    tensor = value.type.tensor_type
    shape = [
        axis.dim_value or sizes.get(axis.dim_param, 1) for axis in tensor.shape.dim
    ]
    return np.zeros(shape, tensor_dtype_to_np_dtype(tensor.elem_type))
