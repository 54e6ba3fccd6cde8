"""A language that a small model learns in seconds: word for word, in reverse order."""

import random
from collections.abc import Mapping
from pathlib import Path

from seq2edge.models.recipe import Recipe

WORDS = {"one": "eins", "two": "zwei", "red": "rot", "dog": "Hund", "sun": "Sonne"}


def translate(source: str) -> str:
    """What a perfect model says."""
    return " ".join(WORDS[word] for word in reversed(source.split()))


def write_corpus(folder: Path) -> None:
    """train.tsv and dev.tsv, seeded."""
    draw = random.Random(7)
    for name, count in (("train", 1500), ("dev", 40)):
        sources = [
            " ".join(draw.choices(list(WORDS), k=draw.randint(2, 5)))
            for _ in range(count)
        ]
        lines = [f"{source}\t{translate(source)}\n" for source in sources]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


def recipe(
    model: Mapping[str, object] | None = None,
    tokenizer: Mapping[str, object] | None = None,
    **training: object,
) -> Recipe:
    """A recipe that learns the language in some seconds of one core."""
    recurrent = {
        "embedding_size": 32,
        "encoder_hidden": 32,
        "decoder_hidden": 48,
    }
    given = model or {}
    values = {
        "about": {"name": "toy"},
        "data": {"train": ["train.tsv"], "dev": ["dev.tsv"], "max_tokens": 40},
        "tokenizer": tokenizer or {"vocabulary_size": 28},
        "model": {
            **({} if "architecture" in given else recurrent),
            "dropout": 0.1,
            **given,
        },
        "training": {
            "epochs": 6,
            "batch_tokens": 300,
            "learning_rate": 8e-3,
            "warmup_steps": 20,
            "save_every": 7,
            "autocast": "off",
            **training,
        },
    }
    return Recipe.from_values(values, "toy.toml")
