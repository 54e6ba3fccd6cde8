"""The page and the plot of decoder_latency.py."""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Record = dict[str, Any]

INTRO = """\
# What a decoder costs

Made by `python benchmarks/decoder_latency.py --output docs`: {machine}, one thread,
onnxruntime {onnxruntime}, medians of {rounds} rounds in which the contenders
alternate; the record with quartiles is [decoder-latency.json](decoder-latency.json).

Four decoders of two layers under the same vocabulary (8,000 tokens, 256 features, tied
embedding), as wide as makes them equally large; random weights, a source of 20 tokens.
Timed is what a greedy translation of so many tokens asks of the graphs: step by step,
or with a shortlist (`export --shortlist`), where one sentence goes many steps a run.
The encoder, the tokenizer and the search's own bookkeeping are left out.

![milliseconds a token, by decoder and length](decoder-latency.svg)
"""


def page(record: Record, rounds: int) -> str:
    """The record as Markdown."""
    lines = [
        INTRO.format(
            machine=processor(), onnxruntime=version("onnxruntime"), rounds=rounds
        ),
        "## Size",
        "",
        *_sizes(record),
        "",
        "## Milliseconds of a batch",
        "",
        *_times(record),
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        text = info.read_text(encoding="utf-8")
        names = [
            line.partition(":")[2].strip()
            for line in text.splitlines()
            if line.startswith("model name")
        ]
        flags = next((x for x in text.splitlines() if x.startswith("flags")), "")
        known = [one for one in ("avx2", "avx512_vnni", "amx_int8") if one in flags]
        if names:
            return f"{names[0]} ({', '.join(known)})"
    return platform.processor() or platform.machine()


def _sizes(record: Record) -> Iterator[str]:
    lengths = list(record["decoders"][0]["state_bytes"])
    heads = [f"state at {length} tokens, kB" for length in lengths]
    yield (
        "| decoder | parameters | weights that a step reads, fp32 | int8 | "
        f"{' | '.join(heads)} |"
    )
    yield "|---" * (4 + len(lengths)) + "|"
    for one in record["decoders"]:
        weights = [f"{size / 1e6:.1f} MB" for size in one["weight_bytes"].values()]
        states = [f"{size / 1e3:.1f}" for size in one["state_bytes"].values()]
        cells = [one["decoder"], f"{one['parameters']:,}", *weights, *states]
        yield f"| {' | '.join(cells)} |"


def _times(record: Record) -> Iterator[str]:
    columns = list(
        dict.fromkeys((one["batch"], one["length"]) for one in record["timings"])
    )
    heads = [f"batch {batch}, {length} tokens" for batch, length in columns]
    yield f"| decoder | precision | {' | '.join(heads)} |"
    yield "|---" * (2 + len(columns)) + "|"
    found = {_key(one): one["milliseconds"] for one in record["timings"]}
    for decoder, precision in dict.fromkeys(key[:2] for key in found):
        times = [f"{found[decoder, precision, *column]:.2f}" for column in columns]
        yield f"| {decoder} | {precision} | {' | '.join(times)} |"


def _key(timing: Record) -> tuple[str, str, int, int]:
    names = ("decoder", "precision", "batch", "length")
    return tuple(timing[name] for name in names)


def plot(record: Record, path: Path) -> None:
    """Milliseconds a token over the length, a panel for each batch and precision."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "seq2edge"  # the same picture each time
    from matplotlib import pyplot

    timings = record["timings"]
    batches = list(dict.fromkeys(one["batch"] for one in timings))
    precisions = list(dict.fromkeys(one["precision"] for one in timings))
    figure, axes = pyplot.subplots(
        len(batches), len(precisions), figsize=(12, 6), sharex=True, sharey="row"
    )
    for row, batch in zip(np.atleast_2d(axes), batches, strict=True):
        for axis, precision in zip(row, precisions, strict=True):
            chosen = [
                one
                for one in timings
                if (one["batch"], one["precision"]) == (batch, precision)
            ]
            _panel(axis, chosen)
            axis.set_title(f"batch {batch}, {precision}")
        row[0].set_ylabel("ms a step")
    for axis in np.atleast_2d(axes)[-1]:
        axis.set_xlabel("tokens of the translation")
    np.atleast_2d(axes)[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _panel(axis: Any, timings: list[Record]) -> None:
    for decoder in dict.fromkeys(one["decoder"] for one in timings):
        own = [one for one in timings if one["decoder"] == decoder]
        lengths = [one["length"] for one in own]
        each = [one["milliseconds"] / one["length"] for one in own]
        spread = [
            [(one["milliseconds"] - one["lower"]) / one["length"] for one in own],
            [(one["upper"] - one["milliseconds"]) / one["length"] for one in own],
        ]
        axis.errorbar(lengths, each, spread, marker="o", capsize=3, label=decoder)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
