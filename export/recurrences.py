"""A recurrent operator of an encoder, read from its node, and the int8 form it gets.

scan      one int8 product for the inputs of all time steps, then an ONNX Scan over a
          cell with an int8 product (`export/scan.py`).
anchored  onnxruntime's DynamicQuantizeLSTM with its scales held fast
          (`export/anchored.py`): faster than the Scan, but there is only the LSTM.
stored    neither: the float operator, its weights int8 on disk only. Where a layer is
          narrow it wins, for a Scan costs about a microsecond a node and time step.

The Recipe says from how many hidden units on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, helper

from seq2edge.export.coverage import FloatArray
from seq2edge.export.products import Weights
from seq2edge.export.recipe import Range, Ranges, Recipe

RECURRENT = ("GRU", "LSTM", "RNN")
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh"]}
REVERSE = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
KNOWN = {"activations", "direction", "hidden_size", "linear_before_reset"}
UNIT = (-1.0, 1.0)  # what a tanh can give


@dataclass(frozen=True)
class Recurrence:
    """One operator: what it reads and writes, and its weights by direction."""

    kind: str  # RNN, GRU or LSTM
    activation: str  # of the RNN: Tanh or Relu
    direction: str  # forward, reverse or bidirectional
    hidden: int
    inputs: str  # (time, batch, features)
    lengths: str  # (batch,), or nothing
    initial: tuple[str, ...]  # (directions, batch, hidden) each, or nothing
    outputs: tuple[str, ...]  # Y, Y_h, Y_c; nothing where no one reads
    names: tuple[str, str, str]  # of W, R and B
    weight: FloatArray  # W (directions, gates * hidden, features)
    recurrent: FloatArray  # R (directions, gates * hidden, hidden)
    bias: FloatArray | None  # (directions, 2, gates * hidden): of W, then of R

    @property
    def reverse(self) -> list[bool]:
        """Of each direction, whether it reads the last token first."""
        return REVERSE[self.direction]

    @property
    def prefix(self) -> str:
        """What the nodes that replace this one are named after."""
        return next(name for name in self.outputs if name)

    @property
    def activations(self) -> list[str]:
        """What must be calibrated: inputs, and states that may leave [-1, 1]."""
        states = [self.outputs[0]] if self.activation == "Relu" else []
        return [self.inputs, *self.initial[:1], *states]

    def hidden_range(self, ranges: Ranges) -> Range:
        """The values that the state can take."""
        bounded = self.activation == "Tanh"
        found = [UNIT if bounded else ranges[self.outputs[0]]]
        found += [ranges[name] for name in self.initial[:1]]
        return min(low for low, _ in found), max(high for _, high in found)


def form_of(recurrence: Recurrence, recipe: Recipe) -> str:
    """The rule: scan, anchored or stored."""
    hidden = recurrence.hidden
    can_be_anchored = recurrence.kind == "LSTM" and not recurrence.initial
    if can_be_anchored and hidden >= recipe.anchored_from_hidden:
        return "anchored"
    bounded = recurrence.activation == "Tanh"
    least = recipe.scan_from_hidden if bounded else recipe.relu_scan_from_hidden
    return "scan" if hidden >= least else "stored"


def int8_recurrences(
    graph: GraphProto, recipe: Recipe
) -> Iterator[tuple[Recurrence, str]]:
    """The operators of a graph that leave fp32, and their forms."""
    weights = Weights(graph)
    for node in graph.node:
        found = recurrence_of(node, weights, recipe.smallest)
        if found and (form := form_of(found, recipe)) != "stored":
            yield found, form


def recurrence_of(
    node: NodeProto, weights: Weights, smallest: int
) -> Recurrence | None:
    """What a node computes, if it is a recurrence that has an int8 form."""
    if node.op_type not in RECURRENT or node.domain:
        return None
    places = [*node.input, *[""] * (8 - len(node.input))]
    inputs, weight, recurrent, bias, lengths, *initial, peepholes = places
    known = [name in weights.arrays for name in (weight, recurrent)]
    known.append(not bias or bias in weights.arrays)
    attributes = {a.name: _text(helper.get_attribute_value(a)) for a in node.attribute}
    activation = _activation(node.op_type, attributes)
    starts = [name for name in initial if name]
    half = node.op_type == "LSTM" and len(starts) == 1
    if not all(known) or peepholes or half or not activation:
        return None
    large = max(weights.arrays[name].size for name in (weight, recurrent)) >= smallest
    outputs = (*node.output, *[""] * (3 - len(node.output)))
    if not large or (activation == "Relu" and not outputs[0]):
        return None  # a ReLU's state has no bounds but those of its outputs
    recurrent_array = weights.arrays[recurrent]
    directions = len(recurrent_array)
    both = weights.arrays[bias].reshape(directions, 2, -1) if bias else None
    return Recurrence(
        kind=node.op_type,
        activation=activation,
        direction=attributes.get("direction", "forward"),
        hidden=recurrent_array.shape[2],
        inputs=inputs,
        lengths=lengths,
        initial=tuple(starts),
        outputs=outputs,
        names=(weight, recurrent, bias),
        weight=weights.arrays[weight],
        recurrent=recurrent_array,
        bias=None if both is None else both.astype(np.float32),
    )


def _activation(kind: str, attributes: Mapping[str, Any]) -> str:
    """Tanh or Relu, and nothing where an attribute asks for what we don't write."""
    if attributes.keys() - KNOWN:
        return ""
    if kind == "GRU" and not attributes.get("linear_before_reset", 0):
        return ""
    given = attributes.get("activations", DEFAULTS[kind])
    first = given[0]
    if set(given) == {"Relu"} and kind == "RNN":
        return "Relu"
    plain = set(given) == set(DEFAULTS[kind]) and first == DEFAULTS[kind][0]
    return "Tanh" if plain else ""


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_text(part) for part in value]
    return value
