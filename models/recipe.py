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
from seq2edge.models.config import ARCHITECTURES, ModelConfig
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.models.transformer_config import TransformerConfig
from seq2edge.runtime import schema
from seq2edge.runtime.errors import ConfigError


@dataclass(frozen=True)
class DataRecipe:
    """One TSV file, or line-aligned files: every input, then what is made of them."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    max_tokens: int = 100  # or frames, of either side; longer ones are left out
    max_ratio: float = 4.0  # longer side <= max_ratio * shorter + 10 tokens


@dataclass(frozen=True)
class TokenizerRecipe:
    """A SentencePiece model over both languages, or one for each.

    With "word" every word is one id, as tagging needs it; "char" knows characters only.
    Of both there are at most vocabulary_size.
    """

    joint: bool = True
    vocabulary_size: int = 8000
    source_vocabulary_size: int = 0  # 0: as vocabulary_size; separate ones only
    kind: str = "unigram"  # or "bpe", "word", "char"
    character_coverage: float = 1.0


@dataclass(frozen=True)
class EmbeddingRecipe:
    """Vectors made elsewhere for the words that the model reads; see `pretrained`."""

    file: str = ""  # word2vec's or GloVe's text, or .npy; "": random vectors
    vocabulary: str = ""  # of a .npy: a word a line
    frozen: bool = False  # stay as they are in training


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
    patience: int = 4  # evaluations without a better dev score before it stops
    average: int = 4  # checkpoints of the last evaluations that may be averaged


@dataclass(frozen=True)
class EvaluationRecipe:
    """How the dev score is taken, and the search that the checkpoint recommends."""

    metric: str = "auto"  # bleu of texts, accuracy of labels; or "exact"
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
    embedding: EmbeddingRecipe
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
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        labels: int = 0,
        classes: int = 0,
    ) -> ModelConfig:
        """The model's configuration once the corpora have told these sizes."""
        sizes = {
            "source_vocabulary": source_vocabulary,
            "target_vocabulary": target_vocabulary,
            "labels": labels,
            "classes": classes,
        }
        if given := sorted(sizes.keys() & self.model.keys()):
            raise ConfigError(
                f"model.{given[0]} follows from the corpora; leave it out"
            )
        kind = self._architecture()
        known = {field.name for field in fields(kind)}
        sizes = {name: size for name, size in sizes.items() if name in known}
        try:
            return schema.parse(kind, _with_defaults(kind, {**self.model, **sizes}))
        except schema.SchemaError as error:
            raise ConfigError(f"model: {error}; see docs/training.md") from None

    def _architecture(self) -> type[RecurrentConfig] | type[TransformerConfig]:
        name = self.model.get("architecture", "recurrent")
        if name not in ARCHITECTURES:
            raise ConfigError(
                f"model.architecture = {name!r}; use one of {', '.join(ARCHITECTURES)}"
            )
        return ARCHITECTURES[name]

    @property
    def shape(self) -> ModelConfig:
        """The configuration before the corpora are known: its sizes mean nothing."""
        task, inputs = self.model.get("task"), self.model.get("inputs")
        kinds = inputs.values() if isinstance(inputs, Mapping) else ()
        labels = 0 if task in (None, "generation") else 2
        return self.model_config(8, 8, labels, 2 if "class" in kinds else 0)

    @property
    def metric(self) -> str:
        """What the dev set is judged by: bleu, exact or accuracy."""
        if self.evaluation.metric != "auto":
            return self.evaluation.metric
        return "bleu" if self.shape.writes else "accuracy"

    def check(self, origin: str) -> None:
        """Raise ConfigError with every value that can't be meant."""
        shape = self.shape  # its own faults first, before hours of training
        rules = {
            **_tokenizer_rules(self, shape),
            **_training_rules(self.training),
            "training.batch_tokens must exceed data.max_tokens": (
                self.training.batch_tokens > self.data.max_tokens
            ),
            **_evaluation_rules(self.evaluation, shape),
            **_length_rules(self.data, shape),
        }
        if faults := [rule for rule, holds in rules.items() if not holds]:
            raise ConfigError(f"{origin}: {'; '.join(faults)}")


