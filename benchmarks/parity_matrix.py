"""Every structure x cell x direction x depth, in fp32 and int8, against PyTorch.

    python benchmarks/parity_matrix.py --jobs 2 --output docs/parity.md

Each model learns a toy task for some hundred updates, is exported in both precisions
and then reads examples that it has never seen, of lengths that no tracing saw, in
ragged batches of 1 to 8. A killed run goes on from its record.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from parity_page import GOAL, STEPS, Cell, page
from structures import Built, Structure, build, configure, structures

from seq2edge.export import ExportOptions, QualityLimits, Recipe, export_model
from seq2edge.export.near_ties import best, forced
from seq2edge.models.contract import StepModule
from seq2edge.models.torch_stepper import TorchLabeller, TorchStepper
from seq2edge.runtime.errors import ConfigError, Seq2EdgeError
from seq2edge.runtime.inputs import collate
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.predictor import Predictor, log_softmax
from seq2edge.runtime.runner import Runner, load_runner
from seq2edge.runtime.translator import Translator

CELLS = ("elman", "elman_relu", "gru", "lstm")
DIRECTIONS, DEPTHS = (1, 2), (1, 2)
SEARCHES = (SearchOptions(beam_size=1), SearchOptions(beam_size=3))
# The recipe's rule would leave so narrow recurrences in fp32, and hide what int8 loses.
RECIPE = Recipe(smallest=256, scan_from_hidden=1, anchored_from_hidden=1)

Batches = list[list[int]]
Array = np.ndarray[Any, Any]


def measure(structure: Structure, cell: str, directions: int, depth: int) -> Cell:
    """Teach, export twice, compare."""
    torch.set_num_threads(1)
    place = (structure.name, cell, directions, depth)
    if reason := _reason(structure, directions, depth):
        return Cell(*place, reason=reason)
    built = build(structure, configure(structure, cell, directions, depth), STEPS)
    with TemporaryDirectory() as temporary:
        paths = [Path(temporary) / precision for precision in ("fp32", "int8")]
        limits = QualityLimits(min_agreement=0.0)
        for path in paths:
            options = ExportOptions(path.name, limits=limits, recipe=RECIPE)
            try:
                manifest = export_model(
                    built.module, built.sample, path, built.spec, options
                )
            except Seq2EdgeError as error:
                return Cell(*place, reason=f"FAILED: {error}")
        fp32, int8 = (load_runner(path) for path in paths)
        coverage: Any = manifest.quantization
        return _compared(place, built, fp32, int8, coverage["share"])


def _reason(structure: Structure, directions: int, depth: int) -> str:
    """Why a combination is none."""
    keys = structure.keys
    try:
        config = configure(structure, "gru", directions, depth)
    except ConfigError as error:
        return str(error).removeprefix("model: ")
    if not config.sequences and directions == 2:
        return "no sequence is read, so there is no direction"
    if keys.get("bidirectional") is False and directions == 2:
        return "a stream reads in one direction"
    return ""


def _compared(
    place: tuple[str, str, int, int],
    built: Built,
    fp32: Runner,
    int8: Runner,
    coverage: float,
) -> Cell:
    batches = ragged_batches(len(built.sample.examples))
    if isinstance(fp32, Predictor) and isinstance(int8, Predictor):
        return _labels(place, built, (fp32, int8), coverage, batches)
    assert isinstance(fp32, Translator)
    assert isinstance(int8, Translator)
    stepper = TorchStepper(cast(StepModule, built.module))
    reference = replace(fp32, stepper=stepper)
    difference, totals = np.zeros(2), np.zeros(2)
    exact, agreed, results, tokens = 0, 0, 0, 0
    for batch in batches:
        examples = [built.sample.examples[i] for i in batch]
        targets = [built.outputs[i] for i in batch]
        inputs = collate(examples, fp32.inputs)
        sides = (forced(side, inputs, targets) for side in (reference, fp32, int8))
        for step, ((one, live), (other, _), (third, _)) in enumerate(
            zip(*sides, strict=True)
        ):
            difference = np.maximum(difference, apart(one[live], other[live]))
            right = [_token(targets[row], step, fp32) for row in live]
            totals += [-side[live, right].sum() for side in (other, third)]
            tokens += len(live)
        for options in SEARCHES:
            found = [
                [one.tokens for one in best(side, examples, options)]
                for side in (reference, fp32, int8)
            ]
            exact += sum(a == b for a, b, _ in zip(*found, strict=True))
            agreed += sum(b == c for _, b, c in zip(*found, strict=True))
            results += len(batch)
    nats = (float(totals[0] / tokens), float(totals[1] / tokens))
    near, absolute = difference.tolist()
    shares = agreed / results, coverage
    own = rounding(built, reference, batches) if near > GOAL else 0.0
    return Cell(*place, "", near, absolute, exact, results, nats, *shares, own)


def _token(target: Sequence[int], step: int, translator: Translator) -> int:
    return target[step] if step < len(target) else translator.vocabulary.end


def _labels(
    place: tuple[str, str, int, int],
    built: Built,
    bundles: tuple[Predictor, Predictor],
    coverage: float,
    batches: Batches,
) -> Cell:
    fp32, _ = bundles
    labeller = TorchLabeller(built.module, inputs=fp32.inputs)
    difference, totals = np.zeros(2), np.zeros(2)
    exact, agreed, results, count = 0, 0, 0, 0
    for batch in batches:
        inputs = collate([built.sample.examples[i] for i in batch], fp32.inputs)
        sides = [each.labeller.logits(inputs) for each in bundles]
        for row, index in enumerate(batch):
            right = np.array(built.outputs[index])
            cut = slice(0, len(right) if fp32.task == "tagging" else None)
            one, other, third = (
                np.atleast_2d(side[row][cut])
                for side in (labeller.logits(inputs), *sides)
            )
            difference = np.maximum(difference, apart(one, other))
            exact += bool((one.argmax(1) == other.argmax(1)).all())
            agreed += bool((other.argmax(1) == third.argmax(1)).all())
            totals += [
                -log_softmax(side)[np.arange(len(right)), right].sum()
                for side in (other, third)
            ]
            results, count = results + 1, count + len(right)
    nats = (float(totals[0] / count), float(totals[1] / count))
    near, absolute = difference.tolist()
    shares = agreed / results, coverage
    return Cell(*place, "", near, absolute, exact, results, nats, *shares)


class Doubled:
    """A module in float64, whose results show what float32 costs PyTorch itself."""

    training = False

    def __init__(self, module: torch.nn.Module) -> None:
        self._module: Any = deepcopy(module).double()

    def encode(self, **inputs: torch.Tensor) -> Any:
        """The module's own, of inputs in float64."""
        wide = {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in inputs.items()
        }
        return self._module.encode(**wide)

    def step(self, *arguments: Any) -> Any:
        """The module's own."""
        return self._module.step(*arguments)


