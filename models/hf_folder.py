"""The files of a Hugging Face folder, read so that a stranger's folder runs no code."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seq2edge.models.checkpoint import CONFIG, read_weights
from seq2edge.runtime.errors import CheckpointError

SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"
INDEX = ".index.json"  # behind the name of a file that is in several parts
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"


def is_huggingface(folder: Path) -> bool:
    """Whether config.json is one of transformers; a broken one is none."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    marks = {"model_type", "architectures", "transformers_version"}
    return isinstance(config, dict) and bool(marks & config.keys())


def read_object(file: Path) -> dict[str, object]:
    """A JSON object, or a CheckpointError that names the file."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{file} is missing; copy the whole folder of the model again"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{file} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise CheckpointError(
            f"{file} is not valid JSON ({error}); copy it again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} holds no JSON object; copy it again")
    return value


def read_optional(file: Path) -> dict[str, object]:
    """The same of a file that a folder needn't have: empty without it."""
    return read_object(file) if file.is_file() else {}


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of the weights, in transformers' order of preference."""
    for name in (SAFETENSORS, PICKLED):
        if (folder / name).is_file():
            return (folder / name,)
        if (folder / f"{name}{INDEX}").is_file():
            return _parts(folder, folder / f"{name}{INDEX}")
    raise CheckpointError(
        f"{folder} has neither {SAFETENSORS} nor {PICKLED}; copy the model's weights "
        "into it, saved by PyTorch"
    )


def _parts(folder: Path, index: Path) -> tuple[Path, ...]:
    places = read_object(index).get("weight_map")
    names = list(places.values()) if isinstance(places, Mapping) else []
    if not names or not all(
        isinstance(name, str) and Path(name).name == name for name in names
    ):
        raise CheckpointError(f"{index} has no weight_map of files; copy it again")
    files = tuple(folder / name for name in sorted(set(names)))
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{folder} lacks {', '.join(missing)}, which {index.name} names; copy the "
            "whole folder of the model again"
        )
    return files


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors by name, in the types that they have on disk."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        is_safe = file.suffix == ".safetensors"
        part = read_weights(file) if is_safe else _unpickled(file)
        if twice := sorted(tensors.keys() & part.keys()):
            raise CheckpointError(
                f"{file} has {twice[0]}, which another part has too; copy the whole "
                "folder of the model again"
            )
        tensors |= part
    return tensors


def _unpickled(file: Path) -> dict[str, Tensor]:
    """A pickle read by torch's restricted reader, which calls nothing of the file's."""
    mapped = zipfile.is_zipfile(file)  # files older than torch 1.6 can't be
    try:
        value = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a damaged pickle leads the reader to
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{file} can't be read as weights alone, it is damaged or holds code "
            f"({type(error).__name__}: {reason}); copy it again, or save the model as "
            f"{SAFETENSORS}"
        ) from None
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor)
        for name, tensor in value.items()
    ):
        raise CheckpointError(
            f"{file} holds something else than tensors by name; save the model's "
            f"state_dict, or the model as {SAFETENSORS}"
        )
    return dict(value)
