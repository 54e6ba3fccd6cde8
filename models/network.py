"""What training and export know of a network: how it is called, and its loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from seq2edge.models.config import ModelConfig
from seq2edge.models.contract import Tensors
from seq2edge.models.embedding import PAD, OutputLayer


@dataclass(frozen=True)
class Batch:
    """Padded examples with what the network should say of them.

    Generation: `target` (batch, time) begins with the start token, `expected` is the
    same moved by one and ends with the end token. Labels: `expected` alone, (batch,
    time) of a tagger and (batch,) of a classifier, IGNORED where there is none.
    """

    inputs: Tensors
    expected: Tensor
    tokens: int  # expected ones, or labels, that are not padding
    target: Tensor | None = None


class Network(nn.Module, ABC):
    """A network built from a configuration; a subclass does a task."""

    config: ModelConfig
    source_embedding: nn.Embedding  # of a network that reads tokens

    @abstractmethod
    def encode(self, **inputs: Tensor) -> tuple[Tensors, Tensors]:
        """As the contract says."""

    @abstractmethod
    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy in nats of what is expected."""


class Writer(Network):
    """A network that writes tokens; a subclass says what its output layer reads."""

    output: OutputLayer

    @abstractmethod
    def step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Token (rows,) int64 to logits (rows, vocabulary) and the next state."""

    @abstractmethod
    def readouts(self, inputs: Tensors, target: Tensor) -> Tensor:
        """The whole target at once, (batch, target, size): equal to the steps."""

    def forward(self, inputs: Tensors, target: Tensor) -> Tensor:
        """Target (batch, target) int64 to logits (batch, target, vocabulary)."""
        logits: Tensor = self.output(self.readouts(inputs, target))
        return logits

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy in nats of the expected tokens that are not padding."""
        assert batch.target is not None
        real = batch.expected != PAD
        readouts = self.readouts(batch.inputs, batch.target)
        # Padding is dropped before the widest product of the model.
        logits = self.output(readouts[real])
        mean: Tensor = nn.functional.cross_entropy(
            logits.float(), batch.expected[real], label_smoothing=label_smoothing
        )
        return mean