def rounding(built: Built, reference: Translator, batches: Batches) -> float:
    """The largest difference of PyTorch in float32 from PyTorch in float64."""
    exact = replace(reference, stepper=TorchStepper(Doubled(built.module)))
    largest = 0.0
    for batch in batches:
        inputs = collate([built.sample.examples[i] for i in batch], reference.inputs)
        targets = [built.outputs[i] for i in batch]
        sides = (forced(side, inputs, targets) for side in (exact, reference))
        for (one, live), (other, _) in zip(*sides, strict=True):
            largest = max(largest, float(apart(one[live], other[live])[0]))
    return largest


def apart(one: Array, other: Array) -> Array:
    """The largest difference, relative to its row's largest value; and as it is."""
    absolute = np.abs(one - other)
    sizes = np.maximum(np.abs(one).max(axis=-1, keepdims=True), 1)
    return np.array([(absolute / sizes).max(), absolute.max()])


def ragged_batches(size: int) -> Batches:
    """All examples in batches of 1 to 8, drawn, so that lengths are mixed."""
    order = np.random.default_rng(3).permutation(size).tolist()
    batches, sizes = [], 0
    while order:
        sizes = sizes % 8 + 1
        batches.append(order[:sizes])
        del order[:sizes]
    return batches


def combinations(only: str) -> Iterator[tuple[Structure, str, int, int]]:
    """Every place of the matrix, structure by structure."""
    for structure in structures():
        if only in structure.name:
            for cell in CELLS:
                for directions in DIRECTIONS:
                    for depth in DEPTHS:
                        yield structure, cell, directions, depth


def run(only: str, jobs: int, record: Path) -> list[Cell]:
    """Measure what the record lacks, and return all in order."""
    known = {}
    if record.exists():
        lines = record.read_text(encoding="utf-8").splitlines()
        cells = [Cell(**json.loads(line)) for line in lines]
        known = {cell.key: cell for cell in cells}
    wanted = list(combinations(only))
    missing = [
        each for each in wanted if Cell(each[0].name, *each[1:]).key not in known
    ]
    with ProcessPoolExecutor(jobs) as pool, record.open("a", encoding="utf-8") as file:
        tasks = [pool.submit(measure, *each) for each in missing]
        for done, task in enumerate(as_completed(tasks), start=1):
            cell = task.result()
            known[cell.key] = cell
            file.write(json.dumps(asdict(cell)) + "\n")
            file.flush()
            print(f"{done} of {len(tasks)}: {cell.key} {cell.reason}", flush=True)
    return [known[Cell(each[0].name, *each[1:]).key] for each in wanted]


def main() -> None:
    """Read the command line, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of a structure's name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--record", type=Path, default=Path("out/parity.jsonl"))
    parser.add_argument("--output", type=Path, help="the page; otherwise it is printed")
    given = parser.parse_args()
    given.record.parent.mkdir(parents=True, exist_ok=True)
    text = page(run(given.only, given.jobs, given.record))
    if given.output:
        given.output.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
