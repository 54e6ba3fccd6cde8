"""Train SentencePiece models on a corpus, joint or one a language.

Kudo & Richardson 2018, arXiv:1808.06226. The special ids are the same in all of them:
padding 0, unknown 1, start 2, end 3.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from seq2edge.models.embedding import PAD
from seq2edge.models.recipe import TokenizerRecipe
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.manifest import TokenizerSpec
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.vocabulary import Vocabulary

UNKNOWN, START, END = 1, 2, 3
SOURCE, TARGET = "source.spm", "target.spm"
LONGEST = 4192  # bytes, SentencePiece's default: what is longer it would leave out


def train_tokenizer(
    recipe: TokenizerRecipe,
    sources: Sequence[str],
    targets: Sequence[str],
    folder: Path,
    append_end: bool = True,
) -> TokenizerSpec | None:
    """Write source.spm, target.spm or both into the folder; keep those already there.

    Sources are empty where the model reads no text, targets where it writes none; then
    there is one model only, and none where it does neither.
    """
    size = recipe.vocabulary_size
    source_size = recipe.source_vocabulary_size or size
    if not sources and not targets:
        return None
    if sources and targets and not recipe.joint:
        names = SOURCE, TARGET
        _train(recipe, sources, source_size, folder / SOURCE)
        _train(recipe, targets, size, folder / TARGET)
    elif sources:
        names = SOURCE, SOURCE
        size = size if targets else source_size
        _train(recipe, [*sources, *targets], size, folder / SOURCE)
    else:
        names = TARGET, TARGET
        _train(recipe, targets, size, folder / TARGET)
    return TokenizerSpec(
        "sentencepiece", *names, append_end, words=recipe.kind == "word"
    )


def source_pieces(spec: TokenizerSpec, folder: Path) -> list[str | None]:
    """The source vocabulary as SentencePiece writes it; None for the special ids."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / spec.source))
    special = (PAD, UNKNOWN, START, END)
    ids = range(model.get_piece_size())
    return [None if id_ in special else model.id_to_piece(id_) for id_ in ids]


def target_vocabulary(tokenizer: SentencePieceTokenizer) -> Vocabulary:
    """The ids that a search must know."""
    return Vocabulary(
        size=tokenizer.target_size,
        pad=PAD,
        unknown=UNKNOWN,
        start=START,
        end=END,
    )


def _train(
    recipe: TokenizerRecipe, texts: Sequence[str], size: int, path: Path
) -> None:
    if path.exists():
        return
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            model_type=recipe.kind,
            # Words and characters are as many as there are; size is only the most.
            hard_vocab_limit=recipe.kind not in ("word", "char"),
            character_coverage=recipe.character_coverage,
            max_sentence_length=max(LONGEST, *(len(t.encode()) for t in texts)),
            minloglevel=2,
            num_threads=1,  # the same pieces whatever the machine
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=START,
            eos_id=END,
        )
    except RuntimeError as error:
        reason = str(error).strip().rpartition("] ")[2]
        raise ConfigError(
            f"tokenizer: {size} pieces can't be made of this corpus ({reason}); "
            "change tokenizer.vocabulary_size"
        ) from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(model.getvalue())
    os.replace(temporary, path)
