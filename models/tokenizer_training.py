"""Train SentencePiece models on a corpus, joint or one a language.

Kudo & Richardson 2018, arXiv:1808.06226. The special ids are the same in all of them:
padding 0, unknown 1, start 2, end 3.
"""

import io
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import sentencepiece

from seq2edge.models.corpus import Corpus
from seq2edge.models.embedding import PAD
from seq2edge.models.recipe import TokenizerRecipe
from seq2edge.runtime.bundle import TokenizerSpec
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.vocabulary import Vocabulary

UNKNOWN, START, END = 1, 2, 3


def train_tokenizer(
    recipe: TokenizerRecipe, corpus: Corpus, folder: Path
) -> TokenizerSpec:
    """Write source.spm (and target.spm) into the folder; keep those already there."""
    spec = TokenizerSpec(
        kind="sentencepiece",
        source="source.spm",
        target="source.spm" if recipe.joint else "target.spm",
        append_end=True,
    )
    size = recipe.vocabulary_size
    if recipe.joint:
        texts = chain(corpus.sources, corpus.targets)
        _train(recipe, texts, size, folder / spec.source)
    else:
        source_size = recipe.source_vocabulary_size or size
        _train(recipe, corpus.sources, source_size, folder / spec.source)
        _train(recipe, corpus.targets, size, folder / spec.target)
    return spec


def load_tokenizer(spec: TokenizerSpec, folder: Path) -> SentencePieceTokenizer:
    """The tokenizer of a checkpoint or of a training run."""
    source, target = folder / spec.source, folder / spec.target
    return SentencePieceTokenizer.load(source, target, spec.append_end)


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
    recipe: TokenizerRecipe, texts: Iterable[str], size: int, path: Path
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
            character_coverage=recipe.character_coverage,
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
