"""golden.json: inputs with the output they had where the bundle was made.

A device replays them to see that it computes the same (`seq2edge verify`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from seq2edge.runtime import schema
from seq2edge.runtime.bundle import GOLDEN, read_json
from seq2edge.runtime.errors import BundleError

SCORE_TOLERANCE = 1e-3  # where golden.json gives none


@dataclass(frozen=True)
class GoldenExample:
    """One input and what comes out, with the bundle's own length penalty.

    The text is a line as `records` reads it, names of files relative to the bundle.
    What comes out are the tokens and their score, or the ids of labels and the sum of
    their log-probabilities.
    """

    text: str
    as_ids: bool  # tokens stand as ids in the text, though there is a tokenizer
    beam_size: int  # 1 where labels come out
    tokens: tuple[int, ...]  # without the end token
    text_out: str
    score: float


@dataclass(frozen=True)
class Golden:
    """The examples, and how far a score may be from theirs on another machine."""

    examples: tuple[GoldenExample, ...]
    score_tolerance: float = SCORE_TOLERANCE

    @classmethod
    def read(cls, folder: Path) -> "Golden":
        """Read golden.json of a bundle's folder."""
        path = folder / GOLDEN
        value = read_json(path)
        if isinstance(value, dict):
            value.setdefault("score_tolerance", SCORE_TOLERANCE)
        try:
            golden = schema.parse(cls, value)
        except schema.SchemaError as error:
            raise BundleError(f"{path}: {error}; export the bundle again") from None
        if not golden.examples:
            raise BundleError(f"{path} has no examples; export the bundle again")
        return golden

    def write(self, folder: Path) -> None:
        """Write golden.json, before the files of the folder are hashed."""
        text = json.dumps(schema.to_json(self), indent=2, ensure_ascii=False)
        (folder / GOLDEN).write_text(text + "\n", encoding="utf-8")
