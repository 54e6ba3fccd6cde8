"""Text to ids and back; the only importer of SentencePiece.

A control character, NUL among them, is read as a space, and half of a surrogate pair
(what Python makes of invalid UTF-8) as U+FFFD: SentencePiece knows neither.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, overload

import sentencepiece

from seq2edge.runtime.bundle import read_json
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.manifest import (
    AnyTokenizerSpec,
    PieceTokenizerSpec,
    TokenizerSpec,
)
from seq2edge.runtime.pieces import (
    LINE_BREAK,
    SPACE,
    Numbering,
    PieceTokenizer,
    ShiftedNumbering,
    TableNumbering,
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


class Tokenizer(Protocol):
    """What a translator asks of a tokenizer; safe to share between threads."""

    @property
    def tail(self) -> int:
        """How many tokens `encode` puts behind a text: an end token, a language."""
        ...

    def lead(self, text: str) -> tuple[str, str]:
        """What each piece of a text must begin with, a language token, and the rest."""
        ...

    def encode(self, text: str) -> list[int]:
        """The source ids of a text, with the end token if the model wants it."""
        ...

    def encode_target(self, text: str) -> list[int]:
        """The ids of a given target, without end token."""
        ...

    def source_pieces(self, text: str) -> tuple[str, ...]:
        """The pieces of `encode(text)`, one an id: unknown ones as the text has them,
        and "" for a token that isn't from the text, as an end token.
        """
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of target ids."""
        ...

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Target ids as the vocabulary writes them."""
        ...

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        """The characters, or words, that the source vocabulary lacks, each once."""
        ...


class SentencePieceTokenizer:
    """A SentencePiece model for the source and one for the target, or one for both.

    With `words` the source is read word by word, each as one id: SentencePiece itself
    makes one piece of unknown words that follow each other.
    """

    def __init__(
        self,
        source: sentencepiece.SentencePieceProcessor,
        target: sentencepiece.SentencePieceProcessor,
        append_end: bool = True,
        words: bool = False,
    ) -> None:
        """Take models that are loaded; `load` reads them from files."""
        self._words = words
        self._source = source
        self._target = target
        self._unknown: int = source.unk_id()
        self._suffix: list[int] = [source.eos_id()] if append_end else []
        self.source_size: int = source.get_piece_size()
        self.target_size: int = target.get_piece_size()

    @classmethod
    def load(
        cls, source: Path, target: Path, append_end: bool = True, words: bool = False
    ) -> "SentencePieceTokenizer":
        """Read the model files, a joint one once."""
        source_model = _load(source)
        if append_end and source_model.eos_id() < 0:
            raise BundleError(
                f"{source}: this tokenizer has no end token, which append_end asks for"
            )
        joint = source.resolve() == target.resolve()
        target_model = source_model if joint else _load(target)
        return cls(source_model, target_model, append_end, words)

    @property
    def tail(self) -> int:
        """How many tokens `encode` puts behind a text: the end token, if any."""
        return len(self._suffix)

    def lead(self, text: str) -> tuple[str, str]:
        """Nothing: these models aren't told languages."""
        return "", text

    def encode(self, text: str) -> list[int]:
        """The source ids of a text, with the end token if the model wants it."""
        return self._encode(self._source, text) + self._suffix

    def encode_target(self, text: str) -> list[int]:
        """The ids of a reference translation, without end token."""
        return self._encode(self._target, text)

    def source_pieces(self, text: str) -> tuple[str, ...]:
        """The pieces of `encode(text)`, one an id; "" for the end token."""
        text = _readable(text)
        if self._words:
            pieces = [f"{SPACE}{word}" for word in text.split()]
        else:
            pieces = self._source.encode(text, out_type=str)
        return (*pieces, *("" for _ in self._suffix))

    def _encode(
        self, model: sentencepiece.SentencePieceProcessor, text: str
    ) -> list[int]:
        text = _readable(text)
        if self._words:
            # One by one: a list makes SentencePiece start threads, at 8 ms a text.
            pieces = [model.encode(word) for word in text.split()]
            unknown = model.unk_id()
            return [ids[0] if len(ids) == 1 else unknown for ids in pieces]
        ids: list[int] = model.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of target ids; a line break, which a byte may make, is a space."""
        text: str = self._target.decode(self._known(ids))
        return LINE_BREAK.sub(" ", text)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Target ids as the vocabulary writes them."""
        return tuple(self._target.id_to_piece(self._known(ids)))

    def target_scores(self, size: int) -> list[float]:
        """What SentencePiece says of each target id below size: 0 if nothing.

        A log-probability, or of byte pair encoding how late a merge came, below 0.
        """
        known = min(size, self.target_size)
        scores = [float(self._target.get_score(id_)) for id_ in range(known)]
        return scores + [0.0] * (size - known)

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        """The characters that the source vocabulary lacks, each once; or the words.

        Characters come as SentencePiece normalizes them: a full-width A as a plain one.
        U+FFFD, which it drops, is always among them.
        """
        if self._words:
            ids = self._encode(self._source, text)
            words = zip(_readable(text).split(), ids, strict=True)
            return tuple(dict.fromkeys(w for w, id_ in words if id_ == self._unknown))
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
        return tuple(dict.fromkeys(unknown.replace(SPACE, "")))

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Ids without a piece, as a vocabulary rounded up has them, become unknown."""
        size, unknown = self.target_size, self._target.unk_id()
        return [id_ if 0 <= id_ < size else unknown for id_ in ids]


@overload
def load_tokenizer(spec: TokenizerSpec, folder: Path) -> SentencePieceTokenizer: ...


@overload
def load_tokenizer(
    spec: AnyTokenizerSpec, folder: Path
) -> SentencePieceTokenizer | PieceTokenizer: ...


def load_tokenizer(
    spec: AnyTokenizerSpec, folder: Path
) -> SentencePieceTokenizer | PieceTokenizer:
    """The tokenizer of a bundle, a checkpoint or a training run."""
    source, target = folder / spec.source, folder / spec.target
    if isinstance(spec, TokenizerSpec):
        return SentencePieceTokenizer.load(source, target, spec.append_end, spec.words)
    source_model = _load(source)
    target_model = source_model if spec.target == spec.source else _load(target)
    reads = writes = _numbering(spec, spec.source_vocabulary, source_model, folder)
    joint = spec.source_vocabulary == spec.target_vocabulary is not None
    if not joint:
        writes = _numbering(spec, spec.target_vocabulary, target_model, folder)
    return PieceTokenizer(spec, (source_model, target_model), (reads, writes))


def piece_count(model: Path) -> int:
    """How many pieces a model has; BundleError if it is damaged."""
    count: int = _load(model).get_piece_size()
    return count


def _numbering(
    spec: PieceTokenizerSpec,
    vocabulary: str | None,
    model: sentencepiece.SentencePieceProcessor,
    folder: Path,
) -> Numbering:
    if vocabulary is None:
        return ShiftedNumbering(model, spec.offset)
    ids = read_json(folder / vocabulary)
    if not isinstance(ids, dict) or any(type(id_) is not int for id_ in ids.values()):
        raise BundleError(
            f"{folder / vocabulary} must be an object of pieces and their ids; "
            "restore the file or export the bundle again"
        )
    return TableNumbering(ids)


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
