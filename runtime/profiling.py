"""The latency profile: where every millisecond of a translation goes.

Bundles to compare take turns, call by call, so that what else the machine does meets
all of them. The first call of each is told by itself, and warm-up calls aren't counted.
Memory is that of a process which does nothing else; onnxruntime's own profile, which
slows each run, is made in a session of its own.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from seq2edge.runtime import schema
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.errors import ConfigError, InputError
from seq2edge.runtime.footprint import measure_footprint
from seq2edge.runtime.golden import Golden
from seq2edge.runtime.operators import Operator, most_expensive
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.predictor import Predictor
from seq2edge.runtime.resources import Machine, Memory
from seq2edge.runtime.runner import Runner, run
from seq2edge.runtime.timing import (
    PARTS,
    Call,
    Clock,
    Recorder,
    TimedLabeller,
    TimedStepper,
    TimedTokenizer,
)
from seq2edge.runtime.tuned import engine_options
from seq2edge.runtime.workload import Workload

OTHER = "other"
_MOST_WARM_UP_CALLS = 10
_OPERATOR_CALLS = 20  # enough for an order; the profile's times are from elsewhere


@dataclass(frozen=True)
class ProfileOptions:
    """What to measure, and how often."""

    batch_size: int = 1  # sentences a call
    beam_size: int | None = None  # None: the first bundle's own
    repeat: int = 5  # passes over the sentences
    engine: EngineOptions | None = None  # None: each bundle's tuning, or the default

    def __post_init__(self) -> None:
        """Refuse what can't be measured."""
        counts = {"batch_size": self.batch_size, "repeat": self.repeat}
        if self.beam_size is not None:
            counts["beam_size"] = self.beam_size
        if faults := [f"{name} {count}" for name, count in counts.items() if count < 1]:
            raise ConfigError(f"{' and '.join(faults)} must be at least 1")
        if self.engine and self.engine.profile is not None:
            raise ConfigError("a profile of operators is made anyway; leave it out")


@dataclass(frozen=True)
class Spread:
    """How a time varies."""

    mean_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Spread":
        """The spread of at least one time."""
        ms = 1000 * np.fromiter(seconds, float)
        return cls(float(ms.mean()), *np.percentile(ms, (50, 90, 99)).tolist())


@dataclass(frozen=True)
class Part:
    """What one part of the work took in a call, and its share of all calls' time."""

    name: str  # tokenize, encode, step (all of a call's), search, detokenize or other
    spread: Spread
    share: float


@dataclass(frozen=True)
class Timings:
    """What the calls took; a call translates `batch_size` sentences."""

    calls: int
    sentences: int
    tokens: int  # of the translations, without end tokens; or labels
    steps: int
    whole: Spread
    parts: tuple[Part, ...]
    one_step: Spread | None  # of a decoder, or of a stream; None without steps
    first_token: Spread | None  # from the call to the end of its first step
    sentences_per_second: float
    tokens_per_second: float

    @property
    def accounted_share(self) -> float:
        """How much of the whole its parts explain, without the rest named other."""
        return sum(part.share for part in self.parts if part.name != OTHER)


@dataclass(frozen=True)
class Profile:
    """What was measured of one bundle."""

    path: str
    name: str
    precision: str
    engine: EngineOptions  # that it was measured with
    bundle_bytes: int
    load_ms: float  # hashes checked, encoder and tokenizer loaded
    first_call_ms: float  # which loads a head too
    timings: Timings
    memory: Memory  # of a process that does nothing else, after its last call
    encoder_operators: tuple[Operator, ...]
    step_operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Report:
    """The record of a profile: JSON by `to_json`, a text by `profile_table`."""

    machine: Machine
    options: ProfileOptions
    beam_size: int | None  # None: labels, which no search finds
    length_penalty: float | None
    sentences: int
    warm_up_calls: int  # of each bundle, beside the first; in none of the timings
    profiles: tuple[Profile, ...]

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return schema.to_json(self)


@dataclass(frozen=True)
class Measured:
    """One call, and how much it translated."""

    call: Call
    sentences: int
    tokens: int
    streamed: tuple[float, ...] = ()  # seconds of each step of a stream, after the call


class Contender:
    """A runner under the clock."""

    def __init__(self, runner: Runner, workload: Workload, clock: Clock) -> None:
        self._recorder = Recorder(clock)
        self._runner = _timed(runner, self._recorder)
        self._search = workload.search

    def run(self, texts: Sequence[str]) -> Measured:
        """Translate or label the sentences of one call."""
        outputs, call = self._recorder.call(
            lambda: run(self._runner, texts, self._search)
        )
        units = sum(output.units for output in outputs)
        return Measured(call, len(texts), units, self._stream(texts))

    def _stream(self, texts: Sequence[str]) -> tuple[float, ...]:
        """The first of the texts word by word, where the bundle can do that."""
        runner = self._runner
        if not isinstance(runner, Predictor) or not runner.streams:
            return ()
        if runner.tokenizer is None:
            return ()
        stream = runner.stream()
        words = texts[0].split()
        _, call = self._recorder.call(lambda: [stream.push(word) for word in words])
        return tuple(call.step_seconds())


def _timed(runner: Runner, recorder: Recorder) -> Runner:
    tokenizer = runner.tokenizer and TimedTokenizer(runner.tokenizer, recorder)
    if isinstance(runner, Predictor):
        labeller = TimedLabeller(runner.labeller, recorder)
        return replace(runner, tokenizer=tokenizer, labeller=labeller)
    stepper = TimedStepper(runner.stepper, recorder)
    return replace(runner, tokenizer=tokenizer, stepper=stepper)


