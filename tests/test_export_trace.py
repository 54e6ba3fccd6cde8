from functools import cache
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from toy_modules import END, START, TOYS, VOCABULARY, AttentiveGru, build
from traced import traced

from seq2edge.runtime.errors import ExportError

Named = dict[str, Tensor]
SENTENCES = [[3, 4, 5, END], [6, 7, 8, 9, 10, END]]


def axes(value: onnx.ValueInfoProto) -> list[str | int]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in dims]


def trace(module: Any) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    encoder, decoder, _ = traced(module, SENTENCES, START)
    return encoder, decoder


@cache
def traced_toy(kind: Any) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return trace(build(kind))


def test_every_axis_of_batch_rows_and_length_is_free_and_named() -> None:
    encoder, decoder = traced_toy(AttentiveGru)
    declared = {v.name: axes(v) for v in (*encoder.graph.input, *encoder.graph.output)}
    assert declared == {
        "source": ["batch", "source"],
        "source_lengths": ["batch"],
        "memory.values": ["batch", "source", 20],
        "memory.keys": ["batch", "source", 14],
        "memory.mask": ["batch", "source"],
        "state.hidden": ["batch", 14],
    }
    declared = {v.name: axes(v) for v in (*decoder.graph.input, *decoder.graph.output)}
    assert declared == {
        "token": ["rows"],
        "memory.values": ["batch", "source", 20],
        "memory.keys": ["batch", "source", 14],
        "memory.mask": ["batch", "source"],
        "state.hidden": ["rows", 14],
        "logits": ["rows", 50],
        "next.hidden": ["rows", 14],
    }


@pytest.mark.parametrize("kind", TOYS)
def test_graphs_pass_the_checker_and_hold_no_path_of_this_machine(
    kind: Any,
) -> None:
    for model in traced_toy(kind):
        onnx.checker.check_model(model, full_check=True)
        assert b".py" not in model.SerializeToString()
        assert all(not node.metadata_props for node in model.graph.node)


def test_a_table_read_transposed_is_still_one_table() -> None:
    _, decoder = traced_toy(AttentiveGru)
    names = [tensor.name for tensor in decoder.graph.initializer]
    assert names.count("embedding.weight") == 1
    sizes = [onnx.numpy_helper.to_array(t).size for t in decoder.graph.initializer]
    assert sizes.count(VOCABULARY * 12) == 1


class Broken(nn.Module):
    """A module that keeps the contract, for others to break."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 6)

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        return {}, {"sum": self.embedding(source).sum(1)}

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        total = state["sum"] + self.embedding(token)
        return total, {"sum": total}


class CountsWithLen(Broken):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        return {}, {"sum": self.embedding(source).sum(1) + torch.ones(len(source), 1)}


class FixedBatch(Broken):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        return {}, {"sum": self.embedding(source).sum(1).reshape(3, 6)}


class BranchesOnValues(Broken):
    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        logits, following = super().step(token, memory, state)
        return (logits * 2 if bool(logits.sum() > 0) else logits), following


class TimeFirst(Broken):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        _, state = super().encode(source, source_lengths)
        return {"values": self.embedding(source).transpose(0, 1)}, state


class ForgetsState(Broken):
    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        return state["sum"], {}


class ChangesDtype(Broken):
    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        return state["sum"].float(), {"sum": state["sum"].double()}


class ReturnsList(Broken):
    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        return [self.embedding(source)], {"a": source_lengths}  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (CountsWithLen, "encode can't.*fixes axis 0 of source at 3; take sizes"),
        (FixedBatch, r"encode fails on source \(4, 11\).*reshape|shape '\[3, 6\]'"),
        (BranchesOnValues, "step can't be exported.*values of tensors"),
        (TimeFirst, r"memory 'values' has shape \(7, 3, 6\).*axis 0 must be the batch"),
        (ForgetsState, "state doesn't always have sum"),
        (ChangesDtype, "next state of step has dtype torch.float64"),
        (ReturnsList, "the memory of encode is a list"),
    ],
)
def test_a_broken_rule_is_named(kind: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        trace(kind().eval())
