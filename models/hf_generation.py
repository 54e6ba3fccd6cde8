"""How transformers' generate would decode with a folder's model, as our search has it.

generation_config.json says it, or where there is none the same keys of config.json. A
key that changes what is found, and that our search doesn't have, is refused.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seq2edge.models.checkpoint import CONFIG
from seq2edge.models.hf_folder import GENERATION_CONFIG, read_object
from seq2edge.models.hf_generation_keys import (
    ENDS,
    KEYS,
    NEUTRAL,
    NEUTRAL_IN_SAMPLING,
    READ,
)
from seq2edge.runtime.errors import CheckpointError, ConfigError
from seq2edge.runtime.options import SearchOptions


@dataclass(frozen=True)
class Generation:
    """What was read; lengths are in target tokens, without the start token."""

    start: int | None  # None: the language's token
    end: int
    num_beams: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    most_tokens: int
    least_tokens: int  # before the end token
    forced_first: int | None
    forced_end: bool  # at most_tokens
    banned: tuple[tuple[int, ...], ...]  # sequences
    renormalizes: bool  # what is left when the banned are gone, to a sum of 1
    repetition_penalty: float
    no_repeat_ngram_size: int
    sampling: bool
    temperature: float
    top_k: int
    top_p: float


def search_options(generation: Generation) -> SearchOptions:
    """The same as our search has it, by transformers' rule."""
    sampling = generation.sampling
    return SearchOptions(
        beam_size=generation.num_beams,
        length_penalty=generation.length_penalty,
        min_length=generation.least_tokens,
        max_length=generation.most_tokens,
        beam_rule="transformers",
        early_stopping=generation.early_stopping,
        repetition_penalty=generation.repetition_penalty,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        suppressed=generation.banned,
        allow_unknown=True,
        allow_special=True,
        forced_first=generation.forced_first,
        forced_end=generation.forced_end,
        sampling=sampling,
        temperature=generation.temperature if sampling else 1.0,
        top_k=generation.top_k if sampling else 0,
        top_p=generation.top_p if sampling else 1.0,
    )


def read_generation(
    folder: Path, config: Mapping[str, object], size: int
) -> Generation:
    """How a folder whose config.json has these values would generate.

    size: of the target's vocabulary, which all ids are in.
    """
    file = folder / GENERATION_CONFIG
    if file.is_file():
        given: Mapping[str, object] = read_object(file)
    else:
        file = folder / CONFIG
        given = {key: config[key] for key in KEYS & config.keys()}
    stated = {key: value for key, value in given.items() if value is not None}
    values: dict[str, Any] = {**READ, **stated}
    values["eos_token_id"] = _single(values["eos_token_id"])
    for key in ENDS:
        if values[key] is None:  # generate, too, begins with bos where it has no start
            usual = values["bos_token_id"] if key == "decoder_start_token_id" else None
            values[key] = config[key] if usual is None else usual
    _refuse(file, [*_faults(given, values), *_id_faults(given, size)])
    generation = _generation(values)
    _refuse(file, [*_sum_faults(generation), *_search_faults(generation)])
    return generation


def _refuse(file: Path, faults: Sequence[str]) -> None:
    """CheckpointError if there are any."""
    if faults:
        raise CheckpointError(
            f"{file}: {'; '.join(faults)}; mend it or remove what you can do without, "
            "see docs/hugging-face.md"
        )


def _single(value: object) -> object:
    """The one id of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _faults(given: Mapping[str, object], values: Mapping[str, Any]) -> Iterator[str]:
    """Every key that is unknown, or has a value that can't be had."""
    for key in sorted(given.keys() - KEYS):
        yield f"{key} = {given[key]!r} is a key that seq2edge doesn't know"
    neutral = {**NEUTRAL, **(NEUTRAL_IN_SAMPLING if values["do_sample"] else {})}
    for key, accepted in neutral.items():
        if given.get(key, accepted[0]) not in accepted:
            yield f"{key} = {given[key]!r} isn't supported, {accepted[0]!r} is"
    for key, (description, holds) in _RULES.items():
        if not holds(values[key]):
            yield f"{key} = {values[key]!r} must be {description}"
    forced, end = values["forced_eos_token_id"], values["eos_token_id"]
    if _single(forced) not in (None, end):
        yield f"forced_eos_token_id = {forced!r} isn't eos_token_id ({end!r})"


