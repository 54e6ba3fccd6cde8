"""What manifest.json says of a bundle, and whether it contradicts itself."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from seq2edge.runtime import schema
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.vocabulary import Vocabulary

FORMAT = 1
MANIFEST = "manifest.json"

Dtype = Literal["float32", "float16", "int64", "int32", "uint8", "int8", "bool"]
ITEM_BYTES: Mapping[Dtype, int] = {
    "float32": 4,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "uint8": 1,
    "int8": 1,
    "bool": 1,
}
Axis = int | str  # a fixed length, or the name of one that varies
Json = Mapping[str, object]

SEQUENCES = ("tokens", "frames")  # the kinds of input that have lengths
RANKS = {"tokens": 2, "frames": 3, "vector": 2, "class": 1}
Task = Literal["generation", "tagging", "classification"]
Kind = Literal["tokens", "frames", "vector", "class"]
Precision = Literal["fp32", "int8", "int4"]

# generation writes tokens, by a search over a head; tagging gives a label for every
# position of its input, classification one for the whole.
HEADS: Mapping[str, tuple[str, ...]] = {
    "generation": (
        "greedy",
        "beam",
        "scores",
        "attention",  # if it has one
        "draft",  # these two go with a shortlist that drafts are made of,
        "verify",
        "shortlist",  # and these with one that search chooses among
        "ahead",
        "beam_ahead",  # with either
    ),
    "tagging": ("stream",),  # none where the model can't go word by word
    "classification": (),
}
LOGITS = "logits"  # the output that labels are read from
PAST = "past"  # the name of an axis that grows


@dataclass(frozen=True)
class InputSpec:
    """What the encoder reads: a sequence of tokens (batch, time) or of feature frames
    (batch, time, features), with the name of its lengths (batch,) int32; or a vector
    (batch, features) or class id (batch,), which have none.
    """

    name: str
    kind: Kind
    dtype: Dtype
    shape: tuple[Axis, ...]
    lengths: str | None
    labels: tuple[str, ...] = ()  # of a class: the name of each id


@dataclass(frozen=True)
class TensorSpec:
    """A memory or output tensor (axis 0 is batch) or a state tensor (axis 0 is rows).

    The graphs call it memory.<name> or output.<name>, or state.<name> going in and
    next.<name> out.
    """

    name: str
    dtype: Dtype
    shape: tuple[Axis, ...]

    @property
    def growing(self) -> int | None:
        """The axis that every step makes longer by one, as a cache's."""
        return self.shape.index(PAST) if PAST in self.shape else None


@dataclass(frozen=True)
class TokenizerSpec:
    """Files of the tokenizer; a joint one names the same file twice."""

    kind: Literal["sentencepiece"]
    source: str
    target: str
    append_end: bool
    words: bool = False  # each word is read by itself, as one id

    @property
    def files(self) -> set[str]:
        """Names of its files."""
        return {self.source, self.target}


@dataclass(frozen=True)
class LanguagesSpec:
    """The languages that a model is told, and where it is told them.

    front and back: before and behind the source; first: the first token written;
    start: the decoder's start token.
    """

    tokens: Mapping[str, int]  # code to the id of its token
    source: str | None  # code of what is read; None where the model isn't told
    target: str | None  # of what is written; None where each text tells it
    source_place: Literal["none", "front", "back"]
    target_place: Literal["front", "first", "start"]


@dataclass(frozen=True)
class PieceTokenizerSpec:
    """SentencePiece models whose pieces another vocabulary numbers; see `pieces`."""

    kind: Literal["pieces"]
    source: str
    target: str
    source_vocabulary: str | None  # JSON, piece to id; None: the model's own ids
    target_vocabulary: str | None
    offset: int  # to be added to the model's own ids
    unknown: int
    special: Mapping[str, int]  # read where they stand in a text, never written
    strips_left: tuple[str, ...]  # those of them that take the space before
    suffix: tuple[int, ...]  # behind every source
    begins_with_code: bool  # >>deu<< at the beginning of a text is one token
    clean_up: bool  # remove spaces before punctuation from what is written
    languages: LanguagesSpec | None

    @property
    def files(self) -> set[str]:
        """Names of its files."""
        vocabularies = (self.source_vocabulary, self.target_vocabulary)
        return {self.source, self.target, *filter(None, vocabularies)}


