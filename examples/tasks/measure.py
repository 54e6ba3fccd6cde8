"""Every small task from its data to the int8 bundle, and what a wrong structure gets.

    python examples/tasks/measure.py --output table.md

A task's data is made, its recipe trains, the checkpoint is exported in fp32 and int8,
and both bundles are evaluated on the test split by the runtime, as a user would.
Then the same recipe trains without what the task needs (memory, attention, an input),
and must fall short.
"""

import argparse
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from make_data import TASKS, write_task

from seq2edge.export import ExportOptions, export_checkpoint
from seq2edge.models.checkpoint import Checkpoint
from seq2edge.models.recipe import Recipe
from seq2edge.models.train import train
from seq2edge.runtime.evaluate import EvaluateOptions, evaluate
from seq2edge.runtime.runner import load_runner

RECIPES = Path(__file__).parent
Lines = list[list[str]]


@dataclass(frozen=True)
class Wrong:
    """What is taken away: keys of [model], or a change of all data."""

    name: str
    model: Mapping[str, Any]
    change: Callable[[Lines], Lines] = lambda lines: lines


def _sorted_words(lines: Lines) -> Lines:
    return [[" ".join(sorted(text.split())), *rest] for text, *rest in lines]


def _without_first(lines: Lines) -> Lines:
    return [fields[1:] for fields in lines]


def _without_second(lines: Lines) -> Lines:
    return [[fields[0], *fields[2:]] for fields in lines]


def _alone(lines: Lines) -> Lines:
    """Every word a text of its own: no memory of what came before."""
    return [
        [word, tag]
        for text, tags in lines
        for word, tag in zip(text.split(), tags.split(), strict=True)
    ]


WRONG = {
    "tagging": Wrong("each word alone", {}, _alone),
    "classification": Wrong("words in alphabetical order", {}, _sorted_words),
    "class_to_sequence": Wrong(
        "no class", {"inputs": {"digits": "vector"}}, _without_first
    ),
    "shortening": Wrong("no attention", {"attention": "none"}),
    "questions": Wrong(
        "no question", {"inputs": {"passage": "tokens"}}, _without_second
    ),
    "transcription": Wrong("no attention", {"attention": "none"}),
}


# What a bundle must reach on the test split, and a wrong structure must not.
GOALS = {
    "tagging": 99.0,
    "classification": 99.0,
    "class_to_sequence": 98.0,
    "shortening": 98.0,
    "questions": 98.0,
    "transcription": 97.0,
}


@dataclass(frozen=True)
class Result:
    """One task, percentages on its test split."""

    task: str
    metric: str
    parameters: int
    seconds: float  # of training, everything in it
    fp32: float
    int8: float
    megabytes: tuple[float, float]
    wrong: str
    wrong_score: float


def measure(task: str, folder: Path) -> Result:
    """All of one task."""
    data = folder / "data"
    write_task(task, data)
    recipe = Recipe.load(RECIPES / f"{task}.toml")
    began = time.perf_counter()
    checkpoint = train(recipe, data, folder / "checkpoint", lambda event: None)
    seconds = time.perf_counter() - began
    scores, sizes = [], []
    for precision in ("fp32", "int8"):
        bundle = folder / precision
        export_checkpoint(checkpoint, bundle, ExportOptions(precision=precision))
        scores.append(score(bundle, data))
        sizes.append(sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file()))
    info = Checkpoint.load(checkpoint).info
    wrong = WRONG[task]
    return Result(
        task=task,
        metric=info.metric,
        parameters=int(str(info.training["parameters"])),
        seconds=seconds,
        fp32=scores[0],
        int8=scores[1],
        megabytes=(sizes[0] / 1e6, sizes[1] / 1e6),
        wrong=wrong.name,
        wrong_score=_wrong_score(task, wrong, folder),
    )


def score(bundle: Path, data: Path) -> float:
    """Accuracy of labels, or the share of exact outputs, on the test split."""
    runner = replace(load_runner(bundle), folder=data)
    lines = [line.rsplit("\t", 1) for line in _read(data / "test.tsv")]
    sources, references = [one for one, _ in lines], [one for _, one in lines]
    found = evaluate(runner, sources, references, EvaluateOptions())
    return found.exact if found.accuracy is None else found.accuracy


def _wrong_score(task: str, wrong: Wrong, folder: Path) -> float:
    """The best dev score that the recipe reaches without what it needs."""
    data = folder / "wrong"
    write_task(task, data)
    for split in ("train", "dev"):
        lines = [line.split("\t") for line in _read(data / f"{split}.tsv")]
        text = "".join("\t".join(each) + "\n" for each in wrong.change(lines))
        (data / f"{split}.tsv").write_text(text, encoding="utf-8")
    values = tomllib.loads((RECIPES / f"{task}.toml").read_text(encoding="utf-8"))
    values["model"] |= wrong.model
    recipe = Recipe.from_values(values, f"{task} without")
    events: list[dict[str, Any]] = []
    train(recipe, data, folder / "wrong-checkpoint", events.append)
    scores = [
        event[key]
        for event in events
        for key in ("dev_exact", "dev_accuracy")
        if key in event
    ]
    return float(max(scores))


def _read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def table(results: list[Result]) -> str:
    """Markdown."""
    rows = [
        "| task | judged by | parameters | trained in | must reach | fp32 | int8 | "
        "bundles, MB | without | reaches |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {one.task.replace('_', ' ')} | {one.metric} | {one.parameters:,} | "
        f"{one.seconds:.0f} s | {GOALS[one.task]:.0f} % | {one.fp32:.1f} % | "
        f"{one.int8:.1f} % | "
        f"{one.megabytes[0]:.2f}, {one.megabytes[1]:.2f} | {one.wrong} | "
        f"{one.wrong_score:.1f} % |"
        for one in results
    ]
    return "\n".join(rows) + "\n"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="*", default=[*TASKS, "transcription"])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    results = []
    for task in given.task:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(task, Path(folder)))
        print(table(results[-1:]).splitlines()[-1], flush=True)
    if given.output:
        given.output.write_text(table(results), encoding="utf-8")
    for one in results:
        goal = GOALS[one.task]
        if min(one.fp32, one.int8) < goal or one.wrong_score >= goal:
            sys.exit(f"{one.task}: the goal of {goal} % does not part right from wrong")


if __name__ == "__main__":
    main()
