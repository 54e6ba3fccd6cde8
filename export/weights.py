"""One external weights.bin under all graphs of a bundle, identical tensors once.

Encoder and heads name the same file, so that a tied embedding is on disk once. Large
tensors start on a page, so that onnxruntime can map them instead of reading them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.manifest import Dtype, TableSpec

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


def shared_tables(folder: Path, names: Iterable[str]) -> tuple[TableSpec, ...]:
    """The large embeddings that two or more of the written graphs have.

    A name that means another tensor in another graph is none to share by. Matrices
    aren't among them: onnxruntime packs those anew and lets go of the file.
    """
    graphs = [
        onnx.load(str(folder / name), load_external_data=False).graph for name in names
    ]
    looked_up = {
        node.input[0]
        for graph in graphs
        for node in graph.node
        if node.op_type == "Gather"
    }
    names_of: dict[TableSpec, list[str]] = {}  # the same table by its names
    meanings: dict[str, set[TableSpec]] = {}
    for tensor in chain(*(graph.initializer for graph in graphs)):
        if table := _table(tensor):
            names_of.setdefault(table, []).append(tensor.name)
            meanings.setdefault(tensor.name, set()).add(table)
    return tuple(
        replace(
            table,
            names=tuple(sorted({name for name in its if len(meanings[name]) == 1})),
        )
        for table, its in names_of.items()
        if len(its) > 1 and looked_up.intersection(its)
    )


def _table(tensor: TensorProto) -> TableSpec | None:
    """Where a large external tensor lies, without a name."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if int(entries.get("length", 0)) < MAPPED_BYTES:
        return None
    dtype = cast(Dtype, helper.tensor_dtype_to_np_dtype(tensor.data_type).name)
    return TableSpec((), dtype, (*tensor.dims,), WEIGHTS, int(entries["offset"]))


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
