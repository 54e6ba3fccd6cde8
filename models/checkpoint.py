"""A trained model on disk: config.json, model.safetensors, the tokenizer, a sample.

No pickle: safetensors and JSON only, so that loading a stranger's checkpoint runs no
code. Every key and shape is checked both ways before a weight is used.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from seq2edge.models.about import About
from seq2edge.models.build import build_model
from seq2edge.models.config import ModelConfig
from seq2edge.models.inputs import input_specs
from seq2edge.models.network import Network
from seq2edge.runtime import schema
from seq2edge.runtime.errors import CheckpointError, ConfigError
from seq2edge.runtime.manifest import AnyTokenizerSpec, InputSpec, Limits
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.vocabulary import Vocabulary

FORMAT = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SAMPLE = "sample.tsv"  # lines that an export is judged by: inputs TAB reference
SAMPLE_FILES = "sample"  # the folder of the feature frames that they name


@dataclass(frozen=True)
class CheckpointInfo:
    """config.json: all of a checkpoint but its weights."""

    format: int
    about: About
    model: ModelConfig
    inputs: tuple[InputSpec, ...]
    labels: tuple[str, ...]  # of a tagger or classifier
    metric: str  # that the model was judged by: bleu, exact or accuracy
    vocabulary: Vocabulary | None  # of a model that writes tokens, as search
    tokenizer: AnyTokenizerSpec | None
    limits: Limits
    search: SearchOptions | None
    training: Mapping[str, object]  # figures and versions, for the record

    @property
    def files(self) -> set[str]:
        """Names of the files that must lie beside config.json."""
        return {WEIGHTS} | (self.tokenizer.files if self.tokenizer else set())

    def faults(self) -> Iterator[str]:
        """What its parts say differently of the same thing."""
        model = self.model
        classes = next((i.labels for i in self.inputs if i.kind == "class"), ())
        if self.inputs != input_specs(model, classes):
            yield "inputs are not those of the model"
        if len(classes) != model.classes:
            yield f"the class has {len(classes)} labels, the model {model.classes}"
        if len(self.labels) != model.labels:
            yield f"labels are {len(self.labels)}, the model's {model.labels}"
        for key in ("vocabulary", "search"):
            if model.writes != (getattr(self, key) is not None):
                yield f"{key} must be {'given' if model.writes else 'null'}"
        size = self.vocabulary.size if self.vocabulary else 0
        if model.writes and size != model.target_vocabulary:
            yield f"vocabulary.size is {size}, the model's {model.target_vocabulary}"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; the module is in eval mode, in float32."""

    path: Path
    info: CheckpointInfo
    module: Network
    weights: tuple[Path, ...]  # the files that hold them

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a checkpoint folder; CheckpointError says what is wrong."""
        info = _read_info(path)
        for name in info.files:
            if Path(name).name != name or not (path / name).is_file():
                raise CheckpointError(
                    f"{path / name} is missing; copy or train it again"
                )
        module = build_model(info.model)
        load_weights(module, path / WEIGHTS)
        return cls(path, info, module.eval(), (path / WEIGHTS,))


@dataclass(frozen=True)
class Sample:
    """Lines that an export is judged by: the inputs' fields TAB one reference."""

    lines: Sequence[str]
    files: Mapping[str, Path] = field(default_factory=dict)  # that they name


def write_checkpoint(
    path: Path,
    info: CheckpointInfo,
    weights: Mapping[str, Tensor],
    tokenizer_files: Mapping[str, Path],
    sample: Sample,
) -> None:
    """Fill a folder; config.json comes last, so that a half-written one is none."""
    path.mkdir(parents=True, exist_ok=True)
    (path / CONFIG).unlink(missing_ok=True)
    for name, file in tokenizer_files.items():
        shutil.copyfile(file, path / name)
    for name, file in sample.files.items():
        (path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, path / name)
    write_text(path / SAMPLE, "".join(f"{line}\n" for line in sample.lines))
    save_weights(weights, path / WEIGHTS)
    text = json.dumps(schema.to_json(info), indent=2, ensure_ascii=False)
    write_text(path / CONFIG, text + "\n")


def distinct_weights(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies of all parameters by name, a shared table once."""
    return {
        name: weight.detach().to(dtype, copy=True)
        for name, weight in module.named_parameters()
    }


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write safetensors, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # save_file would make the file private to its owner.
    whole = {name: w.detach().contiguous() for name, w in weights.items()}
    temporary.write_bytes(save(whole))
    os.replace(temporary, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read safetensors, or say in one sentence that they are damaged."""
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} is no readable safetensors file ({error}); copy it again"
        ) from None
    return weights


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy the file's weights into the module after checking every name and shape."""
    weights = read_weights(path)
    wanted = dict(module.named_parameters())
    faults = [f"lacks {name}" for name in sorted(wanted.keys() - weights.keys())]
    faults += [
        f"has {name}, which the configuration doesn't"
        for name in sorted(weights.keys() - wanted.keys())
    ]
    faults += [
        f"{name} is {list(weights[name].shape)} where {list(wanted[name].shape)} is due"
        for name in sorted(wanted.keys() & weights.keys())
        if weights[name].shape != wanted[name].shape
    ]
    if faults:
        shown = "; ".join(faults[:5]) + ("; ..." if len(faults) > 5 else "")
        raise CheckpointError(f"{path} doesn't match its {CONFIG}: {shown}")
    with torch.no_grad():
        for name, weight in wanted.items():
            weight.copy_(weights[name])


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def _read_info(path: Path) -> CheckpointInfo:
    file = path / CONFIG
    if not file.is_file():
        raise CheckpointError(
            f"{path} has no {CONFIG}, so it is no checkpoint; copy the whole folder of "
            "the model, or name another"
        )
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        version = value.get("format") if isinstance(value, dict) else None
        if type(version) is int and version > FORMAT:
            raise CheckpointError(
                f"{file}: format {version} is newer than this seq2edge reads "
                f"({FORMAT}); upgrade seq2edge"
            )
        info = schema.parse(CheckpointInfo, value)
    # SchemaError is a ValueError; a RecursionError comes of [[[[ without end.
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{file}: {error}; copy the checkpoint again") from None
    if faults := list(info.faults()):
        raise CheckpointError(f"{file}: {'; '.join(faults)}; copy the checkpoint again")
    return info
