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
one or two in every step.

Both directions of a GRU that isn't wide share one Scan, whose state is (2, batch,
hidden): half the nodes a step. Its time over that of two Scans (AVX512-VNNI, a layer,
20 steps), 1 / 8 / 32 rows: 256 units 0.80 / 0.96 / 1.07, 384 units 0.87 / 1.00 / 1.14,
512 units, where two recurrent matrices push each other out of the cache, 0.94 / 1.26 /
1.20. An Elman layer, whose cell is one node, gains nothing at 1 row and loses as much.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from seq2edge.export.coverage import FloatArray
from seq2edge.export.fragment import Fragment
from seq2edge.export.int8_product import Activation, add_int8_product
from seq2edge.export.recipe import Range, Recipe, to_int8, to_uint8
from seq2edge.export.recurrences import Recurrence


def scan_form(
    recurrence: Recurrence, inputs: Activation, state: Range, recipe: Recipe
) -> Fragment:
    """The nodes that write the outputs of a recurrent operator."""
    return _Scan(recurrence, inputs, state, recipe).fragment()


class _Scan:
    """Writes the fragment of one operator."""

    def __init__(
        self, recurrence: Recurrence, inputs: Activation, state: Range, recipe: Recipe
    ) -> None:
        self.of = recurrence
        self.inputs = inputs
        self.recipe = recipe
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
        found = self._together() if self._joins else self._apart()
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

    @property
    def _joins(self) -> bool:
        """Whether one Scan goes in both directions."""
        of = self.of
        both = len(of.reverse) == 2 and bool(of.lengths)
        return both and of.kind == "GRU" and of.hidden <= self.recipe.joined_to_hidden

    def _apart(self) -> list[list[str]]:
        """Outputs and final states of each direction, by a Scan of its own."""
        return [
            self._results(place, *self._scan(str(place), [place], self._gates(place)))
            for place in range(len(self.of.reverse))
        ]

    def _together(self) -> list[list[str]]:
        """The same by one Scan, whose states and gates (2, batch, ...) are of both."""
        out, axis = self.out, self.out.constant("direction_axis", np.array([1]))
        gates = [
            out.add_as(
                "Concat",
                [out.add_as("Unsqueeze", [part, axis], f"{part}.one") for part in both],
                f"{both[0]}.both",
                axis=1,
            )
            for both in zip(*map(self._gates, (0, 1)), strict=True)
        ]
        _, sequences = self._scan("both", [0, 1], gates)
        shares = [self._share(name, axis) for name in sequences]
        return [
            self._results(place, [], [parts[place] for parts in shares])
            for place in (0, 1)
        ]

    def _share(self, name: str, axis: str) -> list[str]:
        """What each direction has of a value (time, 2, batch, hidden)."""
        parts = [f"{name}.{place}" for place in (0, 1)]
        wide = [f"{part}.one" for part in parts]
        self.out.add_many("Split", [name], wide, axis=1, num_outputs=2)
        return [
            self.out.add_as("Squeeze", [f"{part}.one", axis], part) for part in parts
        ]

    def _gates(self, place: int) -> list[str]:
        """What the inputs give the gates of a direction, as its cell reads them."""
        inputs = self.inputs
        if self.of.reverse[place] and self.of.lengths:
            name = self._reversed(inputs.name, f"{place}.inputs")
            inputs = replace(inputs, name=name)
        gates = self._input_gates(place, inputs)
        if self.of.kind != "GRU":
            return [gates]
        hidden = self.of.hidden
        names = [f"{place}.input_zr", f"{place}.input_n"]
        return self.out.split(gates, names, [2 * hidden, hidden])

    def _results(
        self, place: int, finals: Sequence[str], sequences: Sequence[str]
    ) -> list[str]:
        """Outputs (time, batch, hidden) and final states, "" for a missing cell.

        finals: of the longest rows, which are those of all without lengths.
        """
        if not self.of.lengths:
            return [sequences[0], *finals, *[""] * (2 - len(finals))]
        clean = [self._without_padding(name) for name in sequences]
        ends = [
            self.out.add_as("GatherND", [name, self.ends], f"{name}.end")
            for name in clean
        ]
        outputs = clean[0]
        if self.of.reverse[place] and self.wanted[0]:
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
        integers, scales = to_int8(weight, 1, self.recipe.product_bits)
        columns = np.ascontiguousarray(integers.T)
        return self.out.constant(name, columns), scales.ravel()

    def _scan(
        self, name: str, places: Sequence[int], gates: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """Final states of the longest rows, and the states of every step."""
        backward = int(self.of.reverse[places[0]] and not self.of.lengths)
        starts = [self._start(name, places, part) for part in range(self.states)]
        # Cells are kept for every step only where a last one must be picked.
        kept = 2 if self.states == 2 and self.wanted[2] and self.of.lengths else 1
        prefix = f"{self.of.prefix}.{name}"
        finals = [f"{prefix}.final_{part}" for part in range(self.states)]
        sequences = [f"{prefix}.states_{part}" for part in range(kept)]
        node = helper.make_node(
            "Scan",
            [*starts, *gates],
            [*finals, *sequences],
            body=self._body(name, places, len(gates), kept),
            num_scan_inputs=len(gates),
            scan_input_directions=[backward] * len(gates),
            scan_output_directions=[backward] * kept,
        )
        self.out.nodes.append(node)
        return finals, sequences

    def _start(self, name: str, places: Sequence[int], part: int) -> str:
        """The first state, (batch, hidden) or (2, batch, hidden)."""
        label, both = f"{name}.start_{part}", len(places) == 2
        if self.of.initial:
            if both:
                return self.of.initial[part]
            index = self.out.constant(f"direction_{name}", np.int64(places[0]))
            return self.out.add("Gather", [self.of.initial[part], index], label)
        width = self.out.constant("width", np.array([self.of.hidden]))
        axes = [self.batch, width]
        if both:
            axes = [self.out.constant("directions", np.array([2])), *axes]
        shape = self.out.add("Concat", axes, f"{label}.shape", axis=0)
        return self.out.add("ConstantOfShape", [shape], label)

    def _body(
        self, name: str, places: Sequence[int], inputs: int, kept: int
    ) -> GraphProto:
        """One step; its weights are constants of the graph around it."""
        body = Fragment(f"{self.of.prefix}.{name}.step")
        states = [f"{body.prefix}.state_{part}" for part in range(self.states)]
        gates = [f"{body.prefix}.gates_{part}" for part in range(inputs)]
        quantizing = [states[0], self.scale, self.zero]
        whole = body.add("QuantizeLinear", quantizing, "uint8")
        product = self._product(body, places, whole)
        following = self._cell(body, places, gates, product, states)
        # A graph can't give one value twice.
        outputs = [
            body.add_as("Identity", [name], f"{name}.kept") for name in following[:kept]
        ]
        self.out.constants |= body.constants
        return helper.make_graph(
            body.nodes,
            body.prefix,
            [_float(name, 1 + len(places)) for name in (*states, *gates)],
            [_float(name, 1 + len(places)) for name in (*following, *outputs)],
        )

    def _product(self, body: Fragment, places: Sequence[int], whole: str) -> str:
        """The quantized states times the recurrent weights."""
        output = f"{body.prefix}.state_gates"
        weights = [
            self._matrix(f"{place}.R", self.of.recurrent[place]) for place in places
        ]
        if len(places) == 1:
            [(matrix, scales)] = weights
            state = Activation(whole, self.scale, self.zero, self.state_scale)
            return add_int8_product(body, state, matrix, scales, output, few_rows=True)
        each = [f"{whole}.{place}" for place in places]
        body.add_many("Split", [whole], each, axis=0, num_outputs=2)
        sums = [
            body.add_as("MatMulInteger", [one, matrix, self.zero], f"{one}.product")
            for one, (matrix, _) in zip(each, weights, strict=True)
        ]
        both = body.add("Concat", sums, "sums", axis=0)
        both = body.add("Cast", [both], "sums.float", to=TensorProto.FLOAT)
        scales = np.stack([scales for _, scales in weights])[:, None]
        factors = body.constant("scales", scales * self.state_scale)
        return body.add_as("Mul", [both, factors], output)

    def _cell(
        self,
        body: Fragment,
        places: Sequence[int],
        gates: Sequence[str],
        product: str,
        states: Sequence[str],
    ) -> list[str]:
        if self.of.kind == "GRU":
            bias = None
            if self.of.bias is not None:
                both = self.of.bias[[*places], 1]
                bias = both[0] if len(places) == 1 else both[:, None]
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
        gated = body.constant("bias_n", bias[..., 2 * hidden :])
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


def _float(name: str, axes: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes)
