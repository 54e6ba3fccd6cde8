"""What the contenders of peers.py read: a MarianMT folder in everyone's own form."""

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from peers_process import Entry

OURS = ("*.onnx", "*.bin")  # graphs and weights of a bundle
EXACT = "seq2edge fp32"
MAPPED = ("model.bin", "vmap.txt")
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


def peer_entries(
    checkpoint: Path, work: Path, ready: Mapping[str, Path]
) -> Iterator[Entry]:
    """The other libraries, each through its own converter.

    Where one of our bundles chooses among a shortlist, CTranslate2 gets it too.
    """
    kind, exact = "peers_contenders.CTranslate2", f"{PEER} fp32"
    for precision in ("fp32", "int8"):
        folder = _convert(checkpoint, work, precision)
        known = None if precision == "fp32" else exact
        yield Entry(f"{PEER} {precision}", kind, folder, ("model.bin",), known)
    for bundle in ready.values():
        if (bundle / "decoder.shortlist.onnx").is_file():
            listed = _with_vocabulary_map(folder, bundle)
            yield Entry(f"{PEER} int8, our shortlist", kind, listed, MAPPED, exact)
            break
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


def _with_vocabulary_map(model: Path, bundle: Path) -> Path:
    """A copy that chooses among a bundle's shortlist, as CTranslate2 reads one.

    Lines of a source token, TAB, and what it may become; of no token: what always may.
    """
    from seq2edge.runtime.shortlist import Shortlist

    folder = model.with_name(f"{model.name}-shortlist")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    text = (model / "shared_vocabulary.json").read_text(encoding="utf-8")
    pieces = json.loads(text)
    shortlist = Shortlist.load(bundle / "shortlist.npy")
    ends = np.cumsum(shortlist.counts, dtype=np.int64)
    lists = np.split(shortlist.of_source, ends[:-1])
    lines = [
        f"{source}\t{' '.join(pieces[token] for token in its if token < len(pieces))}"
        for source, its in zip(["", *pieces], [shortlist.common, *lists], strict=False)
        if len(its)
    ]
    (folder / "vmap.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
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
