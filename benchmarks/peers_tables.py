"""Tables of a benchmark against peers, from its record; a section each.

The record is what the JSON file has: see peers_measure.py.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Rows = Sequence[Sequence[str]]


def write_page(record: Record, path: Path, page: Callable[[Record], str]) -> None:
    """The record as JSON, and the page that is made of it, beside each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    path.with_suffix(".md").write_text(page(json.loads(text)), encoding="utf-8")


def again(
    doc: str | None,
    names: str,
    page: Callable[[Record], str],
    plots: Callable[[Record, Path], None],
) -> None:
    """The command that makes pages and their plots anew from their records.

    names: a pattern of the records' names.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("folder", type=Path, help="that holds the record")
    folder: Path = parser.parse_args().folder
    paths = sorted(folder.glob(f"{names}.json"))
    if not paths:
        raise SystemExit(f"{folder} has no record {names}.json; name its folder")
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        path.with_suffix(".md").write_text(page(record), encoding="utf-8")
        plots(record, folder)


def body(record: Record, parity: str, time: str, start: str) -> list[str]:
    """What follows the introduction of a page: its sections' texts and tables."""
    candidates = record["candidates"]
    time = time.format(
        rounds=record["protocol"]["rounds"],
        base=record["protocol"]["base"],
        drawn=record["works"][0]["candidates"],
        found=candidates["found"],
        slack=candidates["slack"],
    )
    return [
        "",
        parity,
        *parity_table(record),
        "",
        time,
        *works(record),
        "",
        *speed_tables(record),
        *checks(record),
        "",
        start,
        *start_table(record),
    ]


def table(heads: Sequence[str], rows: Rows) -> Iterator[str]:
    """Markdown; the first column is text, the others are numbers."""
    yield f"| {' | '.join(heads)} |"
    yield f"|---{'|---:' * (len(heads) - 1)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def search_name(beam: int) -> str:
    """As people say it."""
    return "greedy" if beam == 1 else f"beam {beam}"


def contender_names(record: Record) -> list[str]:
    """In the order of every table and plot; the rounds' order is drawn."""
    return [one["name"] for one in record["contenders"]]


def bound(record: Record) -> str:
    """The machine, how busy it was, and the versions."""
    machine = record["machine"]
    load = ", ".join(f"{one:.2f}" for one in machine["load_average"])
    versions = ", ".join(f"{name} {one}" for name, one in record["versions"].items())
    return (
        f"{machine['processor']} ({', '.join(machine['instructions'])}), "
        f"{machine['cores']} cores; load average of the last 1, 5 and 15 minutes as it "
        f"began: {load}.\nPython {machine['python']}, {versions}."
    )


def settings(record: Record) -> Iterator[str]:
    """What each contender says of itself."""
    for one in record["contenders"]:
        if one["details"]:
            told = ", ".join(f"{key} {value}" for key, value in one["details"].items())
            yield f"- {one['name']}: {told}"


def parity_table(record: Record) -> Iterator[str]:
    """A row for each contender, the searches side by side."""
    protocol, parities = record["protocol"], record["parity"]
    columns = {"as_reference": f"as {protocol['reference']}"}
    if any(one["as_exact"] is not None for one in parities):
        columns["as_exact"] = "as its own fp32"
    heads = ["contender"]
    for beam in protocol["beams"]:
        heads += [f"{search_name(beam)}: {head}" for head in columns.values()]
    rows = []
    for name in contender_names(record):
        own = [one for one in parities if one["contender"] == name]
        cells = [_share(one[key], one["sentences"]) for one in own for key in columns]
        rows.append([name, *cells])
    return table(heads, rows)


def _share(count: int | None, total: int) -> str:
    return "" if count is None else f"{count} of {total}"


