"""A recurrent decoder with attention: one step, and the whole target at once.

Where the context goes is `ModelConfig.context`. A decoder that reads no context below
its attention ("output", "upper") runs each layer over the whole target in one call and
asks all its questions in one product; the other two must loop over time.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from seq2edge.models.attention import Attention
from seq2edge.models.config import ModelConfig
from seq2edge.models.dropout import LockedDropout
from seq2edge.models.recurrent import STATES, DecoderLayer, LayerState

Named = dict[str, Tensor]


class RecurrentDecoder(nn.Module):
    """Embedded target tokens to what the output layer reads."""

    def __init__(self, config: ModelConfig) -> None:
        """Layer sizes follow from where the context goes."""
        super().__init__()
        hidden, annotation = config.decoder_hidden, config.annotation_size
        self.context = config.context
        self.parts = STATES[config.cell]
        self.attention = Attention(config.attention, hidden, annotation)
        self.dropout = LockedDropout(config.dropout)
        below = {"input": annotation, "input_feeding": config.embedding_size}
        above = annotation if config.context == "upper" else 0
        self.layers = nn.ModuleList(
            DecoderLayer(
                config.cell,
                hidden + above
                if index
                else config.embedding_size + below.get(config.context, 0),
                hidden,
            )
            for index in range(config.decoder_layers)
        )
        # One map makes every layer's first state from the encoder's final vector.
        states = config.decoder_layers * len(self.parts)
        self.bridge = nn.Linear(annotation, states * hidden)
        self.readout = nn.Linear(hidden + annotation, config.embedding_size)

    def start(self, final: Tensor) -> Named:
        """The first state from the encoder's final vector (batch, annotation)."""
        vectors = torch.tanh(self.bridge(final)).chunk(
            len(self.layers) * len(self.parts), dim=-1
        )
        state = dict(zip(self._names(), vectors, strict=True))
        if self.context == "input_feeding":
            size = self.readout.out_features
            state["attentional"] = final.new_zeros(final.shape[0], size)
        return state

    def step(
        self, embedded: Tensor, memory: Named, state: Named
    ) -> tuple[Tensor, Named]:
        """(rows, embedding) to the readout (rows, embedding) and the next state."""
        layers = self._unpack(state)
        context = self._ask(layers[-1][0], memory) if self.context == "input" else None
        inputs = self.dropout(embedded)
        if self.context == "input":
            inputs = torch.cat([inputs, context], dim=-1)  # type: ignore[list-item]
        elif self.context == "input_feeding":
            inputs = torch.cat([inputs, state["attentional"]], dim=-1)
        outputs = inputs
        for index, layer in enumerate(self.layers):
            if index and self.context == "upper":
                inputs = torch.cat([self.dropout(outputs), context], dim=-1)  # type: ignore[list-item]
            elif index:
                inputs = self.dropout(outputs)
            layers[index] = layer.step(inputs, layers[index])  # type: ignore[operator]
            outputs = outputs + layers[index][0] if index else layers[index][0]
            if index == 0 and self.context == "upper":
                context = self._ask(outputs, memory)
        if context is None:
            context = self._ask(outputs, memory)
        readout = self._read(outputs, context)
        following = dict(zip(self._names(), _flat(layers), strict=True))
        if self.context == "input_feeding":
            following["attentional"] = readout
        return readout, following

    def forward(self, embedded: Tensor, memory: Named, state: Named) -> Tensor:
        """(batch, target, embedding) to readouts (batch, target, embedding)."""
        if self.context not in ("output", "upper"):
            return self._loop(embedded, memory, state)
        initial = self._unpack(state)
        outputs = self.layers[0](self.dropout(embedded), initial[0])
        context = None
        if self.context == "upper":
            context = self.attention(outputs, memory)
        for layer, start in zip(self.layers[1:], initial[1:], strict=True):
            inputs = self.dropout(outputs)
            if context is not None:
                inputs = torch.cat([inputs, context], dim=-1)
            outputs = outputs + layer(inputs, start)
        if context is None:
            context = self.attention(outputs, memory)
        return self._read(outputs, context)

    def _loop(self, embedded: Tensor, memory: Named, state: Named) -> Tensor:
        readouts = []
        for token in embedded.unbind(1):
            readout, state = self.step(token, memory, state)
            readouts.append(readout)
        return torch.stack(readouts, dim=1)

    def _ask(self, query: Tensor, memory: Named) -> Tensor:
        """Query (rows, hidden) to contexts (rows, annotation)."""
        batch = memory["values"].shape[0]
        queries = query.reshape(batch, -1, query.shape[-1])
        context: Tensor = self.attention(queries, memory)
        return context.reshape(-1, context.shape[-1])

    def _read(self, outputs: Tensor, context: Tensor) -> Tensor:
        joined = torch.cat([self.dropout(outputs), context], dim=-1)
        return torch.tanh(self.readout(joined))

    def _names(self) -> list[str]:
        return [f"{part}_{i}" for i in range(len(self.layers)) for part in self.parts]

    def _unpack(self, state: Named) -> list[LayerState]:
        return [
            tuple(state[f"{part}_{i}"] for part in self.parts)
            for i in range(len(self.layers))
        ]


def _flat(layers: Iterable[LayerState]) -> list[Tensor]:
    return [part for layer in layers for part in layer]
