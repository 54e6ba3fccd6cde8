"""The attention on its way to ONNX: what it says, what it costs, what is refused."""

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from test_models_structures import writer
from torch import Tensor, nn
from toy_modules import (
    END,
    START,
    VOCABULARY,
    AligningGru,
    AttentiveGru,
    build,
    subject,
)

from seq2edge.export import ModelSpec, Sample, export_model
from seq2edge.export.dependence import check_dependence
from seq2edge.export.examine import examine, traced_with
from seq2edge.export.graphs import Contract
from seq2edge.export.heads import HEADS, heads_of
from seq2edge.export.quantize import encoder_activations, product_inputs, quantize
from seq2edge.export.recipe import Calibration, Recipe
from seq2edge.export.trace import trace_encoder, trace_step
from seq2edge.models.recurrent_config import CONTEXTS
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime.engine import Engine
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.inputs import SOURCE, collate
from seq2edge.runtime.manifest import Limits
from seq2edge.runtime.vocabulary import Vocabulary

Tensors = dict[str, Tensor]
SENTENCES = [[3, 4, 5, END], [6, 7, 8, 9, 10, END], [12, 11, END]]
KINDS = ("additive", "dot", "general", "scaled_dot", "multi_head")
ALIKE = ("general", "scaled_dot")  # what is shown of them is that of "dot"
ORDINARY = ("greedy", "beam", "scores")


@functools.cache
def decoder_of(kind: Any) -> ModelProto:
    """The step of a toy."""
    module = build(kind)
    examined = subject(module, SENTENCES, START)
    return trace_step(module, examine(examined), traced_with(examined, 3, 7, 2))


@functools.cache
def encoder() -> ModelProto:
    """The encoder of both toys."""
    module = build(AligningGru)
    examined = subject(module, SENTENCES, START)
    return trace_encoder(module, examine(examined), traced_with(examined, 3, 7, 2))


def int8(encoder: ModelProto, decoder: ModelProto) -> ModelProto:
    """The decoder quantized, all ranges being the same."""
    recipe = Recipe(smallest=100)
    ranges = Calibration(
        dict.fromkeys(encoder_activations(encoder, recipe), (-1.0, 1.0)),
        dict.fromkeys(product_inputs(decoder, recipe), (-1.0, 1.0)),
    )
    quantized = quantize(encoder, decoder, ranges, recipe).decoder
    assert quantized is not None
    return quantized


def shape_of(model: ModelProto) -> list[object]:
    """Nodes, ports and weights in their order, inner names replaced by numbers."""
    graph = model.graph
    weights = {tensor.name: tensor.SerializeToString() for tensor in graph.initializer}
    ports = (*graph.input, *graph.output)
    names = {value.name: value.name for value in ports} | {"": ""}

    def read(name: str) -> object:
        if name not in weights:
            return names.setdefault(name, f"value {len(names)}")
        return weights[name].replace(name.encode(), b"")

    return [value.SerializeToString() for value in ports] + [
        (
            node.op_type,
            [read(name) for name in node.input],
            [read(name) for name in node.output],
            [attribute.SerializeToString() for attribute in node.attribute],
        )
        for node in graph.node
    ]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_other_heads_are_those_of_a_module_without_it(precision: str) -> None:
    decoders = [decoder_of(kind) for kind in (AligningGru, AttentiveGru)]
    if precision == "int8":
        decoders = [int8(encoder(), decoder) for decoder in decoders]
    aligning, plain = decoders
    assert list(heads_of(aligning, "generation")) == [*ORDINARY, "attention"]
    assert list(heads_of(plain, "generation")) == list(ORDINARY)
    for name in ORDINARY:
        make = HEADS["generation"][name]
        assert shape_of(make(aligning)) == shape_of(make(plain))
    shown = HEADS["generation"]["attention"](aligning)
    assert len(shown.graph.node) > len(HEADS["generation"]["beam"](plain).graph.node)


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        pytest.param(kind, context, marks=[pytest.mark.slow] * (kind in ALIKE))
        for kind, context in zip(KINDS, itertools.cycle(CONTEXTS), strict=False)
    ],
)
def test_onnx_shows_what_torch_shows(kind: str, context: str) -> None:
    layers = 2 if context == "upper" else 1
    module = writer(
        attention=kind, context=context, attention_heads=2, decoder_layers=layers
    )
    examined = subject(module, [[4, 5, 3], [6, 7, 8, 9, 10, 3], [3]], 2)
    contract = examine(examined)
    assert contract.attention is not None
    assert contract.attention.shape == ("rows", "source")
    decoder = trace_step(module, contract, traced_with(examined, 3, 7, 2))
    head = heads_of(decoder, "generation")["attention"](decoder)
    session = onnxruntime.InferenceSession(head.SerializeToString())
    other = traced_with(examined, 2, 5, 3)  # sizes that were not traced
    feed = {"token": other.token, "parents": torch.tensor([1, 0, 0, 5, 4, 3])}
    feed |= {f"memory.{name}": part for name, part in other.memory.items()}
    feed |= {f"state.{name}": part for name, part in other.state.items()}
    arrays = {name: part.numpy() for name, part in feed.items()}
    arrays["count"] = np.array([2])
    names = [port.name for port in session.get_inputs()]
    [found] = session.run(["attention"], {name: arrays[name] for name in names})
    state = {name: part[feed["parents"]] for name, part in other.state.items()}
    assert module.step_with_attention is not None
    with torch.no_grad():
        _, expected, _ = module.step_with_attention(other.token, other.memory, state)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)