def works(record: Record) -> Iterator[str]:
    """Which sentences are timed."""
    for one in record["works"]:
        shortest, longest = one["source_tokens"]
        least, most = one["target_tokens"]
        text = (
            f"- {search_name(one['beam'])}: of {one['candidates']} candidates all "
            f"contenders wrote equally many tokens for {one['agreed']}, and for "
            f"{one['fitting']} of these about 20 (± {one['slack']}). Timed are "
            f"{one['sentences']}, of {shortest} to {longest} source tokens with the "
            f"end token, {least} to {most} written without it, {one['tokens']} in all"
        )
        if one["repeated"]:
            text += f"; {one['repeated']} of them are repetitions, for want of others"
        yield text + "."


def speed_tables(record: Record) -> Iterator[str]:
    """One for each number of threads and size of batch."""
    protocol = record["protocol"]
    for threads in protocol["threads"]:
        for batch in protocol["batches"]:
            yield f"### {_batch_name(batch)}, {_thread_name(threads)}"
            yield ""
            chosen = [
                one
                for one in record["timings"]
                if (one["threads"], one["batch"]) == (threads, batch)
            ]
            yield from _speed_table(chosen, contender_names(record))
            yield ""


def _batch_name(batch: int) -> str:
    return "One sentence at a time" if batch == 1 else f"{batch} sentences at once"


def _thread_name(threads: int) -> str:
    return "one thread" if threads == 1 else f"{threads} threads"


def _speed_table(timings: Sequence[Record], names: Sequence[str]) -> Iterator[str]:
    beams = list(dict.fromkeys(sorted(one["beam"] for one in timings)))
    heads = ["contender"]
    for beam in beams:
        name = search_name(beam)
        heads += [f"{name}: ms a sentence", "tokens a second", "times as fast"]
    found = {(one["contender"], one["beam"]): one for one in timings}
    rows = []
    for name in names:
        cells = [_speed_cells(found[name, beam]) for beam in beams]
        rows.append([name, *(cell for its in cells for cell in its)])
    return table(heads, rows)


def _speed_cells(timing: Record) -> list[str]:
    spread = timing["milliseconds"]
    return [
        f"{spread['median']:.2f} ({spread['lower']:.2f} to {spread['upper']:.2f})",
        f"{timing['tokens_per_second']:,.0f}",
        f"{timing['times_as_fast']:.2f}",
    ]


def checks(record: Record) -> Iterator[str]:
    """Whether everyone kept to the rules."""
    for threads in record["protocol"]["threads"]:
        own = [one for one in record["timings"] if one["threads"] == threads]
        cores = [one["cores"] for one in own]
        yield (
            f"With {_thread_name(threads)} the contenders kept {min(cores):.2f} to "
            f"{max(cores):.2f} cores busy while they were timed (processor time over "
            "time, medians: more than the threads allowed would be a breach, less is "
            "waiting for others)."
        )
    other = {one["contender"]: 0 for one in record["timings"]}
    for one in record["timings"]:
        other[one["contender"]] += one["other_lengths"]
    wrong = ", ".join(f"{name} {count}" for name, count in other.items() if count)
    yield (
        "Translations in the timed rounds that were longer or shorter than when the "
        f"sentences were chosen: {wrong or 'none'}."
    )


def start_table(record: Record) -> Iterator[str]:
    """Start, memory and size, a row for each contender."""
    cases = list(dict.fromkeys((one["beam"], one["batch"]) for one in record["memory"]))
    heads = ["contender", "start, ms", "model, MB", "loaded, MB"]
    for beam, batch in cases:
        heads += [f"{search_name(beam)}, batch {batch}: steady, MB", "peak, MB"]
    started = {one["contender"]: one["milliseconds"] for one in record["starts"]}
    rows = []
    for one in record["contenders"]:
        own = [x for x in record["memory"] if x["contender"] == one["name"]]
        row = [one["name"], _start(started.get(one["name"]))]
        row += [_megabytes(one["model_bytes"]), _megabytes(own[0]["loaded"])]
        for each in own:
            row += [_megabytes(each["steady"]), _megabytes(each["peak"])]
        rows.append(row)
    return table(heads, rows)


def _start(spread: Record | None) -> str:
    if spread is None:
        return ""
    return f"{spread['median']:.0f} ({spread['lower']:.0f} to {spread['upper']:.0f})"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
