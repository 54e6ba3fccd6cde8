"""The transformer encoder-decoder: `encode` and `step` of the contract, and training.

The encoder makes every layer's keys and values of the source once: they are memory.
What a decoder layer keeps of the target is state: a cache that grows by a position each
step, or a cell of constant size (SSRU); and the position of the next token.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from seq2edge.models.contract import Tensors
from seq2edge.models.dropout import LockedDropout
from seq2edge.models.embedding import OutputLayer, token_embedding
from seq2edge.models.heads import mask_of
from seq2edge.models.network import Writer
from seq2edge.models.positions import Positions
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.models.transformer_layers import DecoderLayer, EncoderLayer


class Transformer(Writer):
    """Built from a TransformerConfig."""

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        """Random weights; `Checkpoint.load` fills them."""
        super().__init__()
        self.config = config
        size = config.size
        self.target_embedding = token_embedding(config.target_vocabulary, size)
        self.source_embedding = (
            self.target_embedding
            if config.tie in ("embeddings", "all")
            else token_embedding(config.source_vocabulary, size)
        )
        self.encoder = Stack(config, EncoderLayer, config.encoder_layers)
        self.decoder = Stack(config, DecoderLayer, config.decoder_layers)
        tied = self.target_embedding if config.tie in ("output", "all") else None
        self.output = OutputLayer(config.target_vocabulary, size, tied)

    def encode(self, **inputs: Tensor) -> tuple[Tensors, Tensors]:
        """Read source (batch, source) and source_lengths: memory and first state."""
        source = inputs["source"]
        positions = torch.arange(source.shape[1], device=source.device)
        present = positions < inputs["source_lengths"][:, None]
        mask = mask_of(present, source.shape[1])
        vectors = self.encoder.embed(self.source_embedding(source), positions)
        for layer in self.encoder.layers:
            vectors = layer(vectors, mask)
        memory = {"present": present} | self._cross_memory(self.encoder.norm(vectors))
        return memory, self._first_state(vectors)

    def step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Token (rows,) int64 to logits (rows, vocabulary) and the next state."""
        logits, _, following = self.step_with_attention(token, memory, state)
        return logits, following

    def step_with_attention(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """The same, and how much of the source was read: (rows, source).

        A mean over the heads of all layers.
        """
        position = state["position"]
        vectors = self.decoder.embed(self.target_embedding(token), position)
        following: Tensors = {"position": position + 1}
        rows, size = vectors.shape
        batch, length = memory["present"].shape
        vectors = vectors.reshape(batch, -1, size)  # (batch, beam, size)
        mask, weights = mask_of(memory["present"], vectors.shape[1]), []
        for index, layer in enumerate(self._decoder_layers):
            names = [f"{part}_{index}" for part in layer.mixer.parts]
            before = tuple(state[name] for name in names)
            source = _read_by(index, memory)
            vectors, read, after = layer.step(vectors, before, *source, mask)
            following |= zip(names, after, strict=True)
            weights.append(read)
        attention = torch.stack(weights).mean(dim=(0, 2)).reshape(rows, length)
        logits = self.output(self.decoder.norm(vectors).reshape(rows, size))
        return logits, attention, following

    def readouts(self, inputs: Tensors, target: Tensor) -> Tensor:
        """What the output layer reads: (batch, target, size)."""
        memory, _ = self.encode(**inputs)
        positions = torch.arange(target.shape[1], device=target.device)
        mask = mask_of(memory["present"], target.shape[1])
        vectors = self.decoder.embed(self.target_embedding(target), positions)
        for index, layer in enumerate(self._decoder_layers):
            vectors = layer(vectors, *_read_by(index, memory), mask)
        normed: Tensor = self.decoder.norm(vectors)
        return normed

    @property
    def _decoder_layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.decoder.layers))

    def _cross_memory(self, annotations: Tensor) -> Tensors:
        memory: Tensors = {}
        for index, layer in enumerate(self._decoder_layers):
            keys, values = layer.cross.memory(annotations)
            memory[f"source_keys_{index}"] = keys
            memory[f"source_values_{index}"] = values
        return memory

    def _first_state(self, like: Tensor) -> Tensors:
        batch = like.shape[0]
        zeros = torch.zeros(batch, dtype=torch.int64, device=like.device)
        state = {"position": zeros}
        for index, layer in enumerate(self._decoder_layers):
            names = [f"{part}_{index}" for part in layer.mixer.parts]
            state |= zip(names, layer.mixer.start(batch, like), strict=True)
        return state


class Stack(nn.Module):
    """The layers of one side, with what comes before and behind them."""

    def __init__(
        self,
        config: TransformerConfig,
        kind: type[EncoderLayer] | type[DecoderLayer],
        count: int,
    ) -> None:
        """Positions aren't shared: learned ones differ between the sides."""
        super().__init__()
        self.scale = math.sqrt(config.size) if config.scale_embeddings else 1.0
        self.positions = Positions(config)
        normed, size = config.embedding_norm, config.size
        self.embedding_norm = nn.LayerNorm(size) if normed else nn.Identity()
        self.dropout = LockedDropout(config.dropout)
        self.layers = nn.ModuleList(kind(config) for _ in range(count))
        self.norm = nn.LayerNorm(size) if config.norm == "pre" else nn.Identity()

    def embed(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """What the lowest layer reads, of embedded tokens and where they stand."""
        placed = embedded * self.scale + self.positions(positions)
        vectors: Tensor = self.dropout(self.embedding_norm(placed))
        return vectors


def _read_by(layer: int, memory: Tensors) -> tuple[Tensor, Tensor]:
    """What a decoder layer reads of the memory: keys and values."""
    return memory[f"source_keys_{layer}"], memory[f"source_values_{layer}"]