class Spoilt(AligningGru):
    """Shows something else than its attention."""

    def spoil(self, attention: Tensor, memory: Tensors) -> Any:
        return attention

    def step_with_attention(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        logits, attention, following = super().step_with_attention(token, memory, state)
        return logits, self.spoil(attention, memory), following


class Doubles(Spoilt):
    def spoil(self, attention: Tensor, memory: Tensors) -> Any:
        return attention.double()


class ShowsBatches(Spoilt):
    def spoil(self, attention: Tensor, memory: Tensors) -> Any:
        return attention[:, None]


class ShowsEnergies(Spoilt):
    def spoil(self, attention: Tensor, memory: Tensors) -> Any:
        return attention * 2


class ShowsNegatives(Spoilt):
    def spoil(self, attention: Tensor, memory: Tensors) -> Any:
        moved = torch.tensor([-1.0, 1.0] + [0.0] * (attention.shape[1] - 2))
        return attention + moved


class ShowsPadding(Spoilt):
    def spoil(self, attention: Tensor, memory: Tensors) -> Any:
        return torch.full_like(attention, 1 / attention.shape[1])


class SaysOtherwise(AligningGru):
    def step_with_attention(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        logits, attention, following = super().step_with_attention(token, memory, state)
        return logits + 1, attention, following


class LosesItsState(AligningGru):
    def step_with_attention(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        logits, attention, _ = super().step_with_attention(token, memory, state)
        return logits, attention, {}


class ReturnsTwo(AligningGru):
    def step_with_attention(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> Any:
        return self.step(token, memory, state)


class Raises(AligningGru):
    def step_with_attention(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> Any:
        raise RuntimeError("no idea\nat all")


def check(module: nn.Module) -> Contract:
    examined = subject(module, SENTENCES, START)
    contract = examine(examined)
    check_dependence(examined)
    return contract


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Doubles, "attention is no tensor of float32"),
        (
            ShowsBatches,
            r"attention has shape \(3, 1, 7\) for 3 rows and sequences of 7",
        ),
        (
            ShowsEnergies,
            "rows sum to 2 to 2, and its least value is 0; give what a sof",
        ),
        (
            ShowsNegatives,
            r"sum to 1 to 1, and its least value is -.*; give what a softmax",
        ),
        (ShowsPadding, r"the attention has 0\.14 on padding; mask it before"),
        (SaysOtherwise, "logits of step_with_attention is not what step gives"),
        (LosesItsState, "hidden of step_with_attention is not what step gives"),
        (ReturnsTwo, r"returned tuple; return \(logits, attention, next state\)"),
        (
            Raises,
            r"step_with_attention fails on token \(3,\), .*RuntimeError: no idea$",
        ),
    ],
)
def test_a_broken_rule_is_named(kind: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check(build(kind))


def test_an_honest_module_passes() -> None:
    assert check(build(AligningGru)).attention is not None
    assert check(build(AttentiveGru)).attention is None


class Tied(nn.Module):
    """Its one weight bears the name of the graph's output."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Parameter(torch.randn(VOCABULARY, 4))

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Tensors, Tensors]:
        positions = torch.arange(source.shape[1])
        mask = (positions >= source_lengths[:, None]) * -1e9
        values = self.attention[source]
        return {"values": values, "mask": mask}, {"last": values[:, 0]}

    def step_with_attention(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        values, mask = memory["values"], memory["mask"]
        last = state["last"] + self.attention[token]
        query = last.reshape(values.shape[0], -1, 4)
        weights = (query @ values.transpose(1, 2) + mask[:, None]).softmax(-1)
        read = (weights @ values).flatten(0, 1)
        return read @ self.attention.T, weights.flatten(0, 1), {"last": last}

    def step(
        self, token: Tensor, memory: Tensors, state: Tensors
    ) -> tuple[Tensor, Tensors]:
        logits, _, following = self.step_with_attention(token, memory, state)
        return logits, following


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied") / "bundle"
    spec = ModelSpec("tied", Vocabulary(VOCABULARY, 0, 3, START, END), Limits(20, 20))
    export_model(build(Tied), Sample.of_ids(SENTENCES), folder, spec)
    return folder


def test_an_exported_bundle_shows_what_torch_shows(exported: Path) -> None:
    inputs = collate([{"source": np.array(ids)} for ids in SENTENCES], [SOURCE])
    sides = [
        stepper.start(inputs)
        for stepper in (Engine.load(exported), TorchStepper(build(Tied)))
    ]
    tokens, parents = np.array([START] * 3), None
    for _ in range(3):
        ours, torchs = (side.attended(tokens, parents, 2) for side in sides)
        np.testing.assert_array_equal(ours[1], torchs[1])
        for place in (0, 2):
            np.testing.assert_allclose(ours[place], torchs[place], rtol=0, atol=1e-5)
        np.testing.assert_allclose(ours[2].sum(axis=1), 1, atol=1e-6)
        tokens, parents = ours[1][:, 0].copy(), np.array([0, 1, 2])
