"""A bundle's graphs behind the Stepper seam.

The encoder runs once a batch; each step runs one head graph, which holds the search's
heavy part (log-softmax, argmax or top k), so that no row of the vocabulary's size comes
to Python. A head is loaded when it is first asked for.
"""

import threading
from pathlib import Path

import numpy as np

from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.contract import Array, Head, check_inputs, encoder_contract
from seq2edge.runtime.decoding import GraphDecoding
from seq2edge.runtime.errors import BundleError, InputError
from seq2edge.runtime.fitting import fitted
from seq2edge.runtime.foresight import ForesightDecoding
from seq2edge.runtime.manifest import LOGITS
from seq2edge.runtime.sessions import EngineOptions, Graph, HeadGraph, map_tables
from seq2edge.runtime.shortlist import Shortlist
from seq2edge.runtime.shortlisted import AheadDecoding, ShortlistedDecoding
from seq2edge.runtime.speculation import Speculation
from seq2edge.runtime.stepper import Decoding, FloatArray, Inputs, Stream
from seq2edge.runtime.tuned import engine_options

__all__ = ["Engine", "EngineOptions"]

_POSITIONS = ("token", "frame")  # what a stream's graph reads at each step


class Engine:
    """A Stepper over a bundle that writes, a Labeller over one that labels.

    Threads may share it.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Load the encoder; `load` is the usual way in."""
        options = fitted(bundle, options)
        self.bundle = bundle
        self.options = options
        self._tables = map_tables(bundle.manifest.tables, bundle.path, options)
        self._encoder = Graph(
            bundle.file(bundle.manifest.encoder),
            options,
            encoder_contract(bundle.manifest),
            self._tables,
        )
        results = bundle.manifest.memory or bundle.manifest.outputs
        self._split = len(results)
        self._restricts = "shortlist" in bundle.manifest.heads
        reads = self._restricts or options.speculates
        self._shortlist = _shortlist(bundle) if reads else None
        self._source = bundle.manifest.inputs[0]
        vocabulary = bundle.manifest.vocabulary
        self._end = vocabulary.end if vocabulary else 0
        self._heads: dict[str, HeadGraph] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, bundle: Bundle | Path | str, options: EngineOptions | None = None
    ) -> "Engine":
        """Make ready to decode with a checked bundle, or with the one at a path.

        Without options, those of the bundle's tuning if it has one for this device.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.load(bundle)
        return cls(bundle, options or engine_options(bundle))

    def start(self, inputs: Inputs) -> Decoding:
        """Encode a batch; InputError names the array that doesn't fit the manifest."""
        memory, state = self.encode(inputs)
        batch = len(next(iter(inputs.values())))
        shortlist = self._shortlist
        if shortlist is None:
            return GraphDecoding(self.head, memory, state, batch)
        sources = inputs[self._source.name]
        if batch == 1 and self.options.speculates:
            return self._single(shortlist, sources[0], memory, state)
        if not self._restricts:
            return GraphDecoding(self.head, memory, state, batch)
        lengths = inputs[self._source.lengths or ""]
        rows = [row[:n] for row, n in zip(sources, lengths.tolist(), strict=True)]
        own, absent = shortlist.own_of_batch(rows)
        return ShortlistedDecoding(self.head, memory, state, own, absent)

    def encode(self, inputs: Inputs) -> tuple[dict[str, Array], list[Array]]:
        """Memory by the names that the heads know, and the first state, in order."""
        encoded, names, split = self._encode(inputs), self._encoder.outputs, self._split
        return {names[i]: encoded[i] for i in range(split)}, encoded[split:]

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

    def head(self, name: Head) -> HeadGraph:
        """The graph of this head, loaded at its first use."""
        graph = self._heads.get(name)
        if graph is None:
            with self._lock:
                graph = self._heads.get(name) or self._load_head(name)
                self._heads[name] = graph
        return graph

    @property
    def loaded(self) -> tuple[str, ...]:
        """The heads that have been asked for."""
        return tuple(self._heads)

    def end_profiling(self) -> dict[str, Path]:
        """The profile of the encoder and of each head that was used; ends profiling."""
        graphs: dict[str, Graph] = {"encoder": self._encoder, **self._heads}
        return {name: graph.end_profiling() for name, graph in graphs.items()}

    def _single(
        self,
        shortlist: Shortlist,
        source: Array,
        memory: dict[str, Array],
        state: list[Array],
    ) -> Decoding:
        """One sentence, of which several steps may be run at once."""
        own, end = shortlist.own(source), self._end
        if not self._restricts:
            drafting = Speculation(self.head, memory, state, own, end)
            return ForesightDecoding(drafting, end)
        steps = AheadDecoding(self.head, memory, state, own, end)
        size = len(own) + len(shortlist.common)
        return ForesightDecoding(steps, end, own, size)

    def _encode(self, inputs: Inputs) -> list[Array]:
        check_inputs(inputs, self.bundle.manifest.inputs)
        return self._encoder.run({name: inputs[name] for name in self._encoder.inputs})

    def _load_head(self, name: Head) -> HeadGraph:
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
        manifest, tables = self.bundle.manifest, self._tables
        return HeadGraph(path, self.options, manifest, name, tables)


class _Stream:
    """Sequences being labelled position by position."""

    def __init__(self, head: HeadGraph, state: list[Array]) -> None:
        self._head = head
        self._feed = head.feed({}, state)
        self._position = next(name for name in head.inputs if name in _POSITIONS)

    def push(self, positions: Array) -> FloatArray:
        self._feed[self._position] = positions
        logits, *state = self._head.run(self._feed)
        for name, place in self._head.state:
            self._feed[name] = state[place]
        return logits


def _shortlist(bundle: Bundle) -> Shortlist | None:
    name = bundle.manifest.shortlist
    return None if name is None else Shortlist.load(bundle.file(name))
