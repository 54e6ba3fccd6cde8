"""Graphs of a bundle, loaded and run: the one place that knows onnxruntime."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from seq2edge.runtime.contract import (
    HEAD_RESULTS,
    MASK,
    Array,
    GraphContract,
    Head,
    head_contract,
)
from seq2edge.runtime.errors import BundleError, ConfigError, InputError
from seq2edge.runtime.manifest import Manifest, TableSpec, listed

Tables: TypeAlias = Mapping[str, onnxruntime.OrtValue]

ONNXRUNTIME: str = onnxruntime.__version__

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
    arena: bool = True  # one for all graphs of the process
    speculates: bool = True  # drafts greedy translations of single sentences
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


class Graph:
    """A session whose inputs and outputs are what its contract says."""

    def __init__(
        self,
        path: Path,
        options: EngineOptions,
        contract: GraphContract,
        tables: Tables = MappingProxyType({}),
    ) -> None:
        self._name = path.name
        self._tables = tables  # a session doesn't keep them
        self._session = _open(path, options, tables)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if faults := contract.faults(inputs, outputs):
            raise BundleError(
                f"{path} doesn't fit its manifest: {'; '.join(faults)}; "
                "export the bundle again"
            )
        self.inputs = [port.name for port in inputs]
        self.outputs = [spec.name for spec in contract.outputs]

    def run(self, feed: dict[str, Any]) -> list[Array]:
        """All outputs, in the contract's order; InputError says what can't be fed."""
        try:
            return self._session.run(self.outputs, feed)  # type: ignore[no-any-return]
        except _ERRORS as error:
            raise InputError(
                f"{self._name} can't run on this input: {_first_line(error)}"
            ) from None

    def end_profiling(self) -> Path:
        """Close onnxruntime's own profile, and say where it lies."""
        return Path(self._session.end_profiling())


class HeadGraph(Graph):
    """A step graph, with what each step must know of it worked out once."""

    def __init__(
        self,
        path: Path,
        options: EngineOptions,
        manifest: Manifest,
        name: Head,
        tables: Tables = MappingProxyType({}),
    ) -> None:
        super().__init__(path, options, head_contract(manifest, name), tables)
        self.results = len(HEAD_RESULTS[name])
        self.takes_parents = "parents" in self.inputs
        self.takes_count = "count" in self.inputs
        self.takes_candidates = MASK.name in self.inputs
        # A graph leaves out the memory and the state that it doesn't read.
        self.state = [
            (f"state.{spec.name}", position)
            for position, spec in enumerate(manifest.state)
            if f"state.{spec.name}" in self.inputs
        ]
        # The axis along which each state grows, if it does.
        self.growing = [spec.growing for spec in manifest.state]

    def feed(self, memory: dict[str, Array], state: list[Array]) -> dict[str, Array]:
        """What the first step reads besides its tokens."""
        read = {name: part for name, part in memory.items() if name in self.inputs}
        return read | {name: state[position] for name, position in self.state}


def map_tables(
    specs: Sequence[TableSpec], folder: Path, options: EngineOptions
) -> Tables:
    """The tables of a bundle, mapped for all of its graphs.

    Each session would map them by itself: the same pages of the same file, but resident
    once more in every table of pages. 17 MB in int8, tied, 16,000 tokens, encoder and
    two heads: 99.0 MB instead of 103.9. Another provider's memory isn't ours to give.
    """
    if options.providers != ("CPUExecutionProvider",):
        return {}
    tables: dict[str, onnxruntime.OrtValue] = {}
    for spec in specs:
        table = onnxruntime.OrtValue.ortvalue_from_numpy(_mapped(spec, folder))
        tables |= dict.fromkeys(spec.names, table)
    return tables


def _mapped(spec: TableSpec, folder: Path) -> Array:
    path = folder / spec.file
    try:
        return np.asarray(np.memmap(path, spec.dtype, "r", spec.offset, spec.shape))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path}: the table {listed(spec.names)} can't be mapped: {error}; "
            "copy or export the bundle again"
        ) from None


# Sum and layer norm in one node, for which onnxruntime takes them where the sum has
# three axes, take 1.3 microseconds for a row of 256 where both take 0.6 (AVX512).
SLOWER_FUSIONS = ("SkipLayerNormFusion",)


def _open(
    path: Path, options: EngineOptions, tables: Tables
) -> onnxruntime.InferenceSession:
    session = _session_options(path, options)
    for name, table in tables.items():  # a graph leaves out what it has not
        session.add_initializer(name, table)
    try:
        return onnxruntime.InferenceSession(
            os.fspath(path),
            session,
            list(options.providers),
            disabled_optimizers=[*SLOWER_FUSIONS],
        )
    except _ERRORS as error:
        raise BundleError(
            f"{path} can't be loaded by onnxruntime {ONNXRUNTIME}: "
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
    if options.arena:
        _share_arena()
        session.add_session_config_entry("session.use_env_allocators", "1")
    if options.profile is not None:
        session.enable_profiling = True
        session.profile_file_prefix = os.fspath(options.profile / path.stem)
    return session


@cache
def _share_arena() -> None:
    """Let sessions that ask for it take their tensors from one arena.

    What the encoder is done with then serves the steps. Peak of a process with one
    arena over that with one a session, batch 32, beam 5, 60 tokens: transformer of
    6 + 2 layers in int8 271 / 367 MB, one in fp32 241 / 277, SSRU in int8 107 / 116. At
    batch 1 both need the same. What the arena has, it keeps when a bundle goes, and the
    next one has it. It grows by powers of two: by what is asked for, growing caches
    leave holes that nothing fits (1,280 MB).
    """
    place = onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    )
    onnxruntime.create_and_register_allocator(place, None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
