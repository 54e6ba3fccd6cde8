"""What every recurrent network begins with: its inputs, read.

A sequence has an encoder of its own, which gives annotations and a final vector; tokens
are embedded by one shared table, frames by a linear map. A vector stands for itself, a
class for a row of a table.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2edge.models.attention import source_mask
from seq2edge.models.contract import Tensors
from seq2edge.models.embedding import class_embedding, token_embedding
from seq2edge.models.network import Network
from seq2edge.models.recurrent import LayerState, RecurrentEncoder
from seq2edge.models.recurrent_config import RecurrentConfig


@dataclass(frozen=True)
class Encoded:
    """One sequence behind its encoder."""

    annotations: Tensor  # (batch, time, annotation)
    lengths: Tensor
    states: list[LayerState]  # every layer's last, (batch, annotation) a part

    @property
    def final(self) -> Tensor:
        """What each direction of the last layer ends with, (batch, annotation)."""
        return self.states[-1][0]

    @property
    def mask(self) -> Tensor:
        """What to add to attention's energies, (batch, time)."""
        return source_mask(self.lengths, self.annotations.shape[1])


class RecurrentNetwork(Network):
    """Tables and encoders for the inputs of a configuration; a subclass does a task."""

    config: RecurrentConfig

    def __init__(self, config: RecurrentConfig) -> None:
        """Random weights, those of the first sequence under the names of one alone."""
        super().__init__()
        self.config = config
        self._add_tables(config)
        first, *others = config.sequences or (None,)
        if first is not None:
            self.encoder = RecurrentEncoder(config)
        self.other_encoders = nn.ModuleDict(
            {_key(name): RecurrentEncoder(config) for name in others}
        )

    def _add_tables(self, config: RecurrentConfig) -> None:
        size = config.embedding_size
        if config.writes:
            self.target_embedding = token_embedding(config.target_vocabulary, size)
        if config.reads_tokens:
            self.source_embedding = (
                self.target_embedding
                if config.writes and config.tie == "all"
                else token_embedding(config.source_vocabulary, size)
            )
        self.input_maps = nn.ModuleDict()
        for name, kind in config.inputs.items():
            if kind == "frames":
                self.input_maps[_key(name)] = nn.Linear(config.features, size)
            elif kind == "class":
                self.input_maps[_key(name)] = class_embedding(config.classes, size)

    def embed(self, name: str, values: Tensor) -> Tensor:
        """An input to vectors (..., embedding); a vector input as it is."""
        kind = self.config.inputs[name]
        if kind == "vector":
            return values
        tokens = kind == "tokens"
        table = self.source_embedding if tokens else self.input_maps[_key(name)]
        embedded: Tensor = table(values)
        return embedded

    def encode_sequence(self, name: str, inputs: Tensors) -> Encoded:
        """Run the encoder of one sequence."""
        lengths = inputs[f"{name}_lengths"]
        first = name == self.config.sequences[0]
        encoder = self.encoder if first else self.other_encoders[_key(name)]
        annotations, states = encoder(self.embed(name, inputs[name]), lengths)
        return Encoded(annotations, lengths, states)

    def read(self, inputs: Tensors) -> tuple[list[Encoded], Tensor]:
        """All sequences, and what the summary is made of: (batch, joined)."""
        encoded = {
            name: self.encode_sequence(name, inputs) for name in self.config.sequences
        }
        parts = [
            self._summand(encoded[name])
            if name in encoded
            else self.embed(name, inputs[name])
            for name in self.config.inputs
        ]
        return list(encoded.values()), joined(parts, dim=-1)

    def _summand(self, encoded: Encoded) -> Tensor:
        # Annotations are zero past the end, so that their sum runs over the real ones.
        by_sum = self.config.summary == "sum"
        return encoded.annotations.sum(dim=1) if by_sum else encoded.final


def _key(name: str) -> str:
    return f"of_{name}"  # a ModuleDict refuses names of its methods, such as "type"


def joined(parts: list[Tensor], dim: int) -> Tensor:
    """Parts one behind the other along an axis; one part alone costs nothing."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
