"""What stays the same during a training run: recipe, folders, tokenizer and corpora."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

from seq2edge.models.checkpoint import write_text
from seq2edge.models.config import ModelConfig
from seq2edge.models.corpus import Corpus, by_frequency, read_corpus
from seq2edge.models.dev_set import DevSet
from seq2edge.models.examples import CorpusEncoder, EncodedCorpus
from seq2edge.models.inputs import input_specs
from seq2edge.models.recipe import Recipe
from seq2edge.models.tokenizer_training import (
    target_vocabulary,
    train_tokenizer,
)
from seq2edge.runtime import schema
from seq2edge.runtime.errors import ConfigError, OutputError
from seq2edge.runtime.manifest import InputSpec, Limits, TokenizerSpec
from seq2edge.runtime.manifest import Task as TaskName
from seq2edge.runtime.tokenizer import SentencePieceTokenizer, load_tokenizer
from seq2edge.runtime.vocabulary import Vocabulary

Event = dict[str, Any]
Report = Callable[[Event], None]

WORKSHOP = "training"  # the folder of a run's own files, inside the output


@dataclass(frozen=True)
class Task:
    """Everything that stays the same during a run."""

    recipe: Recipe
    data: Path  # that names of files are relative to
    folder: Path  # of the run's own files
    config: ModelConfig
    inputs: tuple[InputSpec, ...]
    labels: tuple[str, ...]
    spec: TokenizerSpec | None
    tokenizer: SentencePieceTokenizer | None
    vocabulary: Vocabulary | None  # of a model that writes tokens
    train: EncodedCorpus
    dev: EncodedCorpus
    dev_set: DevSet
    dev_corpus: Corpus

    @property
    def limits(self) -> Limits:
        """The longest sequences of training are the longest that the model takes."""
        longest = self.recipe.data.max_tokens
        return Limits(longest, target_tokens=longest if self.config.writes else 0)

    @property
    def metric(self) -> str:
        """What the dev set is judged by: bleu, exact or accuracy."""
        return self.recipe.metric


def prepare(recipe: Recipe, data: Path, output: Path, report: Report) -> Task:
    """Read the corpora, then open the output folder and make or load a tokenizer."""
    shape = recipe.shape
    names = list(shape.inputs)
    corpus = read_corpus(recipe.data.train, data, names)
    dev_corpus = read_corpus(recipe.data.dev, data, names)
    # Only now, so that a recipe that names no corpus can be mended and run again.
    folder = output / WORKSHOP
    _open(output)
    _remember(recipe, folder / "recipe.json")
    spec, tokenizer = _tokenizer(recipe, corpus, folder)
    classes, labels = _classes(shape, corpus), _labels(shape, corpus)
    inputs = input_specs(shape, classes)
    encoder = CorpusEncoder(
        task=cast(TaskName, shape.task),
        inputs=inputs,
        labels=labels,
        tokenizer=tokenizer,
        folder=data,
        max_tokens=recipe.data.max_tokens,
        max_ratio=recipe.data.max_ratio,
    )
    train, dev = encoder.encode(corpus), encoder.encode(dev_corpus)
    _refuse_empty({"train": train, "dev": dev})
    most, seed = recipe.evaluation.max_sentences, recipe.training.seed
    dev_set = DevSet.draw(dev_corpus, dev, most, seed)
    report(_data_event(train, dev, dev_set))
    return Task(
        recipe=recipe,
        data=data,
        folder=folder,
        config=recipe.model_config(
            tokenizer.source_size if tokenizer and shape.reads_tokens else 0,
            tokenizer.target_size if tokenizer and shape.writes else 0,
            len(labels),
            len(classes),
        ),
        inputs=inputs,
        labels=labels,
        spec=spec,
        tokenizer=tokenizer,
        vocabulary=target_vocabulary(tokenizer) if tokenizer and shape.writes else None,
        train=train,
        dev=dev,
        dev_set=dev_set,
        dev_corpus=dev_corpus,
    )


def _tokenizer(
    recipe: Recipe, corpus: Corpus, folder: Path
) -> tuple[TokenizerSpec | None, SentencePieceTokenizer | None]:
    shape = recipe.shape
    columns = [
        corpus.column(index)
        for index, kind in enumerate(shape.inputs.values())
        if kind == "tokens"
    ]
    spec = train_tokenizer(
        recipe.tokenizer,
        list(chain(*columns)),
        corpus.outputs if shape.writes else [],
        folder,
        append_end=shape.task != "tagging",
    )
    return spec, load_tokenizer(spec, folder) if spec else None


def _classes(shape: ModelConfig, corpus: Corpus) -> tuple[str, ...]:
    """Names of the classes that an input may be, as the training data has them."""
    kinds = list(shape.inputs.values())
    if "class" not in kinds:
        return ()
    return by_frequency(corpus.column(kinds.index("class")))


def _labels(shape: ModelConfig, corpus: Corpus) -> tuple[str, ...]:
    """What a tagger or classifier may say."""
    if shape.writes:
        return ()
    if shape.task == "classification":
        return by_frequency(corpus.outputs)
    return by_frequency(tag for output in corpus.outputs for tag in output.split())


def _refuse_empty(corpora: dict[str, EncodedCorpus]) -> None:
    for name, corpus in corpora.items():
        if not len(corpus):
            why = ", ".join(f"{key}: {n}" for key, n in corpus.defects.items())
            first = f"; the first: {corpus.reasons[0]}" if corpus.reasons else ""
            raise ConfigError(
                f"data.{name} holds no line that can be used ({why}{first}); "
                "see docs/training.md for what each field must be"
            )


def _data_event(train: EncodedCorpus, dev: EncodedCorpus, dev_set: DevSet) -> Event:
    unknown = train.unknown
    return {
        "event": "data",
        "pairs": len(train),
        "left_out": dict(train.defects),
        "dev_pairs": len(dev),
        "dev_left_out": dict(dev.defects),
        "dev_sentences": len(dev_set.sources),
        "unknown": sum(unknown.values()),  # once a line
        "unknown_examples": [word for word, _ in unknown.most_common(5)],
    }


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
