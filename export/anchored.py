"""An LSTM as onnxruntime's DynamicQuantizeLSTM, its activation scales held fast.

The operator is the fastest int8 recurrence that onnxruntime has, and scales the inputs
of the whole batch, and the states of all its rows at each step, by their least and
greatest value: a row's result then depends on the rows beside it. Here both extremes
are always there, and so always the same:

inputs  two features more, the calibrated least and greatest value, with weights of 0;
        real values beyond them are clipped.
states  two units more, held at 1 and -1 by their gates: forget and output open, input
        shut, and a cell that began far out. Their outputs are cut off again.

Both cost a fifth at 128 units and 2 to 10 % from 512 on (docs/int8.md), which leaves it
faster than a Scan. An LSTM that is given a first state can't be held so, for that one's
values may lie anywhere.
"""

import numpy as np

from seq2edge.export.coverage import FloatArray
from seq2edge.export.fragment import CONTRIB, Fragment
from seq2edge.export.recipe import Range, to_int8, with_zero
from seq2edge.export.recurrences import Recurrence

MORE = 2  # features and units
SATURATED = 40.0  # sigmoid and tanh are at their ends long before
BIASES = {"i": -SATURATED, "o": SATURATED, "f": SATURATED, "c": 0.0}


def anchored_form(recurrence: Recurrence, inputs: Range, bits: int) -> Fragment:
    """The nodes that write the outputs of an LSTM operator."""
    of, out = recurrence, Fragment(recurrence.prefix)
    directions, hidden = len(of.reverse), of.hidden
    anchors = np.zeros((directions, 1, hidden + MORE), np.float32)
    anchors[..., hidden:] = 1, -1
    batch = out.add("Shape", [of.inputs], "batch", start=1, end=2)
    one = out.constant("one", np.array([1]))
    shape = out.add("Concat", [one, batch, one], "state_shape", axis=0)
    starts = [
        out.add("Expand", [out.constant(name, values), shape], f"{name}.rows")
        for name, values in (("hidden", anchors), ("cell", anchors * SATURATED))
    ]
    weight, weight_scale = _integers(_widened(of.weight, hidden), bits)
    recurrent, recurrent_scale = _integers(_widened(of.recurrent, hidden), bits)
    zeros = np.zeros(weight_scale.shape, np.int8)
    arguments = [
        _anchored_inputs(out, of.inputs, with_zero(inputs)),
        out.constant("W", weight),
        out.constant("R", recurrent),
        out.constant("B", _biases(of)),
        of.lengths,
        *starts,
        "",  # peepholes
        out.constant("W.scales", weight_scale),
        out.constant("W.zeros", zeros),
        out.constant("R.scales", recurrent_scale),
        # One of its own: `session.x64quantprecision` can't make one unsigned twice.
        out.constant("R.zeros", zeros),
    ]
    _add_operator(out, of, arguments)
    return out


def _add_operator(out: Fragment, of: Recurrence, arguments: list[str]) -> None:
    """The operator, and each of its outputs without the anchors."""
    wide = [f"{name}.anchored" if name else "" for name in of.outputs]
    out.add_many(
        "DynamicQuantizeLSTM",
        arguments,
        wide,
        domain=CONTRIB,
        hidden_size=of.hidden + MORE,
        direction=of.direction,
    )
    begin, axis = (out.constant(f"at_{n}", np.array([n])) for n in (0, -1))
    end = out.constant("hidden_size", np.array([of.hidden]))
    for name, anchored in zip(of.outputs, wide, strict=True):
        if name:
            out.add_as("Slice", [anchored, begin, end, axis], name)


def _anchored_inputs(out: Fragment, inputs: str, values: Range) -> str:
    """(time, batch, features + 2), within the calibrated range."""
    limits = [out.constant(f"limit_{i}", np.float32(v)) for i, v in enumerate(values)]
    clipped = out.add("Clip", [inputs, *limits], "clipped")
    ends = out.constant("limits", np.array([[values]], np.float32))
    one = out.constant("one", np.array([1]))
    shape = out.add("Shape", [inputs], "time_and_batch", start=0, end=2)
    shape = out.add("Concat", [shape, one], "anchor_shape", axis=0)
    anchors = out.add("Expand", [ends, shape], "anchors")
    return out.add("Concat", [clipped, anchors], "anchored_inputs", axis=2)


def _widened(weight: FloatArray, hidden: int) -> FloatArray:
    """Rows and columns of 0 for the anchors: (directions, 4 * hidden, columns)."""
    directions, _, columns = weight.shape
    gates = weight.reshape(directions, 4, hidden, columns)
    wide = np.pad(gates, ((0, 0), (0, 0), (0, MORE), (0, MORE)))
    return wide.reshape(directions, 4 * (hidden + MORE), columns + MORE)


def _biases(of: Recurrence) -> FloatArray:
    """What holds the anchors, beside what biases there are."""
    wide = np.zeros((len(of.reverse), 2, 4, of.hidden + MORE), np.float32)
    if of.bias is not None:
        wide[..., : of.hidden] = of.bias.reshape(*wide.shape[:3], of.hidden)
    for gate, bias in enumerate(BIASES.values()):
        wide[:, 0, gate, of.hidden :] = bias
    return wide.reshape(len(of.reverse), -1)


def _integers(weight: FloatArray, bits: int) -> tuple[FloatArray, FloatArray]:
    """Integers (directions, columns, 4 * hidden) and their scales, without columns."""
    integers, scales = to_int8(weight, 2, bits)
    return np.ascontiguousarray(integers.transpose(0, 2, 1)), scales[..., 0]
