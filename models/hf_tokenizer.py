"""The tokenizer of a Hugging Face folder, as a bundle has it.

Read are the files that transformers' slow tokenizers read; what they say of each class
is in `hf_marian` and `hf_fairseq`. Every file is opened here once, so that a damaged
one is found before the export begins.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from seq2edge.models.hf_config import HfConfig
from seq2edge.models.hf_fairseq import (
    read_m2m100,
    read_mbart,
    read_mbart50,
    read_nllb,
)
from seq2edge.models.hf_folder import TOKENIZER_CONFIG
from seq2edge.models.hf_marian import read_marian
from seq2edge.models.hf_settings import HfTokenizer, Settings, of_a_folder, require
from seq2edge.runtime.errors import CheckpointError
from seq2edge.runtime.manifest import PieceTokenizerSpec
from seq2edge.runtime.tokenizer import load_tokenizer

Read = Callable[[Settings, HfConfig], HfTokenizer]
# By model_type and tokenizer_class; the first is the one of folders that name none.
_CLASSES: Mapping[str, Mapping[str, Read]] = {
    "marian": {"MarianTokenizer": read_marian},
    "m2m_100": {"M2M100Tokenizer": read_m2m100, "NllbTokenizer": read_nllb},
    "mbart": {"MBartTokenizer": read_mbart, "MBart50Tokenizer": read_mbart50},
}


def read_tokenizer(folder: Path, config: HfConfig) -> HfTokenizer:
    """The tokenizer of the folder, checked; CheckpointError names what is wrong."""
    settings = Settings.read(folder)
    _refuse(settings)
    tokenizer = _class_of(settings, config)(settings, config)
    _open(tokenizer.spec, folder)
    return tokenizer


def _class_of(settings: Settings, config: HfConfig) -> Read:
    known = _CLASSES[config.model_type]
    name = settings.values.get("tokenizer_class")
    if name is None:
        name = config.values.get("tokenizer_class") or next(iter(known))
    read = known.get(str(name).removesuffix("Fast"))
    if read is None:
        raise CheckpointError(
            f"{settings.folder / TOKENIZER_CONFIG}: tokenizer_class {name!r} isn't "
            f"supported with model_type {config.model_type!r}; export a model with "
            f"{' or '.join(known)}"
        )
    return read


def _refuse(settings: Settings) -> None:
    """Settings by which transformers reads or writes otherwise than we do."""
    faults = [
        f"{key} = {settings.values[key]!r}"
        for key in ("do_lower_case", "split_special_tokens", "sp_model_kwargs")
        if settings.values.get(key) not in (None, False, {})
    ]
    if faults:
        raise CheckpointError(
            f"{settings.folder / TOKENIZER_CONFIG}: {'; '.join(faults)} isn't "
            "supported; export a model without"
        )


def _open(spec: PieceTokenizerSpec, folder: Path) -> None:
    for name in sorted({spec.source, spec.target}):
        require(folder / name)
    with of_a_folder():
        load_tokenizer(spec, folder)
