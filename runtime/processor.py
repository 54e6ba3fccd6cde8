"""The processor at hand, as far as 8-bit products must know it; the standard library's.

Linux lists a processor's instructions in /proc/cpuinfo, macOS answers sysctlbyname.
Elsewhere, and where neither can be read, only the family is known, and nothing is said
to be there that wasn't seen.
"""

import ctypes
import functools
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Family = Literal["x86", "arm", "unknown"]

CPUINFO = Path("/proc/cpuinfo")
# Instructions that add the products of bytes in 32 bits, as Linux names them.
VNNI = ("avx512_vnni", "avx_vnni")
DOT_PRODUCT, MATRIX_PRODUCT = "asimddp", "i8mm"
_MACOS = {  # Apple's name to Linux's
    "hw.optional.arm.FEAT_DotProd": DOT_PRODUCT,
    "hw.optional.arm.FEAT_I8MM": MATRIX_PRODUCT,
}
_FAMILIES: dict[str, Family] = {
    "x86_64": "x86",
    "amd64": "x86",
    "i386": "x86",
    "i686": "x86",
    "aarch64": "arm",
    "arm64": "arm",
}


@dataclass(frozen=True)
class Processor:
    """Its family, and its instructions as Linux names them; None where none is told."""

    family: Family
    instructions: frozenset[str] | None

    @classmethod
    def here(cls) -> "Processor":
        """The one that this process runs on."""
        return _here()

    def has(self, *names: str) -> bool:
        """Whether it is known to have one of these instructions."""
        return not (self.instructions or frozenset()).isdisjoint(names)

    @property
    def saturates(self) -> bool:
        """Whether products of uint8 by 8-bit weights may overflow here.

        onnxruntime's kernels for x86 add pairs of products in 16 bits unless there is
        VNNI: 255 * 127 * 2 is cut to 32,767 and nobody is told. Those for Arm don't.
        """
        return self.family == "x86" and not self.has(*VNNI)


@functools.cache
def _here() -> Processor:
    family = _FAMILIES.get(platform.machine().lower(), "unknown")
    if sys.platform == "darwin":
        return Processor(family, macos_instructions(_sysctl()))
    return Processor(family, linux_instructions(fields(CPUINFO)))


def linux_instructions(processor: dict[str, str]) -> frozenset[str] | None:
    """Of the fields of /proc/cpuinfo: x86 calls them flags, Arm Features."""
    listed = processor.get("flags") or processor.get("Features")
    return frozenset(listed.split()) if listed else None


def macos_instructions(sysctl: Callable[[str], int | None]) -> frozenset[str] | None:
    """Of what sysctl says to each name; None where it knows none of them."""
    found = {ours: sysctl(name) for name, ours in _MACOS.items()}
    if all(value is None for value in found.values()):
        return None
    return frozenset(name for name, value in found.items() if value)


def _sysctl() -> Callable[[str], int | None]:
    library = ctypes.CDLL(None)

    def ask(name: str) -> int | None:
        value = ctypes.c_int(0)
        size = ctypes.c_size_t(ctypes.sizeof(value))
        failed = library.sysctlbyname(
            name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0
        )
        return None if failed else value.value

    return ask


def fields(path: Path) -> dict[str, str]:
    """The first value of each "name: value" line; nothing where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in reversed(lines))
    return {name.strip(): value.strip() for name, _, value in pairs}
