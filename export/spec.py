"""What a bundle holds beside its graphs, and what an export is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from seq2edge.export.parity import QualityLimits
from seq2edge.export.recipe import Recipe
from seq2edge.export.targets import PORTABLE, recipe_of
from seq2edge.runtime import manifest
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.languages import LanguagePair
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.vocabulary import Vocabulary

PRECISIONS = ("fp32", "int8", "int4")
METRICS: Mapping[str, tuple[str, ...]] = {  # the first is the usual one
    "generation": ("bleu", "exact"),
    "tagging": ("accuracy",),
    "classification": ("accuracy",),
}


@dataclass(frozen=True)
class ExportOptions:
    """How to export; the defaults are the command's."""

    precision: str = "fp32"
    sample: Path | None = None  # None: the checkpoint's own
    limits: QualityLimits = field(default_factory=QualityLimits)
    # What int8 and int4 mean: the preset of this name, or a recipe of one's own.
    target: str | None = None  # None: portable
    recipe: Recipe | None = None
    # Search chooses among what a source's tokens may become: faster, and part of what
    # int8 or int4 may lose.
    shortlist: bool = False
    force: bool = False  # replace a bundle
    # What a multilingual checkpoint is told; its bundle is told the same by default.
    languages: LanguagePair = field(default_factory=LanguagePair)

    def __post_init__(self) -> None:
        """Refuse a precision that isn't known, and what contradicts it."""
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ExportError(f"precision {self.precision!r} is none of {known}")
        if self.target is not None:
            recipe_of(self.target)
            if self.precision == "fp32":
                raise ExportError(f"fp32 has no target {self.target!r}; leave it out")
            if self.recipe is not None:
                raise ExportError("a target is a recipe; give one of the two")
        if self.shortlist and self.precision == "fp32":
            raise ExportError(
                "a shortlist may change what is written, and fp32 writes what PyTorch "
                "does; use int8 or int4"
            )
        if self.recipe is not None and self.recipe.layer_bits != 8:
            raise ExportError("a recipe leaves layer_bits to the precision int4")

    @property
    def quantization(self) -> Recipe:
        """What a precision other than fp32 means."""
        recipe = self.recipe or recipe_of(self.target or PORTABLE)
        if self.shortlist:
            recipe = replace(recipe, chooses="shortlist")
        return replace(recipe, layer_bits=4) if self.precision == "int4" else recipe


@dataclass(frozen=True)
class ModelSpec:
    """All of a model that its module doesn't say."""

    name: str
    vocabulary: Vocabulary | None = None  # the target's, of a model that writes tokens
    limits: manifest.Limits = field(default_factory=lambda: manifest.Limits(256, 256))
    search: SearchOptions = field(default_factory=SearchOptions)
    task: manifest.Task = "generation"
    labels: tuple[str, ...] = ()  # of the last axis of `logits`, in the other tasks
    # None: found in the sample; a class must be given, for its labels.
    inputs: tuple[manifest.InputSpec, ...] | None = None
    metric: str = ""  # bleu, exact or accuracy; empty: the usual one of the task
    tokenizer: manifest.AnyTokenizerSpec | None = None
    tokenizer_files: Mapping[str, Path] = field(default_factory=dict)  # name to file
    provenance: Mapping[str, object] = field(default_factory=dict)  # e.g. the licence

    def __post_init__(self) -> None:
        """Refuse what contradicts the task."""
        writes = self.task == "generation"
        if writes and self.vocabulary is None:
            raise ExportError("a model that writes tokens needs a vocabulary")
        if not writes and not self.labels:
            raise ExportError(f"{self.task} needs labels, the names of its logits")
        if self.judged_by not in METRICS[self.task]:
            raise ExportError(
                f"metric {self.metric!r} does not judge {self.task}; "
                f"use {', '.join(METRICS[self.task])}"
            )

    @property
    def judged_by(self) -> str:
        """The metric that quantization is judged by."""
        return self.metric or METRICS[self.task][0]
