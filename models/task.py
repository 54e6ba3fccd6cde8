"""What stays the same during a training run: recipe, folder, tokenizer and corpora."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2edge.models.batches import EncodedCorpus, encode_corpus
from seq2edge.models.checkpoint import write_text
from seq2edge.models.corpus import Corpus, read_corpus
from seq2edge.models.dev_set import DevSet
from seq2edge.models.recipe import Recipe
from seq2edge.models.tokenizer_training import (
    load_tokenizer,
    target_vocabulary,
    train_tokenizer,
)
from seq2edge.runtime import schema
from seq2edge.runtime.bundle import Limits, TokenizerSpec
from seq2edge.runtime.errors import ConfigError, OutputError
from seq2edge.runtime.tokenizer import SentencePieceTokenizer
from seq2edge.runtime.vocabulary import Vocabulary

Event = dict[str, Any]
Report = Callable[[Event], None]

WORKSHOP = "training"  # the folder of a run's own files, inside the output


@dataclass(frozen=True)
class Task:
    """Everything that stays the same during a run."""

    recipe: Recipe
    folder: Path  # of the run's own files
    spec: TokenizerSpec
    tokenizer: SentencePieceTokenizer
    vocabulary: Vocabulary
    train: EncodedCorpus
    dev: EncodedCorpus
    dev_set: DevSet
    dev_corpus: Corpus

    @property
    def limits(self) -> Limits:
        """The longest sequences of training are the longest that the model takes."""
        longest = self.recipe.data.max_tokens
        return Limits(source_tokens=longest, target_tokens=longest)


def prepare(recipe: Recipe, data: Path, output: Path, report: Report) -> Task:
    """Read the corpora, then open the output folder and make or load a tokenizer."""
    corpus = read_corpus(recipe.data.train, data)
    dev = read_corpus(recipe.data.dev, data)
    # Only now, so that a recipe that names no corpus can be mended and run again.
    folder = output / WORKSHOP
    _open(output)
    _remember(recipe, folder / "recipe.json")
    spec = train_tokenizer(recipe.tokenizer, corpus, folder)
    tokenizer = load_tokenizer(spec, folder)
    encoded, encoded_dev = (
        encode_corpus(
            part,
            tokenizer,
            recipe.data.max_tokens,
            recipe.data.max_ratio,
        )
        for part in (corpus, dev)
    )
    evaluation = recipe.evaluation
    dev_set = DevSet.from_corpus(dev, evaluation.max_sentences, recipe.training.seed)
    report(
        {
            "event": "data",
            "pairs": len(encoded),
            "left_out": dict(encoded.defects),
            "dev_pairs": len(encoded_dev),
            "dev_sentences": len(dev_set.sources),
        }
    )
    vocabulary = target_vocabulary(tokenizer)
    return Task(
        recipe, folder, spec, tokenizer, vocabulary, encoded, encoded_dev, dev_set, dev
    )


def _open(output: Path) -> None:
    """Make the output folder, unless it holds something that isn't a run's."""
    if output.is_dir() and any(output.iterdir()) and not (output / WORKSHOP).is_dir():
        raise OutputError(
            f"{output} is not empty and holds no training run; give another --output"
        )
    try:
        (output / WORKSHOP).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{output} can't be written ({error.strerror}); give another --output"
        ) from None


def _remember(recipe: Recipe, path: Path) -> None:
    """Refuse to go on with another recipe than the one that the run began with."""
    values = schema.to_json(recipe)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in values if values[key] != before.get(key)]
        if changed:
            raise ConfigError(
                f"{path.parent} was begun with another recipe "
                f"([{'], ['.join(changed)}] differ); give another --output"
            )
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
