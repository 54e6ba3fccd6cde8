"""The graphs of a module, traced as an export does before it changes them."""

from collections.abc import Sequence
from typing import Any

from onnx import ModelProto

from seq2edge.export import Sample
from seq2edge.export.dummies import Dummies
from seq2edge.export.examine import Subject, examine, traced_with
from seq2edge.export.graphs import Contract
from seq2edge.export.trace import trace_encoder, trace_step
from seq2edge.runtime.inputs import SOURCE


def traced(
    module: Any, sources: Sequence[Sequence[int]], start: int
) -> tuple[ModelProto, ModelProto, Contract]:
    """Encoder, step and contract of a module that reads one sequence of tokens."""
    examples = Sample.of_ids(sources).examples
    subject = Subject(module, "generation", Dummies.of(examples, [SOURCE]), start)
    contract, example = examine(subject), traced_with(subject, 3, 7, 2)
    encoder = trace_encoder(module, contract, example)
    return encoder, trace_step(module, contract, example), contract
