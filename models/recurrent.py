"""Recurrent layers that run over a sequence or one step at a time, and the encoder.

Residual connections join layers of equal width, as in GNMT (arXiv:1609.08144, 3.1).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2edge.models.config import ModelConfig
from seq2edge.models.dropout import LockedDropout

LayerState = tuple[Tensor, ...]  # (hidden,) of a GRU, (hidden, cell) of an LSTM
STATES = {"gru": ("hidden",), "lstm": ("hidden", "cell")}


def recurrent_layer(
    cell: str, inputs: int, hidden: int, bidirectional: bool = False
) -> nn.GRU | nn.LSTM:
    """One layer with orthogonal recurrences, batch first."""
    kind = nn.GRU if cell == "gru" else nn.LSTM
    layer: nn.GRU | nn.LSTM = kind(
        inputs, hidden, batch_first=True, bidirectional=bidirectional
    )
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


class DecoderLayer(nn.Module):
    """One recurrent layer of a decoder; `step` is one turn of `forward`'s loop."""

    def __init__(self, cell: str, inputs: int, hidden: int) -> None:
        """Cell: "gru" or "lstm"."""
        super().__init__()
        self.cell = cell
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
        input_weight, state_weight, input_bias, state_bias = self.layer.all_weights[0]
        from_input = functional.linear(inputs, input_weight, input_bias)
        from_state = functional.linear(state[0], state_weight, state_bias)
        if self.cell == "gru":
            return (_gru_gates(from_input, from_state, state[0]),)
        return _lstm_gates(from_input + from_state, state[1])


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


class RecurrentEncoder(nn.Module):
    """An embedded source to its annotations and its final vector."""

    def __init__(self, config: ModelConfig) -> None:
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

    def forward(self, embedded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Annotations (batch, source, width), zero past the end; final (batch, width).

        The final vector joins what each direction of the last layer ends with: the
        forward one at the last token, the backward one at the first.
        """
        even = self.training and bool((lengths == embedded.shape[1]).all())
        outputs, final = embedded, embedded[:, 0]
        for index, layer in enumerate(self.layers):
            inputs = self.dropout(outputs)
            # Packing costs a tenth of a training step; rows of one length need none.
            outputs, final = (
                _run(layer, inputs) if even else _run_packed(layer, inputs, lengths)
            )
            outputs = outputs + inputs if index else outputs
        return outputs, final


def _run(layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    outputs, state = layer(inputs)
    return outputs, _last_hidden(state)


def _run_packed(
    layer: nn.Module, inputs: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
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
    return padded, _last_hidden(state)


def _last_hidden(state: Tensor | LayerState) -> Tensor:
    hidden = state if isinstance(state, Tensor) else state[0]
    return hidden.transpose(0, 1).flatten(1)  # (batch, directions * hidden)
