"""What a model reads, as the runtime describes it."""

from seq2edge.models.config import ModelConfig
from seq2edge.runtime.inputs import (
    class_input,
    frames_input,
    tokens_input,
    vector_input,
)
from seq2edge.runtime.manifest import InputSpec


def input_specs(
    config: ModelConfig, classes: tuple[str, ...] = ()
) -> tuple[InputSpec, ...]:
    """One InputSpec an input, in order; `classes` names the ids of a class."""
    return tuple(
        _spec(name, kind, config.features, classes)
        for name, kind in config.inputs.items()
    )


def _spec(name: str, kind: str, features: int, classes: tuple[str, ...]) -> InputSpec:
    if kind == "tokens":
        return tokens_input(name)
    if kind == "frames":
        return frames_input(name, features)
    return (
        vector_input(name, features) if kind == "vector" else class_input(name, classes)
    )
