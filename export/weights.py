"""One external weights.bin under all graphs of a bundle, identical tensors once.

Encoder and heads name the same file, so that a tied embedding is on disk once. Large
tensors start on a page, so that onnxruntime can map them instead of reading them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from seq2edge.runtime.errors import ExportError

WEIGHTS = "weights.bin"
INLINE_BYTES = 1024  # smaller tensors stay in their graph
PAGE = 4096
MAPPED_BYTES = 16 * PAGE  # from here on the padding to a page costs little
ALIGNMENT = 64  # of the rest: a cache line


@dataclass
class _Store:
    """The file being written, and where each content already lies in it."""

    file: BinaryIO
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def place(self, content: bytes) -> tuple[int, int]:
        """Offset and length of this content, written unless it is there already."""
        key = hashlib.sha256(content).digest()
        if key not in self.places:
            step = PAGE if len(content) >= MAPPED_BYTES else ALIGNMENT
            self.file.write(bytes(-self.file.tell() % step))
            self.places[key] = (self.file.tell(), len(content))
            self.file.write(content)
        return self.places[key]


def write_graphs(models: Mapping[str, ModelProto], folder: Path) -> None:
    """Write each model under its file name, and all large tensors into weights.bin."""
    with (folder / WEIGHTS).open("xb") as file:
        store = _Store(file)
        for name, model in models.items():
            copy = ModelProto()
            copy.CopyFrom(model)
            for tensor in copy.graph.initializer:
                content = raw_bytes(tensor)
                if len(content) >= INLINE_BYTES:
                    _point(tensor, *store.place(content))
            (folder / name).write_bytes(copy.SerializeToString())
    for name in models:
        _check(folder / name)


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"{path.name} is no valid ONNX graph: {reason}") from error


def raw_bytes(tensor: TensorProto) -> bytes:
    """A tensor's values, little-endian."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)


def _point(tensor: TensorProto, offset: int, length: int) -> None:
    for kind in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(kind)
    tensor.data_location = TensorProto.EXTERNAL
    values = {"location": WEIGHTS, "offset": str(offset), "length": str(length)}
    for key, value in values.items():
        tensor.external_data.add(key=key, value=value)
