"""Several steps of a search in one run: a decoder's step as the body of a Loop.

What is the same in every step is computed before the Loop, which ends when its plan
says so, or after `steps`. The decoder shows no attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.counting import CONSTANTS, count_ahead, counted, counters
from seq2edge.export.prune import needed_for, prune, readers
from seq2edge.runtime.manifest import PAST

STEPS, ROWS = "steps", "rows"
GOES_ON = "goes_on"  # bool, of the body: whether another step follows
Shape = list[str | int]
Constants = Mapping[str, NDArray[np.generic]]


class Value(NamedTuple):
    """A tensor of the body: its name, type and shape."""

    name: str
    kind: int  # of TensorProto
    shape: Shape

    def info(self, name: str = "", leading: Sequence[str] = ()) -> onnx.ValueInfoProto:
        """As a port of a graph, of another name or with more axes."""
        shape = [*leading, *self.shape]
        return helper.make_tensor_value_info(name or self.name, self.kind, shape)


@dataclass(frozen=True)
class Plan:
    """How a Loop goes from step to step."""

    inputs: Sequence[Value]  # of the head, beside the steps, memory and state
    # What passes from step to step beside the state: what it is in the body, and at
    # first, and the body's value for the next step.
    carried: Sequence[tuple[Value, str, str]]
    reads: Sequence[str]  # of the decoder, by what follows
    before: Sequence[NodeProto]  # the Loop
    choosing: Sequence[NodeProto]  # what follows in the body, to GOES_ON
    told: Mapping[str, Value]  # what comes out of every step, by its name outside
    behind: Sequence[NodeProto]  # the Loop
    results: Sequence[Value]  # of the head, before the state
    constants: Constants
    parents: str = ""  # by which the state is reordered before a step, if it is
    one_row: bool = False  # whether there is one always
    keeps_states: bool = False  # whether states that don't grow are told as well


def loop_head(decoder: ModelProto, plan: Plan) -> ModelProto:
    """A head that goes several steps by a plan."""
    model = ModelProto()
    model.CopyFrom(decoder)
    source = model.graph
    prune(source)
    body = _Body(source, plan)
    loop = body.loop()
    graph = helper.make_graph([], "decoder.loop", [], [])
    graph.initializer.extend(source.initializer)
    constants = {**CONSTANTS, **plan.constants, "loop.always": np.array(True)}
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    graph.node.extend([*plan.before, *body.before, loop, *plan.behind, *body.behind()])
    graph.input.extend(value.info() for value in plan.inputs)
    graph.input.append(Value(STEPS, TensorProto.INT64, [1]).info())
    graph.input.extend(value for value in source.input if value.name != "token")
    graph.output.extend([*(value.info() for value in plan.results), *body.states_out()])
    model.graph.CopyFrom(graph)
    prune(model.graph)
    return model


@dataclass
class _Body:
    """The graph of one step inside the Loop, and the nodes before it."""

    source: GraphProto
    plan: Plan
    before: list[NodeProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.every = [v for v in self.source.input if v.name.startswith("state.")]
        self.following = {value.name: value for value in self.source.output}
        self.known = {tensor.name: tensor for tensor in self.source.initializer}
        self.counters = self._counters()
        self.states = [v for v in self.every if v.name not in self.counters]
        self.nodes = [*self._steps(), *self.plan.choosing, *self._copies()]

    def loop(self) -> NodeProto:
        """The Loop node; its body reads memory and weights from around it."""
        plan = self.plan
        step = helper.make_graph(self.nodes, "step", [], [])
        step.input.append(Value("loop.step", TensorProto.INT64, []).info())
        step.input.append(Value("loop.going", TensorProto.BOOL, []).info())
        step.output.append(Value(GOES_ON, TensorProto.BOOL, []).info())
        for value, _, following in plan.carried:
            step.input.append(value.info())
            step.output.append(value.info(following))
        for state in self.states:
            step.input.append(_renamed(state, f"carried.{state.name}"))
            step.output.append(_renamed(self._next(state), self._next(state).name))
        for value in plan.told.values():
            step.output.append(value.info(self._own(value.name)))
        kept = [state for state in self.states if self._is_kept(state)]
        step.output.extend(
            _renamed(self._next(state), f"kept.{state.name}") for state in kept
        )
        first = [start for _, start, _ in plan.carried]
        last = [f"last.{value.name}" for value, _, _ in plan.carried]
        return make_node(
            "Loop",
            [STEPS, "loop.always", *first, *(state.name for state in self.states)],
            [
                *last,
                *map(self._last, self.states),
                *plan.told,
                *(self._next(state).name for state in kept),
            ],
            body=step,
        )

    def states_out(self) -> list[onnx.ValueInfoProto]:
        """What the head gives of the state."""
        values = []
        for state in self.every:
            following = _renamed(self._next(state), self._next(state).name)
            if self._is_kept(state):
                shape = following.type.tensor_type.shape
                axes = [*shape.dim]
                del shape.dim[:]
                shape.dim.add().dim_param = STEPS
                shape.dim.extend(axes)
            values.append(following)
        return values

    def behind(self) -> list[NodeProto]:
        """What makes the states that the Loop doesn't carry."""
        told = next(iter(self.plan.told))
        return [
            node
            for state in self.every
            if state.name in self.counters
            for node in counted(
                state.name, self.counters[state.name], told, self._is_kept(state)
            )
        ]

    def _counters(self) -> dict[str, str]:
        if not self.plan.one_row:
            return {}
        states = {state.name: self._next(state).name for state in self.every}
        return counters(self.source.node, states, self.known)

    def _steps(self) -> list[NodeProto]:
        """The decoder's nodes as far as they are needed."""
        nodes = needed_for(self.source.node, {*self.plan.reads, *self.following_states})
        nodes = self._left_inside(nodes)
        if self.counters:
            ahead, nodes = count_ahead(nodes, [*self.counters], self.known, STEPS)
            self.before += ahead
        names, gathers = {"token": "carried.token"}, []
        for state in self.states:
            names[state.name] = f"carried.{state.name}"
            if self.plan.parents:
                inputs = [f"carried.{state.name}", self.plan.parents]
                names[state.name] = f"reordered.{state.name}"
                gathers.append(make_node("Gather", inputs, [names[state.name]], axis=0))
        for node in nodes:
            for place, name in enumerate(node.input):
                node.input[place] = names.get(name, name)
        return [*gathers, *nodes]

    @property
    def following_states(self) -> set[str]:
        """What the body gives of the state."""
        return {self._next(state).name for state in self.states}

    def _left_inside(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """Put before the Loop what is the same in every step; returns the others.

        The shape of the token is, but not that of a state, which may grow. A transposed
        operand of a product stays with it: onnxruntime reads it as it was, in a single
        step as well, and by another kernel the sums would be others in their last bit.
        """
        known = {*self.known, ""}
        known |= {v.name for v in self.source.input if v.name.startswith("memory.")}
        left, read_by = list[NodeProto](), readers(self.source)
        for node in nodes:
            kinds = {reader.op_type for reader in read_by.get(node.output[0], [])}
            operand = node.op_type == "Transpose" and kinds == {"MatMul"}
            same = {"token"} if node.op_type == "Shape" else set()
            if not operand and {*node.input} - same <= known:
                self.before.append(node)
                known.update(node.output)
            else:
                left.append(node)
        return left

    def _copies(self) -> list[NodeProto]:
        """Of what is told and also something else: a name can't be both."""
        copies = [
            make_node("Identity", [value.name], [self._own(value.name)])
            for value in self.plan.told.values()
            if self._own(value.name) != value.name
        ]
        for state in self.states:
            if self._is_kept(state):
                inputs, kept = [self._next(state).name], [f"kept.{state.name}"]
                copies.append(make_node("Identity", inputs, kept))
        return copies

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
        return self.plan.keeps_states and not grows

    def _last(self, state: onnx.ValueInfoProto) -> str:
        """Where the Loop leaves a state: the result, unless all of it is told."""
        following = self._next(state).name
        return f"last.{state.name}" if self._is_kept(state) else following


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy
