"""Small folders of M2M100, NLLB and mBART: random models with real tokenizers."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hf_folders import ENGLISH, GERMAN, SMALL, pieces, spm, write_json

with warnings.catch_warnings():  # its own, of optional packages and Python's future
    warnings.simplefilter("ignore")
    from transformers import (
        M2M100Config,
        M2M100ForConditionalGeneration,
        M2M100Tokenizer,
        MBart50Tokenizer,
        MBartConfig,
        MBartForConditionalGeneration,
        MBartTokenizer,
        NllbTokenizer,
    )

MODEL = "sentencepiece.bpe.model"
NLLB_CODES = ["deu_Latn", "eng_Latn", "fra_Latn", "zho_Hans"]
SPARE = 3  # rows of the model that no token has


class Kind(NamedTuple):
    """How a folder is made, and which languages a test chooses."""

    tokenizer: Callable[[Path], Any]
    config: Any
    model: Any
    source: str
    target: str
    other: str
    starts: bool = False  # whether the decoder starts with the target's token


def _m2m100(folder: Path) -> Any:
    names = ["<s>", "<pad>", "</s>", "<unk>", *pieces(_spm(folder))]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(names))}
    write_json(folder / "vocab.json", vocabulary)
    files = str(folder / "vocab.json"), str(folder / MODEL)
    codes = M2M100Tokenizer(*files).lang_code_to_id
    return M2M100Tokenizer(
        *files, additional_special_tokens=[f"__{code}__" for code in codes]
    )


def _nllb(folder: Path, **settings: Any) -> Any:
    _spm(folder)
    return NllbTokenizer(
        str(folder / MODEL), additional_special_tokens=list(NLLB_CODES), **settings
    )


def _legacy_nllb(folder: Path) -> Any:
    return _nllb(folder, legacy_behaviour=True)


def _mbart(folder: Path) -> Any:
    _spm(folder)
    return MBartTokenizer(str(folder / MODEL))


def _mbart50(folder: Path) -> Any:
    _spm(folder)
    return MBart50Tokenizer(str(folder / MODEL))


_M2M100 = (M2M100Config, M2M100ForConditionalGeneration)
_MBART = (MBartConfig, MBartForConditionalGeneration)
_NLLB_CHOICE = ("eng_Latn", "deu_Latn", "zho_Hans")
_MBART_CHOICE = ("en_XX", "de_DE", "fr_XX")
KINDS: Mapping[str, Kind] = {
    "m2m100": Kind(_m2m100, *_M2M100, "en", "de", "zu"),
    "nllb": Kind(_nllb, *_M2M100, *_NLLB_CHOICE),
    "nllb of before": Kind(_legacy_nllb, *_M2M100, *_NLLB_CHOICE),
    "mbart": Kind(_mbart, *_MBART, *_MBART_CHOICE, starts=True),
    "mbart50": Kind(_mbart50, *_MBART, *_MBART_CHOICE),
}


def multilingual_folder(folder: Path, name: str, **config: object) -> Any:
    """Write a folder of a kind; its model in eval mode."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = KINDS[name]
    with warnings.catch_warnings():  # it moves generation keys to their own file
        warnings.simplefilter("ignore")
        tokenizer = kind.tokenizer(folder)
        tokenizer.save_pretrained(folder)
        size = max(ids_of(tokenizer)) + 1 + SPARE
        settings = {**SMALL, "vocab_size": size, "max_length": 20, "init_std": 0.3}
        torch.manual_seed(0)
        model = kind.model(kind.config(**{**settings, **config})).eval()
        model.save_pretrained(folder)
    return model


def ids_of(tokenizer: Any) -> list[int]:
    """Those of all tokens, languages among them."""
    languages = getattr(tokenizer, "lang_code_to_id", {})
    return [*tokenizer.get_vocab().values(), *languages.values()]


def tokenizer_of(folder: Path, name: str, **languages: str) -> Any:
    """Transformers' own, told these languages."""
    kinds = {
        "m2m100": M2M100Tokenizer,
        "nllb": NllbTokenizer,
        "nllb of before": NllbTokenizer,
        "mbart": MBartTokenizer,
        "mbart50": MBart50Tokenizer,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kinds[name].from_pretrained(folder, **languages)


def _spm(folder: Path) -> bytes:
    model = spm((*ENGLISH, *GERMAN), 150)
    (folder / MODEL).write_bytes(model)
    return model
