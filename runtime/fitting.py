"""A bundle and the processor it has come to: right results first, then speed.

8-bit products overflow on x86 without VNNI (`Processor.saturates`). onnxruntime has a
way out, `session.x64quantprecision`: it takes the weights as unsigned, for kernels that
add in 32 bits. That reaches every operator of a graph itself and none inside a Loop or
a Scan, so a draft is then not asked, and a bundle with a Scan is refused. docs/int8.md
says what was measured, `benchmarks/saturation.py` is how.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.processor import Processor

if TYPE_CHECKING:
    from seq2edge.runtime.bundle import Bundle
    from seq2edge.runtime.sessions import EngineOptions

UNSIGNED_WEIGHTS = "session.x64quantprecision"
_FAMILIES = {"x86": "x86", "arm": "Arm"}  # that the names of targets begin with


def fitted(bundle: "Bundle", options: "EngineOptions") -> "EngineOptions":
    """The options by which this bundle is right here; BundleError if it can't be.

    Warns where it will be slow.
    """
    quantization = bundle.manifest.quantization or {}
    family = str(quantization.get("target")).partition("-")[0]
    wide = quantization.get("product_bits") == 8
    if not wide and family not in _FAMILIES:
        return options
    processor = Processor.here()
    if wide and processor.saturates:
        return _without_overflow(bundle, options)
    if family in _FAMILIES and processor.family not in (family, "unknown"):
        _warn(
            "%s was exported for %s and may be slow on this processor; "
            "export it with --target native here",
            bundle.path,
            _FAMILIES[family],
        )
    return options


def _without_overflow(bundle: "Bundle", options: "EngineOptions") -> "EngineOptions":
    advice = "export it with --target x86-avx2 or portable"
    if "scan" in _forms(bundle.manifest.quantization or {}):
        raise BundleError(
            f"{bundle.path} has 8-bit products in a recurrence, which overflow on an "
            f"x86 processor without VNNI, as this one is or may be; {advice}"
        )
    _warn(
        "%s has 8-bit products, which overflow on an x86 processor without VNNI, as "
        "this one is or may be: they are computed in a slower way; %s",
        bundle.path,
        advice,
    )
    entries = {**dict(options.session_entries), UNSIGNED_WEIGHTS: "1"}
    return replace(options, speculates=False, session_entries=tuple(entries.items()))


def _warn(message: str, *details: object) -> None:
    import logging  # 5 ms of a start that warns of nothing

    logging.getLogger(__name__).warning(message, *details)


def _forms(quantization: Mapping[str, object]) -> set[str]:
    """The forms that the weights of a bundle have."""
    weights = quantization.get("quantized")
    entries = weights if isinstance(weights, list | tuple) else []
    listed = [entry["forms"] for entry in entries if isinstance(entry, Mapping)]
    return {form for forms in listed for form in forms}
