"""Small problems, one for each structure, that a network learns in seconds."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seq2edge.models.recipe import Recipe

NOUNS, VERBS = ("dog", "sun", "light"), ("runs", "shines", "light")
NAMES = ("ann", "bob", "eve", "tom")
THINGS = ("ball", "book", "cup", "hat", "key", "pen")
VERSES = {
    "spring": "birds come home again",
    "summer": "the sun stands high",
    "autumn": "leaves fall and fall",
    "winter": "home is where the fire is",
}
SIZES = ("high", "low")
FEATURES = 4

Draw = random.Random
Lines = Callable[[Draw, Path, int], list[str]]


def _tags(draw: Draw, folder: Path, count: int) -> list[str]:
    """A noun follows "the", a verb a noun: what "light" is, its neighbour tells."""
    lines = []
    for _ in range(count):
        words, tags = [], []
        for _ in range(draw.randint(1, 3)):
            words += ["the", draw.choice(NOUNS), draw.choice(VERBS)]
            tags += ["ARTICLE", "NOUN", "VERB"]
        lines.append(f"{' '.join(words)}\t{' '.join(tags)}")
    return lines


def _moods(draw: Draw, folder: Path, count: int) -> list[str]:
    """Good or bad, unless it isn't; other words in between."""
    lines = []
    for _ in range(count):
        word, negated = draw.choice(("good", "bad")), draw.random() < 0.5
        label = {True: "glad", False: "sad"}[(word == "good") != negated]
        filler = draw.choices(("so", "very", "quite"), k=draw.randint(0, 4))
        words = ["it", "is", *(["not"] if negated else []), *filler, word]
        lines.append(f"{' '.join(words)}\t{label}")
    return lines


def _verses(draw: Draw, folder: Path, count: int) -> list[str]:
    return [f"{name}\t{VERSES[name]}" for name in draw.choices(list(VERSES), k=count)]


def _signs(draw: Draw, folder: Path, count: int) -> list[str]:
    """Four numbers, each said to be high or low."""
    lines = []
    for _ in range(count):
        numbers = [draw.choice((-1, 1)) * draw.uniform(0.5, 1) for _ in range(FEATURES)]
        text = " ".join(SIZES[number < 0] for number in numbers)
        lines.append(f"{' '.join(f'{number:.3f}' for number in numbers)}\t{text}")
    return lines


def _answers(draw: Draw, folder: Path, count: int) -> list[str]:
    """Who has what, and a question for one of them."""
    lines = []
    for _ in range(count):
        names = draw.sample(NAMES, k=draw.randint(2, 4))
        facts = {name: draw.choice(THINGS) for name in names}
        article = " ".join(f"{name} has {thing}" for name, thing in facts.items())
        asked = draw.choice(names)
        lines.append(f"{article}\t{asked}\t{facts[asked]}")
    return lines


def _recordings(draw: Draw, folder: Path, count: int) -> list[str]:
    """Each word sounds for two or three frames in a feature of its own, with noise."""
    noise = np.random.default_rng(draw.randrange(1 << 30))
    words = ("one", "two", "three", "four")
    (folder / "frames").mkdir(exist_ok=True)
    lines = []
    for _ in range(count):
        said = draw.choices(range(FEATURES), k=draw.randint(1, 4))
        frames = []
        for word in said:
            frames += [np.eye(FEATURES)[word]] * draw.randint(2, 3)
            frames.append(np.zeros(FEATURES))  # a pause
        name = f"frames/{draw.randrange(1 << 60):x}.npy"
        sound = np.array(frames) + noise.normal(0, 0.1, (len(frames), FEATURES))
        np.save(folder / name, sound.astype(np.float32))
        lines.append(f"{name}\t{' '.join(words[word] for word in said)}")
    return lines


@dataclass(frozen=True)
class ToyTask:
    """Lines of a problem and the sections of a recipe that learns it."""

    lines: Lines
    model: Mapping[str, object]
    tokenizer: Mapping[str, object] = field(default_factory=lambda: {"kind": "word"})
    training: Mapping[str, object] = field(default_factory=dict)
    evaluation: Mapping[str, object] = field(default_factory=dict)
    count: int = 600

    def write(self, folder: Path) -> None:
        """train.tsv and dev.tsv, seeded."""
        draw = random.Random(5)
        for name, count in (("train", self.count), ("dev", 60)):
            text = "".join(f"{line}\n" for line in self.lines(draw, folder, count))
            (folder / f"{name}.tsv").write_text(text, encoding="utf-8")

    def recipe(self, **sections: Mapping[str, object]) -> Recipe:
        """The recipe; sections given here add to the task's own."""
        values = {
            "about": {"name": "toy"},
            "data": {"train": ["train.tsv"], "dev": ["dev.tsv"], "max_tokens": 40},
            "tokenizer": self.tokenizer,
            "model": {
                "embedding_size": 16,
                "encoder_hidden": 16,
                "encoder_layers": 1,
                "decoder_hidden": 32,
                "decoder_layers": 1,
                "context": "output",
                "dropout": 0.0,
                **self.model,
                **sections.pop("model", {}),
            },
            "training": {
                "epochs": 8,
                "batch_tokens": 200,
                "learning_rate": 1e-2,
                "warmup_steps": 10,
                "average": 2,
                "autocast": "off",
                **self.training,
                **sections.pop("training", {}),
            },
            "evaluation": {**self.evaluation, **sections.pop("evaluation", {})},
            **sections,
        }
        return Recipe.from_values(values, "toy.toml")


EXACT = {"metric": "exact"}
TASKS: dict[str, ToyTask] = {
    "tagger": ToyTask(
        _tags,
        {"task": "tagging", "cell": "elman", "bidirectional": False},
        training={"epochs": 4},
    ),
    "classifier": ToyTask(_moods, {"task": "classification", "cell": "lstm"}),
    "class to sequence": ToyTask(
        _verses,
        {
            "inputs": {"season": "class"},
            "attention": "none",
            "summary_use": "both",
        },
        evaluation=EXACT,
        training={"epochs": 6},
    ),
    "vector to sequence": ToyTask(
        _signs,
        {
            "inputs": {"numbers": "vector"},
            "features": FEATURES,
            "attention": "none",
            "summary_use": "input",
        },
        evaluation=EXACT,
    ),
    "question answering": ToyTask(
        _answers,
        {
            "inputs": {"article": "tokens", "question": "tokens"},
            "cell": "lstm",
            "encoder_hidden": 32,
            "decoder_hidden": 64,
            "embedding_size": 32,
        },
        evaluation=EXACT,
        training={"epochs": 12, "learning_rate": 5e-3, "patience": 12},
        count=1500,
    ),
    "frames": ToyTask(
        _recordings,
        {
            "inputs": {"sound": "frames"},
            "features": FEATURES,
            "cell": "elman_relu",
            "encoder_hidden": 32,
            "decoder_hidden": 64,
        },
        evaluation=EXACT,
        training={"learning_rate": 5e-3, "batch_tokens": 100},
    ),
}
