"""A configuration to the network that does its task."""

import torch
from torch import nn

from seq2edge.models.classifier import Classifier
from seq2edge.models.config import ModelConfig
from seq2edge.models.network import Network
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.models.tagger import Tagger

NETWORKS: dict[str, type[Network]] = {
    "generation": RecurrentModel,
    "tagging": Tagger,
    "classification": Classifier,
}


def build_model(config: ModelConfig, seed: int | None = None) -> Network:
    """A model with seeded random weights, leaving the global generator as it was."""
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return NETWORKS[config.task](config)


def count_parameters(model: nn.Module) -> int:
    """Distinct weights: a shared table counts once."""
    return sum(weight.numel() for weight in model.parameters())
