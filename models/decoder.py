"""A recurrent decoder: one step, and the whole target at once.

Where the attention's context goes is `RecurrentConfig.context`. A decoder that reads no
context below its attention ("output", "upper", or without attention) runs each layer
over the whole target in one call and asks all its questions in one product; the other
two must loop over time.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from seq2edge.models.attention import make_attention
from seq2edge.models.dropout import LockedDropout
from seq2edge.models.recurrent import STATES, DecoderLayer, LayerState, state_names
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.recurrent_network import joined
from seq2edge.models.summary import bridge, first_state

Named = dict[str, Tensor]


class RecurrentDecoder(nn.Module):
    """Embedded target tokens to what the output layer reads."""

    def __init__(self, config: RecurrentConfig) -> None:
        """Layer sizes follow from where the context and the summary go."""
        super().__init__()
        self.config = config
        self.attends = config.attention != "none"
        self.context = config.context if self.attends else "none"
        self.parts = STATES[config.cell]
        self.names = state_names(config.cell, config.decoder_layers)
        if self.attends:
            self.attention = make_attention(config)
        self.dropout = LockedDropout(config.dropout)
        self.layers = nn.ModuleList(
            DecoderLayer(config.cell, self._input_size(index), config.decoder_hidden)
            for index in range(config.decoder_layers)
        )
        self.bridge = bridge(config)
        read = config.decoder_hidden + (config.annotation_size if self.attends else 0)
        self.readout = nn.Linear(read, config.embedding_size)

    def _input_size(self, index: int) -> int:
        config, annotation = self.config, self.config.annotation_size
        if index:
            above = annotation if self.context == "upper" else 0
            return config.decoder_hidden + above
        below = {"input": annotation, "input_feeding": config.embedding_size}
        summary = 0 if config.summary_use == "state" else config.summary_size
        return config.embedding_size + below.get(self.context, 0) + summary

    def start(self, vector: Tensor) -> tuple[Named, Named]:
        """What the summary of (batch, joined) adds to memory, and the first state."""
        summary = self.bridge(vector)
        state = first_state(self.config, summary)
        if self.context == "input_feeding":
            size = self.readout.out_features
            state["attentional"] = vector.new_zeros(vector.shape[0], size)
        enters = self.config.summary_use in ("input", "both")
        return {"summary": summary} if enters else {}, state

    def step(
        self, embedded: Tensor, memory: Named, state: Named
    ) -> tuple[Tensor, Named]:
        """(rows, embedding) to the readout (rows, embedding) and the next state."""
        readout, _, following = self.attended_step(embedded, memory, state)
        return readout, following

    def attended_step(
        self, embedded: Tensor, memory: Named, state: Named
    ) -> tuple[Tensor, Tensor | None, Named]:
        """The same, with the weights of the attention that was asked, if any was."""
        layers = self._unpack(state)
        weights: Tensor | None = None
        context: Tensor | None = None
        parts = [self.dropout(embedded)]
        if self.context == "input":
            weights, context = self._ask(layers[-1][0], memory)
            parts.append(context)
        elif self.context == "input_feeding":
            parts.append(state["attentional"])
        if "summary" in memory:
            parts.append(_widened(memory["summary"], embedded.shape[0]))
        outputs = joined(parts, dim=-1)
        for index, layer in enumerate(self.layers):
            inputs = self._above(outputs, context) if index else outputs
            layers[index] = layer.step(inputs, layers[index])  # type: ignore[operator]
            outputs = outputs + layers[index][0] if index else layers[index][0]
            if index == 0 and self.context == "upper":
                weights, context = self._ask(outputs, memory)
        if self.attends and context is None:
            weights, context = self._ask(outputs, memory)
        readout = self._read(outputs, context)
        following = dict(zip(self.names, _flat(layers), strict=True))
        if self.context == "input_feeding":
            following["attentional"] = readout
        return readout, weights, following

    def forward(self, embedded: Tensor, memory: Named, state: Named) -> Tensor:
        """(batch, target, embedding) to readouts (batch, target, embedding)."""
        if self.context in ("input", "input_feeding"):
            return self._loop(embedded, memory, state)
        initial = self._unpack(state)
        parts = [self.dropout(embedded)]
        if "summary" in memory:
            every = memory["summary"][:, None].expand(-1, embedded.shape[1], -1)
            parts.append(every)
        outputs = self.layers[0](joined(parts, dim=-1), initial[0])
        context = None
        if self.context == "upper":
            context = self.attention(outputs, memory)
        for layer, start in zip(self.layers[1:], initial[1:], strict=True):
            outputs = outputs + layer(self._above(outputs, context), start)
        if self.context == "output":
            context = self.attention(outputs, memory)
        return self._read(outputs, context)

    def _loop(self, embedded: Tensor, memory: Named, state: Named) -> Tensor:
        readouts = []
        for token in embedded.unbind(1):
            readout, state = self.step(token, memory, state)
            readouts.append(readout)
        return torch.stack(readouts, dim=1)

    def _ask(self, query: Tensor, memory: Named) -> tuple[Tensor, Tensor]:
        """Query (rows, hidden) to weights and contexts (rows, annotation)."""
        batch = memory["values"].shape[0]
        queries = query.reshape(batch, -1, query.shape[-1])
        weights = self.attention.weights(queries, memory)
        contexts: Tensor = self.attention.read(weights, memory)
        flat: Tensor = contexts.reshape(-1, contexts.shape[-1])
        return weights, flat

    def _above(self, outputs: Tensor, context: Tensor | None) -> Tensor:
        """What a layer reads of the one below it, and of the context."""
        inputs: Tensor = self.dropout(outputs)
        if self.context != "upper" or context is None:
            return inputs
        return torch.cat([inputs, context], dim=-1)

    def _read(self, outputs: Tensor, context: Tensor | None) -> Tensor:
        read = self.dropout(outputs)
        if context is not None:
            read = torch.cat([read, context], dim=-1)
        return torch.tanh(self.readout(read))

    def _unpack(self, state: Named) -> list[LayerState]:
        return [
            tuple(state[f"{part}_{i}"] for part in self.parts)
            for i in range(len(self.layers))
        ]


def _widened(summary: Tensor, rows: int) -> Tensor:
    """(batch, size) to (rows, size): a sentence's summary for each of its beams."""
    batch, size = summary.shape
    wide: Tensor = summary[:, None].expand(-1, rows // batch, -1)
    return wide.reshape(rows, size)


def _flat(layers: Iterable[LayerState]) -> list[Tensor]:
    return [part for layer in layers for part in layer]
