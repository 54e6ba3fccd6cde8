"""The recurrent encoder-decoder: `encode` and `step` as in the contract, and training.

`readouts` is the training pass over a whole target; a test holds it equal to the steps.
"""

from torch import Tensor

from seq2edge.models.contract import AttendedStep, Tensors
from seq2edge.models.decoder import RecurrentDecoder
from seq2edge.models.dropout import LockedDropout
from seq2edge.models.embedding import OutputLayer
from seq2edge.models.network import Writer
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.recurrent_network import Encoded, RecurrentNetwork, joined


class RecurrentModel(RecurrentNetwork, Writer):
    """Built from a RecurrentConfig whose task is generation; logits of tokens out."""

    def __init__(self, config: RecurrentConfig) -> None:
        """Random weights; `Checkpoint.load` fills them."""
        super().__init__(config)
        self.decoder = RecurrentDecoder(config)
        tied = None if config.tie == "none" else self.target_embedding
        self.output = OutputLayer(config.target_vocabulary, config.embedding_size, tied)
        self.dropout = LockedDropout(config.dropout)

    def encode(self, **inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Read a batch of every input: memory and first state."""
        encoded, vector = self.read(inputs)
        memory = self._attended(encoded) if self.decoder.attends else {}
        summary, state = self.decoder.start(vector)
        return {**memory, **summary}, state

    def _attended(self, encoded: list[Encoded]) -> Tensors:
        """Memory of all sequences, one behind the other along time."""
        annotations = joined([one.annotations for one in encoded], dim=1)
        memory = self.decoder.attention.project(self.dropout(annotations))
        memory["mask"] = joined([one.mask for one in encoded], dim=1)
        return memory

    def step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Token (rows,) int64 to logits (rows, vocabulary) and the next state."""
        embedded = self.target_embedding(token)
        readout, following = self.decoder.step(embedded, memory, state)
        return self.output(readout), following

    @property
    def step_with_attention(self) -> AttendedStep | None:
        """As the contract says; None of a model without attention."""
        return self._attended_step if self.decoder.attends else None

    def _attended_step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        embedded = self.target_embedding(token)
        readout, weights, following = self.decoder.attended_step(
            embedded, memory, state
        )
        assert weights is not None  # it attends, or nobody could ask
        alignment = self.decoder.attention.alignment(weights)
        return self.output(readout), alignment.flatten(0, 1), following

    def readouts(self, inputs: Tensors, target: Tensor) -> Tensor:
        """What the output layer reads: (batch, target, embedding)."""
        memory, state = self.encode(**inputs)
        outputs = self.decoder(self.target_embedding(target), memory, state)
        readouts: Tensor = self.dropout(outputs)
        return readouts
