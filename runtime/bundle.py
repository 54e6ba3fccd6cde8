"""The bundle: one folder that holds a model, and the manifest that says what is in it.

A bundle is checked before any of it is used: format, schema, that no name leaves the
folder, sizes, then hashes. The hashes find damage, not malice: who can change a file
can change the manifest.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from seq2edge.runtime import schema
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.vocabulary import Vocabulary

FORMAT = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.json"

Dtype = Literal["float32", "float16", "int64", "int32", "uint8", "int8", "bool"]
Axis = int | str  # a fixed length, or the name of one that varies
Json = Mapping[str, object]

HEADS = ("greedy", "beam", "scores")


@dataclass(frozen=True)
class InputSpec:
    """What the encoder reads: a sequence, with the name of its lengths (batch,) int32,
    or a vector, which has none.
    """

    name: str
    kind: Literal["tokens", "frames", "vector"]
    dtype: Dtype
    shape: tuple[Axis, ...]
    lengths: str | None


@dataclass(frozen=True)
class TensorSpec:
    """A memory tensor (axis 0 is batch) or a state tensor (axis 0 is rows).

    The graphs call it memory.<name>, or state.<name> going in and next.<name> out.
    """

    name: str
    dtype: Dtype
    shape: tuple[Axis, ...]


@dataclass(frozen=True)
class TokenizerSpec:
    """Files of the tokenizer; a joint one names the same file twice."""

    kind: Literal["sentencepiece"]
    source: str
    target: str
    append_end: bool


@dataclass(frozen=True)
class Limits:
    """Longest source fed at once, its end token included, and most target tokens."""

    source_tokens: int
    target_tokens: int


@dataclass(frozen=True)
class SearchDefaults:
    """The search that the model was evaluated with."""

    beam_size: int
    length_penalty: float


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime must know of a bundle; manifest.json is its JSON."""

    format: int
    task: Literal["sequence-to-sequence"]
    name: str
    precision: Literal["fp32", "int8"]
    inputs: tuple[InputSpec, ...]
    memory: tuple[TensorSpec, ...]
    state: tuple[TensorSpec, ...]
    vocabulary: Vocabulary
    tokenizer: TokenizerSpec | None
    limits: Limits
    search: SearchDefaults
    encoder: str
    heads: Mapping[str, str]
    files: Mapping[str, FileEntry]  # every file of the folder but the manifest
    quantization: Json | None
    certificate: Json
    provenance: Json

    def __post_init__(self) -> None:
        """Refuse a manifest that contradicts itself, with all that is wrong."""
        faults = list(_faults(self))
        if faults:
            raise BundleError(
                f"the manifest contradicts itself: {'; '.join(faults)}; "
                "export the bundle again"
            )

    @classmethod
    def from_json(cls, value: object) -> "Manifest":
        """Read parsed JSON; a newer format is told apart from a damaged manifest."""
        version = value.get("format") if isinstance(value, dict) else None
        if type(version) is int and version > FORMAT:
            raise BundleError(
                f"written by a newer seq2edge: its format {version} is newer than this "
                f"one reads ({FORMAT}); upgrade seq2edge"
            )
        try:
            return schema.parse(cls, value)
        except schema.SchemaError as error:
            raise BundleError(f"{error}; export the bundle again") from None

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` reads back."""
        return schema.to_json(self)

    def write(self, folder: Path) -> None:
        """Write manifest.json into the folder, whole or not at all."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        temporary = folder / f".{MANIFEST}.{os.getpid()}"
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, folder / MANIFEST)

    def file_names(self) -> set[str]:
        """The files that the manifest itself names: graphs and tokenizer."""
        names = {self.encoder, *self.heads.values()}
        if self.tokenizer:
            names |= {self.tokenizer.source, self.tokenizer.target}
        return names


@dataclass(frozen=True)
class Bundle:
    """A checked folder and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path | str, check_hashes: bool = True) -> "Bundle":
        """Check the folder and read its manifest; BundleError says what is wrong."""
        path = Path(path)
        value = _read_manifest(path)
        try:
            manifest = Manifest.from_json(value)
        except BundleError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from None
        bundle = cls(path, manifest)
        try:
            bundle._check_files(check_hashes)
        except OSError as error:
            raise BundleError(f"{error.filename} can't be read: {error}") from None
        return bundle

    def file(self, name: str) -> Path:
        """Where the file of this name lies."""
        return self.path / name

    @property
    def bytes(self) -> int:
        """Size on disk, the manifest included."""
        listed = sum(entry.bytes for entry in self.manifest.files.values())
        return listed + self.file(MANIFEST).stat().st_size

    def damaged_files(self) -> list[str]:
        """Names of the files whose content isn't what the manifest says."""
        files = self.manifest.files.items()
        return [
            name for name, entry in files if _sha256(self.file(name)) != entry.sha256
        ]

    def _check_files(self, check_hashes: bool) -> None:
        names = self.manifest.files
        self._refuse("missing files", lambda name: not self._is_file(name))
        self._refuse("files that lead out of the folder", self._leads_out)
        self._refuse(
            "files of another size than the manifest says",
            lambda name: self.file(name).stat().st_size != names[name].bytes,
        )
        if check_hashes and (damaged := self.damaged_files()):
            raise BundleError(
                f"{self.path}: damaged files, by their sha256: {_listed(damaged)}; "
                "copy or export the bundle again"
            )

    def _refuse(self, fault: str, is_faulty: Callable[[str], bool]) -> None:
        faulty = [name for name in self.manifest.files if is_faulty(name)]
        if faulty:
            raise BundleError(
                f"{self.path}: {fault}: {_listed(faulty)}; "
                "copy or export the bundle again"
            )

    def _is_file(self, name: str) -> bool:
        # A broken link, or one that goes round in circles, is a missing file too.
        return self.file(name).is_file()

    def _leads_out(self, name: str) -> bool:
        return not self.file(name).resolve().is_relative_to(self.path.resolve())


def hash_files(folder: Path) -> dict[str, FileEntry]:
    """The `files` of a manifest for all that lies in the folder, in order of name."""
    return {
        name: FileEntry((folder / name).stat().st_size, _sha256(folder / name))
        for name in _file_names(folder)
    }


def unlisted_files(bundle: Bundle) -> list[str]:
    """Files in the folder that the bundle doesn't know: nobody checks or uses them."""
    listed = bundle.manifest.files
    return [name for name in _file_names(bundle.path) if name not in listed]


def is_bundle(path: Path) -> bool:
    """Whether the folder was written as a bundle, be it damaged, older or newer."""
    try:
        value = _read_manifest(path)
    except BundleError:
        return False
    return isinstance(value, dict) and {"format", "encoder", "files"} <= value.keys()


def read_json(path: Path) -> object:
    """A JSON file of a bundle, or a BundleError that names the place of the fault."""
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
        )
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; export the bundle again") from None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not UTF-8; export the bundle again") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is not valid JSON, perhaps cut short ({error}); "
            "copy or export the bundle again"
        ) from None


def _read_manifest(path: Path) -> object:
    try:
        exists, is_folder = path.exists(), path.is_dir()
        has_manifest = (path / MANIFEST).is_file()
    except OSError as error:  # no permission, or a name too long for the system
        raise BundleError(f"{path} can't be read: {error.strerror}") from None
    if not exists:
        raise BundleError(f"{path} does not exist; give the folder of a bundle")
    if not is_folder:
        raise BundleError(f"{path} is not a folder; give the folder of a bundle")
    if not has_manifest:
        raise BundleError(
            f"{path} has no {MANIFEST}, so it is no bundle; "
            "make one with `seq2edge export`"
        )
    return read_json(path / MANIFEST)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [
        key for key, times in Counter(key for key, _ in pairs).items() if times > 1
    ]
    if repeated:
        raise ValueError(f"key {repeated[0]!r} is given twice")
    return dict(pairs)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _faults(manifest: Manifest) -> Iterator[str]:
    """What types alone can't say of a manifest."""
    yield from _version_faults(manifest)
    yield from _tensor_faults(manifest)
    yield from _number_faults(manifest)
    yield from _name_faults(manifest)


def _version_faults(manifest: Manifest) -> Iterator[str]:
    if manifest.format != FORMAT:
        yield f"format is {manifest.format}, where this seq2edge reads {FORMAT}"


def _tensor_faults(manifest: Manifest) -> Iterator[str]:
    specs = {
        "inputs": [spec.name for spec in manifest.inputs]
        + [spec.lengths for spec in manifest.inputs if spec.lengths is not None],
        "memory": [spec.name for spec in manifest.memory],
        "state": [spec.name for spec in manifest.state],
    }
    for key, names in specs.items():
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            yield f"{key} names {_listed(repeated)} twice"
    if not manifest.inputs:
        yield "inputs is empty"
    first_axes = {"inputs": "batch", "memory": "batch", "state": "rows"}
    for key, axis in first_axes.items():
        for spec in getattr(manifest, key):
            if spec.shape[:1] != (axis,):
                yield f"{key}.{spec.name}: axis 0 of its shape must be {axis!r}"
    for spec in manifest.inputs:
        if (spec.kind == "vector") != (spec.lengths is None):
            yield f"inputs.{spec.name}: sequences have lengths, and vectors have none"


def _number_faults(manifest: Manifest) -> Iterator[str]:
    vocabulary, limits, search = manifest.vocabulary, manifest.limits, manifest.search
    for key in ("pad", "unknown", "start", "end"):
        if not 0 <= getattr(vocabulary, key) < vocabulary.size:
            token = getattr(vocabulary, key)
            yield f"vocabulary.{key} is {token}, outside of 0 to {vocabulary.size - 1}"
    for key, value in {
        "limits.source_tokens": limits.source_tokens,
        "limits.target_tokens": limits.target_tokens,
        "search.beam_size": search.beam_size,
    }.items():
        if value < 1:
            yield f"{key} is {value}, and must be at least 1"
    if search.length_penalty < 0:
        yield f"search.length_penalty is {search.length_penalty}, and can't be negative"


def _name_faults(manifest: Manifest) -> Iterator[str]:
    if unknown := manifest.heads.keys() - set(HEADS):
        yield f"heads has {_listed(unknown)}, where only {', '.join(HEADS)} are known"
    if not manifest.heads:
        yield "heads is empty"
    names = manifest.file_names()
    if unsafe := [name for name in names | manifest.files.keys() if not _is_safe(name)]:
        yield f"names that are not relative and inside the folder: {_listed(unsafe)}"
    if unlisted := names - manifest.files.keys():
        yield f"files does not list {_listed(unlisted)}"
    if MANIFEST in manifest.files:
        yield f"files lists {MANIFEST} itself"
    for name, entry in manifest.files.items():
        if entry.bytes < 0 or not _is_sha256(entry.sha256):
            yield f"files.{name}: bytes or sha256 is none"


def _is_safe(name: str) -> bool:
    """Whether a name stays in its folder on every system; links are checked on disk."""
    path = PurePosixPath(name)
    return (
        name == str(path) != "."  # no empty name, //, trailing / or .
        and not path.is_absolute()
        and ".." not in path.parts
        and not set(name) & set('\\:*?"<>|')
        and name.isprintable()
    )


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in files)
    return sorted(name for name in names if name != MANIFEST)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
