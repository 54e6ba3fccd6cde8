"""Recurrent layers in their ONNX form, which respects the length of every row.

While `onnx_recurrence` is open, nn.RNN, nn.GRU and nn.LSTM trace as the ONNX operators
of these names and packed sequences as padded ones that know their lengths (`packing`);
afterwards everything is as it was. What torch.onnx does by itself with these layers
either fails, reads padding in the backward direction or freezes the length of the
sequence silently.

A layer that runs over one step only, as decoders do, traces in cell form instead: plain
matrix products, which quantize, where the operators have no int8 kernel.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import rnn

from seq2edge.export.packing import packed, traced_packing, unpacked
from seq2edge.runtime.errors import ExportError

# Rows of torch's weights in the order in which ONNX wants the gates.
GATES = {"RNN_TANH": [0], "RNN_RELU": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}
PART = "onnx_{part}_{layer}"  # names of the repacked weights, buffers while tracing


@contextmanager
def onnx_recurrence(module: nn.Module) -> Iterator[None]:
    """Trace the recurrent layers of `module` in ONNX form inside this block."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.RNNBase)]
    with traced_packing(), ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_repacked(layer))
        for kind in (nn.RNN, nn.GRU, nn.LSTM):
            stack.enter_context(mock.patch.object(kind, "forward", _forward))
        yield


@contextmanager
def _repacked(layer: nn.RNNBase) -> Iterator[None]:
    """Lend the layer its weights in ONNX order, so that tracing finds them ready."""
    names = []
    for index in range(layer.num_layers):
        for part, tensor in _repack(layer, index).items():
            name = PART.format(part=part, layer=index)
            layer.register_buffer(name, tensor, persistent=False)
            names.append(name)
    try:
        yield
    finally:
        for name in names:
            delattr(layer, name)


def _repack(layer: nn.RNNBase, index: int) -> dict[str, Tensor]:
    """W (directions, gates * hidden, input), R (..., hidden), B (..., both biases)."""
    directions = [_weights(layer, index, reverse) for reverse in _directions(layer)]
    order = GATES[layer.mode]

    def gathered(part: int) -> list[Tensor]:
        return [_reorder(weights[part].detach(), order) for weights in directions]

    parts = {"W": torch.stack(gathered(0)), "R": torch.stack(gathered(1))}
    if layer.bias:
        both = torch.cat([torch.stack(gathered(2)), torch.stack(gathered(3))], dim=1)
        parts["B"] = both
    return parts


def _directions(layer: nn.RNNBase) -> Sequence[bool]:
    return (False, True) if layer.bidirectional else (False,)


def _weights(layer: nn.RNNBase, index: int, reverse: bool) -> list[Tensor]:
    """weight_ih, weight_hh and, if the layer has them, bias_ih and bias_hh."""
    parts = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if layer.bias else [])]
    suffix = f"_l{index}" + ("_reverse" if reverse else "")
    return [getattr(layer, part + suffix) for part in parts]


def _reorder(weight: Tensor, order: Sequence[int]) -> Tensor:
    gates = weight.chunk(len(order))
    return torch.cat([gates[gate] for gate in order])


