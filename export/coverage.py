"""What quantization reached: every distinct weight, in which form or why not."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Placed:
    """One distinct weight of the float model; without forms it stayed float."""

    name: str
    bytes: int
    forms: tuple[str, ...]
    reason: str = ""  # why it stayed float


@dataclass
class Ledger:
    """Weights by content, since a tied one has a name in each graph."""

    entries: dict[bytes, Placed] = field(default_factory=dict)

    def quantized(self, name: str, weight: FloatArray, form: str) -> None:
        """Note a form that a weight got; it may get several."""
        old = self.entries.get(digest(weight))
        forms = dict.fromkeys([*(old.forms if old else ()), form])
        self._enter(name, weight, tuple(forms), "")

    def skipped(self, name: str, weight: FloatArray, reason: str) -> None:
        """Note a weight that stays float, unless another graph quantized it."""
        if digest(weight) not in self.entries:
            self._enter(name, weight, (), reason)

    def placed(self) -> tuple[Placed, ...]:
        """Largest first."""
        return tuple(sorted(self.entries.values(), key=lambda entry: -entry.bytes))

    def _enter(
        self, name: str, weight: FloatArray, forms: tuple[str, ...], reason: str
    ) -> None:
        old = self.entries.get(digest(weight))
        name = old.name if old else name
        self.entries[digest(weight)] = Placed(name, weight.nbytes, forms, reason)


def coverage(weights: Iterable[Placed]) -> dict[str, object]:
    """The report for the manifest: shares of weight bytes, and what was left out."""
    weights = list(weights)
    total = sum(weight.bytes for weight in weights)
    quantized = sum(weight.bytes for weight in weights if weight.forms)
    return {
        "weight_bytes": total,
        "quantized_bytes": quantized,
        "share": round(quantized / total, 4) if total else 0.0,
        "quantized": [
            {"weight": weight.name, "bytes": weight.bytes, "forms": [*weight.forms]}
            for weight in weights
            if weight.forms
        ],
        "skipped": [
            {"weight": weight.name, "bytes": weight.bytes, "reason": weight.reason}
            for weight in weights
            if not weight.forms
        ],
    }


def digest(weight: FloatArray) -> bytes:
    """The same for equal contents."""
    return hashlib.sha256(np.ascontiguousarray(weight).tobytes()).digest()
