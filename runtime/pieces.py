"""Pieces and their ids, where a vocabulary of its own numbers them.

Hugging Face's tokenizers cut text with a SentencePiece model and look the pieces up
elsewhere: in a JSON file (Marian, M2M100), or in the model's own numbering, moved by an
offset (NLLB, mBART). Special tokens are read where they stand in a text and never
written; an id without a piece isn't written either.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from seq2edge.runtime.languages import back, front, in_languages
from seq2edge.runtime.manifest import PieceTokenizerSpec

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SPACE = "\u2581"  # how SentencePiece writes a space in a piece
LINE_BREAK = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SOURCE, _TARGET = 0, 1  # of the two models, and of the two numberings
_CODE = re.compile(">>.*?<<", re.DOTALL)
# What transformers calls artifacts of tokenization, in its order.
_ARTIFACTS = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Numbering(Protocol):
    """Which id a piece has; all ids are below `size`."""

    size: int

    def id(self, piece: str) -> int | None:
        """None: the vocabulary lacks it."""
        ...

    def piece(self, token: int) -> str | None:
        """None: no piece has this id."""
        ...


class TableNumbering:
    """As a vocabulary file says."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """Of two pieces with one id the last is written."""
        self.size = max(ids.values(), default=-1) + 1
        self._ids = ids
        self._pieces = {token: piece for piece, token in ids.items()}

    def id(self, piece: str) -> int | None:
        """As the file has it."""
        return self._ids.get(piece)

    def piece(self, token: int) -> str | None:
        """As the file has it."""
        return self._pieces.get(token)


class ShiftedNumbering:
    """As the SentencePiece model numbers them, plus an offset; its id 0 is unknown."""

    def __init__(self, model: "SentencePieceProcessor", offset: int) -> None:
        """The model's own numbers lie `offset` lower."""
        self.size: int = model.get_piece_size() + offset
        self._model = model
        self._offset = offset

    def id(self, piece: str) -> int | None:
        """By the model."""
        found: int = self._model.piece_to_id(piece)
        return found + self._offset if found else None

    def piece(self, token: int) -> str | None:
        """By the model."""
        number = token - self._offset
        if not 0 < number < self._model.get_piece_size():
            return None
        found: str = self._model.id_to_piece(number)
        return found


class PieceTokenizer:
    """Reads with one model and numbering, and writes with another, or the same."""

    def __init__(
        self,
        spec: PieceTokenizerSpec,
        models: tuple["SentencePieceProcessor", "SentencePieceProcessor"],
        numberings: tuple[Numbering, Numbering],
    ) -> None:
        """Of the source, then of the target; `load_tokenizer` reads them from files."""
        self.spec = spec
        self._models = models
        self._numberings = numberings
        longest_first = sorted(spec.special, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._unwritten = frozenset(spec.special.values())
        self.target_size = numberings[_TARGET].size
        self._front, self._back = front(spec.languages), back(spec.languages)

    @property
    def tail(self) -> int:
        """How many tokens `encode` puts behind a text."""
        return len(self.spec.suffix) + len(self._back)

    def in_languages(self, source: str | None, target: str | None) -> "PieceTokenizer":
        """The same for other languages; None leaves one as it is."""
        languages = in_languages(self.spec.languages, source, target)
        spec = replace(self.spec, languages=languages)
        return PieceTokenizer(spec, self._models, self._numberings)

    def lead(self, text: str) -> tuple[str, str]:
        """The language token that a text begins with, if any, and the rest."""
        code = _CODE.match(text) if self.spec.begins_with_code else None
        return (code.group(), text[code.end() :]) if code else ("", text)

    def encode(self, text: str) -> list[int]:
        """The source ids of a text, with language and end tokens.

        A language token that begins the text stands in place of the chosen one.
        """
        ids = [token for _, token in self._read(text, _SOURCE)]
        return [*self._lead_of(text), *ids, *self.spec.suffix, *self._back]

    def encode_target(self, text: str) -> list[int]:
        """The ids of a given target, without language and end tokens."""
        return [token for _, token in self._read(text, _TARGET)]

    def source_pieces(self, text: str) -> tuple[str, ...]:
        """The pieces of `encode(text)`, one an id; "" for what isn't from the text."""
        special = self.spec.special
        pieces = [
            "" if piece in special or _CODE.fullmatch(piece) else piece
            for piece, _ in self._read(text, _SOURCE)
        ]
        before = [""] * len(self._lead_of(text))
        return (*before, *pieces, *[""] * self.tail)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of target ids; a line break, which a byte may make, is a space."""
        text: str = self._models[_TARGET].decode_pieces(self._written(ids))
        text = text.replace(SPACE, " ").strip()
        return LINE_BREAK.sub(" ", _cleaned(text) if self.spec.clean_up else text)

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Target ids as the vocabulary writes them."""
        names = {token: name for name, token in self.spec.special.items()}
        numbering = self._numberings[_TARGET]
        unknown = names.get(self.spec.unknown, "")
        return tuple(
            names.get(token) or numbering.piece(token) or unknown for token in ids
        )

    def target_scores(self, size: int) -> list[float]:
        """As SentencePieceTokenizer, of what its model and numbering both know."""
        model, numbering = self._models[_TARGET], self._numberings[_TARGET]
        pieces = [numbering.piece(token) or "" for token in range(size)]
        ids = [model.piece_to_id(piece) for piece in pieces]
        return [
            0.0 if id_ == model.unk_id() else float(model.get_score(id_)) for id_ in ids
        ]

    def unknown_characters(self, text: str) -> tuple[str, ...]:
        """The pieces that the source vocabulary lacks, each once."""
        read = self._read(text, _SOURCE)
        unknown = (piece for piece, id_ in read if id_ == self.spec.unknown)
        bare = (piece.replace(SPACE, "") for piece in unknown)
        return tuple(dict.fromkeys(piece for piece in bare if piece))

    def _lead_of(self, text: str) -> tuple[int, ...]:
        """What is put in front of a text that begins with no language token."""
        return () if self.lead(text)[0] else self._front

    def _read(self, text: str, side: int) -> Iterator[tuple[str, int]]:
        """Pieces and their ids."""
        special, numbering = self.spec.special, self._numberings[side]
        for piece in self._cut(_SURROGATE.sub("\ufffd", text), side):
            token = special.get(piece)
            if token is None:
                token = numbering.id(piece)
            yield piece, self.spec.unknown if token is None else token

    def _cut(self, text: str, side: int) -> Iterator[str]:
        """Special tokens as they stand, and the pieces of what is between them."""
        parts = self._special.split(text) if self.spec.special else [text]
        for index, part in enumerate(parts):
            if index % 2:
                yield part
            elif part:
                follower = parts[index + 1] if index + 1 < len(parts) else ""
                if follower in self.spec.strips_left:
                    part = part.rstrip()
                code, rest = self.lead(part)
                yield from [code] if code else []
                yield from self._models[side].encode(rest, out_type=str)

    def _written(self, ids: Sequence[int]) -> list[str]:
        special, numbering = self.spec.special, self._numberings[_TARGET]
        pieces = (numbering.piece(id_) for id_ in ids if id_ not in self._unwritten)
        return [piece for piece in pieces if piece is not None and piece not in special]


def _cleaned(text: str) -> str:
    """Without spaces before punctuation, as transformers cleans up."""
    for artifact in _ARTIFACTS:
        text = text.replace(artifact, artifact.strip())
    return text
