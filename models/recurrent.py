"""Recurrent layers that run over a sequence or one step at a time, and the encoder.

Residual connections join layers of equal width, as in GNMT (arXiv:1609.08144, 3.1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2edge.models.dropout import LockedDropout
from seq2edge.models.recurrent_config import RecurrentConfig

LayerState = tuple[Tensor, ...]  # (hidden, cell) of an LSTM, (hidden,) of the others
STATES = {
    "elman": ("hidden",),
    "elman_relu": ("hidden",),
    "gru": ("hidden",),
    "lstm": ("hidden", "cell"),
}


def state_names(cell: str, layers: int) -> list[str]:
    """hidden_0, (cell_0,) hidden_1, ...: what a stack of layers calls its state."""
    return [f"{part}_{index}" for index in range(layers) for part in STATES[cell]]


def recurrent_layer(
    cell: str, inputs: int, hidden: int, bidirectional: bool = False
) -> nn.RNNBase:
    """One layer with orthogonal recurrences, batch first.

    With ReLU too: from the identity of arXiv:1504.00941 a toy that reads frames stayed
    at 57 % exact sequences where this reached 100 %.
    """
    layer = _layer(cell, inputs, hidden, bidirectional)
    for name, weight in layer.named_parameters():
        if "weight_hh" in name:
            for gate in weight.chunk(weight.shape[0] // hidden):
                nn.init.orthogonal_(gate)
        elif "weight_ih" in name:
            for gate in weight.chunk(weight.shape[0] // hidden):
                nn.init.xavier_uniform_(gate)
        else:
            nn.init.zeros_(weight)
    return layer


def _layer(cell: str, inputs: int, hidden: int, bidirectional: bool) -> nn.RNNBase:
    if cell == "gru":
        return nn.GRU(inputs, hidden, batch_first=True, bidirectional=bidirectional)
    if cell == "lstm":
        return nn.LSTM(inputs, hidden, batch_first=True, bidirectional=bidirectional)
    return nn.RNN(
        inputs,
        hidden,
        batch_first=True,
        bidirectional=bidirectional,
        nonlinearity="relu" if cell == "elman_relu" else "tanh",
    )


def layer_step(layer: nn.RNNBase, inputs: Tensor, state: LayerState) -> LayerState:
    """(rows, inputs) and a state of (rows, hidden) parts to the next state."""
    input_weight, state_weight, input_bias, state_bias = layer.all_weights[0]
    from_input = functional.linear(inputs, input_weight, input_bias)
    from_state = functional.linear(state[0], state_weight, state_bias)
    if layer.mode == "GRU":
        return (_gru_gates(from_input, from_state, state[0]),)
    if layer.mode == "LSTM":
        return _lstm_gates(from_input + from_state, state[1])
    activation = torch.relu if layer.mode == "RNN_RELU" else torch.tanh
    return (activation(from_input + from_state),)


def _gru_gates(from_input: Tensor, from_state: Tensor, hidden: Tensor) -> Tensor:
    input_r, input_z, input_n = from_input.chunk(3, dim=-1)
    state_r, state_z, state_n = from_state.chunk(3, dim=-1)
    reset = torch.sigmoid(input_r + state_r)
    update = torch.sigmoid(input_z + state_z)
    candidate = torch.tanh(input_n + reset * state_n)
    return candidate + update * (hidden - candidate)


def _lstm_gates(gates: Tensor, cell: Tensor) -> LayerState:
    into, forget, candidate, out = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(candidate)
    return torch.sigmoid(out) * torch.tanh(cell), cell


class DecoderLayer(nn.Module):
    """One recurrent layer of a decoder; `step` is one turn of `forward`'s loop."""

    def __init__(self, cell: str, inputs: int, hidden: int) -> None:
        """Cell: one of CELLS."""
        super().__init__()
        self.layer = recurrent_layer(cell, inputs, hidden)

    def forward(self, inputs: Tensor, state: LayerState) -> Tensor:
        """(batch, time, inputs) to the hidden vectors (batch, time, hidden)."""
        initial = [part[None].contiguous() for part in state]
        outputs: Tensor = self.layer(
            inputs, initial[0] if len(state) == 1 else initial
        )[0]
        return outputs

    def step(self, inputs: Tensor, state: LayerState) -> LayerState:
        """(rows, inputs) and the state of (rows, hidden) parts to the next state."""
        return layer_step(self.layer, inputs, state)


class RecurrentEncoder(nn.Module):
    """An embedded sequence to its annotations and what each layer ends with."""

    def __init__(self, config: RecurrentConfig) -> None:
        """Layers of config.encoder_hidden units in each direction."""
        super().__init__()
        width = config.annotation_size
        self.dropout = LockedDropout(config.dropout)
        self.layers = nn.ModuleList(
            recurrent_layer(
                config.cell,
                width if index else config.embedding_size,
                config.encoder_hidden,
                config.bidirectional,
            )
            for index in range(config.encoder_layers)
        )

    def forward(
        self, embedded: Tensor, lengths: Tensor
    ) -> tuple[Tensor, list[LayerState]]:
        """Annotations (batch, time, width), zero past the end, and final states.

        A layer's final state has parts (batch, width) that join what each direction
        ends with: the forward one at the last position, the backward one at the first.
        """
        even = self.training and bool((lengths == embedded.shape[1]).all())
        outputs, finals = embedded, []
        for index, layer in enumerate(self.layers):
            inputs = self.dropout(outputs)
            # Packing costs a tenth of a training step; rows of one length need none.
            outputs, state = (
                layer(inputs) if even else _run_packed(layer, inputs, lengths)
            )
            outputs = outputs + inputs if index else outputs
            finals.append(_joined_directions(state))
        return outputs, finals

    def step(
        self, embedded: Tensor, states: Sequence[LayerState]
    ) -> tuple[Tensor, list[LayerState]]:
        """One position (rows, embedding) of an encoder that reads in one direction."""
        outputs, following = embedded, []
        for index, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            inputs = self.dropout(outputs)
            following.append(layer_step(layer, inputs, state))  # type: ignore[arg-type]
            hidden = following[-1][0]
            outputs = hidden + inputs if index else hidden
        return outputs, following


def _run_packed(
    layer: nn.Module, inputs: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor | LayerState]:
    packed = pack_padded_sequence(
        inputs,
        lengths.to("cpu", torch.int64),
        batch_first=True,
        enforce_sorted=False,
    )
    outputs, state = layer(packed)
    padded, _ = pad_packed_sequence(
        outputs, batch_first=True, total_length=inputs.shape[1]
    )
    return padded, state


def _joined_directions(state: Tensor | LayerState) -> LayerState:
    """Parts (directions, batch, hidden) to (batch, directions * hidden)."""
    parts = (state,) if isinstance(state, Tensor) else state
    return tuple(part.transpose(0, 1).flatten(1) for part in parts)
