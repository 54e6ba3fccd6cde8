"""The output layer over a few tokens, the candidates: a small part of it to read.

    logits = (activation times weight) * scale + bias

of the candidates, and of the tokens that all shortlists have in common. The candidates'
part of the layer is gathered once a batch, or a draft; so much of the graph is
`gathering`, and what a step computes with it `nodes`. The common tokens' is a constant,
which onnxruntime packs for its kernels once and not at every step: a step of one row
takes 228 microseconds instead of 251, of four rows 265 instead of 277.
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
TOKENS = "candidate_tokens"  # (tokens,) int64: what each of the logits is of
WEIGHT = "candidate_weight"  # (features, candidates)
SCALE = "candidate_scale"  # (candidates,)
BIAS = "candidate_bias"  # (candidates,)


@dataclass(frozen=True)
class CandidateLayer:
    """The layer in two parts, and the constants of both."""

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
    faster without it. A float layer is gathered whole: a constant would make a step
    faster by 4 per cent, and the bundle larger by as much.
    """
    integers = layer.integers(graph)
    if integers is None:
        part = _float_layer(layer, *layer.affine(graph))
        gathering = [_tokens(), *part.gathering]
        constants = {**part.constants, "common.tokens": common.astype(np.int64)}
        return CandidateLayer(gathering, part.nodes, constants)
    scale, bias = _without_zero(graph, layer, integers)
    constants = {
        "output.scale": scale,
        "output.bias": bias,
        **_common(integers, common),
    }
    read, own, whole = layer.product.input[0], "own.integers", "output.integers"
    sums, scaled = "output.sums", "output.scaled"
    nodes = [
        make_node("MatMulInteger", [read, "common.weight"], ["common.integers"]),
        make_node("MatMulInteger", [read, WEIGHT], [own]),
        make_node("Concat", ["common.integers", own], [whole], axis=-1),
        make_node("Cast", [whole], [sums], to=TensorProto.FLOAT),
        make_node("Mul", [sums, SCALE], [scaled]),
        make_node("Add", [scaled, BIAS], [LOGITS]),
    ]
    gathering = [_tokens(), *_columns(layer, CANDIDATES), *_scaling(TOKENS)]
    return CandidateLayer(gathering, nodes, constants)


def over_common_and_candidates(
    graph: GraphProto, layer: OutputLayer, common: NDArray[np.integer], own: str = ""
) -> CandidateLayer:
    """Made for few rows or many; the layer must be of whole numbers.

    common (n,): tokens that are always among those to choose from, and no candidates.
    own: what the candidates' logits become meanwhile, by nodes of the caller's.
    """
    integers = layer.integers(graph)
    assert integers is not None
    scale, bias = _without_zero(graph, layer, integers)
    constants: dict[str, NDArray[Any]] = {
        "output.scale": scale,
        "output.bias": bias,
        "output.one": np.array(1, np.float32),
        **_common(integers, common),
        "common.scale": scale[common],
        "common.bias": bias[common],
    }
    read, ones = layer.product.input[0], "output.one"
    of_common = [read, "common.weight", ones, "common.scale", "", "", "common.bias"]
    of_own = [read, WEIGHT, ones, SCALE, "", "", BIAS]
    product = "MatMulIntegerToFloat"
    nodes = [
        make_node(product, of_common, ["common.logits"], domain=CONTRIB),
        make_node(product, of_own, ["own.logits"], domain=CONTRIB),
        make_node("Concat", ["common.logits", own or "own.logits"], [LOGITS], axis=-1),
    ]
    gathering = [*_columns(layer, CANDIDATES), *_scaling(CANDIDATES), _tokens()]
    return CandidateLayer(gathering, nodes, constants)


def _common(
    integers: NDArray[np.int8], common: NDArray[np.integer]
) -> dict[str, NDArray[Any]]:
    """The common tokens, and their columns of the weight."""
    columns = np.ascontiguousarray(integers[common].T)
    return {"common.tokens": common.astype(np.int64), "common.weight": columns}


def _tokens() -> NodeProto:
    return make_node("Concat", ["common.tokens", CANDIDATES], [TOKENS], axis=0)


def _without_zero(
    graph: GraphProto, layer: OutputLayer, integers: NDArray[np.int8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and bias (vocabulary,) of products that know of no zero point."""
    scale, bias = layer.affine(graph)
    sums = integers.sum(axis=1, dtype=np.int64)
    bias = (bias - float(layer.zero(graph)) * sums * scale).astype(np.float32)
    return np.broadcast_to(scale, bias.shape).copy(), bias


def _float_layer(
    layer: OutputLayer, scale: NDArray[np.float32], bias: NDArray[np.float32]
) -> CandidateLayer:
    """What scales the columns is in few models; the bias is one number a token."""
    gathering = _columns(layer, TOKENS)
    nodes = [make_node("MatMul", [layer.activation, WEIGHT], ["output.product"])]
    constants: dict[str, NDArray[Any]] = {}
    last = "output.product"
    for kind, value, name in (("Mul", scale, SCALE), ("Add", bias, BIAS)):
        if (value == (kind == "Mul")).all():
            continue
        constants[f"output.{kind.lower()}"] = value
        operand = f"output.{kind.lower()}"
        if value.size > 1:
            gathering.append(make_node("Gather", [operand, TOKENS], [name]))
            operand = name
        nodes.append(make_node(kind, [last, operand], [f"{operand}.done"]))
        last = f"{operand}.done"
    nodes[-1].output[0] = LOGITS
    return CandidateLayer(gathering, nodes, constants)


def _columns(layer: OutputLayer, tokens: str) -> list[NodeProto]:
    """Columns of the weight."""
    rows, nodes = layer.weight, []
    if not layer.by_rows:
        nodes.append(make_node("Transpose", [rows], ["output.rows"]))
        rows = "output.rows"
    return [
        *nodes,
        make_node("Gather", [rows, tokens], ["output.candidates"]),
        make_node("Transpose", ["output.candidates"], [WEIGHT]),
    ]


def _scaling(tokens: str) -> list[NodeProto]:
    return [
        make_node("Gather", ["output.scale", tokens], [SCALE]),
        make_node("Gather", ["output.bias", tokens], [BIAS]),
    ]
