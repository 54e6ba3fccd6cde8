"""The parity matrix as a page: what was measured of each model, and docs/parity.md."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

STEPS = 250
GOAL = 1e-5  # of the difference of fp32 from PyTorch


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