AnyTokenizerSpec: TypeAlias = TokenizerSpec | PieceTokenizerSpec


@dataclass(frozen=True)
class Limits:
    """Longest sequence fed at once, an end token included, and most target tokens."""

    source_tokens: int  # or frames
    target_tokens: int  # 0 where no tokens are written


@dataclass(frozen=True)
class TableSpec:
    """An embedding in several graphs, which a process has mapped once for all."""

    names: tuple[str, ...]  # of the initializer: each means this table in every graph
    dtype: Dtype
    shape: tuple[int, ...]
    file: str
    offset: int


@dataclass(frozen=True)
class FootprintSpec:
    """What is resident beside the bare process, as weighed at export; see `memory`."""

    loaded_bytes: int  # encoder and tokenizer
    head_bytes: Mapping[str, int]  # each head by itself
    # The encoder while it runs: a position of the source, and a pair of them.
    position_bytes: int
    pair_bytes: int
    # A step while it runs, beside memory and state: a row, and a source position of it.
    row_bytes: int
    row_source_bytes: int


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime must know of a bundle; manifest.json is its JSON."""

    format: int
    task: Task
    name: str
    precision: Precision
    inputs: tuple[InputSpec, ...]
    memory: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]  # results of a model that writes no tokens
    state: tuple[TensorSpec, ...]
    labels: tuple[str, ...]  # of the last axis of `logits`; none in generation
    vocabulary: Vocabulary | None  # None unless it writes tokens, as search
    tokenizer: AnyTokenizerSpec | None
    limits: Limits
    search: SearchOptions | None  # that the model was evaluated with
    encoder: str
    heads: Mapping[str, str]
    files: Mapping[str, FileEntry]  # every file of the folder but the manifest
    quantization: Json | None
    certificate: Json
    provenance: Json
    shortlist: str | None = None  # the file of one
    tables: tuple[TableSpec, ...] = ()
    footprint: FootprintSpec | None = None  # None: the system didn't tell

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
        if self.shortlist is not None:
            names.add(self.shortlist)
        if self.tokenizer:
            names |= self.tokenizer.files
        return names.union(table.file for table in self.tables)


def _faults(manifest: Manifest) -> Iterator[str]:
    """What types alone can't say of a manifest."""
    yield from _version_faults(manifest)
    yield from _tensor_faults(manifest)
    yield from _number_faults(manifest)
    yield from _language_faults(manifest)
    yield from _task_faults(manifest)
    yield from _name_faults(manifest)


def _version_faults(manifest: Manifest) -> Iterator[str]:
    if manifest.format != FORMAT:
        yield f"format is {manifest.format}, where this seq2edge reads {FORMAT}"


def _tensor_faults(manifest: Manifest) -> Iterator[str]:
    specs = {
        "inputs": [spec.name for spec in manifest.inputs]
        + [spec.lengths for spec in manifest.inputs if spec.lengths is not None],
        "memory": [spec.name for spec in manifest.memory],
        "outputs": [spec.name for spec in manifest.outputs],
        "state": [spec.name for spec in manifest.state],
    }
    for key, names in specs.items():
        if repeated := [name for name, times in Counter(names).items() if times > 1]:
            yield f"{key} names {listed(repeated)} twice"
    if not manifest.inputs:
        yield "inputs is empty"
    first_axes = {
        "inputs": "batch",
        "memory": "batch",
        "outputs": "batch",
        "state": "rows",
    }
    for key, axis in first_axes.items():
        for spec in getattr(manifest, key):
            if spec.shape[:1] != (axis,):
                yield f"{key}.{spec.name}: axis 0 of its shape must be {axis!r}"
    for spec in manifest.inputs:
        yield from _input_faults(spec)


