"""What the graphs say of themselves, and a bundle of its origin."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import onnx
from onnx import ModelProto

from seq2edge.export.spec import ModelSpec

DOCS = {
    "encoder": "Inputs to memory.* (read by every step) and the first state.*, or to "
    "output.*",
    "decoder.greedy": "One step: the best next token of each row",
    "decoder.beam": "One step: the `count` best next tokens of each row, the state "
    "reordered by `parents` before it",
    "decoder.scores": "One step: the log-probabilities of all next tokens, the state "
    "reordered by `parents` before it",
    "decoder.attention": "One step: as decoder.beam, with the attention of each row",
    "decoder.draft": "Up to `steps` steps at once: the best next token among the "
    "`candidates` in each, and what the output layer would have read",
    "decoder.verify": "The output layer: the best token of each row of `hidden`",
    "decoder.shortlist": "What the `candidates` need of the output layer",
    "decoder.ahead": "Up to `steps` steps of greedy search at once, among `candidates`",
    "decoder.beam_ahead": "Up to `steps` steps of beam search at once, of one sentence",
    "decoder.stream": "One position of the input: the logits of its labels",
}
PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy")


def describe(model: ModelProto, graph: str, spec: ModelSpec, precision: str) -> None:
    """Write producer, documentation and properties into a graph."""
    model.producer_name = "seq2edge"
    model.producer_version = _version("seq2edge")
    model.graph.name = graph
    model.doc_string = f"{spec.name}: {DOCS[graph]}."
    known = {k: v for k, v in spec.provenance.items() if isinstance(v, str) and v}
    properties = {"name": spec.name, "precision": precision, **known}
    onnx.helper.set_model_props(model, properties)


def provenance(spec: ModelSpec) -> Mapping[str, object]:
    """Origin of the model, versions of what made the bundle, and when."""
    return {
        **spec.provenance,
        "made_by": f"seq2edge {_version('seq2edge')}",
        "versions": {name: _version(name) for name in PACKAGES},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
