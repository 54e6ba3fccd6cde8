"""int8 for every weight matrix of a bundle, and the report of what that reached.

Six forms, chosen by what reads a weight:

table     an embedding: rows of int8 with a scale each, made float when looked up.
product   a matrix: int8 by int8 products, one scale an output; its input is quantized
          with a scale fixed by calibration.
four bits a matrix of a decoder's layers in the precision int4 (`export/four_bits.py`).
scan      a recurrent operator of the encoder as products of int8 in a Scan over time.
anchored  an LSTM of the encoder as onnxruntime's int8 operator, its scales held fast.
stored    all else, and recurrences too narrow to gain: int8 on disk, float at run time,
          made once when onnxruntime loads the graph.

Measured on x86 with AVX2 (one thread, `benchmarks/int8_forms.py`), times faster than
fp32 in a whole greedy step of two GRU layers of 320 with attention and 5,000 tied
tokens, at 1, 5 and 32 rows:

    2.4  1.9  1.6   this: int8 products, activation scales fixed by calibration
    2.4  1.9  1.6   activation scales found at run time, one for the whole batch
    2.1  1.6  1.5   the same, one for each row
    2.1  1.7  1.5   8-bit unsigned weights, whose kernel doesn't overflow; fixed scales
    2.0  0.9  0.7   MatMulNBits, 8 bits, block 128, accuracy level 4

Fixed scales also keep a row's result free of the rows beside it. docs/int8.md has the
encoder's measurements.
"""

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.anchored import anchored_form
from seq2edge.export.coverage import FloatArray, Ledger, Placed, coverage, digest
from seq2edge.export.four_bits import (
    Blocks,
    add_four_bit_product,
    to_blocks,
    to_compensated_blocks,
)
from seq2edge.export.fragment import CONTRIB, Fragment
from seq2edge.export.int8_product import Activation, add_int8_product
from seq2edge.export.products import (
    Product,
    Weights,
    columnwise,
    product_of,
    products,
    tables,
)
from seq2edge.export.prune import names_read
from seq2edge.export.recipe import (
    Calibration,
    Moments,
    Range,
    Ranges,
    Recipe,
    to_int8,
    to_uint8,
)
from seq2edge.export.recurrences import (
    RECURRENT,
    Recurrence,
    form_of,
    int8_recurrences,
    recurrence_of,
)
from seq2edge.export.scan import scan_form
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.manifest import LOGITS

RECURRENT_MATRICES = (1, 2)  # their inputs W and R


@dataclass(frozen=True)
class Quantized:
    """Both graphs in int8, and what became of each weight."""

    encoder: ModelProto
    decoder: ModelProto | None
    weights: tuple[Placed, ...]


def quantize(
    encoder: ModelProto,
    decoder: ModelProto | None,
    ranges: Calibration,
    recipe: Recipe,
) -> Quantized:
    """Quantize both graphs, or an encoder alone.

    A weight that can't be quantized is an ExportError that names it.
    """
    graphs = [model.graph for model in (encoder, decoder) if model is not None]
    tied = set().union(*(tables(graph) for graph in graphs))
    tied &= {digest(p.weight) for g in graphs for p in products(g, recipe.smallest)}
    ledger = Ledger()

    def int8(model: ModelProto, known: _Known) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(model)
        _Pass(copy, known, recipe, tied, ledger).run()
        return copy

    quantized_encoder = int8(encoder, _Known(ranges.encoder, encodes=True))
    quantized_decoder = None
    if decoder is not None:
        known = _Known(ranges.decoder, ranges.moments)
        quantized_decoder = int8(decoder, known)
    return Quantized(quantized_encoder, quantized_decoder, ledger.placed())


def report(quantized: Quantized, recipe: Recipe) -> dict[str, object]:
    """Recipe and coverage, for the manifest."""
    whole = "int8, symmetric, one scale an output channel or table row"
    fixed = "uint8, scales fixed by calibration on the sample"
    if recipe.layer_bits == 4:
        size = recipe.block_size
        whole += f"; decoder layers int4, a scale and zero point for {size} of a row"
        fixed += "; of decoder layers int8, with scales found for each row"
    return {
        "weights": whole,
        "activations": fixed,
        **asdict(recipe),
        **coverage(quantized.weights),
    }


def product_inputs(decoder: ModelProto, recipe: Recipe) -> list[str]:
    """The activations of a decoder whose ranges `quantize` must know."""
    found = products(decoder.graph, recipe.smallest)
    return list(dict.fromkeys(product.activation for product in found))


def encoder_activations(encoder: ModelProto, recipe: Recipe) -> list[str]:
    """The activations of an encoder whose ranges `quantize` must know."""
    names = product_inputs(encoder, recipe)
    for recurrence, _ in int8_recurrences(encoder.graph, recipe):
        names += recurrence.activations
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class _Known:
    """What a pass is told of its graph."""

    ranges: Ranges
    moments: Moments = field(default_factory=dict)
    encodes: bool = False  # an encoder: some weights may be stored only


