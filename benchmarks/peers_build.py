"""What the contenders of peers.py read: a MarianMT folder in everyone's own form."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from peers_process import Entry

OURS = ("*.onnx", "*.bin")  # graphs and weights of a bundle
EXACT = "seq2edge fp32"
PEER = "CTranslate2"
REFERENCE = "transformers fp32"


def named_bundles(given: Sequence[str]) -> dict[str, Path]:
    """NAME=PATH to bundles that are ready, by the contender's name."""
    bundles = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or not Path(path, "manifest.json").is_file():
            raise SystemExit(f"--bundle {one}: give NAME=PATH, the path of a bundle")
        bundles[f"seq2edge {name}"] = Path(path)
    return bundles


def our_entries(
    checkpoint: Path, work: Path, precisions: Sequence[str], ready: Mapping[str, Path]
) -> Iterator[Entry]:
    """A bundle of each precision, and those that are ready, which may replace one."""
    built = {f"seq2edge {precision}": precision for precision in precisions}
    for name in {**built, **ready}:
        folder = ready.get(name) or _export(checkpoint, work, built[name])
        exact = None if name == EXACT else EXACT
        yield Entry(name, "peers_contenders.Seq2edge", folder, OURS, exact)


def _export(checkpoint: Path, work: Path, precision: str) -> Path:
    from seq2edge.export import ExportOptions, export_checkpoint

    folder = work / f"seq2edge-{precision}"
    export_checkpoint(checkpoint, folder, ExportOptions(precision, force=True))
    return folder


def peer_entries(checkpoint: Path, work: Path) -> Iterator[Entry]:
    """The other libraries, each through its own converter."""
    kind = "peers_contenders.CTranslate2"
    for precision, exact in (("fp32", None), ("int8", f"{PEER} fp32")):
        folder = _convert(checkpoint, work, precision)
        yield Entry(f"{PEER} {precision}", kind, folder, ("model.bin",), exact)
    files = ("encoder_model.onnx", "decoder_model_merged.onnx")
    folder = _export_with_optimum(checkpoint, work)
    yield Entry("Optimum fp32", "peers_contenders.Optimum", folder, files)
    kind = "peers_contenders.Transformers"
    yield Entry(REFERENCE, kind, checkpoint, ("*.safetensors",))


def _convert(checkpoint: Path, work: Path, precision: str) -> Path:
    from ctranslate2.converters import TransformersConverter

    folder = work / f"ctranslate2-{precision}"
    quantization = {"fp32": "float32"}.get(precision, precision)
    converter = TransformersConverter(str(checkpoint))
    converter.convert(str(folder), quantization=quantization, force=True)
    return folder


def _export_with_optimum(checkpoint: Path, work: Path) -> Path:
    from optimum.exporters.onnx import main_export

    folder = work / "optimum"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, on transformers' own code
        main_export(
            str(checkpoint), output=folder, task="text2text-generation-with-past"
        )
    return folder


def about_marian(checkpoint: Path) -> dict[str, Any]:
    """The sizes of the model."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    keys = ("d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim")
    sizes = {key: config[key] for key in (*keys, "vocab_size")}
    return {"name": checkpoint.name, "parameters": count_weights(checkpoint)} | sizes


def count_weights(checkpoint: Path) -> int:
    """Numbers in the checkpoint's safetensors files; a shared table is there once."""
    from safetensors import safe_open

    total = 0
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            total += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return total
