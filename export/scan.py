"""A recurrent operator as an int8 product over all time steps and a Scan over cells.

One direction of one operator:

    inputs (time, batch, features) -> uint8 -> int8 product: every step's input gates
    Scan over time: state -> uint8 -> int8 product, plus the step's gates -> next state
    what lies past a row's length is set to 0; the final state is the one at its end

The scales are constants: the inputs' is calibrated, and a tanh bounds the state (a
ReLU's state is calibrated). No product sees another row, so a row's result is its own.

The cell needs no mask. A row's state runs on in its padding, where no one looks:
outputs there are set to 0 in one go, and the last state is picked from the outputs. A
backward direction reads its quantized inputs through ReverseSequence, so that each row
begins with its own last token. That costs two nodes a sequence, where masks would cost
one or two in every step. One Scan for both directions, stacked along the batch, was
measured too: 15 % faster at 256 GRU units and batch 1, slower from 512 on (two
recurrent matrices push each other out of the cache), and for that not written.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from seq2edge.export.coverage import FloatArray
from seq2edge.export.fragment import Fragment
from seq2edge.export.int8_product import Activation, add_int8_product
from seq2edge.export.recipe import Range, to_int8, to_uint8
from seq2edge.export.recurrences import Recurrence


def scan_form(
    recurrence: Recurrence, inputs: Activation, state: Range, bits: int
) -> Fragment:
    """The nodes that write the outputs of a recurrent operator."""
    return _Scan(recurrence, inputs, state, bits).fragment()


class _Scan:
    """Writes the fragment of one operator."""

    def __init__(
        self, recurrence: Recurrence, inputs: Activation, state: Range, bits: int
    ) -> None:
        self.of = recurrence
        self.inputs = inputs
        self.bits = bits
        self.out = Fragment(recurrence.prefix)
        self.state_scale, self.state_zero = to_uint8(state)
        self.states = 2 if recurrence.kind == "LSTM" else 1
        self.wanted = [bool(name) for name in recurrence.outputs]

    def fragment(self) -> Fragment:
        """Both directions, then the operator's outputs from theirs."""
        out = self.out
        self.scale = out.constant("state_scale", self.state_scale)
        self.zero = out.constant("state_zero", self.state_zero)
        self._prepare_lengths()
        found = [self._direction(place) for place in range(len(self.of.reverse))]
        stacks = zip(*found, strict=True)
        for name, axis, parts in zip(self.of.outputs, (1, 0, 0), stacks, strict=True):
            if name:
                self._stack(parts, axis, name)
        return out

    def _stack(self, parts: Sequence[str], axis: int, name: str) -> None:
        where = self.out.constant(f"direction_axis_{axis}", np.array([axis]))
        if len(parts) == 1:
            self.out.add_as("Unsqueeze", [parts[0], where], name)
            return
        wide = [self.out.add_as("Unsqueeze", [p, where], f"{p}.wide") for p in parts]
        self.out.add_as("Concat", wide, name, axis=axis)

    def _prepare_lengths(self) -> None:
        """Which outputs are real (time, batch, 1), and where each row's last one is."""
        out, of = self.out, self.of
        self.batch = out.add("Shape", [of.inputs], "batch", start=1, end=2)
        if not of.lengths:
            return
        zero, one = (out.constant(f"scalar_{n}", np.int64(n)) for n in (0, 1))
        last_axis = out.constant("last_axis", np.array([-1]))
        self.lengths = out.add("Cast", [of.lengths], "lengths", to=TensorProto.INT64)
        time = out.add("Shape", [of.inputs], "time", start=0, end=1)
        time = out.add("Squeeze", [time], "steps")
        steps = out.add("Range", [zero, time, one], "positions")
        steps = out.add("Unsqueeze", [steps, last_axis], "positions.column")
        real = out.add("Less", [steps, self.lengths], "real")
        self.real = out.add("Unsqueeze", [real, last_axis], "mask")
        # A row without tokens reads step -1, which is padding of it, and so 0.
        last = out.add("Sub", [self.lengths, one], "last")
        rows = out.add("Squeeze", [self.batch], "rows")
        rows = out.add("Range", [zero, rows, one], "row_numbers")
        pair = [
            out.add_as("Unsqueeze", [name, last_axis], f"{name}.column")
            for name in (last, rows)
        ]
        self.ends = out.add("Concat", pair, "ends", axis=1)  # (batch, 2)

    def _direction(self, place: int) -> list[str]:
        """Outputs (time, batch, hidden) and final states, "" for a missing cell."""
        reverse = self.of.reverse[place]
        inputs = self.inputs
        if reverse and self.of.lengths:
            name = self._reversed(inputs.name, f"{place}.inputs")
            inputs = replace(inputs, name=name)
        gates = self._input_gates(place, inputs)
        parts = [gates]
        if self.of.kind == "GRU":
            hidden = self.of.hidden
            names_of_parts = [f"{place}.input_zr", f"{place}.input_n"]
            parts = self.out.split(gates, names_of_parts, [2 * hidden, hidden])
        finals, sequences = self._scan(place, parts, reverse)
        if not self.of.lengths:
            return [sequences[0], *finals, *[""] * (2 - len(finals))]
        clean = [self._without_padding(name) for name in sequences]
        ends = [
            self.out.add_as("GatherND", [name, self.ends], f"{name}.end")
            for name in clean
        ]
        outputs = clean[0]
        if reverse and self.wanted[0]:
            outputs = self._reversed(outputs, f"{place}.outputs")
        return [outputs, *ends, *[""] * (2 - len(ends))]

    def _reversed(self, value: str, name: str) -> str:
        """Each row's own steps in reverse order, its padding where it was."""
        inputs = [value, self.lengths]
        axes = {"time_axis": 0, "batch_axis": 1}
        return self.out.add("ReverseSequence", inputs, f"{name}.reversed", **axes)

    def _without_padding(self, name: str) -> str:
        nothing = self.out.constant("nothing", np.float32(0))
        return self.out.add_as("Where", [self.real, name, nothing], f"{name}.real")

    def _input_gates(self, place: int, inputs: Activation) -> str:
        """What the inputs give the gates, for all time steps at once."""
        matrix, scales = self._matrix(f"{place}.W", self.of.weight[place])
        bias = ""
        if self.of.bias is not None:
            of_inputs, of_state = self.of.bias[place]
            if self.of.kind == "GRU":  # whose n gates the bias of the state
                of_state = of_state.copy()
                of_state[2 * self.of.hidden :] = 0
            bias = self.out.constant(f"{place}.bias", of_inputs + of_state)
        output = f"{self.of.prefix}.{place}.input_gates"
        return add_int8_product(self.out, inputs, matrix, scales, output, bias)

    def _matrix(self, name: str, weight: FloatArray) -> tuple[str, FloatArray]:
        """A weight as an int8 matrix (inputs, outputs), and its scales."""
        integers, scales = to_int8(weight, 1, self.bits)
        columns = np.ascontiguousarray(integers.T)
        return self.out.constant(name, columns), scales.ravel()

    def _scan(
        self, place: int, gates: Sequence[str], reverse: bool
    ) -> tuple[list[str], list[str]]:
        """Final states of the longest rows, and the states of every step."""
        backward = int(reverse and not self.of.lengths)
        starts = [self._start(place, part) for part in range(self.states)]
        # Cells are kept for every step only where a last one must be picked.
        kept = 2 if self.states == 2 and self.wanted[2] and self.of.lengths else 1
        prefix = f"{self.of.prefix}.{place}"
        finals = [f"{prefix}.final_{part}" for part in range(self.states)]
        sequences = [f"{prefix}.states_{part}" for part in range(kept)]
        node = helper.make_node(
            "Scan",
            [*starts, *gates],
            [*finals, *sequences],
            body=self._body(place, len(gates), kept),
            num_scan_inputs=len(gates),
            scan_input_directions=[backward] * len(gates),
            scan_output_directions=[backward] * kept,
        )
        self.out.nodes.append(node)
        return finals, sequences

    def _start(self, place: int, part: int) -> str:
        """The first state (batch, hidden)."""
        name = f"{place}.start_{part}"
        if self.of.initial:
            index = self.out.constant(f"direction_{place}", np.int64(place))
            return self.out.add("Gather", [self.of.initial[part], index], name)
        width = self.out.constant("width", np.array([self.of.hidden]))
        shape = self.out.add("Concat", [self.batch, width], f"{name}.shape", axis=0)
        return self.out.add("ConstantOfShape", [shape], name)

    def _body(self, place: int, inputs: int, kept: int) -> GraphProto:
        """One step; its weights are constants of the graph around it."""
        body = Fragment(f"{self.of.prefix}.{place}.step")
        states = [f"{body.prefix}.state_{part}" for part in range(self.states)]
        gates = [f"{body.prefix}.gates_{part}" for part in range(inputs)]
        quantizing = [states[0], self.scale, self.zero]
        whole = body.add("QuantizeLinear", quantizing, "uint8")
        state = Activation(whole, self.scale, self.zero, self.state_scale)
        matrix, scales = self._matrix(f"{place}.R", self.of.recurrent[place])
        output = f"{body.prefix}.state_gates"
        add_int8_product(body, state, matrix, scales, output, few_rows=True)
        following = self._cell(body, place, gates, output, states)
        # A graph can't give one value twice.
        outputs = [
            body.add_as("Identity", [name], f"{name}.kept") for name in following[:kept]
        ]
        self.out.constants |= body.constants
        return helper.make_graph(
            body.nodes,
            body.prefix,
            [_float(name) for name in (*states, *gates)],
            [_float(name) for name in (*following, *outputs)],
        )

    def _cell(
        self,
        body: Fragment,
        place: int,
        gates: Sequence[str],
        product: str,
        states: Sequence[str],
    ) -> list[str]:
        if self.of.kind == "GRU":
            bias = None if self.of.bias is None else self.of.bias[place, 1]
            return _gru(body, gates, product, states[0], bias, self.of.hidden)
        total = body.add("Add", [gates[0], product], "sum")
        if self.of.kind == "LSTM":
            return _lstm(body, total, states[1], self.of.hidden)
        return [body.add(self.of.activation, [total], "next")]