class _Pass:
    """Rewrites one graph in place, node by node."""

    def __init__(
        self,
        model: ModelProto,
        known: _Known,
        recipe: Recipe,
        tied: set[bytes],
        ledger: Ledger,
    ) -> None:
        self.graph = model.graph
        self.ranges = known.ranges
        self.moments = known.moments
        self.encodes = known.encodes
        self.recipe = recipe
        self.tied = tied  # contents of tables that a product reads too
        self.ledger = ledger
        self.weights = Weights(self.graph)
        self.nodes: list[NodeProto] = []
        self.added: dict[str, TensorProto] = {}
        self.kept: set[str] = set()  # what stays float, with a reason
        self.sums: set[str] = set()  # of products that have taken their bias in
        scaling, product = columnwise(self.graph, LOGITS)
        self.last = {product, *(node.output[0] for node in scaling)}  # the output's
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
        if node.output[0] in self.sums:
            return []
        if table := self._table_of(node):
            return self._lookup(node, table)
        if product := self._large_product(node):
            return self._product(node, product)
        if self._serves_products_only(node):
            return []
        if self.encodes:
            found = recurrence_of(node, self.weights, self.recipe.smallest)
            if found and (form := form_of(found, self.recipe)) != "stored":
                return self._recurrence(found, form)
        else:
            self._refuse_float_product(node)
        return [*self._stored(node), node]

    def _recurrence(self, of: Recurrence, form: str) -> list[NodeProto]:
        """A recurrent operator in its int8 form."""
        for name, weight in zip(of.names, (of.weight, of.recurrent), strict=False):
            self.ledger.quantized(name, weight, form)
        if of.bias is not None:
            name = of.names[2]
            self.ledger.skipped(name, self.weights.arrays[name], "a bias")
        for activation in of.activations:
            self._range(activation)
        if form == "anchored":
            bits = self.recipe.product_bits
            return self._inserted(anchored_form(of, self._range(of.inputs), bits))
        nodes, inputs = self._quantized(of.inputs)
        state = of.hidden_range(self.ranges)
        return [*nodes, *self._inserted(scan_form(of, inputs, state, self.recipe))]

    def _inserted(self, fragment: Fragment) -> list[NodeProto]:
        for name, value in fragment.constants.items():
            self._add(name, value)
        return fragment.nodes

    def _large_product(self, node: NodeProto) -> Product | None:
        product = product_of(node, self.weights)
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

    def _product(self, node: NodeProto, product: Product) -> list[NodeProto]:
        """The product in its form, and the bias that it takes in."""
        arrays = self.weights.arrays
        form = "four bits" if self._has_four_bits(product) else "product"
        self.ledger.quantized(product.name, arrays[product.name], form)
        if product.bias:
            self.ledger.skipped(product.bias, arrays[product.bias], "a bias")
        if product.output != node.output[0]:
            self.sums.add(product.output)
        if form == "product":
            return self._int8_product(product)
        made, inputs = Fragment(product.output), product.weight.shape[1]
        blocks = self._blocks(product)
        add_four_bit_product(made, product.activation, blocks, inputs, product.bias)
        return self._inserted(made)

    def _blocks(self, product: Product) -> Blocks:
        """The weight in four bits, rounded for what calibration saw it read, if any."""
        size, moments = self.recipe.block_size, self.moments.get(product.activation)
        if moments is None:
            return to_blocks(product.weight, size)
        return to_compensated_blocks(product.weight, size, moments)

    def _has_four_bits(self, product: Product) -> bool:
        """Whether it belongs to a decoder's layers: not to the output, or a table."""
        layers = not self.encodes and product.output not in self.last
        tied = digest(product.weight) in self.tied
        return self.recipe.layer_bits == 4 and layers and not tied

    def _int8_product(self, product: Product) -> list[NodeProto]:
        """QuantizeLinear with constants, and the product with its float result."""
        nodes, matrix, scales = self._columns(product)
        quantizing, inputs = self._quantized(product.activation)
        output = product.output
        made = Fragment(output)
        few_rows = not self.encodes  # an encoder multiplies all steps at once
        add_int8_product(made, inputs, matrix, scales, output, product.bias, few_rows)
        return [*nodes, *quantizing, *self._inserted(made)]

    def _quantized(self, activation: str) -> tuple[list[NodeProto], Activation]:
        """An activation as uint8, and the node that makes it, unless it exists."""
        scale, zero = to_uint8(self._range(activation))
        found = Activation(
            f"{activation}.uint8",
            self._add(f"{activation}.uint8_scale", scale),
            self._add(f"{activation}.uint8_zero", zero),
            scale,
        )
        if any(found.name in known.output for known in self.nodes):
            return [], found
        inputs = [activation, found.scale_name, found.zero]
        return [make_node("QuantizeLinear", inputs, [found.name])], found

    def _range(self, activation: str) -> Range:
        if activation not in self.ranges:
            raise ExportError(
                f"calibration never saw {activation}; give a larger sample"
            )
        return self.ranges[activation]

    def _columns(self, product: Product) -> tuple[list[NodeProto], str, FloatArray]:
        """The weight as (inputs, outputs); a table is transposed when it is loaded."""
        integers, scales = to_int8(product.weight, 1, self.recipe.product_bits)
        if digest(product.weight) not in self.tied:
            columns = np.ascontiguousarray(integers.T)
            name = f"{product.name}.{'as_is' if product.transposed else 'turned'}.int8"
            return [], self._add(name, columns), scales.ravel()
        rows, _ = self._rows(product.name, product.weight)
        transposed = f"{product.name}.columns"
        if any(transposed in node.output for node in self.nodes):
            return [], transposed, scales.ravel()
        node = make_node("Transpose", [rows], [transposed])
        return [node], transposed, scales.ravel()

    def _rows(self, name: str, weight: FloatArray) -> tuple[str, str]:
        """A table (rows, width) and its scales (rows, 1), the same for all readers."""
        bits = self.recipe.product_bits if digest(weight) in self.tied else 8
        integers, scale = to_int8(weight, 1, bits)
        return (
            self._add(f"{name}.rows.int8", integers),
            self._add(f"{name}.rows.scales", scale),
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
        integers = self._add(f"{name}.stored.int8", stored)
        scale = self._add(f"{name}.stored.scales", scales)
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
        read = results.union(*(names_read(node) for node in self.nodes))
        self.nodes = [node for node in self.nodes if read.intersection(node.output)]
        read = results.union(*(names_read(node) for node in self.nodes))
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
