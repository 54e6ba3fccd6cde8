"""The recurrent encoder-decoder: `encode` and `step` as in the contract, and training.

`forward` is the training pass over a whole target; a test holds it equal to the steps.
"""

import torch
from torch import Tensor, nn

from seq2edge.models.attention import source_mask
from seq2edge.models.config import ModelConfig
from seq2edge.models.decoder import Named, RecurrentDecoder
from seq2edge.models.dropout import LockedDropout
from seq2edge.models.embedding import PAD, OutputLayer, token_embedding
from seq2edge.models.recurrent import RecurrentEncoder


class RecurrentModel(nn.Module):
    """Built from a ModelConfig; token ids in, logits out."""

    def __init__(self, config: ModelConfig) -> None:
        """Random weights; `load_checkpoint` fills them."""
        super().__init__()
        self.config = config
        size = config.embedding_size
        self.target_embedding = token_embedding(config.target_vocabulary, size)
        self.source_embedding = (
            self.target_embedding
            if config.tie == "all"
            else token_embedding(config.source_vocabulary, size)
        )
        self.encoder = RecurrentEncoder(config)
        self.decoder = RecurrentDecoder(config)
        tied = None if config.tie == "none" else self.target_embedding
        self.output = OutputLayer(config.target_vocabulary, size, tied)
        self.dropout = LockedDropout(config.dropout)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        """Source (batch, source) int64 and its lengths to memory and first state."""
        embedded = self.source_embedding(source)
        annotations, final = self.encoder(embedded, source_lengths)
        memory = self.decoder.attention.project(self.dropout(annotations))
        memory["mask"] = source_mask(source_lengths, source.shape[1])
        return memory, self.decoder.start(final)

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        """Token (rows,) int64 to logits (rows, vocabulary) and the next state."""
        embedded = self.target_embedding(token)
        readout, following = self.decoder.step(embedded, memory, state)
        return self.output(readout), following

    def readouts(
        self, source: Tensor, source_lengths: Tensor, target: Tensor
    ) -> Tensor:
        """What the output layer reads: (batch, target, embedding)."""
        memory, state = self.encode(source, source_lengths)
        outputs = self.decoder(self.target_embedding(target), memory, state)
        readouts: Tensor = self.dropout(outputs)
        return readouts

    def forward(self, source: Tensor, source_lengths: Tensor, target: Tensor) -> Tensor:
        """Target (batch, target) int64 to logits (batch, target, vocabulary)."""
        readouts = self.readouts(source, source_lengths, target)
        logits: Tensor = self.output(readouts)
        return logits

    def loss(
        self,
        source: Tensor,
        source_lengths: Tensor,
        target: Tensor,
        expected: Tensor,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Mean cross entropy in nats of the expected tokens that are not padding."""
        real = expected != PAD
        readouts = self.readouts(source, source_lengths, target)
        # Padding is dropped before the widest product of the model.
        logits = self.output(readouts[real])
        mean: Tensor = nn.functional.cross_entropy(
            logits.float(), expected[real], label_smoothing=label_smoothing
        )
        return mean


def count_parameters(model: nn.Module) -> int:
    """Distinct weights: a shared table counts once."""
    return sum(weight.numel() for weight in model.parameters())


def build_model(config: ModelConfig, seed: int | None = None) -> RecurrentModel:
    """A model with seeded random weights, leaving the global generator as it was."""
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return RecurrentModel(config)
