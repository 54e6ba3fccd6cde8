"""The loss of networks that give labels, shared by tagger and classifier."""

from torch import Tensor
from torch.nn import functional

IGNORED = -100  # an expected label that isn't one: padding, or unknown to the model


def label_loss(logits: Tensor, expected: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross entropy in nats; logits (..., labels), expected (...)."""
    real = expected != IGNORED
    return functional.cross_entropy(
        logits[real].float(), expected[real], label_smoothing=label_smoothing
    )