def _input_faults(spec: InputSpec) -> Iterator[str]:
    where = f"inputs.{spec.name}"
    if (spec.kind in SEQUENCES) != (spec.lengths is not None):
        yield f"{where}: sequences have lengths, and vectors and classes none"
    if len(spec.shape) != RANKS[spec.kind]:
        yield f"{where}: a {spec.kind} input has {RANKS[spec.kind]} axes"
    if (spec.kind == "class") != bool(spec.labels):
        yield f"{where}: a class has labels, and nothing else has"


def _number_faults(manifest: Manifest) -> Iterator[str]:
    vocabulary, limits = manifest.vocabulary, manifest.limits
    if vocabulary is not None:
        for key in ("pad", "unknown", "start", "end"):
            token = getattr(vocabulary, key)
            if not 0 <= token < vocabulary.size:
                yield (
                    f"vocabulary.{key} is {token}, outside of 0 to "
                    f"{vocabulary.size - 1}"
                )
    least = {"limits.source_tokens": limits.source_tokens}
    if manifest.task == "generation":
        least["limits.target_tokens"] = limits.target_tokens
    for key, value in least.items():
        if value < 1:
            yield f"{key} is {value}, and must be at least 1"


def _language_faults(manifest: Manifest) -> Iterator[str]:
    """Languages that are told have tokens, and the target's are in its vocabulary."""
    tokenizer, vocabulary = manifest.tokenizer, manifest.vocabulary
    if not isinstance(tokenizer, PieceTokenizerSpec) or tokenizer.languages is None:
        return
    spec, size = tokenizer.languages, vocabulary.size if vocabulary else 0
    for code in (spec.source, spec.target):
        if code is not None and code not in spec.tokens:
            yield f"tokenizer.languages has no token for {code!r}"
    wrong = [code for code, token in spec.tokens.items() if not 0 <= token < size]
    if wrong and spec.target_place != "front":
        yield f"tokens outside of the vocabulary for {listed(wrong)}"


def _task_faults(manifest: Manifest) -> Iterator[str]:
    """What each task must have, and what only the others may."""
    task, writes = manifest.task, manifest.task == "generation"
    known = HEADS[task]
    if unknown := manifest.heads.keys() - set(known):
        only = f"where only {', '.join(known)} are known" if known else "and takes none"
        yield f"heads has {listed(unknown)}, {only} in {task}"
    if writes:
        if not manifest.heads:
            yield "heads is empty"
        for key in ("vocabulary", "search"):
            if getattr(manifest, key) is None:
                yield f"{key} is null, and generation needs it"
    elif all(spec.name != LOGITS for spec in manifest.outputs):
        yield f"outputs has no {LOGITS}, which {task} reads"
    readers = {"draft", "verify"}, {"shortlist", "ahead"}
    read = any(those | {"beam_ahead"} <= manifest.heads.keys() for those in readers)
    if manifest.shortlist is not None and not read:
        yield "there is a shortlist, and no heads that read it"
    if writes == bool(manifest.labels):
        yield f"labels {'is not' if writes else 'is'} empty in {task}"
    wrong = manifest.outputs if writes else manifest.memory
    if wrong:
        yield f"{'outputs' if writes else 'memory'} is not empty in {task}"


def _name_faults(manifest: Manifest) -> Iterator[str]:
    names = manifest.file_names()
    if unsafe := [name for name in names | manifest.files.keys() if not _is_safe(name)]:
        yield f"names that are not relative and inside the folder: {listed(unsafe)}"
    if unlisted := names - manifest.files.keys():
        yield f"files does not list {listed(unlisted)}"
    if MANIFEST in manifest.files:
        yield f"files lists {MANIFEST} itself"
    for table in manifest.tables:
        size = math.prod(table.shape) * ITEM_BYTES[table.dtype]
        entry = manifest.files.get(table.file)
        fits = min(table.shape, default=0) > 0 <= table.offset
        if entry and not (fits and table.offset + size <= entry.bytes):
            yield f"the table {listed(table.names)} lies outside of {table.file}"
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


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, in order."""
    return ", ".join(sorted(names))
