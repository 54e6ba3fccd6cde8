"""The tokenizer of a Hugging Face folder, as a bundle has it.

Read are the files that transformers' slow tokenizers read; what they say of each class
is in its own function. Every file is opened here once, so that a damaged one is found
before the export begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seq2edge.models.hf_config import HfConfig
from seq2edge.models.hf_folder import TOKENIZER_CONFIG, read_object, read_optional
from seq2edge.runtime.errors import BundleError, CheckpointError
from seq2edge.runtime.manifest import LanguagesSpec, PieceTokenizerSpec
from seq2edge.runtime.tokenizer import load_tokenizer

SPECIAL_TOKENS = "special_tokens_map.json"


@dataclass(frozen=True)
class HfTokenizer:
    """What a bundle needs of a tokenizer."""

    spec: PieceTokenizerSpec
    unknown: int  # of the target
    source_language: str = ""
    target_language: str = ""


@dataclass(frozen=True)
class Settings:
    """tokenizer_config.json, with what older folders have in other files."""

    folder: Path
    values: Mapping[str, object]

    @classmethod
    def read(cls, folder: Path) -> "Settings":
        """Read the files that there are."""
        older = read_optional(folder / SPECIAL_TOKENS)
        return cls(folder, {**older, **read_optional(folder / TOKENIZER_CONFIG)})

    def text(self, key: str, default: str = "") -> str:
        """A setting, or the content of a token that is written as an object."""
        value = self.values.get(key)
        if isinstance(value, Mapping):
            value = value.get("content")
        return value if isinstance(value, str) else default

    def flag(self, key: str) -> bool:
        """A setting that is off where it isn't given."""
        return self.values.get(key) is True


def read_tokenizer(folder: Path, config: HfConfig) -> HfTokenizer:
    """The tokenizer of the folder, checked; CheckpointError names what is wrong."""
    settings = Settings.read(folder)
    _refuse(settings)
    tokenizer = _marian(settings, config)
    _open(tokenizer.spec, folder)
    return tokenizer


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


def _marian(settings: Settings, config: HfConfig) -> HfTokenizer:
    """MarianTokenizer: a SentencePiece model for each side, vocabularies in JSON."""
    model, separate = config.model, settings.flag("separate_vocabs")
    source = settings.folder / "vocab.json"
    target = settings.folder / "target_vocab.json" if separate else source
    reads = read_vocabulary(source, model.source_vocabulary)
    writes = read_vocabulary(target, model.target_vocabulary)
    roles = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
    tokens = {key: settings.text(f"{key}_token", roles[key]) for key in roles}
    for file, vocabulary in ((source, reads), (target, writes)):
        if missing := [token for token in tokens.values() if token not in vocabulary]:
            raise CheckpointError(
                f"{file} lacks {', '.join(missing)}; copy the whole folder of the "
                "model again"
            )
    languages = _marian_languages(reads)
    spec = PieceTokenizerSpec(
        kind="pieces",
        source="source.spm",
        target="target.spm",
        source_vocabulary=source.name,
        target_vocabulary=target.name,
        offset=0,
        unknown=reads[tokens["unk"]],
        special={token: reads[token] for token in tokens.values()},
        suffix=(reads[tokens["eos"]],),
        begins_with_code=True,
        clean_up=settings.flag("clean_up_tokenization_spaces"),
        languages=languages,
    )
    return HfTokenizer(
        spec,
        unknown=writes[tokens["unk"]],
        source_language=settings.text("source_lang"),
        target_language="" if languages else settings.text("target_lang"),
    )


def _marian_languages(vocabulary: Mapping[str, int]) -> LanguagesSpec | None:
    """The >>deu<< of a vocabulary; each stands in front of a text."""
    tokens = {
        piece[2:-2]: token
        for piece, token in vocabulary.items()
        if piece.startswith(">>") and piece.endswith("<<")
    }
    return LanguagesSpec(tokens, None, None, "none", "front") if tokens else None


def read_vocabulary(file: Path, size: int) -> dict[str, int]:
    """Piece to id of a vocabulary that has the model's size."""
    ids = read_object(file)
    wrong = [piece for piece, id_ in ids.items() if type(id_) is not int]
    if wrong:
        raise CheckpointError(
            f"{file}: {wrong[0]!r} has {ids[wrong[0]]!r}, which is no id; copy it again"
        )
    vocabulary = {piece: id_ for piece, id_ in ids.items() if isinstance(id_, int)}
    known = set(vocabulary.values())
    if len(vocabulary) != size or min(known) < 0 or max(known) >= size:
        raise CheckpointError(
            f"{file} has {len(vocabulary)} pieces with ids up to "
            f"{max(known, default=0)}, where the model has {size}; copy both from the "
            "same model"
        )
    return vocabulary


def _open(spec: PieceTokenizerSpec, folder: Path) -> None:
    for name in sorted({spec.source, spec.target}):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name} is missing, a SentencePiece model; copy the whole "
                "folder of the model again"
            )
    try:
        load_tokenizer(spec, folder)
    except BundleError as error:
        fault, _, _ = str(error).rpartition(";")  # what to do is for bundles
        raise CheckpointError(
            f"{fault}; copy the whole folder of the model again"
        ) from None
