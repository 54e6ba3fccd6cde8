"""Every structure x cell x direction x depth, in fp32 and int8, against PyTorch.

    python benchmarks/parity_matrix.py --jobs 2 --output docs/parity.md

Each model learns a toy task for some hundred updates, is exported in both precisions
and then reads examples that it has never seen, of lengths that no tracing saw, in
ragged batches of 1 to 8. A killed run goes on from its record.
"""

import argparse
import json
import os
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from structures import Built, Structure, build, configure, structures

from seq2edge.export import ExportOptions, QualityLimits, Recipe, export_model
from seq2edge.export.near_ties import best, forced
from seq2edge.models.contract import StepModule
from seq2edge.models.torch_stepper import TorchLabeller, TorchStepper
from seq2edge.runtime.errors import ConfigError, Seq2EdgeError
from seq2edge.runtime.inputs import collate
from seq2edge.runtime.predictor import Predictor, log_softmax
from seq2edge.runtime.runner import Runner, load_runner
from seq2edge.runtime.search import SearchOptions
from seq2edge.runtime.translator import Translator

CELLS = ("elman", "elman_relu", "gru", "lstm")
DIRECTIONS, DEPTHS = (1, 2), (1, 2)
GOAL = 1e-5  # of the difference of fp32 from PyTorch
STEPS = 250
SEARCHES = (SearchOptions(beam_size=1), SearchOptions(beam_size=3))
# The recipe's rule would leave so narrow recurrences in fp32, and hide what int8 loses.
RECIPE = Recipe(smallest=256, scan_from_hidden=1, anchored_from_hidden=1)

Batches = list[list[int]]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cell:
    """One model: what was measured, or why there is nothing."""

    structure: str
    cell: str
    directions: int
    depth: int
    reason: str = ""
    difference: float = 0.0  # see `apart`, fp32 against PyTorch
    absolute: float = 0.0  # the largest difference as it is
    exact: int = 0  # results that are PyTorch's, greedy and by beam
    results: int = 0
    nats: tuple[float, float] = (0.0, 0.0)  # of what is right, fp32 and int8
    agreement: float = 0.0  # share of int8's results that are fp32's
    coverage: float = 0.0  # share of weight bytes in int8
    rounding: float = 0.0  # PyTorch's own, float32 from float64, if we are above GOAL

    @property
    def key(self) -> str:
        """The model's place in the matrix."""
        return f"{self.structure} {self.cell} {self.directions} {self.depth}"


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
    reference = Translator(
        stepper=TorchStepper(cast(StepModule, built.module)),
        vocabulary=fp32.vocabulary,
        limits=fp32.limits,
        inputs=fp32.inputs,
    )
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


def page(cells: Sequence[Cell]) -> str:
    """The matrix as the page docs/parity.md."""
    measured = [cell for cell in cells if not cell.reason]
    letters = {
        reason: chr(ord("a") + place)
        for place, reason in enumerate(
            dict.fromkeys(c.reason for c in cells if c.reason)
        )
    }
    worst = max(cell.difference for cell in measured)
    absolute = max(cell.absolute for cell in measured)
    exact, results = (
        sum(getattr(c, k) for c in measured) for k in ("exact", "results")
    )
    processor = platform.machine()
    return "\n".join(
        [
            "# Parity",
            "",
            "Every structure of [structures.md](structures.md) with each cell, "
            "direction and depth, against PyTorch, by",
            "",
            "    python benchmarks/parity_matrix.py --jobs 2 --output docs/parity.md",
            "",
            f"{len(measured)} models, {STEPS} updates each on a toy task; torch "
            f"{version('torch')}, onnxruntime {version('onnxruntime')}, {processor}. "
            "Read are 64 examples that no model was taught by, of lengths that no "
            "tracing saw, in ragged batches of 1 to 8. A column is a cell, its "
            "directions and its depth: `gru 2x1` has two directions and one layer.",
            "",
            "## fp32",
            "",
            "The largest difference of any logit (labels) or log-probability "
            "(tokens), teacher-forced, relative to the largest one of its row where "
            "that is above 1: it may be 40, and float32 has seven digits. Where "
            "results differ, greedy or by a beam of 3, the share that is exact stands "
            f"behind it. In all {exact} of {results} results are exact; the largest "
            f"difference is {worst:.1e}, and {absolute:.1e} as it is.",
            "",
            *_table(cells, letters, _fp32),
            "",
            *_above(measured),
            "",
            "## int8",
            "",
            "What int8 loses: the cross entropy of what is right, in nats a token or "
            "label, int8 less fp32 (below zero: a gain), and the share of results "
            "that stay the same. Encoder recurrences run in int8, which the recipe's "
            "rule would not do with layers of 32 units, but for those with ReLU. These "
            "models have learned little: a hard case, and hardest where the state of a "
            "decoder has no bound (`elman_relu`), whose loss the limits of an export "
            "refuse. Trained models are in "
            "[examples/tasks](../examples/tasks/README.md) and "
            "[examples/en-de](../examples/en-de/README.md).",
            "",
            *_table(cells, letters, _int8),
            "",
            "Coverage, the share of weight bytes in int8, is "
            f"{min(c.coverage for c in measured):.1%} at least, and "
            f"{np.median([c.coverage for c in measured]):.1%} in the middle.",
            "",
            "## Empty places",
            "",
            *(f"- {letter}: {reason}" for reason, letter in letters.items()),
            "",
        ]
    )


def _above(cells: Sequence[Cell]) -> Iterator[str]:
    """The models beyond the goal, and how far PyTorch is from itself there."""
    above = [cell for cell in cells if cell.difference > GOAL]
    yield (
        f"{len(above)} of {len(cells)} models are above {GOAL:.0e}. Their states or "
        "energies grow large; how far PyTorch in float32 is from itself in float64 "
        "stands beside it:"
    )
    yield ""
    yield "| model | difference | PyTorch's own |"
    yield "|---|---|---|"
    for cell in above:
        name = f"{cell.structure}, {cell.cell} {cell.directions}x{cell.depth}"
        yield f"| {name} | {cell.difference:.1e} | {cell.rounding:.1e} |"


def _fp32(cell: Cell) -> str:
    share = "" if cell.exact == cell.results else f" {cell.exact}/{cell.results}"
    return f"{cell.difference:.0e}{share}".replace("e-0", "e-")


def _int8(cell: Cell) -> str:
    return f"{cell.nats[1] - cell.nats[0]:+.3f} {cell.agreement:.0%}"


def _table(cells: Sequence[Cell], letters: dict[str, str], show: Any) -> Iterator[str]:
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.structure, []).append(cell)
    columns = [f"{c.cell} {c.directions}x{c.depth}" for c in next(iter(rows.values()))]
    yield "| structure | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, row in rows.items():
        shown = [letters[c.reason] if c.reason else show(c) for c in row]
        yield f"| {name} | " + " | ".join(shown) + " |"


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
