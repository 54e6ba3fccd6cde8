"""The memory of this process and the machine it runs on."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from seq2edge.runtime.processor import CPUINFO, fields

_STATUS = Path("/proc/self/status")

_PACKAGES = ("seq2edge", "onnxruntime", "numpy", "sentencepiece")

# Instruction sets that decide how fast 8-bit products are, as Linux names them.
_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
)


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process; None where the system doesn't tell."""

    now_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Machine:
    """What a measurement was made on."""

    processor: str
    instructions: tuple[str, ...]
    cores: int  # that this process may use
    load_average: float | None  # of the last minute: what else runs spoils timings
    system: str
    python: str
    versions: dict[str, str]

    @classmethod
    def here(cls) -> "Machine":
        """The machine that this runs on."""
        processor = fields(CPUINFO)
        flags = processor.get("flags", processor.get("Features", "")).split()
        return cls(
            processor=processor.get("model name") or platform.machine(),
            instructions=tuple(name for name in _INSTRUCTIONS if name in flags),
            cores=_cores(),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            system=platform.platform(),
            python=platform.python_version(),
            versions={name: _version(name) for name in _PACKAGES},
        )


def resident_memory() -> Memory:
    """The memory of this process, from /proc or else from getrusage."""
    status = fields(_STATUS)
    if "VmRSS" in status and "VmHWM" in status:
        return Memory(_bytes(status["VmRSS"]), _bytes(status["VmHWM"]))
    return Memory(None, _peak_by_getrusage())


def _peak_by_getrusage() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its folder, not installed
        return "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _bytes(kilobytes: str) -> int:
    """The kernel writes "1234 kB" and means KiB."""
    return int(kilobytes.split()[0]) * 1024
