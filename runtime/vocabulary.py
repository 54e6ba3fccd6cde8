"""The ids that a search must know; the rest of a vocabulary is the tokenizer's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Size and special ids of the target side.

    `start` is the first token given to the decoder and `end` the one that ends a
    hypothesis; they may be the same id.
    """

    size: int
    pad: int
    unknown: int
    start: int
    end: int
