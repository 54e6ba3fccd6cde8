"""What was found fastest on a device, and where the runtime finds it.

`seq2edge profile --tune` writes a tuning beside the bundle's files or, where that
folder can't be written, into the user's cache. It is no part of the bundle: no manifest
lists it, and no hash covers it. It counts only on the device, with the onnxruntime and
for the bundle that were measured; elsewhere it is passed over, so that a bundle may be
copied together with it.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from seq2edge.runtime import schema
from seq2edge.runtime.bundle import Bundle, read_json
from seq2edge.runtime.errors import BundleError, ConfigError, OutputError
from seq2edge.runtime.resources import processor_name, usable_cores
from seq2edge.runtime.tuned import places

if TYPE_CHECKING:  # slow to import, and `inspect` seldom needs it
    from seq2edge.runtime.sessions import EngineOptions

_MEND = "remove it, or make it anew with `seq2edge profile BUNDLE --tune`"


@dataclass(frozen=True)
class Setting:
    """Those of the EngineOptions that a tuning chooses."""

    threads: int
    spinning: bool
    arena: bool
    speculates: bool

    def __post_init__(self) -> None:
        """Refuse what no engine could do."""
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}, and must be at least 1")

    @classmethod
    def of(cls, options: "EngineOptions") -> "Setting":
        """What the options say of it."""
        return cls(
            **{field.name: getattr(options, field.name) for field in fields(cls)}
        )

    @property
    def options(self) -> "EngineOptions":
        """The options of an engine, all others at their defaults."""
        from seq2edge.runtime.sessions import EngineOptions

        return EngineOptions(**asdict(self))

    @property
    def text(self) -> str:
        """The threads, and what isn't usual: "2 threads, spinning, no arena"."""
        parts = [f"{self.threads} thread{'s' * (self.threads > 1)}"]
        parts += ["spinning"] * self.spinning
        parts += ["no arena"] * (not self.arena)
        parts += ["no drafts"] * (not self.speculates)
        return ", ".join(parts)


@dataclass(frozen=True)
class Device:
    """What decides which setting is the fastest."""

    processor: str
    cores: int  # that the process may use
    onnxruntime: str

    @classmethod
    def here(cls) -> "Device":
        """The one that this runs on."""
        from seq2edge.runtime.sessions import ONNXRUNTIME

        return cls(processor_name(), usable_cores(), ONNXRUNTIME)

    def differences(self, here: "Device") -> Iterator[str]:
        """What makes another device of it, a phrase each."""
        if self.processor != here.processor:
            yield f"on {self.processor}, and this is {here.processor}"
        if self.cores != here.cores:
            yield f"with {self.cores} core(s), where {here.cores} may be used here"
        if _minor(self.onnxruntime) != _minor(here.onnxruntime):
            yield f"with onnxruntime {self.onnxruntime}, and this is {here.onnxruntime}"


@dataclass(frozen=True)
class Work:
    """What was measured."""

    sentences: int
    batch_size: int
    beam_size: int | None  # None: labels, which no search finds
    rounds: int


@dataclass(frozen=True)
class Trial:
    """A setting that was tried, and what came of it."""

    setting: Setting
    median_ms: float | None  # of a call; None: refused before it was measured
    # Of its time to the default's, by way of the setting that it was measured against,
    # in the same rounds.
    ratio: float | None
    kept: bool
    why: str


@dataclass(frozen=True)
class Tuning:
    """The record of a tuning; tuning.json is its JSON."""

    bundle: str  # the fingerprint of the bundle that was measured
    device: Device
    work: Work
    chosen: Setting
    trials: tuple[Trial, ...]  # in their order; the first is the default


@dataclass(frozen=True)
class Found:
    """A tuning in its place."""

    path: Path
    tuning: Tuning
    obstacle: str  # why it doesn't apply here; empty where it does


def applying(bundle: Bundle) -> Found | None:
    """The tuning that counts here; BundleError if a damaged one is in the way."""
    return next((found for found in find(bundle) if not found.obstacle), None)


def find(bundle: Bundle) -> Iterator[Found]:
    """Every tuning of a bundle, in the order in which they are looked for."""
    for path in places(bundle):
        if os.path.isfile(path):  # False, too, where the folder may not be read
            tuning = read(path)
            yield Found(path, tuning, _obstacle(tuning, bundle))


def read(path: Path) -> Tuning:
    """Parse a file; BundleError says what is wrong with it."""
    try:
        return schema.parse(Tuning, read_json(path, _MEND))
    except schema.SchemaError as error:
        raise BundleError(f"{path} is no tuning: {error}; {_MEND}") from None


def save(tuning: Tuning, bundle: Bundle) -> Path:
    """Write it into the bundle's folder, or else into the user's cache; says where."""
    text = json.dumps(schema.to_json(tuning), indent=2, ensure_ascii=False) + "\n"
    faults = []
    for path in places(bundle):
        try:
            _write(path, text)
        except OSError as error:
            faults.append(f"{path.parent} ({error.strerror})")
        else:
            return path
    raise OutputError(
        f"the tuning can't be written to {' or '.join(faults)}; make one of these "
        "writable, or name another cache in XDG_CACHE_HOME"
    )


def _obstacle(tuning: Tuning, bundle: Bundle) -> str:
    differences = [*tuning.device.differences(Device.here())]
    if tuning.bundle != bundle.fingerprint():
        differences.append("with another bundle")
    return f"measured {'; '.join(differences)}" if differences else ""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _minor(version: str) -> list[str]:
    """1.32 of 1.32.0: what may bring other kernels."""
    return version.split(".")[:2]
