"""The tokenizers of M2M100, NLLB and mBART, whose vocabularies were fairseq's.

One SentencePiece model reads and writes. M2M100 numbers its pieces in a JSON file; the
others by the model's own ids, moved by one, behind four special tokens. Languages have
the ids behind all pieces; NLLB's folders list theirs, those of M2M100 and mBART are
fixed by their classes in transformers.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from seq2edge.models.hf_config import HfConfig
from seq2edge.models.hf_folder import TOKENIZER_CONFIG
from seq2edge.models.hf_settings import (
    HfTokenizer,
    Settings,
    of_a_folder,
    read_vocabulary,
    require,
)
from seq2edge.runtime.errors import CheckpointError
from seq2edge.runtime.manifest import LanguagesSpec, PieceTokenizerSpec
from seq2edge.runtime.tokenizer import piece_count

MODEL = "sentencepiece.bpe.model"
VOCABULARY = "vocab.json"
_OFFSET = 1  # of the ids to those of the model
_SPARE = 128  # a table may be rounded up by so many rows that no token has
_ROLES = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}

_M2M100 = {
    "m2m100": "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff "
    "fi fr fy ga gd gl gu ha he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb "
    "lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk "
    "sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu",
    "wmt21": "en ha is ja cs ru zh de",
}
_MBART = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ "
    "ko_KR lt_LT lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
)
_MBART_50 = (
    "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN "
    "pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES "
    "sl_SI"
)


def read_m2m100(settings: Settings, config: HfConfig) -> HfTokenizer:
    """M2M100Tokenizer: [language] X </s>; the target's language is written first."""
    file = settings.folder / VOCABULARY
    pieces = read_vocabulary(file)
    if missing := [token for token in _ROLES if token not in pieces]:
        raise CheckpointError(
            f"{file} lacks {', '.join(missing)}; copy the whole folder of the model "
            "again"
        )
    name = settings.text("language_codes", "m2m100")
    if name not in _M2M100:
        raise CheckpointError(
            f"{settings.folder / TOKENIZER_CONFIG}: language_codes = {name!r} isn't "
            f"supported; use one of {', '.join(_M2M100)}"
        )
    languages = _numbered(_M2M100[name], len(pieces))
    special = {token: pieces[token] for token in _ROLES}
    special |= {f"__{code}__": token for code, token in languages.items()}
    spec = _spec(special, _told(settings, languages))
    spec = replace(spec, source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY)
    return _checked(settings, config, file, spec)


def read_nllb(settings: Settings, config: HfConfig) -> HfTokenizer:
    """NllbTokenizer: [language] X </s>, or X </s> [language] in models of before."""
    added = {token.content: token.id for token in settings.added()}
    languages = {
        content: id_
        for content, id_ in added.items()
        if content not in {*_ROLES, settings.text("mask_token", "<mask>")}
    }
    if not languages:
        raise CheckpointError(
            f"{settings.folder}: neither {TOKENIZER_CONFIG} nor tokenizer.json lists "
            "the languages as added tokens; copy the whole folder of the model again"
        )
    told = _told(settings, languages)
    if settings.flag("legacy_behaviour"):
        told = replace(told, source_place="back")
    return _of_model(settings, config, added, told)


def read_mbart(settings: Settings, config: HfConfig) -> HfTokenizer:
    """MBartTokenizer: X </s> [language]; the decoder starts with the target's."""
    special = _mbart_special(settings, _MBART)
    told = _told(settings, {code: special[code] for code in _MBART.split()})
    told = replace(told, source_place="back", target_place="start")
    return _of_model(settings, config, special, told)


def read_mbart50(settings: Settings, config: HfConfig) -> HfTokenizer:
    """MBart50Tokenizer: [language] X </s>; the target's language is written first."""
    codes = f"{_MBART} {_MBART_50}"
    special = _mbart_special(settings, codes)
    told = _told(settings, {code: special[code] for code in codes.split()})
    return _of_model(settings, config, special, told)


def _mbart_special(settings: Settings, codes: str) -> dict[str, int]:
    """Languages behind the pieces, the mask behind those, and what a folder adds."""
    model = _model(settings)
    require(model)
    with of_a_folder():
        first = piece_count(model) + _OFFSET
    languages = _numbered(codes, first)
    added = {token.content: token.id for token in settings.added()}
    return {**added, **languages, "<mask>": first + len(languages)}


def _of_model(
    settings: Settings,
    config: HfConfig,
    special: Mapping[str, int],
    languages: LanguagesSpec,
) -> HfTokenizer:
    """A tokenizer whose ids are the model's own, moved by one."""
    spec = _spec({**special, **_ROLES}, languages)
    listed = tuple(token.content for token in settings.added() if token.strips_left)
    usual = tuple({"<mask>"} & special.keys())
    spec = replace(spec, strips_left=listed or usual, offset=_OFFSET)
    return _checked(settings, config, _model(settings), spec)


def _spec(special: Mapping[str, int], languages: LanguagesSpec) -> PieceTokenizerSpec:
    return PieceTokenizerSpec(
        kind="pieces",
        source=MODEL,
        target=MODEL,
        source_vocabulary=None,
        target_vocabulary=None,
        offset=0,
        unknown=special["<unk>"],
        special=special,
        strips_left=(),
        suffix=(special["</s>"],),
        begins_with_code=False,
        clean_up=False,
        languages=languages,
    )


def _told(settings: Settings, tokens: Mapping[str, int]) -> LanguagesSpec:
    """As most of them are told, and the languages that the folder has chosen."""
    return LanguagesSpec(
        tokens=tokens,
        source=settings.language("src_lang", tokens),
        target=settings.language("tgt_lang", tokens),
        source_place="front",
        target_place="first",
    )


def _checked(
    settings: Settings, config: HfConfig, file: Path, spec: PieceTokenizerSpec
) -> HfTokenizer:
    """With the model's size compared: it may have spare rows, but not many."""
    due, size = max(spec.special.values()) + 1, config.model.target_vocabulary
    if not due <= size <= due + _SPARE:
        raise CheckpointError(
            f"{file} and its languages are {due} tokens, where the model has {size}; "
            "copy both from the same model"
        )
    clean_up = settings.flag("clean_up_tokenization_spaces")
    return HfTokenizer(replace(spec, clean_up=clean_up), spec.unknown)


def _numbered(codes: str, first: int) -> dict[str, int]:
    return {code: first + place for place, code in enumerate(codes.split())}


def _model(settings: Settings) -> Path:
    return settings.folder / MODEL
