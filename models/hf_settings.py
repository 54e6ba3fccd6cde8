"""What a Hugging Face folder says of its tokenizer, before any class is chosen."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seq2edge.models.hf_folder import TOKENIZER_CONFIG, read_object, read_optional
from seq2edge.runtime.errors import BundleError, CheckpointError
from seq2edge.runtime.manifest import PieceTokenizerSpec

SPECIAL_TOKENS = "special_tokens_map.json"
FAST_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class HfTokenizer:
    """What a bundle needs of a tokenizer."""

    spec: PieceTokenizerSpec
    unknown: int  # of the target
    source_language: str = ""
    target_language: str = ""


@dataclass(frozen=True)
class AddedToken:
    """A token that a text is cut at."""

    content: str
    id: int
    strips_left: bool  # takes the space before it


@dataclass(frozen=True)
class Settings:
    """tokenizer_config.json, with what older folders have in other files."""

    folder: Path
    values: Mapping[str, object]

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """Read the files that there are."""
        older = read_optional(folder / SPECIAL_TOKENS)
        return cls(folder, {**older, **read_optional(folder / TOKENIZER_CONFIG)})

    def text(self, key: str, default: str = "") -> str:
        """A setting, or the content of a token that is written as an object."""
        value = self.values.get(key)
        if isinstance(value, Mapping):
            value = value.get("content")
        return value if isinstance(value, str) else default

    def language(self, key: str, known: Mapping[str, int]) -> str | None:
        """The code of a language, if one is set; it must be a known one."""
        code = self.text(key) or None
        if code is not None and code not in known:
            raise CheckpointError(
                f"{self.folder / TOKENIZER_CONFIG}: {key} = {code!r} is no language "
                "that the tokenizer knows; mend it"
            )
        return code

    def added(self) -> Iterator["AddedToken"]:
        """Tokens that have ids of their own, where the folder lists them."""
        listing = self.values.get("added_tokens_decoder")
        if isinstance(listing, Mapping):
            given = [(id_, token) for id_, token in listing.items()]
        else:
            tokens = read_optional(self.folder / FAST_TOKENIZER).get("added_tokens")
            given = [
                (token.get("id"), token)
                for token in (tokens if isinstance(tokens, list) else [])
                if isinstance(token, Mapping)
            ]
        yield from (_added(self.folder, id_, token) for id_, token in given)

    def flag(self, key: str) -> bool:
        """A setting that is off where it isn't given."""
        return self.values.get(key) is True


def _added(folder: Path, number: object, token: object) -> AddedToken:
    """One of a listing; CheckpointError if it is none, or is cut in an odd way."""
    content = token.get("content") if isinstance(token, Mapping) else None
    if not isinstance(content, str) or not str(number).isdecimal():
        raise CheckpointError(
            f"{folder / TOKENIZER_CONFIG}: the added token {number!r}: {token!r} is "
            "none; copy the whole folder of the model again"
        )
    assert isinstance(token, Mapping)
    if odd := [key for key in ("rstrip", "single_word") if token.get(key) is True]:
        raise CheckpointError(
            f"{folder / TOKENIZER_CONFIG}: {odd[0]} of the added token {content!r} "
            "isn't supported; export a model without"
        )
    return AddedToken(content, int(str(number)), token.get("lstrip") is True)


def read_vocabulary(file: Path) -> dict[str, int]:
    """Piece to id; CheckpointError where there is no such file, or something else."""
    ids = read_object(file)
    wrong = [piece for piece, id_ in ids.items() if type(id_) is not int]
    if wrong:
        raise CheckpointError(
            f"{file}: {wrong[0]!r} has {ids[wrong[0]]!r}, which is no id; copy it again"
        )
    return {piece: id_ for piece, id_ in ids.items() if isinstance(id_, int)}


def require(file: Path) -> None:
    """CheckpointError unless there is this file, a SentencePiece model."""
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing, a SentencePiece model; copy the whole folder of the "
            "model again"
        )


@contextmanager
def of_a_folder() -> Iterator[None]:
    """What the runtime says of a bundle's tokenizer, said of a folder's."""
    try:
        yield
    except BundleError as error:
        fault, _, _ = str(error).rpartition(";")  # what to do is for bundles
        raise CheckpointError(
            f"{fault}; copy the whole folder of the model again"
        ) from None
