"""What a model reads, as the runtime describes it."""

from seq2edge.models.config import ModelConfig
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
        return InputSpec(name, "tokens", "int64", ("batch", name), f"{name}_lengths")
    if kind == "frames":
        shape = ("batch", name, features)
        return InputSpec(name, "frames", "float32", shape, f"{name}_lengths")
    if kind == "vector":
        return InputSpec(name, "vector", "float32", ("batch", features), None)
    return InputSpec(name, "class", "int64", ("batch",), None, classes)
