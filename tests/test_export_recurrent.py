import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seq2edge.export import recurrent
from seq2edge.export.graphs import Contract, Example, examine, example
from seq2edge.export.recurrent import onnx_recurrence
from seq2edge.export.trace import trace_encoder, trace_step
from seq2edge.runtime.errors import ExportError

Named = dict[str, Tensor]
Arrays = dict[str, NDArray[np.float32]]
SENTENCES = [[3, 4, 5, 2], [6, 7, 8, 9, 10, 2], [4, 2]]


class Layer(nn.Module):
    """Embedded tokens through one recurrent layer, packed; its outputs are memory."""

    def __init__(self, layer: nn.RNNBase, padding_value: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, layer.input_size)
        self.layer = layer
        self.padding_value = padding_value

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        first = self.layer.batch_first
        embedded = self.embedding(source)
        packed = pack_padded_sequence(
            embedded if first else embedded.transpose(0, 1),
            source_lengths.cpu(),
            batch_first=first,
            enforce_sorted=False,
        )
        outputs, state = self.layer(packed)
        padded, _ = pad_packed_sequence(
            outputs,
            batch_first=True,
            padding_value=self.padding_value,
            total_length=source.shape[1],
        )
        parts = (state,) if isinstance(state, Tensor) else state
        finals = {f"final_{i}": part.transpose(0, 1) for i, part in enumerate(parts)}
        return {"outputs": padded}, finals

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        return state["final_0"].flatten(1) + token[:, None], state


