"""The output layer over a few tokens, the candidates: a small part of it to read.

    logits = (activation times weight) * scale + bias

of the candidates only. Their part of the layer is gathered once a batch, or a draft; so
much of the graph is `gathering`, and what a step computes with it `nodes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node

from seq2edge.export.fragment import CONTRIB
from seq2edge.export.output_layer import OutputLayer
from seq2edge.runtime.manifest import LOGITS

CANDIDATES = "candidates"  # (candidates,) int64
WEIGHT = "candidate_weight"  # (features, candidates)
SCALE = "candidate_scale"  # (candidates,)
BIAS = "candidate_bias"  # (candidates,)


@dataclass(frozen=True)
class CandidateLayer:
    """The layer in two parts, and the constants of both."""

    gathering: Sequence[NodeProto]
    nodes: Sequence[NodeProto]  # from what the layer's product reads to the logits
    constants: Mapping[str, NDArray[Any]]
    gathered: Sequence[str]  # of the three, those that there are

    def add_constants(self, graph: GraphProto) -> None:
        """Beside those that the graph has."""
        graph.initializer.extend(
            numpy_helper.from_array(value, name)
            for name, value in self.constants.items()
        )


def over_candidates(
    graph: GraphProto, layer: OutputLayer, single: bool
) -> CandidateLayer:
    """single: made for one row at a time.

    There MatMulInteger, and Cast, Mul and Add behind it, are faster by 12 of 208
    microseconds a step than MatMulIntegerToFloat, which at 32 rows takes 50 of 1,360
    less. Neither is told of the activation's zero point: what that adds is part of the
    bias. onnxruntime multiplies one row by a matrix that it didn't prepare 2.5 times
    faster without it.
    """
    scale, bias = layer.affine(graph)
    integers = layer.integers(graph)
    if integers is None:
        return _float_layer(layer, scale, bias)
    zero = _zero(graph, layer.product)
    sums = integers.sum(axis=1, dtype=np.int64)
    bias = (bias - float(zero) * sums * scale).astype(np.float32)
    constants = {
        "output.scale": np.broadcast_to(scale, bias.shape).copy(),
        "output.bias": bias,
    }
    quantized = layer.product.input[0]
    if single:
        product = [
            make_node("MatMulInteger", [quantized, WEIGHT], ["output.integers"]),
            make_node(
                "Cast", ["output.integers"], ["output.sums"], to=TensorProto.FLOAT
            ),
            make_node("Mul", ["output.sums", SCALE], ["output.scaled"]),
            make_node("Add", ["output.scaled", BIAS], [LOGITS]),
        ]
    else:
        constants["output.one"] = np.array(1, np.float32)
        inputs = [quantized, WEIGHT, "output.one", SCALE, "", "", BIAS]
        product = [make_node("MatMulIntegerToFloat", inputs, [LOGITS], domain=CONTRIB)]
    gathering = [
        *_columns(layer),
        make_node("Gather", ["output.scale", CANDIDATES], [SCALE]),
        make_node("Gather", ["output.bias", CANDIDATES], [BIAS]),
    ]
    return CandidateLayer(gathering, product, constants, (WEIGHT, SCALE, BIAS))


def _float_layer(
    layer: OutputLayer, scale: NDArray[np.float32], bias: NDArray[np.float32]
) -> CandidateLayer:
    """What scales the columns is in few models; the bias is one number a token."""
    gathering = _columns(layer)
    nodes = [make_node("MatMul", [layer.activation, WEIGHT], ["output.product"])]
    constants: dict[str, NDArray[Any]] = {}
    gathered = [WEIGHT]
    last = "output.product"
    for kind, value, name in (("Mul", scale, SCALE), ("Add", bias, BIAS)):
        if (value == (kind == "Mul")).all():
            continue
        constants[f"output.{kind.lower()}"] = value
        operand = f"output.{kind.lower()}"
        if value.size > 1:
            gathering.append(make_node("Gather", [operand, CANDIDATES], [name]))
            gathered.append(name)
            operand = name
        nodes.append(make_node(kind, [last, operand], [f"{operand}.done"]))
        last = f"{operand}.done"
    nodes[-1].output[0] = LOGITS
    return CandidateLayer(gathering, nodes, constants, tuple(gathered))


def _columns(layer: OutputLayer) -> list[NodeProto]:
    """The candidates' columns of the weight."""
    rows, nodes = layer.weight, []
    if not layer.by_rows:
        nodes.append(make_node("Transpose", [rows], ["output.rows"]))
        rows = "output.rows"
    return [
        *nodes,
        make_node("Gather", [rows, CANDIDATES], ["output.candidates"]),
        make_node("Transpose", ["output.candidates"], [WEIGHT]),
    ]


def _zero(graph: GraphProto, product: NodeProto) -> int:
    """The zero point of what an integer product reads."""
    if len(product.input) < 3 or not product.input[2]:
        return 0
    [tensor] = [t for t in graph.initializer if t.name == product.input[2]]
    return int(numpy_helper.to_array(tensor))
