"""Text to ids and back; the only importer of SentencePiece.

A control character, NUL among them, is read as a space, and half of a surrogate pair
(what Python makes of invalid UTF-8) as U+FFFD: SentencePiece knows neither.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece

from seq2edge.runtime.errors import BundleError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_SPACE = "\u2581"  # how SentencePiece writes a space in a piece


class Tokenizer(Protocol):
    """What a translator asks of a tokenizer; safe to share between threads."""

    def encode(self, text: str) -> list[int]:
        """The source ids of a text, with the end token if the model wants it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of target ids."""
        ...

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Target ids as the vocabulary writes them."""
        ...

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        """The characters that the source vocabulary lacks, each once."""
        ...


class SentencePieceTokenizer:
    """A SentencePiece model for the source and one for the target, or one for both."""

    def __init__(
        self,
        source: sentencepiece.SentencePieceProcessor,
        target: sentencepiece.SentencePieceProcessor,
        append_end: bool = True,
    ) -> None:
        """Take models that are loaded; `load` reads them from files."""
        self._source = source
        self._target = target
        self._unknown: int = source.unk_id()
        self._suffix: list[int] = [source.eos_id()] if append_end else []
        self.source_size: int = source.get_piece_size()
        self.target_size: int = target.get_piece_size()

    @classmethod
    def load(
        cls, source: Path, target: Path, append_end: bool = True
    ) -> "SentencePieceTokenizer":
        """Read the model files, a joint one once."""
        source_model = _load(source)
        if append_end and source_model.eos_id() < 0:
            raise BundleError(
                f"{source}: this tokenizer has no end token, which append_end asks for"
            )
        joint = source.resolve() == target.resolve()
        return cls(source_model, source_model if joint else _load(target), append_end)

    def encode(self, text: str) -> list[int]:
        """The source ids of a text, with the end token if the model wants it."""
        ids: list[int] = self._source.encode(_readable(text))
        return ids + self._suffix

    def encode_target(self, text: str) -> list[int]:
        """The ids of a reference translation, without end token."""
        ids: list[int] = self._target.encode(_readable(text))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of target ids."""
        text: str = self._target.decode(self._known(ids))
        return text

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Target ids as the vocabulary writes them."""
        return tuple(self._target.id_to_piece(self._known(ids)))

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        """The characters that the source vocabulary lacks, each once.

        They come as SentencePiece normalizes them: a full-width A as a plain one.
        U+FFFD, which it drops, is always among them.
        """
        text = _readable(text)
        unknown = _REPLACEMENT if _REPLACEMENT in text else ""
        ids = self._source.encode(text)
        if self._unknown in ids:
            pieces = self._source.encode(text, out_type=str)
            unknown += "".join(
                piece
                for piece, id_ in zip(pieces, ids, strict=True)
                if id_ == self._unknown
            )
        return tuple(dict.fromkeys(unknown.replace(_SPACE, "")))

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Ids without a piece, as a vocabulary rounded up has them, become unknown."""
        size, unknown = self.target_size, self._target.unk_id()
        return [id_ if 0 <= id_ < size else unknown for id_ in ids]


def _readable(text: str) -> str:
    return _SURROGATE.sub(_REPLACEMENT, _CONTROL.sub(" ", text))


def _load(path: Path) -> sentencepiece.SentencePieceProcessor:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: the tokenizer can't be read ({error.strerror}); "
            "restore the file or export the bundle again"
        ) from None
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
    except RuntimeError:
        raise BundleError(
            f"{path}: damaged, or not a SentencePiece model; "
            "restore the file or export the bundle again"
        ) from None
    return processor
