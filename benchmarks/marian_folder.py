"""MarianMT folders as Hugging Face has them, with tokenizers trained here.

No model hub is needed: SentencePiece models of both sides are trained on the corpus,
and vocab.json joins their pieces, the end token first and padding last, as in OPUS-MT.
"""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"


def train_pieces(lines: Iterable[str], size: int, path: Path) -> list[str]:
    """Train a SentencePiece model; its ordinary pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        vocab_size=size,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    path.write_bytes(written.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [
        processor.id_to_piece(index)
        for index in range(processor.get_piece_size())
        if not processor.is_control(index) and not processor.is_unknown(index)
    ]


def write_tokenizer(
    folder: Path,
    sources: Sequence[str],
    targets: Sequence[str],
    sizes: tuple[int, int],
    separate: bool = False,
    languages: Sequence[str] = (),
) -> MarianTokenizer:
    """Train and write source.spm, target.spm and the vocabularies; load it."""
    folder.mkdir(parents=True, exist_ok=True)
    source = train_pieces(sources, sizes[0], folder / "source.spm")
    target = train_pieces(targets, sizes[1], folder / "target.spm")
    codes = [f">>{language}<<" for language in languages]
    joint = list(dict.fromkeys([*source, *([] if separate else target)]))
    _write_vocabulary(folder / "vocab.json", [*joint, *codes], separate)
    files = {"vocab": str(folder / "vocab.json")}
    if separate:
        _write_vocabulary(folder / "target_vocab.json", target, separate)
        files["target_vocab_file"] = str(folder / "target_vocab.json")
    tokenizer = MarianTokenizer(
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        separate_vocabs=separate,
        **files,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _write_vocabulary(path: Path, pieces: Sequence[str], separate: bool) -> None:
    """Padding has one id: the last, or where there are two vocabularies the third."""
    special = [END, UNKNOWN, PADDING] if separate else [END, UNKNOWN]
    named = [*special, *pieces] if separate else [*special, *pieces, PADDING]
    ids = {piece: n for n, piece in enumerate(named)}
    path.write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")


def marian_config(folder: Path, **changes: Any) -> MarianConfig:
    """A configuration for the folder's vocabularies, with OPUS-MT's choices."""
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    separate, pad = folder / "target_vocab.json", ids[PADDING]
    if separate.is_file():
        target = json.loads(separate.read_text(encoding="utf-8"))
        changes = {
            "decoder_vocab_size": len(target),
            "share_encoder_decoder_embeddings": False,
            **changes,
        }
        pad = target[PADDING]
    values: dict[str, Any] = {
        "vocab_size": len(ids),
        "pad_token_id": pad,
        "eos_token_id": ids[END],
        "bos_token_id": ids[END],
        "decoder_start_token_id": pad,
        "forced_eos_token_id": ids[END],
        "bad_words_ids": [[pad]],
        "scale_embedding": True,
        "activation_function": "swish",
        "static_position_embeddings": True,
        "max_length": 512,
        "max_position_embeddings": 512,
        "num_beams": 4,
        "dropout": 0.1,
        **changes,
    }
    return MarianConfig(**values)


def write_model(folder: Path, model: MarianMTModel) -> None:
    """Beside the tokenizer; the folder is then complete."""
    model.save_pretrained(folder)