def profile(
    paths: Sequence[Path | str],
    sentences: Sequence[str] | None = None,
    options: ProfileOptions | None = None,
    clock: Clock = time.perf_counter,
) -> Report:
    """Measure bundles on the same sentences; given none, on the first's golden ones."""
    options = options or ProfileOptions()
    if not paths:
        raise ConfigError("there is nothing to profile; give a bundle")
    machine = Machine.here()  # before our own load counts
    bundles = [Bundle.load(path) for path in paths]
    workload = workload_of(bundles[0], sentences, options)
    search = workload.search
    engines = [options.engine or engine_options(bundle) for bundle in bundles]
    workloads = [replace(workload, engine=engine) for engine in engines]
    loaded = [
        _load(bundle.path, its, clock)
        for bundle, its in zip(bundles, workloads, strict=True)
    ]
    contenders = [Contender(runner, workload, clock) for runner, _ in loaded]
    calls = workload.calls()
    first = take_turns(contenders, calls[:1])
    warm_up = calls[:_MOST_WARM_UP_CALLS]
    take_turns(contenders, warm_up)
    measured = take_turns(contenders, calls * options.repeat)
    profiles = [
        _profile(bundle, its, load_ms, first_call[0], summarize(runs))
        for bundle, its, (_, load_ms), first_call, runs in zip(
            bundles, workloads, loaded, first, measured, strict=True
        )
    ]
    return Report(
        machine=machine,
        options=options,
        beam_size=search.beam_size if search else None,
        length_penalty=search.length_penalty if search else None,
        sentences=len(workload.sentences),
        warm_up_calls=len(warm_up),
        profiles=tuple(profiles),
    )


def take_turns(
    contenders: Sequence[Contender], calls: Sequence[Sequence[str]]
) -> list[list[Measured]]:
    """What each contender took; all do a call before any goes on to the next."""
    turns = [[each.run(texts) for each in contenders] for texts in calls]
    return [list(measured) for measured in zip(*turns, strict=True)]


def summarize(measured: Sequence[Measured]) -> Timings:
    """The timings of one bundle's calls."""
    calls = [each.call for each in measured]
    seconds = sum(call.seconds for call in calls)
    steps = list(chain.from_iterable(call.step_seconds() for call in calls))
    steps += chain.from_iterable(each.streamed for each in measured)
    first_tokens = [call.first_token_seconds() for call in calls]
    firsts = [first for first in first_tokens if first is not None]
    sentences = sum(each.sentences for each in measured)
    tokens = sum(each.tokens for each in measured)
    parts = {name: [call.part_seconds(name) for call in calls] for name in PARTS}
    parts[OTHER] = [call.other_seconds() for call in calls]
    return Timings(
        calls=len(calls),
        sentences=sentences,
        tokens=tokens,
        steps=len(steps),
        whole=Spread.of(call.seconds for call in calls),
        parts=tuple(
            Part(name, Spread.of(part), sum(part) / seconds)
            for name, part in parts.items()
        ),
        one_step=Spread.of(steps) if steps else None,
        first_token=Spread.of(firsts) if firsts else None,
        sentences_per_second=sentences / seconds,
        tokens_per_second=tokens / seconds,
    )


def workload_of(
    bundle: Bundle, sentences: Sequence[str] | None, options: ProfileOptions
) -> Workload:
    """The sentences, or else the golden ones, as the options say to run them."""
    folder = ""
    if sentences is None:
        examples = Golden.read(bundle.path).examples
        if any(example.as_ids for example in examples):
            raise InputError(
                "this bundle's golden examples are ids; give a file of sentences"
            )
        sentences = list(dict.fromkeys(example.text for example in examples))
        folder = str(bundle.path)
    texts = tuple(text for text in sentences if text.strip())
    if not texts:
        raise InputError("there is no sentence to profile with; give a file of them")
    search = _search(bundle, options)
    engine = options.engine or EngineOptions()
    return Workload(texts, options.batch_size, search, engine, folder)


def _search(bundle: Bundle, options: ProfileOptions) -> SearchOptions | None:
    defaults = bundle.manifest.search
    return defaults and defaults.with_beam(options.beam_size or defaults.beam_size)


def _load(path: Path, workload: Workload, clock: Clock) -> tuple[Runner, float]:
    start = clock()
    runner = workload.load(path)
    return runner, 1000 * (clock() - start)


def _profile(
    bundle: Bundle,
    workload: Workload,
    load_ms: float,
    first: Measured,
    timings: Timings,
) -> Profile:
    manifest = bundle.manifest
    encoder, step = _operators(bundle, workload)
    return Profile(
        path=str(bundle.path),
        name=manifest.name,
        precision=manifest.precision,
        engine=workload.engine,
        bundle_bytes=bundle.bytes,
        load_ms=load_ms,
        first_call_ms=1000 * first.call.seconds,
        timings=timings,
        memory=measure_footprint(bundle.path, workload),
        encoder_operators=encoder,
        step_operators=step,
    )


def _operators(
    bundle: Bundle, workload: Workload
) -> tuple[tuple[Operator, ...], tuple[Operator, ...]]:
    """The most expensive operators of the encoder, and of the heads together."""
    with TemporaryDirectory(prefix="seq2edge-profile-") as folder:
        engine = Engine.load(bundle, replace(workload.engine, profile=Path(folder)))
        runner = workload.load(bundle.path)
        if isinstance(runner, Predictor):
            runner = replace(runner, labeller=engine)
        else:
            runner = replace(runner, stepper=engine)
        for texts in islice(cycle(workload.calls()), _OPERATOR_CALLS):
            run(runner, texts, workload.search)
        profiles = engine.end_profiling()
        encoder = most_expensive([profiles.pop("encoder")])
        return encoder, most_expensive(profiles.values())
