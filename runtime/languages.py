"""The languages that a multilingual model is told, and where it is told them.

Marian reads the target's token in front of a text. M2M100, NLLB and mBART read the
source's, before or behind the text, and the decoder begins with the target's: it is the
start token, or the first that is written.
"""

from dataclasses import dataclass, replace

from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.manifest import LanguagesSpec
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.vocabulary import Vocabulary

SHOWN = 30  # codes in a message; NLLB has 202


@dataclass(frozen=True)
class LanguagePair:
    """Codes that a user chose; None: as the model has it."""

    source: str | None = None
    target: str | None = None


def in_languages(
    spec: LanguagesSpec | None, source: str | None, target: str | None
) -> LanguagesSpec | None:
    """The spec with languages chosen; ConfigError lists the known ones."""
    if source is None and target is None:
        return spec
    if spec is None:
        raise ConfigError(
            "this model isn't told languages, it knows one pair; leave them out"
        )
    if source is not None and spec.source_place == "none":
        raise ConfigError(
            f"this model isn't told the source language ({source!r}); leave it out"
        )
    for side, code in (("source", source), ("target", target)):
        if code is not None and code not in spec.tokens:
            raise ConfigError(
                f"{side} language {code!r} is not known; use one of {listed(spec)}"
            )
    return replace(spec, source=source or spec.source, target=target or spec.target)


def listed(spec: LanguagesSpec) -> str:
    """The known codes, or the first of many."""
    codes = sorted(spec.tokens)
    more = len(codes) - SHOWN
    return ", ".join(codes[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def told(
    spec: LanguagesSpec | None, vocabulary: Vocabulary, options: SearchOptions
) -> tuple[Vocabulary, SearchOptions]:
    """Both with the token of the target language, where the decoder begins with it."""
    if (token := start(spec)) is not None:
        vocabulary = replace(vocabulary, start=token)
    if (token := first(spec)) is not None:
        options = replace(options, forced_first=token)
    return vocabulary, options


def front(spec: LanguagesSpec | None) -> tuple[int, ...]:
    """The ids that stand before every text."""
    return _placed(spec, "front")


def back(spec: LanguagesSpec | None) -> tuple[int, ...]:
    """The ids that stand behind every text and its end token."""
    return _placed(spec, "back")


def start(spec: LanguagesSpec | None) -> int | None:
    """The decoder's start token, where it is the target language's."""
    return next(iter(_placed(spec, "start")), None)


def first(spec: LanguagesSpec | None) -> int | None:
    """The token that is written first, where it is the target language's."""
    return next(iter(_placed(spec, "first")), None)


def _placed(spec: LanguagesSpec | None, place: str) -> tuple[int, ...]:
    if spec is None:
        return ()
    places = ((spec.source_place, spec.source), (spec.target_place, spec.target))
    return tuple(spec.tokens[code] for where, code in places if where == place and code)
