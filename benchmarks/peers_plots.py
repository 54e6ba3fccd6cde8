"""Plots of a benchmark against peers: bars, one for each contender."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers_tables import Record, contender_names, search_name

OURS, PEERS = "#1f77b4", "#b0b0b0"


def plot_speed(record: Record, path: Path) -> None:
    """Tokens a second; a row of panels for each search, a column for each batch.

    With the first number of threads.
    """
    pyplot = _pyplot()
    protocol = record["protocol"]
    beams, batches = protocol["beams"], protocol["batches"]
    names = contender_names(record)
    height = 0.9 + (0.4 + 0.3 * len(names)) * len(beams)
    figure, axes = pyplot.subplots(
        len(beams), len(batches), figsize=(10, height), sharey=True, squeeze=False
    )
    found = {
        (one["contender"], one["threads"], one["beam"], one["batch"]): one
        for one in record["timings"]
    }
    for row, beam in zip(axes, beams, strict=True):
        for axis, batch in zip(row, batches, strict=True):
            case = (protocol["threads"][0], beam, batch)
            values = [found[name, *case]["tokens_per_second"] for name in names]
            _bars(axis, names, values, "{:,.0f}")
            axis.set_title(f"{search_name(beam)}, batch {batch}", fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("tokens a second")
    _save(figure, path)


def plot_starts(record: Record, path: Path) -> None:
    """Start and memory, side by side."""
    pyplot = _pyplot()
    names = [one["contender"] for one in record["starts"]]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10, 0.9 + 0.3 * len(names)), sharey=True
    )
    milliseconds = [one["milliseconds"]["median"] for one in record["starts"]]
    _bars(left, names, milliseconds, "{:,.0f}")
    left.set_xlabel("ms from start to first translation")
    first: dict[str, float] = {}
    for one in record["memory"]:
        first.setdefault(one["contender"], one["peak"] / 1e6)
    _bars(right, names, [first[name] for name in names], "{:,.0f}")
    one = record["memory"][0]
    right.set_xlabel(f"peak MB, {search_name(one['beam'])}, batch {one['batch']}")
    _save(figure, path)


def _bars(axis: Any, names: Sequence[str], values: Sequence[float], form: str) -> None:
    colours = [OURS if name.startswith("seq2edge") else PEERS for name in names]
    drawn = axis.barh(range(len(names)), values, color=colours)
    axis.bar_label(drawn, [form.format(value) for value in values], padding=2, size=8)
    axis.set_yticks(range(len(names)), names, fontsize=9)
    axis.set_xlim(0, 1.25 * max(values))
    axis.tick_params(axis="x", labelsize=8)
    if not axis.yaxis_inverted():  # axes that share it invert it once
        axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "seq2edge"  # the same picture each time
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
