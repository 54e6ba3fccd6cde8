"""The memory of this process and the machine it runs on."""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from seq2edge.runtime.processor import CPUINFO, fields

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MAPS = Path("/proc/self/smaps")

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
class Mapped:
    """Files that are mapped: what isn't resident of them is read when it is needed."""

    mapped_bytes: int
    resident_bytes: int


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
            processor=processor_name(),
            instructions=tuple(name for name in _INSTRUCTIONS if name in flags),
            cores=usable_cores(),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            system=platform.platform(),
            python=platform.python_version(),
            versions={name: _version(name) for name in _PACKAGES},
        )


def processor_name() -> str:
    """The processor's name; of one by ARM, which Linux doesn't name, its numbers."""
    processor = fields(CPUINFO)
    if name := processor.get("model name"):
        return name
    if "CPU part" in processor:
        maker, part = processor.get("CPU implementer", ""), processor["CPU part"]
        return f"{platform.machine()} {maker} {part}"
    if processor:  # Linux, where platform.processor starts a process and tells nothing
        return platform.machine()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_memory() -> Memory:
    """The memory of this process, from /proc or else from getrusage."""
    status = fields(_STATUS)
    if "VmRSS" in status and "VmHWM" in status:
        return Memory(_bytes(status["VmRSS"]), _bytes(status["VmHWM"]))
    return Memory(None, _peak_by_getrusage())


def forget_peak() -> bool:
    """Let the peak begin anew; False where the system can't."""
    try:
        _CLEAR.write_text("5", encoding="ascii")  # 5: the peak, in man 5 proc
    except OSError:
        return False
    return True


def mapped_memory(folder: Path) -> Mapped:
    """How this process has a folder's files mapped, by all mappings together."""
    mapped, resident, inside = 0, 0, False
    folder = folder.resolve()
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if "-" in key:  # the first line of a mapping: its addresses
            inside = Path(line.split(maxsplit=5)[-1]).is_relative_to(folder)
        elif inside and key == "Size":
            mapped += _bytes(value)
        elif inside and key == "Rss":
            resident += _bytes(value)
    return Mapped(mapped, resident)


def _peak_by_getrusage() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes 40 ms

    try:
        return version(package)
    except PackageNotFoundError:  # run from its folder, not installed
        return "unknown"


def _bytes(kilobytes: str) -> int:
    """The kernel writes "1234 kB" and means KiB."""
    return int(kilobytes.split()[0]) * 1024
