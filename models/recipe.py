"""A training recipe: a TOML file read into frozen dataclasses, every key checked.

Paths are relative to the recipe's folder, or to the data folder given on the command
line.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Self, get_type_hints

from seq2edge.models.about import About
from seq2edge.models.config import ModelConfig
from seq2edge.runtime import schema
from seq2edge.runtime.errors import ConfigError


@dataclass(frozen=True)
class DataRecipe:
    """Parallel text: one TSV file, or two line-aligned files, source and target."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    max_tokens: int = 100  # of either side; longer pairs are counted and left out
    max_ratio: float = 4.0  # longer side <= max_ratio * shorter + 10 tokens


@dataclass(frozen=True)
class TokenizerRecipe:
    """A SentencePiece model over both languages, or one for each."""

    joint: bool = True
    vocabulary_size: int = 8000
    source_vocabulary_size: int = 0  # 0: as vocabulary_size; separate ones only
    kind: str = "unigram"  # or "bpe"
    character_coverage: float = 1.0


@dataclass(frozen=True)
class TrainingRecipe:
    """The optimisation: Adam with linear warm-up, then decay to the last step."""

    epochs: int = 10
    batch_tokens: int = 3000  # padded positions of the longer side
    learning_rate: float = 1e-3  # at the peak
    warmup_steps: int = 400
    decay: str = "linear"  # to zero; or "cosine", "inverse_sqrt"
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    adam_betas: tuple[float, ...] = (0.9, 0.98)
    seed: int = 1
    threads: int = 0  # 0: torch's own choice
    autocast: str = "auto"  # bf16 where a measurement at the start says it gains
    save_every: int = 200  # steps; a killed run loses no more than these
    evaluate_every: int = 0  # steps; 0: once an epoch
    patience: int = 4  # evaluations without a better dev BLEU before it stops
    average: int = 4  # checkpoints of the last evaluations that may be averaged


@dataclass(frozen=True)
class EvaluationRecipe:
    """How dev BLEU is taken, and the search that the checkpoint recommends."""

    beam_size: int = 1
    max_sentences: int = 1000  # of the dev set, drawn with the seed; 0: all
    recommended_beam_size: int = 4
    recommended_length_penalty: float = 0.6


@dataclass(frozen=True)
class Recipe:
    """All sections; `model` is kept raw, since vocabulary sizes come from training."""

    about: About
    data: DataRecipe
    tokenizer: TokenizerRecipe
    model: Mapping[str, object]
    training: TrainingRecipe
    evaluation: EvaluationRecipe

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a recipe; ConfigError names every misspelt key."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such recipe") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: not a readable TOML file: {error}") from None
        return cls.from_values(values, str(path))

    @classmethod
    def from_values(cls, values: dict[str, Any], origin: str) -> Self:
        """Check the sections of a parsed recipe; origin is named in errors."""
        try:
            recipe = schema.parse(cls, _with_defaults(cls, values))
        except schema.SchemaError as error:
            raise ConfigError(f"{origin}: {error}; see docs/training.md") from None
        recipe.check(origin)
        return recipe

    def model_config(
        self, source_vocabulary: int, target_vocabulary: int
    ) -> ModelConfig:
        """The model's configuration once the vocabularies are known."""
        sizes = {
            "source_vocabulary": source_vocabulary,
            "target_vocabulary": target_vocabulary,
        }
        try:
            return schema.parse(
                ModelConfig, _with_defaults(ModelConfig, {**self.model, **sizes})
            )
        except schema.SchemaError as error:
            raise ConfigError(f"model: {error}; see docs/training.md") from None

    def check(self, origin: str) -> None:
        """Raise ConfigError with every value that can't be meant."""
        training, tokenizer = self.training, self.tokenizer
        rules = {
            "tokenizer.kind must be unigram or bpe": tokenizer.kind
            in ("unigram", "bpe"),
            "training.decay must be linear, cosine or inverse_sqrt": training.decay
            in ("linear", "cosine", "inverse_sqrt"),
            "training.autocast must be auto, bf16 or off": training.autocast
            in ("auto", "bf16", "off"),
            "training.epochs must be at least 1": training.epochs >= 1,
            "training.batch_tokens must exceed data.max_tokens": training.batch_tokens
            > self.data.max_tokens,
            "training.learning_rate must be above 0": training.learning_rate > 0,
            "training.save_every must be at least 1": training.save_every >= 1,
            "training.average must be at least 1": training.average >= 1,
            "training.label_smoothing must be from 0 to below 1": 0
            <= training.label_smoothing
            < 1,
            "training.adam_betas must be two numbers": len(training.adam_betas) == 2,
            "evaluation beams must be at least 1": min(
                self.evaluation.beam_size, self.evaluation.recommended_beam_size
            )
            >= 1,
        }
        if faults := [rule for rule, holds in rules.items() if not holds]:
            raise ConfigError(f"{origin}: {'; '.join(faults)}")
        self.model_config(8, 8)  # its own faults, before hours of training


def _with_defaults(kind: Any, given: object) -> object:
    """The given keys, and the defaults of all others, in nested sections too."""
    if not isinstance(given, Mapping):
        return given
    types, merged = get_type_hints(kind), dict(given)
    for entry in fields(kind):
        nested = types[entry.name]
        if is_dataclass(nested):
            merged[entry.name] = _with_defaults(nested, merged.get(entry.name, {}))
        elif entry.default is not MISSING:
            default = entry.default
            listed = list(default) if isinstance(default, tuple) else default
            merged.setdefault(entry.name, listed)
    merged.setdefault("model", {}) if kind is Recipe else None
    return merged
