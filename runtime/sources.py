"""A text as the sentences that are decoded for it, with what was done to it.

A text longer than the model takes is cut into pieces (see `text`); each is a sentence
of its own, and a blank one is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from seq2edge.runtime.errors import InputError
from seq2edge.runtime.guide import Guide, prefix_ids
from seq2edge.runtime.inputs import Example
from seq2edge.runtime.monitor import Number
from seq2edge.runtime.text import Piece, split

if TYPE_CHECKING:
    from seq2edge.runtime.tokenizer import Tokenizer
    from seq2edge.runtime.translator import Translator

# A text of more characters than this for every token isn't even tokenized as a whole:
# a piece has 16 characters at most (SentencePiece's default), and memory is bounded.
_CHARACTERS_PER_TOKEN = 32


@dataclass(frozen=True)
class Sentence:
    """What is decoded at once."""

    example: Example
    prefix: tuple[int, ...]  # target ids that it begins with
    number: Number


@dataclass(frozen=True)
class Source:
    """A text that has been read."""

    pieces: list[Piece]
    examples: list[Example | None]  # of each piece; None where it is blank
    truncated: bool
    unknown: tuple[str, ...]
    lead: str = ""  # what each piece was read behind, a language token
    prefix: tuple[int, ...] = ()
    number: int = 0

    @property
    def sentences(self) -> list[Sentence]:
        """What there is to decode; InputError where it is cut and has a prefix."""
        if self.prefix and len(self.pieces) > 1:
            raise InputError(
                f"text {self.number} has a prefix and is too long to be translated at "
                "once; cut it yourself and give each part its own"
            )
        return [
            Sentence(example, self.prefix, Number(self.number, place))
            for place, example in enumerate(self.examples)
            if example is not None
        ]


def read_sources(
    translator: "Translator", texts: Sequence[str], guide: Guide
) -> list[Source]:
    """What there is to decode of each text."""
    guide.check(len(texts))
    prefixes = guide.prefixes or [()] * len(texts)
    numbers = guide.numbers or range(len(texts))
    given = zip(texts, prefixes, numbers, strict=True)
    return [
        _read(translator, text, prefix_ids(translator, prefix), number)
        for text, prefix, number in given
    ]


def _read(
    translator: "Translator", text: str, prefix: tuple[int, ...], number: int
) -> Source:
    tokenizer, reader = translator.tokenizer, translator.reader
    if tokenizer is not None and reader.reads_text:
        source = _read_text(translator, text, tokenizer)
    elif not text.strip():
        source = Source([], [], False, ())
    else:
        record = reader.read(text)
        piece = Piece(text, "")
        source = Source([piece], [record.example], record.cut, record.unknown)
    return replace(source, prefix=prefix, number=number)


def _read_text(translator: "Translator", text: str, tokenizer: "Tokenizer") -> Source:
    limit, name = translator.limits.source_tokens, translator.inputs[0].name
    lead, text = tokenizer.lead(text)
    pieces, encoded = _tokenize(lead, text, tokenizer, limit)
    blank = tokenizer.encode(lead)
    unknown = (tokenizer.unknown_characters(lead + one.text) for one in pieces)
    return Source(
        pieces=pieces,
        examples=[
            None
            if ids == blank
            else {name: np.array(_within(ids, limit, tokenizer.tail), np.int64)}
            for ids in encoded
        ],
        truncated=any(len(ids) > limit for ids in encoded),
        unknown=tuple(dict.fromkeys(chain(*unknown))),
        lead=lead,
    )


def _tokenize(
    lead: str, text: str, tokenizer: "Tokenizer", limit: int
) -> tuple[list[Piece], list[list[int]]]:
    """Pieces of a text and the ids of each behind the lead; all that can be fit."""
    known: dict[str, list[int]] = {}

    def fits(piece: str) -> bool:
        if len(piece) > _CHARACTERS_PER_TOKEN * limit:
            return False
        ids = tokenizer.encode(lead + piece)
        if len(ids) <= limit:
            known[piece] = ids
        return len(ids) <= limit

    pieces = split(text, fits)
    texts = [piece.text for piece in pieces]
    return pieces, [known.get(one) or tokenizer.encode(lead + one) for one in texts]


def _within(ids: list[int], limit: int, tail: int) -> list[int]:
    """At most so many ids, the last ones (an end token) among them."""
    if len(ids) <= limit:
        return ids
    return [*ids[: limit - tail], *ids[len(ids) - tail :]]
