"""The protocol of the benchmarks against peers, whoever they are.

First the tokens: every contender translates the candidates, one by one, and is compared
with the reference. Then time, on the sentences that all translate to equally many
tokens: in each round every contender does the same work once, in an order drawn anew.
Then fresh processes: their start, and their memory.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import Any

from peers_figures import Spread, Turn, identical, spread, timings
from peers_process import Entry, Ids, Worker
from peers_work import SEED, Candidates, Work, choose

from seq2edge.runtime.resources import Machine

Written = Mapping[tuple[str, int], Ids]  # what a contender wrote with a beam
SETTLE_SECONDS = 0.3  # threads of the last contender spin before they sleep


@dataclass(frozen=True)
class Protocol:
    """How much is measured, and against whom."""

    reference: str  # whose tokens are right
    base: str  # whose speed is 1
    beams: tuple[int, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    sentences: int  # of the timed work
    rounds: int  # counted; one more comes first and warms up
    starts: int  # of each contender, after one that warms the file cache


@dataclass(frozen=True)
class Parity:
    """A contender's translations of all candidates, each alone."""

    contender: str
    beam: int
    sentences: int
    as_reference: int  # identical
    as_exact: int | None  # identical to those of the same library in fp32
    same_length: int  # as many tokens as the reference


@dataclass(frozen=True)
class Start:
    """From the start of the process to its first translation, one sentence, greedy."""

    contender: str
    milliseconds: Spread


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process that does one thing."""

    contender: str
    beam: int
    batch: int
    loaded: int
    steady: int  # after translating all of the work three times
    peak: int  # meanwhile


def measure(
    entries: Sequence[Entry], sources: Candidates, protocol: Protocol, log: Path
) -> dict[str, Any]:
    """Everything, as the JSON has it; the parity is printed first."""
    log.write_bytes(b"")
    written, details = translate_all(entries, sources.sources, protocol.beams, log)
    parities = [*compare(entries, written, protocol)]
    print(*parity_lines(parities), sep="\n", flush=True)
    works = [work_of(beam, sources, written, protocol) for beam in protocol.beams]
    for work in works:
        note(f"beam {work.beam}: {work.fitting} of {work.candidates} sentences remain")
    turns = [
        turn
        for n in protocol.threads
        for turn in rounds(entries, works, protocol, n, log)
    ]
    return {
        "protocol": asdict(protocol),
        "candidates": {"found": sources.found, "slack": sources.slack},
        "works": [about_work(work) for work in works],
        "contenders": [
            {
                "name": one.name,
                "details": details[one.name],
                "model_bytes": one.model_bytes,
            }
            for one in entries
        ],
        "parity": [asdict(one) for one in parities],
        "timings": [asdict(one) for one in timings(turns, works, protocol.base)],
        "starts": [asdict(x) for x in starts(entries, works[0], protocol, log)],
        "memory": [asdict(x) for x in memory(entries, works, protocol, log)],
    }


def note(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def about_machine() -> dict[str, Any]:
    """The machine by its processor, and how busy it is; never its name."""
    here = Machine.here()
    return {
        "processor": here.processor,
        "instructions": here.instructions,
        "cores": here.cores,
        "python": here.python,
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def about_work(work: Work) -> dict[str, Any]:
    """What was timed, without the sentences."""
    lengths = [len(source) for source in work.sources]
    return {
        "beam": work.beam,
        "candidates": work.candidates,
        "agreed": work.agreed,
        "fitting": work.fitting,
        "slack": work.slack,
        "sentences": len(work.sources),
        "repeated": work.repeated,
        "source_tokens": [min(lengths), max(lengths)],
        "target_tokens": [min(work.lengths), max(work.lengths)],
        "tokens": work.tokens,
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def translate_all(
    entries: Sequence[Entry], sources: Ids, beams: Sequence[int], log: Path
) -> tuple[dict[tuple[str, int], Ids], dict[str, dict[str, str]]]:
    """What everyone writes of each source alone, and with what settings."""
    written, details = {}, {}
    for entry in entries:
        with Worker(entry, 1, log) as worker:
            details[entry.name] = worker.ready()
            for beam in beams:
                note(f"{entry.name}, beam {beam}: {len(sources)} sentences")
                answer = worker.translate([[source] for source in sources], beam)
                written[entry.name, beam] = answer.tokens
    return written, details


def compare(
    entries: Sequence[Entry], written: Written, protocol: Protocol
) -> Iterator[Parity]:
    """Everyone with the reference, and with the same library in fp32."""
    for entry in entries:
        for beam in protocol.beams:
            found = written[entry.name, beam]
            expected = written[protocol.reference, beam]
            exact = written[entry.exact, beam] if entry.exact else None
            yield Parity(
                entry.name,
                beam,
                sentences=len(found),
                as_reference=identical(found, expected),
                as_exact=None if exact is None else identical(found, exact),
                same_length=sum(map(_same_length, found, expected)),
            )


def _same_length(one: list[int], other: list[int]) -> bool:
    return len(one) == len(other)


def parity_lines(parities: Sequence[Parity]) -> Iterator[str]:
    """For the terminal."""
    for one in parities:
        exact = "" if one.as_exact is None else f", {one.as_exact} as its own fp32"
        yield (
            f"{one.contender}, beam {one.beam}: of {one.sentences} translations "
            f"{one.as_reference} identical to the reference{exact}"
        )


def work_of(
    beam: int, sources: Candidates, written: Written, protocol: Protocol
) -> Work:
    """The sentences for one search."""
    lengths = {
        name: [len(row) for row in rows]
        for (name, its), rows in written.items()
        if its == beam
    }
    return choose(sources.sources, lengths, beam, protocol.sentences)


def rounds(
    entries: Sequence[Entry],
    works: Sequence[Work],
    protocol: Protocol,
    threads: int,
    log: Path,
) -> Iterator[Turn]:
    """All loaded at once, one at work."""
    draw = Random(SEED)
    with ExitStack() as stack:
        workers = {
            one.name: stack.enter_context(Worker(one, threads, log)) for one in entries
        }
        for worker in workers.values():
            worker.ready()
        for number in range(protocol.rounds + 1):
            note(f"threads {threads}: round {number} of {protocol.rounds}")
            for work in works:
                for batch in protocol.batches:
                    turns = [*take_turns(workers, work, batch, threads, draw)]
                    yield from turns if number else ()  # the first warms up


def take_turns(
    workers: Mapping[str, Worker], work: Work, batch: int, threads: int, draw: Random
) -> Iterator[Turn]:
    """Each does the work once, in an order drawn anew."""
    batches = work.batches(batch)
    for name in draw.sample([*workers], len(workers)):
        if threads > 1:
            time.sleep(SETTLE_SECONDS)
        answer = workers[name].translate(batches, work.beam)
        lengths = [len(row) for row in answer.tokens]
        spent = (answer.seconds, answer.cpu_seconds)
        yield Turn(name, threads, work.beam, batch, *spent, lengths)


def starts(
    entries: Sequence[Entry], work: Work, protocol: Protocol, log: Path
) -> list[Start]:
    """Fresh processes, one contender after the other, again and again."""
    spent: dict[str, list[float]] = {entry.name: [] for entry in entries}
    draw = Random(SEED)
    for number in range(protocol.starts + 1):
        note(f"start {number} of {protocol.starts}")
        for entry in draw.sample([*entries], len(entries)):
            began = time.perf_counter()
            with Worker(entry, protocol.threads[0], log) as worker:
                worker.ready()
                worker.translate([work.sources[:1]], 1)
                milliseconds = 1000 * (time.perf_counter() - began)
            if number:  # the first warms the file cache
                spent[entry.name].append(milliseconds)
    return [Start(name, spread(values)) for name, values in spent.items() if values]


def memory(
    entries: Sequence[Entry], works: Sequence[Work], protocol: Protocol, log: Path
) -> Iterator[Memory]:
    """Of fresh processes: the smallest work, and the largest."""
    cases = ((works[0], min(protocol.batches)), (works[-1], max(protocol.batches)))
    for work, batch in cases:
        for entry in entries:
            note(f"memory of {entry.name}, beam {work.beam}, batch {batch}")
            with Worker(entry, protocol.threads[0], log) as worker:
                worker.ready()
                loaded = worker.resident().now_bytes
                worker.forget_peak()
                worker.translate(work.batches(batch) * 3, work.beam)
                end = worker.resident()
            found = (loaded, end.now_bytes, end.peak_bytes)
            yield Memory(entry.name, work.beam, batch, *found)
