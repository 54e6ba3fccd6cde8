"""A label for every position of one sequence (N to N).

A tagger that reads in one direction also goes position by position, from a state of
zeros, and says the same as over the whole sequence.
"""

from torch import Tensor, nn

from seq2edge.models.contract import Tensors
from seq2edge.models.dropout import LockedDropout
from seq2edge.models.labels import label_loss
from seq2edge.models.network import Batch
from seq2edge.models.recurrent import STATES, state_names
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.recurrent_network import RecurrentNetwork
from seq2edge.runtime.manifest import LOGITS


class Tagger(RecurrentNetwork):
    """Built from a RecurrentConfig whose task is tagging."""

    def __init__(self, config: RecurrentConfig) -> None:
        """Random weights; `Checkpoint.load` fills them."""
        super().__init__(config)
        self.output = nn.Linear(config.annotation_size, config.labels)
        self.dropout = LockedDropout(config.dropout)
        self.names = state_names(config.cell, config.encoder_layers)

    def encode(self, **inputs: Tensor) -> tuple[Tensors, Tensors]:
        """logits (batch, time, labels); the last state, if `step` may go on from it."""
        encoded = self.encode_sequence(self.config.sequences[0], inputs)
        logits = self.output(self.dropout(encoded.annotations))
        if self.config.bidirectional:
            return {LOGITS: logits}, {}
        parts = [part for state in encoded.states for part in state]
        return {LOGITS: logits}, dict(zip(self.names, parts, strict=True))

    def step(
        self, position: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        """A token (rows,) or frame (rows, features): logits (rows, labels), state."""
        embedded = self.embed(self.config.sequences[0], position)
        states = [
            tuple(state[f"{part}_{index}"] for part in STATES[self.config.cell])
            for index in range(self.config.encoder_layers)
        ]
        outputs, following = self.encoder.step(embedded, states)
        parts = [part for layer in following for part in layer]
        return self.output(outputs), dict(zip(self.names, parts, strict=True))

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy in nats of the labels that are known."""
        outputs, _ = self.encode(**batch.inputs)
        return label_loss(outputs[LOGITS], batch.expected, label_smoothing)
