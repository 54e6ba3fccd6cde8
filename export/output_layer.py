"""The output layer of a decoder: what lies between its last product and the logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from seq2edge.export.coverage import FloatArray
from seq2edge.export.products import columnwise
from seq2edge.runtime.manifest import LOGITS

SMALLEST = 1024  # tokens of a vocabulary; the layer of fewer costs little


@dataclass
class OutputLayer:
    """The nodes from what the last product reads to the logits."""

    activation: str  # (rows, features) float
    features: int
    quantizing: list[NodeProto]
    product: NodeProto
    scaling: list[NodeProto]  # what follows, column by column, in order
    weight: str  # an initializer
    by_rows: bool  # (vocabulary, features), else (features, vocabulary)

    def integers(self, graph: GraphProto) -> NDArray[np.int8] | None:
        """The weight (vocabulary, features) where it is of whole numbers."""
        weight = _value(graph, self.weight)
        if weight.dtype != np.int8:
            return None
        return weight if self.by_rows else np.ascontiguousarray(weight.T)

    def zero(self, graph: GraphProto) -> int:
        """The zero point of what an integer product reads."""
        name = self.product.input[2] if len(self.product.input) > 2 else ""
        return int(_value(graph, name)) if name else 0

    def affine(self, graph: GraphProto) -> tuple[FloatArray, FloatArray]:
        """What the product's columns are multiplied by, and what is added to them.

        Both (vocabulary,) or one number.
        """
        scale, shift = np.ones(1, np.float32), np.zeros(1, np.float32)
        if self.product.op_type == "Gemm" and len(self.product.input) > 2:
            shift = _value(graph, self.product.input[2])
        for node in self.scaling:
            known = [_value(graph, name) for name in node.input if _has(graph, name)]
            if node.op_type == "Mul":
                scale, shift = scale * known[0], shift * known[0]
            elif node.op_type == "Add":
                shift = shift + known[0]
            elif node.op_type == "Sub" and _has(graph, node.input[1]):
                shift = shift - known[0]
            elif node.op_type == "Sub":
                scale, shift = -scale, known[0] - shift
        return np.ravel(scale).astype(np.float32), np.ravel(shift).astype(np.float32)

    @property
    def outputs(self) -> set[str]:
        """Names of all that the layer computes."""
        quantized = {name for node in self.quantizing for name in node.output}
        return quantized | self.products

    @property
    def products(self) -> set[str]:
        """Names of the product, and of what is computed with it."""
        nodes = [self.product, *self.scaling]
        return {name for node in nodes for name in node.output}


def output_layer(decoder: ModelProto) -> OutputLayer | None:
    """Find the layer, or None: the vocabulary is small, or the form is another."""
    graph = decoder.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    scaling, name = columnwise(graph, LOGITS)
    node = makers.get(name)
    if node is None or node.op_type not in ("MatMul", "Gemm", "MatMulInteger"):
        return None
    return _layer(node, scaling, constants, makers)


def _layer(
    product: NodeProto,
    scaling: list[NodeProto],
    constants: Mapping[str, TensorProto],
    makers: Mapping[str, NodeProto],
) -> OutputLayer | None:
    activation, weight = product.input[:2]
    attributes = {a.name: helper.get_attribute_value(a) for a in product.attribute}
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
    if not plain or attributes.get("transA", 0):
        return None
    by_rows = bool(attributes.get("transB", 0))
    turning = makers.get(weight)
    if turning is not None and turning.op_type == "Transpose":
        weight, by_rows = turning.input[0], not by_rows
    if weight not in constants or len(constants[weight].dims) != 2:
        return None
    size, features = constants[weight].dims
    if not by_rows:
        size, features = features, size
    quantizing = list[NodeProto]()
    if product.op_type == "MatMulInteger":
        quantizing = [makers[activation]]
        activation = quantizing[0].input[0]
        if quantizing[0].op_type != "QuantizeLinear":
            return None
    if size < SMALLEST or activation in constants:
        return None
    return OutputLayer(
        activation, features, quantizing, product, scaling, weight, by_rows
    )


def _has(graph: GraphProto, name: str) -> bool:
    return any(tensor.name == name for tensor in graph.initializer)


def _value(graph: GraphProto, name: str) -> NDArray[Any]:
    [tensor] = [tensor for tensor in graph.initializer if tensor.name == name]
    return numpy_helper.to_array(tensor)