def _gru(
    body: Fragment,
    gates: Sequence[str],
    product: str,
    state: str,
    bias: FloatArray | None,
    hidden: int,
) -> list[str]:
    """Gates z, r, n; n + z * (state - n)."""
    both, new = body.split(product, ["state_zr", "state_n"], [2 * hidden, hidden])
    if bias is not None:
        gated = body.constant("bias_n", bias[2 * hidden :])
        new = body.add("Add", [new, gated], "biased_n")
    both = body.add("Add", [gates[0], both], "sum_zr")
    both = body.add("Sigmoid", [both], "zr")
    update, reset = body.split(both, ["z", "r"])
    new = body.add("Mul", [reset, new], "reset_n")
    new = body.add("Add", [gates[1], new], "sum_n")
    new = body.add("Tanh", [new], "n")
    change = body.add("Sub", [state, new], "change")
    change = body.add("Mul", [update, change], "kept_change")
    return [body.add("Add", [new, change], "next")]


def _lstm(body: Fragment, total: str, cell: str, hidden: int) -> list[str]:
    """Gates i, o, f, c; cell = f * cell + i * c, state = o * tanh(cell)."""
    three, new = body.split(total, ["sum_iof", "sum_c"], [3 * hidden, hidden])
    three = body.add("Sigmoid", [three], "iof")
    into, out, forget = body.split(three, ["i", "o", "f"])
    new = body.add("Tanh", [new], "c")
    new = body.add("Mul", [into, new], "entering")
    cell = body.add("Mul", [forget, cell], "remembered")
    cell = body.add("Add", [cell, new], "next_cell")
    bounded = body.add("Tanh", [cell], "bounded")
    return [body.add("Mul", [out, bounded], "next"), cell]


def _float(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])
