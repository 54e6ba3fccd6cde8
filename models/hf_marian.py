"""MarianTokenizer: a SentencePiece model for each side, vocabularies in JSON."""

from collections.abc import Mapping
from pathlib import Path

from seq2edge.models.hf_config import HfConfig
from seq2edge.models.hf_settings import HfTokenizer, Settings, read_vocabulary
from seq2edge.runtime.errors import CheckpointError
from seq2edge.runtime.manifest import LanguagesSpec, PieceTokenizerSpec


def read_marian(settings: Settings, config: HfConfig) -> HfTokenizer:
    """As the settings say; the vocabularies have the model's sizes."""
    model, separate = config.model, settings.flag("separate_vocabs")
    source = settings.folder / "vocab.json"
    target = settings.folder / "target_vocab.json" if separate else source
    reads = _of_size(source, model.source_vocabulary)
    writes = _of_size(target, model.target_vocabulary)
    roles = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
    tokens = {key: settings.text(f"{key}_token", roles[key]) for key in roles}
    for file, vocabulary in ((source, reads), (target, writes)):
        if missing := [token for token in tokens.values() if token not in vocabulary]:
            raise CheckpointError(
                f"{file} lacks {', '.join(missing)}; copy the whole folder of the "
                "model again"
            )
    languages = _languages(reads)
    spec = PieceTokenizerSpec(
        kind="pieces",
        source="source.spm",
        target="target.spm",
        source_vocabulary=source.name,
        target_vocabulary=target.name,
        offset=0,
        unknown=reads[tokens["unk"]],
        special={token: reads[token] for token in tokens.values()},
        strips_left=(),
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


def _languages(vocabulary: Mapping[str, int]) -> LanguagesSpec | None:
    """The >>deu<< of a vocabulary; each stands in front of a text."""
    tokens = {
        piece[2:-2]: token
        for piece, token in vocabulary.items()
        if piece.startswith(">>") and piece.endswith("<<")
    }
    return LanguagesSpec(tokens, None, None, "none", "front") if tokens else None


def _of_size(file: Path, size: int) -> dict[str, int]:
    """A vocabulary that has the model's size."""
    vocabulary = read_vocabulary(file)
    known = set(vocabulary.values())
    if len(vocabulary) != size or min(known) < 0 or max(known) >= size:
        raise CheckpointError(
            f"{file} has {len(vocabulary)} pieces with ids up to "
            f"{max(known, default=0)}, where the model has {size}; copy both from the "
            "same model"
        )
    return vocabulary
