"""A bundle's graphs behind the Stepper seam: the one place that knows onnxruntime.

The encoder runs once a batch; each step runs one head graph, which holds the search's
heavy part (log-softmax, argmax or top k), so that no row of the vocabulary's size comes
to Python. A head is loaded when it is first asked for.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.contract import (
    HEAD_RESULTS,
    Array,
    GraphContract,
    Head,
    check_inputs,
    encoder_contract,
    head_contract,
)
from seq2edge.runtime.errors import BundleError, ConfigError, InputError
from seq2edge.runtime.manifest import LOGITS, Manifest
from seq2edge.runtime.stepper import Decoding, FloatArray, Inputs, IntArray, Stream

# onnxruntime's exceptions have no class in common but Exception.
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(
        kind
        for kind in vars(native).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)

_POSITIONS = ("token", "frame")  # what a stream's graph reads at each step


@dataclass(frozen=True)
class EngineOptions:
    """How onnxruntime runs the graphs."""

    threads: int = 1  # small graphs: more threads cost more than they compute
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    spinning: bool = False  # idle threads that spin take the core from other work
    # On: without it, tensors of batches come from the system page by page. Transformer
    # of 6 + 2 layers in int8, times of on over off: greedy 0.98 at batch 1, 0.86 at 32;
    # beam 4 0.95 and 0.92; 800 sentences one by one, some of 512 tokens, 142 MB at the
    # end instead of 548. Memory patterns are off: one is kept for every shape seen.
    arena: bool = True
    profile: Path | None = None  # folder for onnxruntime's own profile; slows each run
    session_entries: tuple[tuple[str, str], ...] = ()  # onnxruntime's config entries

    def __post_init__(self) -> None:
        """Refuse what onnxruntime could not do."""
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}, and must be at least 1")
        available = onnxruntime.get_available_providers()
        absent = [name for name in self.providers if name not in available]
        if absent or not self.providers:
            raise ConfigError(
                f"providers {', '.join(self.providers) or '(none)'} are not all there; "
                f"this onnxruntime has {', '.join(available)}"
            )


class Engine:
    """A Stepper over a bundle that writes, a Labeller over one that labels.

    Threads may share it.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Load the encoder; `load` is the usual way in."""
        self.bundle = bundle
        self.options = options
        self._encoder = _Graph(
            bundle.file(bundle.manifest.encoder),
            options,
            encoder_contract(bundle.manifest),
        )
        results = bundle.manifest.memory or bundle.manifest.outputs
        self._split = len(results)
        self._heads: dict[str, _HeadGraph] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, bundle: Bundle | Path | str, options: EngineOptions | None = None
    ) -> "Engine":
        """Make ready to decode with a checked bundle, or with the one at a path."""
        if not isinstance(bundle, Bundle):
            bundle = Bundle.load(bundle)
        return cls(bundle, options or EngineOptions())

    def start(self, inputs: Inputs) -> Decoding:
        """Encode a batch; InputError names the array that doesn't fit the manifest."""
        encoded, names, split = self._encode(inputs), self._encoder.outputs, self._split
        memory: dict[str, Array] = {names[i]: encoded[i] for i in range(split)}
        return _Decoding(self, memory, encoded[split:], _batch(inputs))

    def outputs(self, inputs: Inputs) -> dict[str, Array]:
        """All that the encoder of a model without decoder says of a batch, by name."""
        encoded = self._encode(inputs)
        names = [spec.name for spec in self.bundle.manifest.outputs]
        return dict(zip(names, encoded, strict=False))

    def logits(self, inputs: Inputs) -> FloatArray:
        """Read a batch: (batch, labels), or (batch, time, labels) of a tagger."""
        return self.outputs(inputs)[LOGITS]

    def stream(self, rows: int) -> Stream:
        """Begin to tag so many sequences step by step, from a state of zeros."""
        head = self.head("stream")
        state = [
            np.zeros((rows, *map(int, spec.shape[1:])), spec.dtype)
            for spec in self.bundle.manifest.state
        ]
        return _Stream(head, state)

    def head(self, name: Head) -> "_HeadGraph":
        """The graph of this head, loaded at its first use."""
        graph = self._heads.get(name)
        if graph is None:
            with self._lock:
                graph = self._heads.get(name) or self._load_head(name)
                self._heads[name] = graph
        return graph

    def end_profiling(self) -> dict[str, Path]:
        """The profile of the encoder and of each head that was used; ends profiling."""
        graphs: dict[str, _Graph] = {"encoder": self._encoder, **self._heads}
        return {name: graph.end_profiling() for name, graph in graphs.items()}

    def _encode(self, inputs: Inputs) -> list[Array]:
        check_inputs(inputs, self.bundle.manifest.inputs)
        return self._encoder.run({name: inputs[name] for name in self._encoder.inputs})

    def _load_head(self, name: Head) -> "_HeadGraph":
        heads = self.bundle.manifest.heads
        if name not in heads and name == "attention":
            raise InputError(
                f"{self.bundle.path} shows no attention: its model has none, or was "
                "exported without step_with_attention"
            )
        if name not in heads:
            raise BundleError(
                f"{self.bundle.path} has no {name} head, only "
                f"{', '.join(heads) or 'its encoder'}; export it again with this head"
            )
        path = self.bundle.file(heads[name])
        return _HeadGraph(path, self.options, self.bundle.manifest, name)