def _tokenizer_rules(recipe: Recipe, shape: ModelConfig) -> dict[str, bool]:
    """What must hold of tokenizer and tables, and whether it does."""
    tokenizer, embedding = recipe.tokenizer, recipe.embedding
    tags_words = shape.task == "tagging" and shape.reads_tokens
    one_table = shape.tie in ("embeddings", "all")
    shares = shape.writes and shape.reads_tokens and one_table
    return {
        "tokenizer.kind must be unigram, bpe, word or char": (
            tokenizer.kind in ("unigram", "bpe", "word", "char")
        ),
        "tokenizer.kind must be word in tagging: every word gets one tag": (
            not tags_words or tokenizer.kind == "word"
        ),
        f"model.tie = {shape.tie} needs tokenizer.joint": (
            not shares or tokenizer.joint
        ),
        "embedding.file needs an input of tokens": (
            not embedding.file or shape.reads_tokens
        ),
        "embedding.frozen needs a file": bool(embedding.file) or not embedding.frozen,
        f"embedding.frozen needs a model.tie other than {shape.tie}": (
            not embedding.frozen or not shares
        ),
        "embedding.vocabulary goes with an embedding.file that ends in .npy": (
            bool(embedding.vocabulary) == embedding.file.endswith(".npy")
        ),
    }


def _length_rules(data: DataRecipe, shape: ModelConfig) -> dict[str, bool]:
    positions = getattr(shape, "max_positions", data.max_tokens)
    return {
        "model.max_positions must be at least data.max_tokens": (
            positions >= data.max_tokens
        )
    }


def _training_rules(training: TrainingRecipe) -> dict[str, bool]:
    return {
        "training.decay must be linear, cosine or inverse_sqrt": (
            training.decay in ("linear", "cosine", "inverse_sqrt")
        ),
        "training.autocast must be auto, bf16 or off": (
            training.autocast in ("auto", "bf16", "off")
        ),
        "training.epochs must be at least 1": training.epochs >= 1,
        "training.learning_rate must be above 0": training.learning_rate > 0,
        "training.save_every must be at least 1": training.save_every >= 1,
        "training.average must be at least 1": training.average >= 1,
        "training.label_smoothing must be from 0 to below 1": (
            0 <= training.label_smoothing < 1
        ),
        "training.adam_betas must be two numbers": len(training.adam_betas) == 2,
    }


def _evaluation_rules(
    evaluation: EvaluationRecipe, shape: ModelConfig
) -> dict[str, bool]:
    beams = evaluation.beam_size, evaluation.recommended_beam_size
    known = ("auto", "exact", "bleu" if shape.writes else "accuracy")
    return {
        f"evaluation.metric must be {', '.join(known)} in {shape.task}": (
            evaluation.metric in known
        ),
        "evaluation beams must be at least 1": min(beams) >= 1,
        "evaluation.recommended_length_penalty must be at least 0": (
            evaluation.recommended_length_penalty >= 0
        ),
    }


def _with_defaults(kind: Any, given: object) -> object:
    """The given keys, and the defaults of all others, in nested sections too."""
    if not isinstance(given, Mapping):
        return given
    types, merged = get_type_hints(kind), dict(given)
    for entry in fields(kind):
        nested = types[entry.name]
        if is_dataclass(nested):
            merged[entry.name] = _with_defaults(nested, merged.get(entry.name, {}))
        elif entry.default_factory is not MISSING:
            merged.setdefault(entry.name, entry.default_factory())
        elif entry.default is not MISSING:
            default = entry.default
            listed = list(default) if isinstance(default, tuple) else default
            merged.setdefault(entry.name, listed)
    merged.setdefault("model", {}) if kind is Recipe else None
    return merged
