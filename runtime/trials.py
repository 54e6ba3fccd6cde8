"""The search for the setting in which a device runs a bundle fastest.

One change at a time, from the default on: what is tried and the best so far take turns,
pass by pass over the same sentences. A change is kept if it saves enough in the median
and wins most of the rounds, which a neighbour's load seldom does for it. One that
changes any result isn't eligible, however fast.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, takewhile
from statistics import median
from typing import Any

from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import EngineOptions
from seq2edge.runtime.errors import ConfigError
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.profiling import Contender, ProfileOptions, workload_of
from seq2edge.runtime.runner import Runner
from seq2edge.runtime.timing import Clock
from seq2edge.runtime.tuning import Device, Setting, Trial, Tuning, Work
from seq2edge.runtime.workload import Workload

LEAST_ROUNDS = 3
_GAIN = 0.03  # of the time; less may be chance, and is no reason to take a core
_SHARE_WON = 0.75  # of the rounds: the "most" that must be won
_SCORE_TOLERANCE = 1e-4
# Threads that spin go on for tens of milliseconds when a run is over, and would take
# the cores from whoever is measured next.
_REST_SECONDS = 0.1

Change = dict[str, Any]  # fields of a Setting
Note = Callable[[str], object]


@dataclass(frozen=True)
class Answer:
    """What came of one line: all that a setting must not change."""

    line: str
    tokens: tuple[str, ...]  # or labels
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Bench:
    """How settings are measured."""

    load: Callable[[Setting], Runner]
    workload: Workload
    rounds: int
    clock: Clock = time.perf_counter
    pause: Callable[[float], object] = time.sleep


class Entrant:
    """A setting that is loaded and warmed up."""

    def __init__(self, bench: Bench, setting: Setting) -> None:
        self.setting = setting
        self._bench = bench
        self._calls = bench.workload.calls()
        runner = bench.load(setting)
        self.answers = [*_answers(runner, bench.workload)]
        self._contender = Contender(runner, bench.workload, bench.clock)

    def call_ms(self, rests: bool) -> float:
        """The mean time of a call, in one pass over all of them."""
        if rests:
            self._bench.pause(_REST_SECONDS)
        # Not counted: it finds the processor's caches as the other left them.
        self._contender.run(self._calls[0])
        calls = [self._contender.run(texts).call for texts in self._calls]
        return 1000 * sum(call.seconds for call in calls) / len(calls)


def tune(
    bundle: Bundle,
    sentences: Sequence[str] | None = None,
    options: ProfileOptions | None = None,
    note: Note = lambda _: None,
) -> Tuning:
    """Find the fastest setting for this device and the work that `profile` measures."""
    options = options or ProfileOptions()
    if options.engine is not None:
        raise ConfigError("tuning tries the engine's options itself; leave them out")
    if options.repeat < LEAST_ROUNDS:
        raise ConfigError(
            f"repeat is {options.repeat}, and tuning needs {LEAST_ROUNDS} or more"
        )
    workload = workload_of(bundle, sentences, options)

    def load(setting: Setting) -> Runner:
        return replace(workload, engine=setting.options).load(bundle.path)

    bench, device = Bench(load, workload, options.repeat), Device.here()
    changes = changes_to_try(device.cores, _drafts(bundle, workload))
    trials = search_settings(bench, Setting.of(EngineOptions()), changes, note)
    search = workload.search
    return Tuning(
        bundle=bundle.fingerprint(),
        device=device,
        work=Work(
            sentences=len(workload.sentences),
            batch_size=workload.batch_size,
            beam_size=search.beam_size if search else None,
            rounds=bench.rounds,
        ),
        chosen=chosen(trials),
        trials=tuple(trials),
    )


def changes_to_try(cores: int, drafts: bool) -> list[Change]:
    """In the order in which they are tried; drafts: whether the work has any.

    Spinning is tried with each number of threads, for it may be what makes them pay:
    those that sleep have to be woken for every operator.
    """
    doubled = takewhile(lambda threads: threads < cores, (2**n for n in count(1)))
    numbers = [*doubled, cores] if cores > 1 else []
    changes: list[Change] = [
        {"threads": threads, "spinning": spinning}
        for threads in numbers
        for spinning in (False, True)
    ]
    changes.append({"arena": False})
    if drafts:
        changes.append({"speculates": False})
    return changes


def search_settings(
    bench: Bench, default: Setting, changes: Sequence[Change], note: Note
) -> list[Trial]:
    """Try each change on the best setting so far; the first trial is the default's."""
    note(f"measuring {default.text}")
    best = Entrant(bench, default)
    expected = best.answers
    [times] = _rounds(bench, [best])
    trials = [Trial(default, median(times), 1.0, True, "the default")]
    ratio = 1.0
    for change in changes:
        setting = replace(best.setting, **change)
        note(f"trying {setting.text}")
        entrant = Entrant(bench, setting)
        if fault := difference(expected, entrant.answers):
            trials.append(Trial(setting, None, None, False, fault))
            continue
        trial = _try(bench, entrant, best, ratio)
        trials.append(trial)
        if trial.kept and trial.ratio is not None:
            best, ratio = entrant, trial.ratio
    return trials