class _Decoding:
    """Memory and state of one batch, as plain arrays.

    They are fed to `session.run` in one dictionary that lives as long as the same head
    is asked. Measured with onnxruntime 1.32, greedy, microseconds a step, tiny graph /
    int8 GRU (hidden 320, vocabulary 8,000): this 55 / 194; a new dictionary each step
    58 / 200; memory wrapped as OrtValue 61 / 208; IOBinding 67 / 208; everything by
    run_with_ort_values 134 / 293. The arrays that `run` returns aren't copies.
    """

    def __init__(
        self, engine: Engine, memory: dict[str, Array], state: list[Array], batch: int
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._state = state
        self._batch = batch
        self._rows = batch
        self._head: _HeadGraph | None = None  # the one that _feed was made for
        self._feed: dict[str, Array] = {}

    def best(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray]:
        if count == 1 and parents is None:
            log_prob, token = self._step("greedy", tokens, None, 1)
            return log_prob[:, None], token[:, None]
        log_probs, top_tokens = self._step("beam", tokens, parents, count)
        return log_probs, top_tokens

    def scores(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        return self._step("scores", tokens, parents, 0)[0]

    def attended(
        self, tokens: IntArray, parents: IntArray | None, count: int
    ) -> tuple[FloatArray, IntArray, FloatArray]:
        log_probs, top, attention = self._step("attention", tokens, parents, count)
        return log_probs, top, attention

    def logits(self, tokens: IntArray, parents: IntArray | None) -> FloatArray:
        log_probs, log_normalizer = self._step("scores", tokens, parents, 0)
        logits: FloatArray = log_probs + log_normalizer
        return logits

    def keep(self, sentences: IntArray) -> None:
        if len(sentences) == self._batch:
            return
        beam = self._rows // self._batch
        rows = (sentences[:, None] * beam + np.arange(beam)).ravel()
        self._memory = {name: part[sentences] for name, part in self._memory.items()}
        self._state = [part[rows] for part in self._state]
        self._batch, self._rows = len(sentences), len(rows)
        self._head = None

    def _step(
        self, name: Head, tokens: IntArray, parents: IntArray | None, count: int
    ) -> list[Array]:
        """Run a head and take over its state; returns its results."""
        head = self._engine.head(name)
        if head is not self._head:
            self._feed = head.feed(self._memory, self._state)
            self._head = head
        feed = self._feed
        feed["token"] = tokens
        if head.takes_parents:
            same = np.arange(self._rows, dtype=np.int64)
            feed["parents"] = same if parents is None else parents
        if head.takes_count:
            feed["count"] = np.array([count], np.int64)
        outputs = head.run(feed)
        self._state = state = outputs[head.results :]
        for state_name, position in head.state:
            feed[state_name] = state[position]
        self._rows = len(tokens)
        return outputs[: head.results]


class _Stream:
    """Sequences being labelled position by position."""

    def __init__(self, head: "_HeadGraph", state: list[Array]) -> None:
        self._head = head
        self._feed = head.feed({}, state)
        self._position = next(name for name in head.inputs if name in _POSITIONS)

    def push(self, positions: Array) -> FloatArray:
        self._feed[self._position] = positions
        logits, *state = self._head.run(self._feed)
        for name, place in self._head.state:
            self._feed[name] = state[place]
        return logits


class _Graph:
    """A session whose inputs and outputs are what its contract says."""

    def __init__(
        self, path: Path, options: EngineOptions, contract: GraphContract
    ) -> None:
        self._name = path.name
        self._session = _open(path, options)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if faults := contract.faults(inputs, outputs):
            raise BundleError(
                f"{path} doesn't fit its manifest: {'; '.join(faults)}; "
                "export the bundle again"
            )
        self.inputs = [port.name for port in inputs]
        self.outputs = [spec.name for spec in contract.outputs]

    def run(self, feed: dict[str, Any]) -> list[Array]:
        try:
            return self._session.run(self.outputs, feed)  # type: ignore[no-any-return]
        except _ERRORS as error:
            raise InputError(
                f"{self._name} can't run on this input: {_first_line(error)}"
            ) from None

    def end_profiling(self) -> Path:
        return Path(self._session.end_profiling())


class _HeadGraph(_Graph):
    """A step graph, with what each step must know of it worked out once."""

    def __init__(
        self, path: Path, options: EngineOptions, manifest: Manifest, name: Head
    ) -> None:
        super().__init__(path, options, head_contract(manifest, name))
        self.results = len(HEAD_RESULTS[name])
        self.takes_parents = "parents" in self.inputs
        self.takes_count = "count" in self.inputs
        # A graph leaves out the memory and the state that it doesn't read.
        self.state = [
            (f"state.{spec.name}", position)
            for position, spec in enumerate(manifest.state)
            if f"state.{spec.name}" in self.inputs
        ]

    def feed(self, memory: dict[str, Array], state: list[Array]) -> dict[str, Array]:
        """What the first step reads besides its tokens."""
        read = {name: part for name, part in memory.items() if name in self.inputs}
        return read | {name: state[position] for name, position in self.state}


def _open(path: Path, options: EngineOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(
            os.fspath(path), _session_options(path, options), list(options.providers)
        )
    except _ERRORS as error:
        raise BundleError(
            f"{path} can't be loaded by onnxruntime {onnxruntime.__version__}: "
            f"{_first_line(error)}; copy or export the bundle again"
        ) from None


def _session_options(path: Path, options: EngineOptions) -> onnxruntime.SessionOptions:
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    session.inter_op_num_threads = 1
    session.enable_cpu_mem_arena = options.arena
    session.enable_mem_pattern = False
    session.log_severity_level = 4  # what fails is raised: said once, not twice
    entries = {
        "session.intra_op.allow_spinning": str(int(options.spinning)),
        "session.set_denormal_as_zero": "1",
        **dict(options.session_entries),
    }
    for key, value in entries.items():
        session.add_session_config_entry(key, value)
    if options.profile is not None:
        session.enable_profiling = True
        session.profile_file_prefix = os.fspath(options.profile / path.stem)
    return session


def _batch(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