class Stepwise(nn.Module):
    """Without lengths; its step is the whole layer over a sequence of one."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, layer.input_size)
        self.layer = layer

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        outputs, state = self.layer(self.embedding(source).transpose(0, 1))
        parts = (state,) if isinstance(state, Tensor) else state
        finals = {f"part_{i}": part.transpose(0, 1) for i, part in enumerate(parts)}
        return {"outputs": outputs.transpose(0, 1)}, finals

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        parts = tuple(part.transpose(0, 1).contiguous() for part in state.values())
        start = parts if len(parts) > 1 else parts[0]
        outputs, after = self.layer(self.embedding(token)[None], start)
        ends = (after,) if isinstance(after, Tensor) else after
        following = {f"part_{i}": part.transpose(0, 1) for i, part in enumerate(ends)}
        return outputs[0], following


def seeded(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    return module.eval()


def contract_and_example(module: Any) -> tuple[Contract, Example]:
    return examine(module, SENTENCES, 1), example(module, SENTENCES, 1, 3, 7, 2)


def run_encoder(model: ModelProto, source: Tensor, lengths: Tensor) -> Arrays:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    feed = {"source": source.numpy(), "source_lengths": lengths.numpy()}
    feed = {port.name: feed[port.name] for port in session.get_inputs()}
    return dict(zip(names, session.run(names, feed), strict=True))


LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "elman tanh": lambda: nn.RNN(5, 4, batch_first=True),
    "elman relu, two directions": lambda: nn.RNN(
        5, 4, 2, nonlinearity="relu", bidirectional=True, bias=False
    ),
    "gru": lambda: nn.GRU(5, 4, batch_first=True),
    "gru deep, two directions": lambda: nn.GRU(
        5, 4, 3, bidirectional=True, batch_first=True, dropout=0.5
    ),
    "gru without bias, time first": lambda: nn.GRU(5, 4, bias=False),
    "lstm deep": lambda: nn.LSTM(5, 4, 2, batch_first=True),
    "lstm, two directions": lambda: nn.LSTM(5, 4, bidirectional=True),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_packed_layers_equal_torch_on_ragged_batches_of_any_size(kind: str) -> None:
    module = seeded(Layer(LAYERS[kind]()))
    model = trace_encoder(module, *contract_and_example(module))
    assert {"RNN", "GRU", "LSTM"} & {node.op_type for node in model.graph.node}
    generator = torch.Generator().manual_seed(2)
    for lengths in ([1], [9], [2, 5, 1, 5], [3, 3, 12, 1, 7, 8]):
        shape = (len(lengths), max(lengths))
        source = torch.randint(20, shape, generator=generator)
        count = torch.tensor(lengths, dtype=torch.int32)
        with torch.no_grad():
            memory, state = module.encode(source, count)
        found = run_encoder(model, source, count)
        expected = {"memory.outputs": memory["outputs"]}
        expected |= {f"state.{name}": part for name, part in state.items()}
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_allclose(found[name], tensor, atol=1e-6, rtol=0)


def test_what_lies_in_the_padding_changes_nothing() -> None:
    module = seeded(Layer(LAYERS["gru deep, two directions"]()))
    model = trace_encoder(module, *contract_and_example(module))
    source = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    other = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 9]])
    lengths = torch.tensor([4, 2], dtype=torch.int32)
    one, two = (run_encoder(model, tokens, lengths) for tokens in (source, other))
    alone = run_encoder(model, source[1:, :2], lengths[1:])
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])
    np.testing.assert_array_equal(
        one["memory.outputs"][1, :2], alone["memory.outputs"][0]
    )
    np.testing.assert_array_equal(one["state.final_0"][1], alone["state.final_0"][0])


def test_a_padding_value_fills_what_is_past_the_end() -> None:
    module = seeded(Layer(nn.GRU(5, 4, batch_first=True), padding_value=-7.5))
    model = trace_encoder(module, *contract_and_example(module))
    source = torch.tensor([[3, 4, 5], [7, 8, 0]])
    lengths = torch.tensor([3, 2], dtype=torch.int32)
    outputs = run_encoder(model, source, lengths)["memory.outputs"]
    assert (outputs[1, 2] == -7.5).all()
    assert (outputs[0] != -7.5).all()
    assert (outputs[1, :2] != -7.5).all()


STEPS: dict[str, Callable[[], nn.RNNBase]] = {
    "elman relu": lambda: nn.RNN(5, 4, nonlinearity="relu"),
    "gru deep": lambda: nn.GRU(5, 4, 2),
    "gru, two directions": lambda: nn.GRU(5, 4, bidirectional=True, bias=False),
    "lstm deep": lambda: nn.LSTM(5, 4, 2),
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_layer_over_one_step_becomes_its_cells(kind: str) -> None:
    module = seeded(Stepwise(STEPS[kind]()))
    model = trace_step(module, *contract_and_example(module))
    kinds = {node.op_type for node in model.graph.node}
    assert not {"RNN", "GRU", "LSTM"} & kinds
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch, length, beam in ((1, 1, 1), (3, 5, 4)):
        batch_example = example(module, SENTENCES, 1, batch, length, beam)
        with torch.no_grad():
            logits, _ = module.step(
                batch_example.token, batch_example.memory, batch_example.state
            )
        feed = {f"state.{k}": t.numpy() for k, t in batch_example.state.items()}
        feed["token"] = batch_example.token.numpy()
        found = session.run(["logits"], feed)[0]
        np.testing.assert_allclose(found, logits, atol=1e-6, rtol=0)


def test_everything_is_put_back() -> None:
    module = seeded(Layer(nn.GRU(5, 4, batch_first=True)))
    functions = (rnn.pack_padded_sequence, rnn.pad_packed_sequence)
    before = [function.__code__ for function in functions]
    forwards = [kind.forward for kind in (nn.RNN, nn.GRU, nn.LSTM)]
    names = [name for name, _ in module.named_buffers()]
    with onnx_recurrence(module):
        assert nn.GRU.forward not in forwards
    with pytest.raises(KeyError), onnx_recurrence(module):
        raise KeyError
    assert [function.__code__ for function in functions] == before
    assert [kind.forward for kind in (nn.RNN, nn.GRU, nn.LSTM)] == forwards
    assert [name for name, _ in module.named_buffers()] == names


def test_the_stand_ins_take_what_the_originals_take() -> None:
    for original, stand_in in (
        (rnn.pack_padded_sequence, recurrent._pack),
        (rnn.pad_packed_sequence, recurrent._pad),
    ):
        assert list(inspect.signature(original).parameters) == list(
            inspect.signature(stand_in).parameters
        )


def test_a_projection_is_refused_by_name() -> None:
    module = seeded(Layer(nn.LSTM(5, 4, proj_size=3, batch_first=True)))
    with pytest.raises(ExportError, match="proj_size=3"):
        trace_encoder(module, *contract_and_example(module))
