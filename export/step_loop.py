"""Several steps of greedy search in one run: a decoder's step as the body of a Loop.

Each step chooses among the candidates; what they need of the output layer, and all that
is the same in every step, is computed before the Loop. The Loop ends behind the end
token. The decoder shows no attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.candidates import CANDIDATES, over_candidates
from seq2edge.export.output_layer import OutputLayer
from seq2edge.export.prune import needed_for, prune
from seq2edge.runtime.manifest import PAST

STEPS, ROWS = "steps", "rows"
Told = Mapping[str, tuple[str, list[str | int]]]
_PLACE = "chosen_place"  # (rows,), among the candidates


@dataclass(frozen=True)
class Choice:
    """How a step chooses by its logits, and what it tells of every step."""

    nodes: Sequence[NodeProto]  # logits to `_PLACE`
    told: Told  # results: name and shape in a step
    keeps_states: bool  # of a state that doesn't grow, whether it is told as well


def best_of_candidates(told: Told) -> Choice:
    """The best, by the logits alone; every state is told."""
    nodes = [make_node("ArgMax", ["logits"], [_PLACE], axis=1, keepdims=0)]
    return Choice(nodes, told, keeps_states=True)


def best_with_log_prob(result: str) -> Choice:
    """The best and its log-probability; states come out as they are at last."""
    nodes = [
        make_node("LogSoftmax", ["logits"], ["log_probs"], axis=-1),
        make_node("TopK", ["log_probs", "loop.one"], ["best", "best_place"]),
        make_node("Squeeze", ["best", "loop.one"], ["best_log_prob"]),
        make_node("Squeeze", ["best_place", "loop.one"], [_PLACE]),
    ]
    told: Told = {result: ("best_log_prob", [ROWS])}
    return Choice(nodes, told, keeps_states=False)


def loop_head(
    decoder: ModelProto, layer: OutputLayer, choice: Choice, tokens: str
) -> ModelProto:
    """The head; tokens: what its result of that meaning is called."""
    model = ModelProto()
    model.CopyFrom(decoder)
    source = model.graph
    prune(source)
    body = _Body(source, layer, choice, tokens)
    loop = body.loop()
    graph = helper.make_graph([], "decoder.loop", [], [])
    graph.initializer.extend(source.initializer)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in body.constants.items()
    )
    graph.node.extend([*body.before, loop, *body.behind])
    graph.input.extend(
        [
            _int64("token", [ROWS]),
            _int64(CANDIDATES, [CANDIDATES]),
            _int64(STEPS, [1]),
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
    """The graph of one step inside the Loop, and the nodes before and behind it."""

    source: GraphProto
    layer: OutputLayer
    choice: Choice
    tokens: str
    before: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.states = [v for v in self.source.input if v.name.startswith("state.")]
        self.following = {value.name: value for value in self.source.output}
        part = over_candidates(self.source, self.layer, single=True)
        self.constants |= part.constants
        self.nodes = [*self._steps(), *part.nodes, *self._choice()]
        self.before += part.gathering
        # Places are told, and tokens looked up behind the Loop: a name can't be both
        # carried and told, and a copy costs as much as a lookup.
        self.behind = [make_node("Gather", [CANDIDATES, "places"], [self.tokens])]

    def loop(self) -> NodeProto:
        """The Loop node; its body reads memory and weights from around it."""
        step = helper.make_graph(self.nodes, "step", [], [])
        step.input.extend([_int64("iteration", []), _bool("going")])
        step.input.append(_int64("carried.token", [ROWS]))
        step.output.extend([_bool("goes_on"), _int64("chosen", [ROWS])])
        for value in self.states:
            step.input.append(_renamed(value, f"carried.{value.name}"))
            step.output.append(_renamed(self._next(value), self._next(value).name))
        step.output.append(_int64(_PLACE, [ROWS]))
        for name, shape in self.choice.told.values():
            step.output.append(_float(self._own(name), shape))
        step.output.extend(
            _renamed(self._next(value), f"kept.{value.name}")
            for value in self.states
            if self._is_kept(value)
        )
        carried = [value.name for value in self.states]
        self.constants["always"] = np.array(True)
        self.constants["loop.one"] = np.array([1])
        return make_node(
            "Loop",
            [STEPS, "always", "token", *carried],
            ["last_token", *map(self._last, self.states), *self._scanned()],
            body=step,
        )

    def results(self) -> list[onnx.ValueInfoProto]:
        """What the head gives."""
        values = [_int64(self.tokens, [STEPS, ROWS])]
        for result, (_, shape) in self.choice.told.items():
            values.append(_float(result, [STEPS, *shape]))
        for value in self.states:
            following = _renamed(self._next(value), self._next(value).name)
            if self._is_kept(value):
                shape = following.type.tensor_type.shape
                axes = [*shape.dim]
                del shape.dim[:]
                shape.dim.add().dim_param = STEPS
                shape.dim.extend(axes)
            values.append(following)
        return values

    def _steps(self) -> list[NodeProto]:
        """The decoder's nodes below the output layer's product."""
        layer, made = self.layer, self.layer.products
        names = {"token": "carried.token"}
        names |= {value.name: f"carried.{value.name}" for value in self.states}
        nodes = [
            node for node in self.source.node if not made.intersection(node.output)
        ]
        needed = {layer.product.input[0], layer.activation, *self.following} - made
        nodes = self._left_inside(needed_for(nodes, needed))
        for node in nodes:
            for place, name in enumerate(node.input):
                node.input[place] = names.get(name, name)
        return nodes

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

    def _choice(self) -> list[NodeProto]:
        nodes = [
            *self.choice.nodes,
            make_node("Gather", [CANDIDATES, _PLACE], ["chosen"]),
            make_node("Equal", ["chosen", "end"], ["at_end"]),
            make_node("Squeeze", ["at_end"], ["over"]),
            make_node("Not", ["over"], ["goes_on"]),
        ]
        for name, _ in self.choice.told.values():
            if self._own(name) != name:
                nodes.append(make_node("Identity", [name], [self._own(name)]))
        for value in self.states:
            if self._is_kept(value):
                following, kept = self._next(value).name, f"kept.{value.name}"
                nodes.append(make_node("Identity", [following], [kept]))
        return nodes

    def _own(self, name: str) -> str:
        """A name that is told: of a state, that of a copy."""
        return f"told.{name}" if name in self.following else name

    def _next(self, state: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        name = state.name.replace("state.", "next.", 1)
        following: onnx.ValueInfoProto = self.following[name]
        return following

    def _is_kept(self, state: onnx.ValueInfoProto) -> bool:
        """Whether a state is told after every step: one that grows holds them all."""
        axes = state.type.tensor_type.shape.dim
        grows = any(axis.dim_param == PAST for axis in axes)
        return self.choice.keeps_states and not grows

    def _last(self, state: onnx.ValueInfoProto) -> str:
        """Where the Loop leaves a state: the result, unless all of it is told."""
        following = self._next(state).name
        return f"last.{state.name}" if self._is_kept(state) else following

    def _scanned(self) -> list[str]:
        kept = [self._next(v).name for v in self.states if self._is_kept(v)]
        return ["places", *self.choice.told, *kept]


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
