"""Greedy decoding with the output layer left for later: a draft, and its verification.

A step reads the weights of the output layer, which for a small model are half of all,
to choose one token. The draft head goes several steps in one run (a Loop), and of the
output layer multiplies the rows of a few candidates only; the verify head then reads
the whole layer once for all these steps. Up to the first step where it finds another
token the draft was what greedy search gives, and that token is right as well.
(As speculative decoding, Leviathan et al. 2023, arXiv:2211.17192, with the model itself
under a vocabulary shortlist as the draft model.)

In int8 sums are whole numbers, so that a step computes the same in both forms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.products import columnwise
from seq2edge.export.prune import needed_for, prune
from seq2edge.runtime.manifest import LOGITS, PAST

HIDDEN = "hidden"
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

    @property
    def outputs(self) -> set[str]:
        """Names of all that the layer computes."""
        nodes = [*self.quantizing, self.product, *self.scaling]
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


def verify_head(greedy: ModelProto, layer: OutputLayer) -> ModelProto:
    """The output layer and what chooses, over many `hidden` (rows, features)."""
    model = ModelProto()
    model.CopyFrom(greedy)
    graph = model.graph
    graph.name = "decoder.verify"
    made = layer.outputs
    kept = [value for value in graph.output if not value.name.startswith("next.")]
    del graph.output[:]
    graph.output.extend(kept)
    for node in graph.node:
        if made.intersection(node.output):
            _rename_inputs(node, {layer.activation: HIDDEN})
    del graph.input[:]
    graph.input.append(_float(HIDDEN, ["rows", layer.features]))
    prune(graph)
    return model


def draft_head(decoder: ModelProto, layer: OutputLayer) -> ModelProto:
    """A Loop of steps that choose among `candidates`, ascending, up to the end token.

    The decoder shows no attention.

    Its results are the tokens, and what the output layer would have read. A state that
    grows comes out as it is at last, any other as it was after each step.
    """
    model = ModelProto()
    model.CopyFrom(decoder)
    source = model.graph
    prune(source)
    body = _Body(source, layer)
    loop = body.loop()
    graph = helper.make_graph([], "decoder.draft", [], [])
    graph.initializer.extend(source.initializer)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in body.constants.items()
    )
    graph.node.extend([*body.before, loop])
    graph.input.extend(
        [
            _int64("token", ["rows"]),
            _int64("candidates", ["candidates"]),
            _int64("steps", [1]),
            _int64("end", [1]),
            *(value for value in source.input if value.name != "token"),
        ]
    )
    graph.output.extend(body.results())
    model.graph.CopyFrom(graph)
    prune(model.graph)
    return model


@dataclass
class _Body:
    """The graph of one step inside the Loop, and the nodes before the Loop."""

    source: GraphProto
    layer: OutputLayer
    before: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.states = [v for v in self.source.input if v.name.startswith("state.")]
        self.following = {value.name: value for value in self.source.output}
        self.nodes = [*self._steps(), *self._choice()]

    def loop(self) -> NodeProto:
        """The Loop node; its body reads memory and weights from around it."""
        step = helper.make_graph(self.nodes, "step", [], [])
        step.input.extend([_int64("iteration", []), _bool("going")])
        step.input.append(_int64("carried.token", ["rows"]))
        step.output.extend([_bool("goes_on"), _int64("chosen", ["rows"])])
        for value in self.states:
            step.input.append(_renamed(value, f"carried.{value.name}"))
            step.output.append(_renamed(self._next(value), self._next(value).name))
        step.output.append(_int64("drafted", ["rows"]))
        step.output.append(_float("read", ["rows", self.layer.features]))
        step.output.extend(
            _renamed(self._next(value), f"kept.{value.name}")
            for value in self.states
            if not self._grows(value)
        )
        carried = [value.name for value in self.states]
        self.constants["always"] = np.array(True)
        return make_node(
            "Loop",
            ["steps", "always", "token", *carried],
            ["last_token", *map(self._last, self.states), *self._scanned()],
            body=step,
        )

    def results(self) -> list[onnx.ValueInfoProto]:
        """What the draft head gives."""
        features = self.layer.features
        values = [
            _int64("draft_tokens", ["steps", "rows"]),
            _float(HIDDEN, ["steps", "rows", features]),
        ]
        for value in self.states:
            following = _renamed(self._next(value), self._next(value).name)
            if not self._grows(value):
                shape = following.type.tensor_type.shape
                axes = [*shape.dim]
                del shape.dim[:]
                shape.dim.add().dim_param = "steps"
                shape.dim.extend(axes)
            values.append(following)
        return values

    def _steps(self) -> list[NodeProto]:
        """The decoder's nodes, the output layer over the candidates only."""
        layer, made = self.layer, self.layer.outputs
        names = {"token": "carried.token"}
        names |= {value.name: f"carried.{value.name}" for value in self.states}
        nodes = [
            node for node in self.source.node if not made.intersection(node.output)
        ]
        needed = {layer.activation, *self.following} - made
        nodes = self._left_inside(needed_for(nodes, needed))
        for node in nodes:
            _rename_inputs(node, names)
        return [*nodes, *layer.quantizing, *self._product(), *self._scaling()]

    def _left_inside(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """Put before the Loop what is the same in every step; returns the others.

        The shape of the token is, but not that of a state, which may grow.
        """
        known = {tensor.name for tensor in self.source.initializer} | {""}
        known |= {v.name for v in self.source.input if v.name.startswith("memory.")}
        left = []
        for node in nodes:
            same = {"token"} if node.op_type == "Shape" else set()
            if {*node.input} - same <= known:
                self.before.append(node)
                known.update(node.output)
            else:
                left.append(node)
        return left

    def _product(self) -> list[NodeProto]:
        product, weight = self.layer.product, self._candidate_weight()
        if product.op_type == "Gemm":
            bias = [self._of_candidates(name) for name in product.input[2:]]
            inputs = [product.input[0], weight, *bias]
            return [make_node("Gemm", inputs, [*product.output])]
        if product.op_type == "MatMul":
            return [make_node("MatMul", [product.input[0], weight], [*product.output])]
        # What the zero point adds is subtracted afterwards: onnxruntime multiplies one
        # row by a matrix that it didn't prepare 2.5 times faster without it.
        zero = int(self._value(product.input[2])) if len(product.input) > 2 else 0
        sums = self._weight_rows().astype(np.int32).sum(axis=1, dtype=np.int32) * zero
        self.constants["output.zero_sums"] = sums.astype(np.int32)
        whole = "output.with_zero"
        return [
            make_node("MatMulInteger", [product.input[0], weight], [whole]),
            make_node(
                "Sub",
                [whole, self._gathered("output.zero_sums", 0)],
                [*product.output],
            ),
        ]

    def _scaling(self) -> list[NodeProto]:
        nodes = []
        for original in self.layer.scaling:
            node = NodeProto()
            node.CopyFrom(original)
            for place, name in enumerate(node.input):
                node.input[place] = self._of_candidates(name)
            nodes.append(node)
        return nodes

    def _choice(self) -> list[NodeProto]:
        nodes = [
            make_node("ArgMax", [LOGITS], ["best_place"], axis=1, keepdims=0),
            make_node("Gather", ["candidates", "best_place"], ["chosen"]),
            make_node("Equal", ["chosen", "end"], ["at_end"]),
            make_node("Squeeze", ["at_end"], ["over"]),
            make_node("Not", ["over"], ["goes_on"]),
            make_node("Identity", ["chosen"], ["drafted"]),
            make_node("Identity", [self.layer.activation], ["read"]),
        ]
        for value in self.states:
            if not self._grows(value):
                following, kept = self._next(value).name, f"kept.{value.name}"
                nodes.append(make_node("Identity", [following], [kept]))
        return nodes

    def _candidate_weight(self) -> str:
        """The candidates' columns, (features, candidates), made before the Loop."""
        rows = self.layer.weight
        if not self.layer.by_rows:
            self.before.append(make_node("Transpose", [rows], ["output.rows"]))
            rows = "output.rows"
        chosen = self._gathered(rows, 0)
        self.before.append(make_node("Transpose", [chosen], ["output.columns"]))
        return "output.columns"

    def _of_candidates(self, name: str) -> str:
        """A constant of one number a token, of the candidates only; else as it is."""
        known = [t for t in self.source.initializer if t.name == name]
        if not known or not known[0].dims or known[0].dims[-1] == 1:
            return name
        return self._gathered(name, -1)

    def _gathered(self, name: str, axis: int) -> str:
        chosen = f"{name}.candidates"
        if all(chosen not in node.output for node in self.before):
            self.before.append(
                make_node("Gather", [name, "candidates"], [chosen], axis=axis)
            )
        return chosen

    def _weight_rows(self) -> NDArray[np.generic]:
        weight = self._value(self.layer.weight)
        return weight if self.layer.by_rows else weight.T

    def _value(self, name: str) -> NDArray[np.generic]:
        [tensor] = [t for t in self.source.initializer if t.name == name]
        return numpy_helper.to_array(tensor)

    def _next(self, state: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        name = state.name.replace("state.", "next.", 1)
        following: onnx.ValueInfoProto = self.following[name]
        return following

    def _grows(self, state: onnx.ValueInfoProto) -> bool:
        return any(dim.dim_param == PAST for dim in state.type.tensor_type.shape.dim)

    def _last(self, state: onnx.ValueInfoProto) -> str:
        """Where the Loop leaves a state: the result, if it grows."""
        following = self._next(state).name
        return following if self._grows(state) else f"last.{state.name}"

    def _scanned(self) -> list[str]:
        fixed = [self._next(v).name for v in self.states if not self._grows(v)]
        return ["draft_tokens", HIDDEN, *fixed]


def _rename_inputs(node: NodeProto, names: Mapping[str, str]) -> None:
    for place, name in enumerate(node.input):
        node.input[place] = names.get(name, name)


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _int64(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, shape)


def _float(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _bool(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.BOOL, [])
