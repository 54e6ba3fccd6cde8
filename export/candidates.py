"""The output layer over a few tokens, the candidates: a small part of it to read.

    logits = (activation times weight) * scale + bias

of the candidates, and of the tokens that all shortlists have in common. The candidates'
part of the layer is gathered once a batch, or a draft; so much of the graph is
`gathering`, and what a step computes with it `nodes`. The common tokens' is gathered
when a session is loaded (`loading`), and packed for the kernels once and not at every
step: one of one row takes 228 microseconds instead of 251, of four rows 265 instead of
277. So it needs no room in the bundle.
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
from seq2edge.runtime import contract
from seq2edge.runtime.manifest import LOGITS

CANDIDATES = contract.CANDIDATES.name
# A step's logits are of the tokens TOKENS.
WEIGHT, SCALE, BIAS, TOKENS = (spec.name for spec in contract.GATHERED)
_COMMON_WEIGHT, _PRODUCT = "common.weight", "output.product"


@dataclass(frozen=True)
class CandidateLayer:
    """The layer in three parts, and the constants of all."""

    loading: Sequence[NodeProto]  # of constants: onnxruntime computes it as it loads
    gathering: Sequence[NodeProto]
    nodes: Sequence[NodeProto]  # from what the layer's product reads to the logits
    constants: Mapping[str, NDArray[Any]]

    def add_constants(self, graph: GraphProto) -> None:
        """Beside those that the graph has."""
        graph.initializer.extend(
            numpy_helper.from_array(value, name)
            for name, value in self.constants.items()
        )


def over_candidates(
    graph: GraphProto, layer: OutputLayer, common: NDArray[np.integer]
) -> CandidateLayer:
    """Made for one row at a time; the logits are those of TOKENS.

    common (n,): as below. Here MatMulInteger, and Cast, Mul and Add behind it, are
    faster by 12 of 208 microseconds a step than MatMulIntegerToFloat, which at 32 rows
    takes 50 of 1,360 less. It is told of no zero point: what that adds is part of the
    bias. onnxruntime multiplies one row by a matrix that it didn't prepare 2.5 times
    faster without it.
    """
    if layer.integers(graph) is None:
        read, kind, sums = layer.activation, "MatMul", list[NodeProto]()
        scale, bias = layer.affine(graph)
    else:
        read, kind = layer.product.input[0], "MatMulInteger"
        sums = [make_node("Cast", [_PRODUCT], ["output.sums"], to=TensorProto.FLOAT)]
        scale, bias = _without_zero(graph, layer)
    products = [
        make_node(kind, [read, _COMMON_WEIGHT], ["common.product"]),
        make_node(kind, [read, WEIGHT], ["own.product"]),
        make_node("Concat", ["common.product", "own.product"], [_PRODUCT], axis=-1),
        *sums,
    ]
    operands, scaling, constants = _scaled(products[-1].output[0], scale, bias)
    return CandidateLayer(
        loading=_columns(layer, "common.tokens", _COMMON_WEIGHT),
        gathering=[_tokens(), *_columns(layer, CANDIDATES, WEIGHT), *operands],
        nodes=[*products, *scaling],
        constants={"common.tokens": common.astype(np.int64), **constants},
    )


def over_common_and_candidates(
    graph: GraphProto, layer: OutputLayer, common: NDArray[np.integer], own: str = ""
) -> CandidateLayer:
    """Made for few rows or many; the layer must be of whole numbers.

    common (n,): tokens that are always among those to choose from, and no candidates.
    own: what the candidates' logits become meanwhile, by nodes of the caller's.
    """
    scale, bias = _without_zero(graph, layer)
    constants: dict[str, NDArray[Any]] = {
        "output.scale": scale,
        "output.bias": bias,
        "output.one": np.array(1, np.float32),
        "common.tokens": common.astype(np.int64),
        "common.scale": scale[common],
        "common.bias": bias[common],
    }
    read, ones = layer.product.input[0], "output.one"
    of_common = [read, _COMMON_WEIGHT, ones, "common.scale", "", "", "common.bias"]
    of_own = [read, WEIGHT, ones, SCALE, "", "", BIAS]
    product = "MatMulIntegerToFloat"
    nodes = [
        make_node(product, of_common, ["common.logits"], domain=CONTRIB),
        make_node(product, of_own, ["own.logits"], domain=CONTRIB),
        make_node("Concat", ["common.logits", own or "own.logits"], [LOGITS], axis=-1),
    ]
    loading = _columns(layer, "common.tokens", _COMMON_WEIGHT)
    own_columns = _columns(layer, CANDIDATES, WEIGHT)
    scaling = [
        make_node("Gather", ["output.scale", CANDIDATES], [SCALE]),
        make_node("Gather", ["output.bias", CANDIDATES], [BIAS]),
    ]
    gathering = [*own_columns, *scaling, _tokens()]
    return CandidateLayer(loading, gathering, nodes, constants)


def _tokens() -> NodeProto:
    return make_node("Concat", ["common.tokens", CANDIDATES], [TOKENS], axis=0)


def _without_zero(
    graph: GraphProto, layer: OutputLayer
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and bias (vocabulary,) of products that know of no zero point."""
    integers = layer.integers(graph)
    assert integers is not None
    scale, bias = layer.affine(graph)
    sums = integers.sum(axis=1, dtype=np.int64)
    bias = (bias - float(layer.zero(graph)) * sums * scale).astype(np.float32)
    return np.broadcast_to(scale, bias.shape).copy(), bias


def _scaled(
    product: str, scale: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[list[NodeProto], list[NodeProto], dict[str, NDArray[Any]]]:
    """What makes logits of a product: what is gathered, what a step computes, and the
    constants of both. Of a float layer it is a bias at most, in most models.
    """
    gathering, nodes, last = list[NodeProto](), list[NodeProto](), product
    constants: dict[str, NDArray[Any]] = {}
    for kind, value, operand, name in (
        ("Mul", scale, "output.scale", SCALE),
        ("Add", bias, "output.bias", BIAS),
    ):
        if (value == (kind == "Mul")).all():
            continue
        constants[operand] = value
        if value.size > 1:
            gathering.append(make_node("Gather", [operand, TOKENS], [name]))
            operand = name
        nodes.append(make_node(kind, [last, operand], [f"{operand}.done"]))
        last = f"{operand}.done"
    nodes = nodes or [make_node("Identity", [last], [LOGITS])]
    nodes[-1].output[0] = LOGITS
    return gathering, nodes, constants


def _columns(layer: OutputLayer, tokens: str, name: str) -> list[NodeProto]:
    """Columns of the weight, (features, tokens)."""
    if not layer.by_rows:
        return [make_node("Gather", [layer.weight, tokens], [name], axis=1)]
    rows = f"{name}.rows"
    return [
        make_node("Gather", [layer.weight, tokens], [rows]),
        make_node("Transpose", [rows], [name]),
    ]