def _sum_faults(generation: Generation) -> Iterator[str]:
    """What can't be had where probabilities are made to sum to 1 again.

    Tokens that never come have no probability in our module, which is the same; others
    would have to be known at each step.
    """
    varying = {
        "min_length or min_new_tokens": generation.least_tokens > 0,
        "repetition_penalty": generation.repetition_penalty != 1,
        "no_repeat_ngram_size": generation.no_repeat_ngram_size > 0,
        "bad_words_ids of several tokens": any(len(i) > 1 for i in generation.banned),
    }
    if generation.renormalizes:
        for key in (key for key, given in varying.items() if given):
            yield f"renormalize_logits = True isn't supported together with {key}"


def _search_faults(generation: Generation) -> Iterator[str]:
    """What contradicts itself, as min_length above max_length; in our names."""
    try:
        search_options(generation)
    except ConfigError as error:
        yield str(error)


def _id_faults(given: Mapping[str, object], size: int) -> Iterator[str]:
    """Ids that no token has; `_faults` finds what is no id at all."""
    for key in ("suppress_tokens", "bad_words_ids", "forced_bos_token_id", *ENDS):
        value = given.get(key)
        if any(id_ >= size for id_ in _integers(value)):
            yield f"{key} = {value!r} is outside of the vocabulary (0 to {size - 1})"


def _integers(value: object) -> Iterator[int]:
    """Those of nested lists."""
    if isinstance(value, list):
        for item in value:
            yield from _integers(item)
    elif isinstance(value, int):
        yield value


def _is_integer(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_integer(0), value))


def _are_sequences(value: Any) -> bool:
    return isinstance(value, list) and all(
        _are_tokens(sequence) and sequence for sequence in value
    )


_COUNT = ("an integer of at least 0", _is_integer(0))
_TOKEN = ("the id of a token", _or_none(_is_integer(0)))
_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "num_beams": ("an integer of at least 1", _is_integer(1)),
    "length_penalty": ("a number of at least 0", lambda v: _is_number(v) and v >= 0),
    "early_stopping": ("true, false or never", lambda v: v in (True, False, "never")),
    "max_length": ("an integer of at least 2", _is_integer(2)),
    "max_new_tokens": ("an integer of at least 1", _or_none(_is_integer(1))),
    "min_length": _COUNT,
    "min_new_tokens": ("an integer of at least 0", _or_none(_is_integer(0))),
    "repetition_penalty": ("a number above 0", _is_positive),
    "no_repeat_ngram_size": _COUNT,
    "bad_words_ids": ("a list of lists of ids", _or_none(_are_sequences)),
    "suppress_tokens": ("a list of ids", _or_none(_are_tokens)),
    "renormalize_logits": ("true or false", lambda value: type(value) is bool),
    "forced_bos_token_id": _TOKEN,
    "do_sample": ("true or false", lambda value: type(value) is bool),
    "temperature": ("a number above 0", _is_positive),
    "top_k": _COUNT,
    "top_p": ("a number above 0, at most 1", lambda v: _is_positive(v) and v <= 1),
    "eos_token_id": ("the id of one token", _is_integer(0)),
    "decoder_start_token_id": _TOKEN,
}


def _most_tokens(max_length: int) -> int:
    """Without the start token; 20, the default, generate takes for so many new ones."""
    return 20 if max_length == READ["max_length"] else max_length - 1


def _generation(values: Mapping[str, Any]) -> Generation:
    most, least = values["max_new_tokens"], values["min_new_tokens"]
    end = values["eos_token_id"]
    banned = [*(values["bad_words_ids"] or ())]
    banned += [[token] for token in values["suppress_tokens"] or ()]
    return Generation(
        start=values["decoder_start_token_id"],
        end=end,
        num_beams=values["num_beams"],
        length_penalty=float(values["length_penalty"]),
        early_stopping=values["early_stopping"],
        most_tokens=_most_tokens(values["max_length"]) if most is None else most,
        least_tokens=max(values["min_length"] - 1, least or 0, 0),
        forced_first=values["forced_bos_token_id"],
        forced_end=values["forced_eos_token_id"] is not None,
        banned=tuple(tuple(ids) for ids in banned if ids != [end]),
        renormalizes=values["renormalize_logits"],
        repetition_penalty=float(values["repetition_penalty"]),
        no_repeat_ngram_size=values["no_repeat_ngram_size"],
        sampling=values["do_sample"],
        temperature=float(values["temperature"]),
        top_k=values["top_k"],
        top_p=float(values["top_p"]),
    )
