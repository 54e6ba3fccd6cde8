"""The matrix products of a graph that have an int8 kernel, and their weights."""

from dataclasses import dataclass

from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from seq2edge.export.coverage import FloatArray, digest
from seq2edge.export.prune import only_readers

_COLUMNWISE = ("Add", "Mul", "Cast", "Sub")


class Weights:
    """The float weights of a graph by name, and the transposes of them."""

    def __init__(self, graph: GraphProto) -> None:
        self.arrays: dict[str, FloatArray] = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }
        self.transposed = {
            node.output[0]: node.input[0]
            for node in graph.node
            if node.op_type == "Transpose"
            and node.input[0] in self.arrays
            and self.arrays[node.input[0]].ndim == 2
        }
        self._added = {
            name: node
            for name, node in only_readers(graph).items()
            if node.op_type == "Add"
        }

    def matrix(self, name: str) -> tuple[str, bool] | None:
        """The rank-2 weight that a product reads, and whether transposed."""
        if name in self.transposed:
            return self.transposed[name], True
        array = self.arrays.get(name)
        return (name, False) if array is not None and array.ndim == 2 else None

    def added(self, value: str, size: int) -> tuple[str, str]:
        """The vector that is all that happens to a value, and the sum; or nothing."""
        if (node := self._added.get(value)) is None:
            return "", value
        first, second = node.input
        name = second if first == value else first
        vector = self.arrays.get(name)
        fits = vector is not None and vector.shape == (size,)
        return (name, node.output[0]) if fits else ("", value)


@dataclass(frozen=True)
class Product:
    """activation (..., inputs) times a weight, kept (outputs, inputs), plus a bias."""

    activation: str
    name: str
    weight: FloatArray  # (outputs, inputs)
    transposed: bool  # against how the graph holds it
    bias: str
    output: str  # of the sum, where a bias is added by a node of its own


def product_of(node: NodeProto, weights: Weights) -> Product | None:
    """The product that a node computes, if it has an int8 kernel."""
    if node.op_type not in ("MatMul", "Gemm"):
        return None
    found = weights.matrix(node.input[1])
    if found is None or node.input[0] in weights.arrays:
        return None
    name, transposed = found
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Gemm":
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0
        if not plain or attributes.get("transA", 0):
            return None
        transposed ^= bool(attributes.get("transB", 0))
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and (bias not in weights.arrays or weights.arrays[bias].ndim != 1):
        return None
    weight = weights.arrays[name]
    outputs_first = weight if transposed else weight.T
    output = node.output[0]
    if not bias:
        bias, output = weights.added(output, len(outputs_first))
    return Product(node.input[0], name, outputs_first, not transposed, bias, output)


def products(graph: GraphProto, smallest: int) -> list[Product]:
    """The products with so many weights that int8 is worth it."""
    weights = Weights(graph)
    found = (product_of(node, weights) for node in graph.node)
    return [p for p in found if p is not None and p.weight.size >= smallest]


def columnwise(graph: GraphProto, result: str) -> tuple[list[NodeProto], str]:
    """The last nodes before a result that work column by column, in order, and what
    they begin with: the output of the product, where a result is one that is scaled.
    """
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found, name = list[NodeProto](), result
    while (node := makers.get(name)) is not None and node.op_type in _COLUMNWISE:
        varying = [value for value in node.input if value not in constants]
        if len(varying) != 1:
            break
        found.insert(0, node)
        name = varying[0]
    return found, name


def tables(graph: GraphProto) -> set[bytes]:
    """What is looked up by token, by content: names differ between graphs."""
    weights = Weights(graph).arrays
    return {
        digest(weights[node.input[0]])
        for node in graph.node
        if node.op_type == "Gather" and node.input[0] in weights
    }
