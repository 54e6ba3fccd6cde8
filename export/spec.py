"""What a bundle holds beside its graphs, and what an export is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from seq2edge.export.parity import Limits
from seq2edge.export.quantize import Recipe
from seq2edge.runtime import bundle
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.vocabulary import Vocabulary

PRECISIONS = ("fp32", "int8")


@dataclass(frozen=True)
class ExportOptions:
    """How to export; the defaults are the command's."""

    precision: str = "fp32"
    sample: Path | None = None  # None: the checkpoint's own
    limits: Limits = field(default_factory=Limits)
    recipe: Recipe = field(default_factory=Recipe)  # of int8
    force: bool = False  # replace a bundle

    def __post_init__(self) -> None:
        """Refuse a precision that isn't known."""
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ExportError(f"precision {self.precision!r} is none of {known}")


@dataclass(frozen=True)
class ModelSpec:
    """All of a model that its module doesn't say."""

    name: str
    vocabulary: Vocabulary  # the target's
    limits: bundle.Limits = field(default_factory=lambda: bundle.Limits(256, 256))
    search: bundle.SearchDefaults = field(
        default_factory=lambda: bundle.SearchDefaults(beam_size=4, length_penalty=0.6)
    )
    tokenizer: bundle.TokenizerSpec | None = None
    tokenizer_files: Mapping[str, Path] = field(default_factory=dict)  # name to file
    provenance: Mapping[str, object] = field(default_factory=dict)  # e.g. the licence
