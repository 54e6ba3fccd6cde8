"""Pieces as the text that they stand for, and unknown ones replaced by the source's.

A unit is the text of one token: with a space in front where a word begins, and "" where
a token is no text. An unknown token becomes the unit of the source that it is aligned
with (Luong et al., arXiv:1410.8206; CTranslate2's `replace_unknowns`): a piece, which
with a tokenizer of words is the word.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from seq2edge.runtime.stepper import FloatArray

if TYPE_CHECKING:
    from seq2edge.runtime.tokenizer import Tokenizer

SPACE = "\u2581"  # how SentencePiece writes a space in a piece
Units = tuple[str, ...]


def source_units(pieces: Sequence[str]) -> Units:
    """Of pieces as `Tokenizer.source_pieces` gives them."""
    return tuple(piece.replace(SPACE, " ") for piece in pieces)


def target_units(
    tokenizer: "Tokenizer",
    tokens: Sequence[int],
    unknown: int,
    replaced: Mapping[int, str],
) -> Units:
    """Of a hypothesis; replaced: the unit that stands at a place instead."""
    pieces = tokenizer.pieces(tokens)
    return tuple(
        replaced.get(place) or _unit(tokenizer, token, piece, token == unknown)
        for place, (token, piece) in enumerate(zip(tokens, pieces, strict=True))
    )


def _unit(tokenizer: "Tokenizer", token: int, piece: str, is_unknown: bool) -> str:
    text = tokenizer.decode([token])
    written = bool(text) or piece == SPACE
    return text if is_unknown or not written else piece.replace(SPACE, " ")


def replacements(
    source: Units, attention: FloatArray, tokens: Sequence[int], unknown: int
) -> dict[int, str]:
    """The unit for every unknown token, by its place in the hypothesis.

    attention (target, source). It is taken from what has text; nothing is replaced if
    nothing has.
    """
    is_text = np.array([bool(unit.strip()) for unit in source])
    if not is_text.any():
        return {}
    found = {}
    for place in (place for place, token in enumerate(tokens) if token == unknown):
        position = int(np.where(is_text, attention[place], -1).argmax())
        found[place] = _begun(source, position) + source[position].strip()
    return found


def _begun(units: Units, position: int) -> str:
    """The space before a unit, if a word begins with it."""
    before = "".join(units[:position])
    begins = units[position][0].isspace() or not before or before[-1].isspace()
    return " " if begins else ""


def text_of(
    tokenizer: "Tokenizer", tokens: Sequence[int], replaced: Mapping[int, str]
) -> str:
    """The text of a hypothesis with other units at some places."""
    pieces = tokenizer.pieces(tokens)
    text = ""
    for is_replaced, group in groupby(range(len(tokens)), replaced.__contains__):
        places = [*group]
        if is_replaced:
            part = "".join(replaced[place] for place in places)
        else:
            lead = " " if pieces[places[0]].startswith(SPACE) else ""
            part = lead + tokenizer.decode([tokens[place] for place in places])
        text += part.lstrip() if not text or text[-1].isspace() else part
    return text.strip()