def chosen(trials: Sequence[Trial]) -> Setting:
    """The last that was kept: each was measured against the one before."""
    return [trial.setting for trial in trials if trial.kept][-1]


def difference(expected: Sequence[Answer], found: Sequence[Answer]) -> str:
    """What a setting changes, in the first line where it does; empty if in none."""
    for before, after in zip(expected, found, strict=True):
        if before.tokens != after.tokens:
            return f"other results for {before.line!r}"
        pairs = [*zip(before.scores, after.scores, strict=True)]
        if not all(math.isclose(*pair, abs_tol=_SCORE_TOLERANCE) for pair in pairs):
            largest = max(abs(one - other) for one, other in pairs)
            return f"a score of {before.line!r} differs by {largest:.2g}"
    return ""


def _try(bench: Bench, entrant: Entrant, best: Entrant, best_ratio: float) -> Trial:
    times, rivals = _rounds(bench, [entrant, best])
    against = median(times) / median(rivals)
    won = sum(mine < its for mine, its in zip(times, rivals, strict=True))
    kept, why = _judge(against, won, bench.rounds, best.setting.text)
    return Trial(entrant.setting, median(times), best_ratio * against, kept, why)


def _judge(against: float, won: int, rounds: int, rival: str) -> tuple[bool, str]:
    """Whether to keep a setting, and why; against: its time to its rival's."""
    if against >= 1:
        return False, f"not faster than {rival}"
    faster = f"{1 - against:.1%} faster than {rival}"
    if against > 1 - _GAIN:
        return False, f"only {faster}"
    if won < _SHARE_WON * rounds:
        return False, f"{faster}, but in {won} of {rounds} rounds"
    return True, f"{faster}, in {won} of {rounds} rounds"


def _rounds(bench: Bench, entrants: Sequence[Entrant]) -> list[list[float]]:
    """The times of each entrant's calls, a mean each round; who begins takes turns."""
    rests = any(entrant.setting.spinning for entrant in entrants)
    order = range(len(entrants))
    times: list[list[float]] = [[] for _ in entrants]
    for number in range(bench.rounds):
        for place in reversed(order) if number % 2 else order:
            times[place].append(entrants[place].call_ms(rests))
    return times


def _answers(runner: Runner, workload: Workload) -> Iterator[Answer]:
    for lines in workload.calls():
        if isinstance(runner, Predictor):
            for line, label in zip(lines, runner.predict_batch(lines), strict=True):
                yield Answer(line, label.labels, label.log_probs)
            continue
        found = runner.translate_batch(lines, workload.search)
        for line, one in zip(lines, found, strict=True):
            yield Answer(line, one.tokens, (one.score,))


def _drafts(bundle: Bundle, workload: Workload) -> bool:
    """Whether the work is what heads of several steps are for: single sentences."""
    single = workload.search is not None and workload.batch_size == 1
    return single and bundle.manifest.shortlist is not None
