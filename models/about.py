"""Where a model comes from; its checkpoint and every bundle made of it repeat it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """A name, the languages (BCP 47 codes), the licence and the data's credit."""

    name: str
    source_language: str = ""
    target_language: str = ""
    licence: str = ""
    attribution: str = ""
