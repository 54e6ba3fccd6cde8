"""The languages that a Hugging Face model is told: chosen by its user, or its own.

What a folder says itself is in its tokenizer's and generation's settings; what the
decoder must begin with has to be known when a bundle is made.
"""

from dataclasses import replace
from pathlib import Path

from seq2edge.models.hf_generation import Generation
from seq2edge.runtime.errors import CheckpointError, ConfigError
from seq2edge.runtime.languages import LanguagePair, in_languages, listed
from seq2edge.runtime.manifest import LanguagesSpec


def chosen_languages(
    folder: Path,
    spec: LanguagesSpec | None,
    generation: Generation,
    pair: LanguagePair,
) -> LanguagesSpec | None:
    """The languages of a bundle; CheckpointError says which one is lacking or unknown.

    Only Marian's target may be left open, which a text may tell itself.
    """
    if spec is not None:
        spec = replace(spec, target=_begins_with(spec, generation) or spec.target)
    try:
        spec = in_languages(spec, pair.source, pair.target)
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    if spec is None:
        return None
    lacking = []
    if spec.source is None and spec.source_place != "none":
        lacking.append("source")
    if spec.target is None and spec.target_place != "front":
        lacking.append("target")
    if lacking:
        options = " and ".join(f"--{side}-language" for side in lacking)
        raise CheckpointError(
            f"{folder} is multilingual and doesn't say its {' and '.join(lacking)} "
            f"language; use {options} with one of {listed(spec)}"
        )
    return spec


def _begins_with(spec: LanguagesSpec, generation: Generation) -> str | None:
    """The target language by the decoder's first tokens, as the folder has them."""
    tokens = {"first": generation.forced_first, "start": generation.start}
    token = tokens.get(spec.target_place)
    codes = [code for code, id_ in spec.tokens.items() if id_ == token]
    return codes[0] if codes else None