def _forward(layer: nn.RNNBase, input: Any, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002
    """Stand in for nn.RNN/GRU/LSTM.forward, padded, packed or one step long."""
    known = unpacked(input) if isinstance(input, rnn.PackedSequence) else None
    data = input if known is None else known.padded
    _check(layer, data)
    if layer.batch_first and known is None:
        data = data.transpose(0, 1)
    initial = (hx,) if isinstance(hx, Tensor) else hx
    if known is None and type(data.shape[0]) is int and data.shape[0] == 1:
        outputs, final = _cells(layer, data, initial)
    else:
        lengths = None if known is None else known.lengths
        outputs, final = _operators(layer, data, lengths, initial)
    state = final if layer.mode == "LSTM" else final[0]
    if known is not None:
        return packed(outputs, known.lengths, zero=True), state
    return (outputs.transpose(0, 1) if layer.batch_first else outputs), state


def _check(layer: nn.RNNBase, data: Tensor) -> None:
    kind = type(layer).__name__
    if layer.proj_size:
        raise ExportError(
            f"{kind} with proj_size={layer.proj_size} has no ONNX form; "
            "use proj_size=0 and a linear layer after it"
        )
    if data.dim() != 3:
        raise ExportError(
            f"{kind} got an input of {data.dim()} axes; "
            "give it a batch: (time, batch, features), or batch first"
        )
    if not hasattr(layer, PART.format(part="W", layer=0)):
        raise ExportError(
            f"{kind} is no submodule of the exported module; "
            "register it as an attribute of the module that calls it"
        )


def _operators(
    layer: nn.RNNBase,
    data: Tensor,
    lengths: Tensor | None,
    initial: Sequence[Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Data (time, batch, features) through one ONNX operator a layer."""
    directions = len(_directions(layer))
    finals = []
    for index in range(layer.num_layers):
        rows = slice(index * directions, (index + 1) * directions)
        starts = [part[rows] for part in initial] if initial is not None else []
        outputs, *final = _operator(layer, index, data, lengths, starts)
        data = outputs.transpose(1, 2).flatten(2)  # (time, batch, directions * hidden)
        finals.append(final)
    return data, tuple(torch.cat(part) for part in zip(*finals, strict=True))


def _operator(
    layer: nn.RNNBase,
    index: int,
    data: Tensor,
    lengths: Tensor | None,
    starts: Sequence[Tensor],
) -> Sequence[Tensor]:
    """Outputs (time, directions, batch, hidden), finals (directions, batch, hidden)."""
    time, batch = data.shape[:2]
    directions, hidden = len(_directions(layer)), layer.hidden_size
    finals = 2 if layer.mode == "LSTM" else 1
    state = (directions, batch, hidden)
    weights = [
        getattr(layer, PART.format(part=part, layer=index), None) for part in "WRB"
    ]
    outputs: Sequence[Tensor] = torch.onnx.ops.symbolic_multi_out(
        layer.mode.split("_")[0],
        [data, *weights, lengths, *starts],
        _attributes(layer),
        dtypes=[data.dtype] * (1 + finals),
        shapes=[(time, *state), *[state] * finals],
    )
    return outputs


def _attributes(layer: nn.RNNBase) -> dict[str, Any]:
    """How ONNX says what torch does; layout stays time first, all that runs."""
    bidirectional = len(_directions(layer)) == 2
    attributes: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if bidirectional else "forward",
    }
    if layer.mode == "GRU":
        attributes["linear_before_reset"] = 1
    if layer.mode == "RNN_RELU":
        attributes["activations"] = ["Relu"] * (2 if bidirectional else 1)
    return attributes


def _cells(
    layer: nn.RNNBase, data: Tensor, initial: Sequence[Tensor] | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One step (1, batch, features) through the layer's cells."""
    outputs, finals = data[0], []
    parts = 2 if layer.mode == "LSTM" else 1
    zeros = [outputs.new_zeros(outputs.shape[0], layer.hidden_size)] * parts
    directions = _directions(layer)
    for index in range(layer.num_layers):
        states = []
        for place, reverse in enumerate(directions, start=index * len(directions)):
            start = [part[place] for part in initial] if initial is not None else zeros
            weights = _weights(layer, index, reverse)
            states.append(CELLS[layer.mode](outputs, start, weights))
        outputs = torch.cat([state[0] for state in states], dim=-1)
        finals.extend(states)
    final = tuple(torch.stack(part) for part in zip(*finals, strict=True))
    return outputs.unsqueeze(0), final


Cell = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]]


def _products(
    inputs: Tensor, hidden: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    biases = weights[2:] or (None, None)
    return (
        functional.linear(inputs, weights[0], biases[0]),
        functional.linear(hidden, weights[1], biases[1]),
    )


def _elman(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(
        inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        from_input, from_state = _products(inputs, state[0], weights)
        return (activation(from_input + from_state),)

    return cell


def _gru(
    inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    from_input, from_state = _products(inputs, state[0], weights)
    input_r, input_z, input_n = from_input.chunk(3, dim=-1)
    state_r, state_z, state_n = from_state.chunk(3, dim=-1)
    reset = torch.sigmoid(input_r + state_r)
    update = torch.sigmoid(input_z + state_z)
    candidate = torch.tanh(input_n + reset * state_n)
    return (candidate + update * (state[0] - candidate),)


def _lstm(
    inputs: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    from_input, from_state = _products(inputs, state[0], weights)
    into, forget, new, out = (from_input + from_state).chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * state[1] + torch.sigmoid(into) * torch.tanh(new)
    return torch.sigmoid(out) * torch.tanh(cell), cell


CELLS: dict[str, Cell] = {
    "RNN_TANH": _elman(torch.tanh),
    "RNN_RELU": _elman(torch.relu),
    "GRU": _gru,
    "LSTM": _lstm,
}
