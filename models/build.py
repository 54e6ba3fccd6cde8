"""A configuration to the network that does its task."""

from typing import overload

import torch
from torch import nn

from seq2edge.models.classifier import Classifier
from seq2edge.models.config import ModelConfig
from seq2edge.models.network import Network
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.models.recurrent_network import RecurrentNetwork
from seq2edge.models.tagger import Tagger
from seq2edge.models.transformer import Transformer
from seq2edge.models.transformer_config import TransformerConfig

RECURRENT: dict[str, type[RecurrentNetwork]] = {
    "generation": RecurrentModel,
    "tagging": Tagger,
    "classification": Classifier,
}


@overload
def build_model(
    config: RecurrentConfig, seed: int | None = None
) -> RecurrentNetwork: ...


@overload
def build_model(config: ModelConfig, seed: int | None = None) -> Network: ...


def build_model(config: ModelConfig, seed: int | None = None) -> Network:
    """A model with seeded random weights, leaving the global generator as it was."""
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if isinstance(config, TransformerConfig):
            return Transformer(config)
        return RECURRENT[config.task](config)


def count_parameters(model: nn.Module) -> int:
    """Distinct weights: a shared table counts once."""
    return sum(weight.numel() for weight in model.parameters())
