"""Products with contexts that move to the encoder change nothing but where they are."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn
from toy_modules import END, START, AttentiveGru, build
from traced import traced

from seq2edge.export import context
from seq2edge.export.context import multiply_before_mixing
from seq2edge.export.graphs import Contract
from seq2edge.models.build import build_model
from seq2edge.models.recurrent_config import RecurrentConfig

Array = NDArray[Any]
Pair = tuple[ModelProto, ModelProto, Contract]
SENTENCES = [[3, 4, 5, END], [6, 7, 8, 9, 10, END]]
SIZES: dict[str, Any] = {
    "source_vocabulary": 30,
    "target_vocabulary": 30,
    "embedding_size": 10,
    "encoder_hidden": 8,
    "decoder_hidden": 16,
}


@pytest.fixture(autouse=True)
def small_contexts_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "LEAST", 1)


def moved(module: Any) -> tuple[Pair, Pair]:
    before = traced(module, SENTENCES, START)
    after = multiply_before_mixing(*before)
    for model in after[:2]:
        onnx.checker.check_model(model, full_check=True)
    return before, after


def run(model: ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    taken = {port.name: inputs[port.name] for port in session.get_inputs()}
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, taken), strict=True))


def step(pair: Pair, beam: int) -> dict[str, Array]:
    """Logits and next state of a batch of two sentences, a beam each."""
    encoder, decoder, _ = pair
    source = np.array([[3, 4, 5, END, 0, 0], SENTENCES[1]])
    given = {"source": source, "source_lengths": np.array([4, 6], np.int32)}
    encoded = run(encoder, given)
    state = {k: v.repeat(beam, 0) for k, v in encoded.items() if k[:6] == "state."}
    tokens = np.arange(4, 4 + 2 * beam)
    return run(decoder, {**encoded, **state, "token": tokens})


def same(before: Pair, after: Pair) -> None:
    for beam in (1, 3):
        expected, found = step(before, beam), step(after, beam)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=3e-6)


def memory(pair: Pair) -> dict[str, Any]:
    """Sizes by name, the same in the contract and in both graphs."""
    encoder, decoder, contract = pair
    specs = {spec.name: spec.shape[-1] for spec in contract.memory}
    given = [v.name for v in encoder.graph.output if v.name.startswith("memory.")]
    read = {v.name for v in decoder.graph.input if v.name.startswith("memory.")}
    assert given == [f"memory.{name}" for name in specs]
    assert read <= {*given}
    return specs


@pytest.mark.parametrize(
    ("where", "attention", "outputs"),
    [
        # the readout alone
        pytest.param("output", "dot", 10, marks=pytest.mark.slow),
        ("upper", "general", 3 * 16 + 10),  # the gates of one layer, and the readout
        pytest.param("input", "scaled_dot", 3 * 16 + 10, marks=pytest.mark.slow),
        pytest.param("input_feeding", "additive", 10, marks=pytest.mark.slow),
    ],
)
def test_a_step_gives_what_it_gave(where: str, attention: str, outputs: int) -> None:
    config = RecurrentConfig(
        **SIZES,
        cell="gru",
        attention=attention,
        context=where,
        decoder_layers=2,
        bidirectional=True,
    )
    before, after = moved(build_model(config, seed=1).eval())
    same(before, after)
    left, made = memory(before), memory(after)
    assert made.pop("values_projected") == outputs
    if attention in ("dot", "scaled_dot"):  # its keys are the values themselves
        assert made == left
    else:
        assert {**made, "values": 16} == left


@pytest.mark.slow  # each exports a model of three layers
@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_every_cell_is_one(cell: str) -> None:
    config = RecurrentConfig(
        **SIZES, cell=cell, attention="general", context="upper", decoder_layers=3
    )
    before, after = moved(build_model(config, seed=2).eval())
    same(before, after)
    gates = {"elman": 1, "lstm": 4}[cell]
    width = 2 * gates * 16 + 10
    if width <= context.WIDEST * 16:
        assert memory(after)["values_projected"] == width
    else:  # a batch would read more than it saves
        assert memory(after) == memory(before)


def test_several_heads_join_their_contexts_and_stay() -> None:
    config = RecurrentConfig(
        **SIZES, cell="gru", attention="multi_head", attention_heads=2
    )
    before, after = moved(build_model(config, seed=1).eval())
    assert memory(after) == memory(before)


@cache
def attentive() -> Pair:
    return traced(build(AttentiveGru), SENTENCES, START)


def test_a_module_of_ones_own() -> None:
    before = attentive()
    after = multiply_before_mixing(*before)
    same(before, after)
    assert "values_projected" in memory(after)


class Watched(AttentiveGru):
    """Its context is read by more than products."""

    def step(self, token: Tensor, memory: Any, state: Any) -> Any:
        logits, following = super().step(token, memory, state)
        batch = memory["values"].shape[0]
        queries = state["hidden"].reshape(batch, -1, 14)
        energies = queries @ memory["keys"].transpose(1, 2)
        context = torch.softmax(energies, -1) @ memory["values"]
        return logits + torch.tanh(context).sum(-1).reshape(-1, 1), following


class Alone(nn.Module):
    """The first input of what is multiplied is the context; there is no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 12)
        self.start = nn.Linear(12, 9)
        self.join = nn.Linear(12 + 9, 9, bias=False)
        self.output = nn.Linear(9, 50)

    def encode(self, source: Tensor, source_lengths: Tensor) -> Any:
        values = self.embedding(source)
        steps = torch.arange(source.shape[1])
        mask = (steps[None] >= source_lengths[:, None]).float() * -1e9
        mean = (values * (mask == 0)[..., None]).sum(1) / source_lengths[:, None]
        return {"values": values, "mask": mask}, {"hidden": self.start(mean)}

    def step(self, token: Tensor, memory: Any, state: Any) -> Any:
        values, batch = memory["values"], memory["values"].shape[0]
        queries = self.embedding(token).reshape(batch, -1, 12)
        energies = queries @ values.transpose(1, 2) + memory["mask"][:, None]
        context = torch.softmax(energies, -1) @ values
        hidden = state["hidden"].reshape(batch, -1, 9)
        joined = torch.tanh(self.join(torch.cat([context, hidden], -1)))
        following = joined.reshape(-1, 9)
        return self.output(following), {"hidden": following}


def test_a_context_with_another_reader_stays() -> None:
    before, after = moved(build(Watched))
    assert memory(after) == memory(before)


def test_contexts_of_three_axes_and_in_front() -> None:
    before, after = moved(build(Alone))
    same(before, after)
    assert memory(after)["values_projected"] == 9


def test_what_saves_little_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = attentive()
    assert multiply_before_mixing(*before) != before
    monkeypatch.setattr(context, "WIDEST", 0.5)
    assert multiply_before_mixing(*before) == before
    monkeypatch.undo()
    assert multiply_before_mixing(*before) == before  # far fewer than LEAST weights


def test_a_name_that_is_taken_stays_what_it_is() -> None:
    encoder, decoder, contract = attentive()
    also = replace(contract.memory[0], name="values_projected")
    taken = replace(contract, memory=(*contract.memory, also))
    assert multiply_before_mixing(encoder, decoder, taken) == (encoder, decoder, taken)


def test_other_graphs_stay_as_they_are() -> None:
    encoder, decoder, contract = attentive()
    wide = replace(contract.memory[0], shape=("batch", 20))
    none = replace(contract, memory=(wide, *contract.memory[1:]))
    assert multiply_before_mixing(encoder, decoder, none) == (encoder, decoder, none)
