"""int8 for every weight matrix of a bundle, and the report of what that reached.

Three forms, chosen by what reads a weight:

table    an embedding: rows of int8 with a scale each, made float as they are looked up.
product  a matrix of the decoder, where a step spends its time: int8 by int8 products,
         one scale an output; its input is quantized with a scale fixed by calibration.
stored   all else, the encoder's recurrences first: int8 on disk, float at run time,
         made once when onnxruntime loads the graph. It has no int8 kernel for them,
         and below 512 hidden units the float operator wins anyway.

The products' weights have 7 bits: on x86 without VNNI, 8 can overflow the 16-bit sums
of the kernels that multiply unsigned by signed. Measured there (AVX2, one thread,
`benchmarks/int8_forms.py`), times faster than fp32 in a whole greedy step of two GRU
layers of 320 with attention and 5,000 tied tokens, at 1, 5 and 32 rows:

    2.4  1.9  1.6   this: int8 products, activation scales fixed by calibration
    2.4  1.9  1.6   activation scales found at run time, one for the whole batch
    2.1  1.6  1.5   the same, one for each row
    2.1  1.7  1.5   8-bit unsigned weights, whose kernel doesn't overflow; fixed scales
    2.0  0.9  0.7   MatMulNBits, 8 bits, block 128, accuracy level 4

Fixed scales also keep a row's result free of the rows beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.coverage import FloatArray, Ledger, Placed, coverage, digest
from seq2edge.runtime.errors import ExportError

CONTRIB = "com.microsoft"
RECURRENT = ("GRU", "LSTM", "RNN")
RECURRENT_MATRICES = (1, 2)  # their inputs W and R
Ranges = Mapping[str, tuple[float, float]]  # activation to its least and greatest value


@dataclass(frozen=True)
class Recipe:
    """What int8 means; the manifest repeats it."""

    product_bits: int = 7  # 8 only for processors with VNNI or dot products
    smallest: int = 2048  # weights with fewer numbers stay float: they save nothing

    def __post_init__(self) -> None:
        """Refuse what no kernel computes."""
        if self.product_bits not in (7, 8):
            raise ExportError(f"product_bits is {self.product_bits}; use 7 or 8")


@dataclass(frozen=True)
class Quantized:
    """Both graphs in int8, and what became of each weight."""

    encoder: ModelProto
    decoder: ModelProto
    weights: tuple[Placed, ...]


def quantize(
    encoder: ModelProto, decoder: ModelProto, ranges: Ranges, recipe: Recipe
) -> Quantized:
    """Quantize both graphs; a weight that can't be is an ExportError that names it."""
    tied = _tables(encoder) | _tables(decoder)
    tied &= {digest(product.weight) for product in _products(decoder, recipe)}
    ledger = Ledger()
    models = []
    for model, products in ((encoder, False), (decoder, True)):
        copy = ModelProto()
        copy.CopyFrom(model)
        _Pass(copy, ranges if products else None, recipe, tied, ledger).run()
        models.append(copy)
    return Quantized(models[0], models[1], ledger.placed())


def report(quantized: Quantized, recipe: Recipe) -> dict[str, object]:
    """Recipe and coverage, for the manifest."""
    return {
        "weights": "int8, symmetric, one scale an output channel or table row",
        "product_bits": recipe.product_bits,
        "activations": "uint8, scales fixed by calibration on the sample",
        "smallest": recipe.smallest,
        **coverage(quantized.weights),
    }


def product_inputs(decoder: ModelProto, recipe: Recipe) -> list[str]:
    """The activations whose ranges `quantize` must know."""
    return list(dict.fromkeys(p.activation for p in _products(decoder, recipe)))


def to_int8(
    weight: FloatArray, axis: int, bits: int
) -> tuple[NDArray[np.int8], FloatArray]:
    """Symmetric integers and their scales, one for all that share the other axes."""
    levels = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(axis=axis, keepdims=True) / np.float32(levels)
    scale[scale == 0] = 1  # a row of zeros, as the padding's
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


class _Weights:
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

    def matrix(self, name: str) -> tuple[str, bool] | None:
        """The rank-2 weight that a product reads, and whether transposed."""
        if name in self.transposed:
            return self.transposed[name], True
        array = self.arrays.get(name)
        return (name, False) if array is not None and array.ndim == 2 else None


@dataclass(frozen=True)
class _Product:
    """activation (..., inputs) times a weight, kept (outputs, inputs), plus a bias."""

    activation: str
    name: str
    weight: FloatArray  # (outputs, inputs)
    bias: str


def _product_of(node: NodeProto, weights: _Weights) -> _Product | None:
    """The product that a node computes, if it has an int8 kernel."""
    if node.op_type not in ("MatMul", "Gemm"):
        return None
    found = weights.matrix(node.input[1])
    if found is None:
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
    return _Product(node.input[0], name, weight if transposed else weight.T, bias)


