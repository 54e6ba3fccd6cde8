"""What the parts of a bundle take of memory: weighed in a process of their own.

Run as a module this is that process: the path of a bundle comes in on standard input,
what `memory` predicts from goes out. Only Linux tells enough; elsewhere it is null.
What is freed must go back to the system at once here, or no peak would be a new one:
tensors come from no arena, and malloc maps what is large.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from seq2edge.runtime import schema
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.child import ask_process
from seq2edge.runtime.contract import Array, Head
from seq2edge.runtime.engine import Engine, EngineOptions
from seq2edge.runtime.manifest import FootprintSpec, InputSpec
from seq2edge.runtime.resources import forget_peak, mapped_memory, resident_memory
from seq2edge.runtime.stepper import Decoding, Inputs
from seq2edge.runtime.tokenizer import load_tokenizer

_POSITIONS = 1024  # of the source, encoded at once: tensors are large beside a page
_LONGEST = 256  # of the sources
_BATCH, _BEAM = 8, 4  # of the steps
_COUNT = 8
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def weigh(folder: Path) -> FootprintSpec | None:
    """Weigh a bundle in a new process; None where the system doesn't tell."""
    fault = f"{folder}: its memory can't be weighed"
    environment = os.environ | _MALLOC
    answer = ask_process("seq2edge.runtime.weighing", str(folder), fault, environment)
    value = json.loads(answer)
    return None if value is None else schema.parse(FootprintSpec, value)


def main() -> None:
    """Be that process."""
    bundle = Bundle.load(Path(sys.stdin.read()), check_hashes=False)
    tells = resident_memory().now_bytes is not None and forget_peak()
    found = schema.to_json(_weighed(bundle)) if tells else None
    print(json.dumps(found))


def _weighed(bundle: Bundle) -> FootprintSpec:
    spec, before = bundle.manifest.tokenizer, _held(bundle)
    engine = Engine(bundle, EngineOptions(arena=False))
    tokenizer = None if spec is None else load_tokenizer(spec, bundle.path)
    if tokenizer is not None:  # and it stays, to be weighed
        tokenizer.encode("a")
    _encode(engine, 1, 1)
    loaded = _held(bundle) - before
    heads = {name: _head_bytes(engine, name) for name in bundle.manifest.heads}
    position, pair = _encoder_line(engine)
    row, row_source = _step_line(engine)
    return FootprintSpec(loaded, heads, position, pair, row, row_source)


def _held(bundle: Bundle) -> int:
    """What is resident, and what will be when every row of a table was looked up."""
    now, weights = resident_memory().now_bytes, mapped_memory(bundle.path)
    assert now is not None  # or nothing is weighed
    return now - weights.resident_bytes + weights.mapped_bytes


def _head_bytes(engine: Engine, name: str) -> int:
    before = _held(engine.bundle)
    if name in ("draft", "verify", "shortlist", "ahead", "beam_ahead", "stream"):
        engine.head(name)  # type: ignore[arg-type]
    else:
        _step(engine, name, _Begun.of(engine, 1, 1, 1))  # type: ignore[arg-type]
    return max(0, _held(engine.bundle) - before)


def _encoder_line(engine: Engine) -> tuple[int, int]:
    """Bytes of a position, and of a pair of positions of one sentence."""
    lengths = _lengths(engine)
    batches = [max(1, _POSITIONS // length) for length in lengths]
    growth = [
        _growth(partial(_encode, engine, batch, length)) / (batch * length)
        for batch, length in zip(batches, lengths, strict=True)
    ]
    return _line(lengths, growth)


def _step_line(engine: Engine) -> tuple[int, int]:
    """Bytes of a row, and of each source position of a row."""
    heads = engine.bundle.manifest.heads
    names: tuple[Head, ...] = ("beam", "greedy", "scores", "attention")
    usual = [name for name in names if name in heads]
    if not usual:
        return 0, 0
    lengths, growth = _lengths(engine), []
    for length in lengths:
        begun = _Begun.of(engine, _BATCH, _BEAM, length)
        growth.append(_growth(partial(_step, engine, usual[0], begun)) / begun.rows)
    return _line(lengths, growth)


def _lengths(engine: Engine) -> tuple[int, int]:
    """Two source lengths far from each other."""
    longest = min(engine.bundle.manifest.limits.source_tokens, _LONGEST)
    return max(1, longest // 8), longest


def _line(places: tuple[int, int], values: list[float]) -> tuple[int, int]:
    """The line through both values: its height at zero and its slope, not below 0."""
    (first, last), (low, high) = places, values
    slope = max(0.0, (high - low) / max(1, last - first))
    height = max(0.0, low - slope * first, high - slope * last)
    return round(height), round(slope)


def _growth(work: Callable[[], object]) -> int:
    """How far the peak is above what was resident before."""
    before = resident_memory().now_bytes
    forget_peak()
    work()
    peak = resident_memory().peak_bytes
    assert before is not None
    assert peak is not None
    return max(0, peak - before)


def _encode(engine: Engine, batch: int, length: int) -> object:
    inputs = _inputs(engine, batch, length)
    if engine.bundle.manifest.task == "generation":
        return engine.encode(inputs)
    return engine.outputs(inputs)


def _inputs(engine: Engine, batch: int, length: int) -> Inputs:
    manifest = engine.bundle.manifest
    inputs: dict[str, Array] = {}
    for spec in manifest.inputs:
        inputs[spec.name] = np.zeros(_shape(spec, batch, length), spec.dtype)
        if spec.lengths is not None:
            inputs[spec.lengths] = np.full(batch, length, np.int32)
    return inputs


def _shape(spec: InputSpec, batch: int, length: int) -> tuple[int, ...]:
    _, *axes = spec.shape
    return (batch, *(axis if isinstance(axis, int) else length for axis in axes))


@dataclass(frozen=True)
class _Begun:
    """A batch that was encoded."""

    batch: int
    rows: int
    decoding: Decoding

    @classmethod
    def of(cls, engine: Engine, batch: int, beam: int, length: int) -> "_Begun":
        return cls(batch, batch * beam, engine.start(_inputs(engine, batch, length)))


def _step(engine: Engine, name: Head, begun: _Begun) -> object:
    """The first step, by a head."""
    decoding = begun.decoding
    vocabulary = engine.bundle.manifest.vocabulary
    tokens = np.full(begun.rows, vocabulary.start if vocabulary else 0)
    if name == "greedy":
        return decoding.best(tokens, None, 1)
    parents = np.repeat(np.arange(begun.batch), begun.rows // begun.batch)
    if name == "scores":
        return decoding.scores(tokens, parents)
    ask = decoding.attended if name == "attention" else decoding.best
    return ask(tokens, parents, min(_COUNT, vocabulary.size if vocabulary else 1))


if __name__ == "__main__":
    main()