def _products(decoder: ModelProto, recipe: Recipe) -> list[_Product]:
    """The products that are large enough to be worth it."""
    weights = _Weights(decoder.graph)
    found = (_product_of(node, weights) for node in decoder.graph.node)
    return [p for p in found if p is not None and p.weight.size >= recipe.smallest]


def _tables(model: ModelProto) -> set[bytes]:
    """What is looked up by token, by content: names differ between graphs."""
    weights = _Weights(model.graph).arrays
    return {
        digest(weights[node.input[0]])
        for node in model.graph.node
        if node.op_type == "Gather" and node.input[0] in weights
    }


class _Pass:
    """Rewrites one graph in place, node by node."""

    def __init__(
        self,
        model: ModelProto,
        ranges: Ranges | None,
        recipe: Recipe,
        tied: set[bytes],
        ledger: Ledger,
    ) -> None:
        self.graph = model.graph
        self.ranges = ranges  # None: no products, the graph stays float at run time
        self.recipe = recipe
        self.tied = tied  # contents of tables that a product reads too
        self.ledger = ledger
        self.weights = _Weights(self.graph)
        self.nodes: list[NodeProto] = []
        self.added: dict[str, TensorProto] = {}
        self.kept: set[str] = set()  # what stays float, with a reason
        if all(entry.domain != CONTRIB for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(CONTRIB, 1))

    def run(self) -> None:
        """Replace the nodes, then drop what is read no more and count what is left."""
        for node in [*self.graph.node]:
            self.nodes.extend(self._rewritten(node))
        self._drop_unread()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self._check_left()

    def _rewritten(self, node: NodeProto) -> list[NodeProto]:
        if table := self._table_of(node):
            return self._lookup(node, table)
        if self.ranges is not None:
            if product := self._large_product(node):
                return self._product(node, product)
            if self._serves_products_only(node):
                return []
            self._refuse_float_product(node)
        return [*self._stored(node), node]

    def _large_product(self, node: NodeProto) -> _Product | None:
        product = _product_of(node, self.weights)
        large = product is not None and product.weight.size >= self.recipe.smallest
        return product if large else None

    def _serves_products_only(self, node: NodeProto) -> bool:
        """Whether a node transposes a weight that only int8 products read."""
        if node.output[0] not in self.weights.transposed:
            return False
        readers = [n for n in self.graph.node if node.output[0] in n.input]
        return all(self._large_product(reader) for reader in readers)

    def _table_of(self, node: NodeProto) -> str:
        """The embedding that a node looks up, or nothing."""
        if node.op_type != "Gather" or any(a.i for a in node.attribute):
            return ""  # any axis but 0
        name = node.input[0]
        known = name in self.weights.arrays and self.weights.arrays[name].ndim == 2
        return name if known and self._is_large(name) else ""

    def _lookup(self, node: NodeProto, name: str) -> list[NodeProto]:
        weight = self.weights.arrays[name]
        self.ledger.quantized(name, weight, "table")
        rows, scales = self._rows(name, weight)
        ids, out = node.input[1], node.output[0]
        return [
            make_node("Gather", [rows, ids], [f"{out}.int8"]),
            make_node("Cast", [f"{out}.int8"], [f"{out}.whole"], to=TensorProto.FLOAT),
            make_node("Gather", [scales, ids], [f"{out}.scale"]),
            make_node("Mul", [f"{out}.whole", f"{out}.scale"], [out]),
        ]

    def _product(self, node: NodeProto, product: _Product) -> list[NodeProto]:
        """QuantizeLinear with constants, and the product with its float result."""
        arrays = self.weights.arrays
        self.ledger.quantized(product.name, arrays[product.name], "product")
        if product.bias:
            self.ledger.skipped(product.bias, arrays[product.bias], "a bias")
        nodes, weight, scales = self._columns(product)
        scale, zero = self._activation(product.activation)
        quantized = f"{product.activation}.uint8"
        if all(quantized not in known.output for known in self.nodes):
            inputs = [product.activation, scale, zero]
            nodes.append(make_node("QuantizeLinear", inputs, [quantized]))
        no_zero = self._add("zero_int8", np.zeros((), np.int8))
        inputs = [quantized, weight, scale, scales, zero, no_zero, product.bias]
        nodes.append(
            make_node(
                "MatMulIntegerToFloat",
                inputs if product.bias else inputs[:-1],
                [node.output[0]],
                domain=CONTRIB,
            )
        )
        return nodes

    def _columns(self, product: _Product) -> tuple[list[NodeProto], str, str]:
        """The weight as (inputs, outputs); a table is transposed when it is loaded."""
        if digest(product.weight) in self.tied:
            rows, _ = self._rows(product.name, product.weight)
            scales = self._add(
                f"{product.name}.scales",
                to_int8(product.weight, 1, self.recipe.product_bits)[1].ravel(),
            )
            columns = f"{product.name}.columns"
            if any(columns in node.output for node in self.nodes):
                return [], columns, scales
            return [make_node("Transpose", [rows], [columns])], columns, scales
        bits = self.recipe.product_bits
        integers, scale = to_int8(product.weight, 1, bits)
        weight = self._add(f"{product.name}.int8", np.ascontiguousarray(integers.T))
        return [], weight, self._add(f"{product.name}.scales", scale.ravel())

    def _rows(self, name: str, weight: FloatArray) -> tuple[str, str]:
        """A table (rows, width) and its scales (rows, 1), the same for all readers."""
        bits = self.recipe.product_bits if digest(weight) in self.tied else 8
        integers, scale = to_int8(weight, 1, bits)
        return (
            self._add(f"{name}.int8", integers),
            self._add(f"{name}.row_scales", scale),
        )

    def _activation(self, name: str) -> tuple[str, str]:
        """Scale and zero point, constants, for the values that calibration saw."""
        assert self.ranges is not None
        if name not in self.ranges:
            raise ExportError(f"calibration never saw {name}; give a larger sample")
        low, high = (min(self.ranges[name][0], 0.0), max(self.ranges[name][1], 0.0))
        scale = np.float32((high - low) / 255 or 1)
        zero = np.uint8(np.clip(round(-low / float(scale)), 0, 255))
        return (
            self._add(f"{name}.uint8_scale", np.array(scale)),
            self._add(f"{name}.uint8_zero", np.array(zero)),
        )

    def _refuse_float_product(self, node: NodeProto) -> None:
        """A product of the decoder that should be in int8 and has another form."""
        if node.op_type not in ("MatMul", "Gemm", "Gather"):
            return
        for name in node.input:
            found = self.weights.matrix(name)
            if found and self._is_large(found[0]):
                raise ExportError(
                    f"the weight {found[0]} can't be quantized: {node.op_type} "
                    f"{node.name} reads it in a form without int8 kernel; write it as "
                    "input @ weight.T, or export with precision fp32"
                )

    def _stored(self, node: NodeProto) -> list[NodeProto]:
        """Nodes that make the large weights of a node float when it is loaded."""
        nodes = []
        for place, name in enumerate(node.input):
            if name not in self.weights.arrays:
                continue
            weight = self.weights.arrays[name]
            if reason := self._reason_to_keep(node, place, weight):
                self.kept.add(name)
                if weight.size > 1:  # not a constant of the code, as a mask's
                    self.ledger.skipped(name, weight, reason)
                continue
            self.ledger.quantized(name, weight, "stored")
            node.input[place] = f"{name}.float"
            nodes.extend(self._unpacking(node, name, weight))
        return nodes

    def _reason_to_keep(self, node: NodeProto, place: int, weight: FloatArray) -> str:
        if max(weight.shape, default=1) == weight.size:
            return "a vector"
        if node.op_type in RECURRENT and place not in RECURRENT_MATRICES:
            return "a bias"
        return "small" if weight.size < self.recipe.smallest else ""

    def _unpacking(
        self, node: NodeProto, name: str, weight: FloatArray
    ) -> list[NodeProto]:
        whole, out = f"{name}.whole", f"{name}.float"
        if any(out in known.output for known in self.nodes):
            return []
        axis = 0 if node.op_type == "MatMul" and weight.ndim == 2 else -1
        stored, scales = to_int8(weight, axis, 8)
        integers = self._add(f"{name}.int8", stored)
        scale = self._add(f"{name}.scales", scales)
        # Not DequantizeLinear: onnxruntime folds Cast and Mul, and keeps that one.
        return [
            make_node("Cast", [integers], [whole], to=TensorProto.FLOAT),
            make_node("Mul", [whole, scale], [out]),
        ]

    def _is_large(self, name: str) -> bool:
        weight = self.weights.arrays[name]
        return weight.ndim >= 2 and weight.size >= self.recipe.smallest

    def _add(self, name: str, array: NDArray[np.generic]) -> str:
        self.added.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def _drop_unread(self) -> None:
        """Drop the float originals, and the transposes of them."""
        results = {value.name for value in self.graph.output}
        read = results.union(*(_names_read(node) for node in self.nodes))
        self.nodes = [node for node in self.nodes if read.intersection(node.output)]
        read = results.union(*(_names_read(node) for node in self.nodes))
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        self.graph.initializer.extend(
            tensor for name, tensor in self.added.items() if name in read
        )

    def _check_left(self) -> None:
        left = self.weights.arrays.keys() - self.kept
        large = [
            tensor.name
            for tensor in self.graph.initializer
            if tensor.name in left and self._is_large(tensor.name)
        ]
        if large:
            raise ExportError(
                f"weights that int8 did not reach: {', '.join(sorted(large))}; "
                "export with precision fp32, or report this module's operators"
            )


def _names_read(node: NodeProto) -> set[str]:
    """What a node reads, its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names = names.union(*(_names_read(inner) for inner in graph.node))
    return names
