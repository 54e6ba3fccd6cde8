import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from slow import slow_among
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.utils import rnn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    unpack_sequence,
)
from toy_modules import subject

from seq2edge.export import packing, recurrent
from seq2edge.export.examine import Traced, examine, traced_with
from seq2edge.export.graphs import Contract
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


def contract_and_example(module: Any) -> tuple[Contract, Traced]:
    examined = subject(module, SENTENCES, 1)
    return examine(examined), traced_with(examined, 3, 7, 2)


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


def check_ragged_batches(module: Any) -> None:
    """The traced encoder against torch, in batches that were not traced."""
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
        expected = {f"memory.{name}": part for name, part in memory.items()}
        expected |= {f"state.{name}": part for name, part in state.items()}
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_allclose(found[name], tensor, atol=1e-6, rtol=0)


PLAIN = "elman tanh", "gru", "gru without bias, time first", "lstm deep"


@pytest.mark.parametrize("kind", slow_among(LAYERS, *PLAIN))
def test_packed_layers_equal_torch_on_ragged_batches_of_any_size(kind: str) -> None:
    check_ragged_batches(seeded(Layer(LAYERS[kind]())))


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
        batch_example = traced_with(subject(module, SENTENCES, 1), batch, length, beam)
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
    functions = tuple(packing.STAND_INS)
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
    pairs = [*packing.STAND_INS.items()]
    pairs.append((rnn.pack_padded_sequence, packing._pack_any_order))
    pairs.append((nn.GRU.forward, recurrent._forward))
    for original, stand_in in pairs:
        taken, given = (
            [*inspect.signature(one).parameters] for one in (stand_in, original)
        )
        assert [name for name in taken if name != "layer"] == [
            name for name in given if name != "self"
        ]


def test_a_projection_is_refused_by_name() -> None:
    module = seeded(Layer(nn.LSTM(5, 4, proj_size=3, batch_first=True)))
    with pytest.raises(ExportError, match="proj_size=3"):
        trace_encoder(module, *contract_and_example(module))


class Stranger(nn.Module):
    """Packs, reads and unpacks as its function says."""

    def __init__(self, read: Callable[..., Any], layer: nn.RNNBase) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, layer.input_size)
        self.layer = layer
        self.linear = nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8)
        self.start = nn.Parameter(torch.zeros(2, 1, 4))
        self.read = read

    def encode(self, source: Tensor, source_lengths: Tensor) -> tuple[Named, Named]:
        outputs, final = self.read(self, source, source_lengths)
        parts = (final,) if isinstance(final, Tensor) else final
        finals = {f"final_{i}": part.transpose(0, 1) for i, part in enumerate(parts)}
        return {"outputs": outputs}, finals

    def step(self, token: Tensor, memory: Named, state: Named) -> tuple[Tensor, Named]:
        return state["final_0"].flatten(1) + token[:, None], state

    def packed(self, source: Tensor, lengths: Any) -> PackedSequence:
        embedded = self.embedding(source)
        return pack_padded_sequence(
            embedded, lengths, batch_first=True, enforce_sorted=False
        )


def stranger(read: Callable[..., Any], layer: nn.RNNBase | None = None) -> Any:
    usual = nn.GRU(5, 4, batch_first=True, bidirectional=True)
    return seeded(Stranger(read, layer or usual))


def unpack(packed: PackedSequence, **options: Any) -> Tensor:
    outputs, _ = pad_packed_sequence(packed, batch_first=True, **options)
    return outputs


def with_lengths(change: Callable[[Tensor], Any]) -> Callable[..., Any]:
    def read(self: Any, source: Tensor, lengths: Tensor) -> Any:
        outputs, final = self.layer(self.packed(source, change(lengths)))
        return unpack(outputs), final

    return read


def with_total(options: Callable[[Tensor], dict[str, Any]]) -> Callable[..., Any]:
    def read(self: Any, source: Tensor, lengths: Tensor) -> Any:
        outputs, final = self.layer(self.packed(source, lengths))
        return unpack(outputs, **options(source)), final

    return read


def calls_with_keywords(self: Any, source: Tensor, lengths: Tensor) -> Any:
    start = torch.zeros(2, source.shape[0], 4)
    outputs, final = self.layer(input=self.packed(source, lengths), hx=start)
    return unpack(outputs), final


def learns_its_start(self: Any, source: Tensor, lengths: Tensor) -> Any:
    start = self.start.expand(-1, source.size(0), -1).contiguous()
    outputs, final = self.layer(self.packed(source, lengths), [start, start * 2])
    return unpack(outputs), final


def packs_by_the_modules_path(self: Any, source: Tensor, lengths: Tensor) -> Any:
    embedded = self.embedding(source).permute(1, 0, 2)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        embedded, lengths, enforce_sorted=False
    )
    outputs, final = self.layer(packed)
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs)
    return outputs.transpose(0, 1), final


def embeds_what_is_packed(self: Any, source: Tensor, lengths: Tensor) -> Any:
    ids = pack_padded_sequence(source, lengths, True, False)
    packed = PackedSequence(
        self.embedding(ids.data), ids.batch_sizes, ids.sorted_indices
    )
    outputs, final = self.layer(packed)
    assert isinstance(outputs, PackedSequence)
    return unpack(outputs), final


def projects_what_is_packed(self: Any, source: Tensor, lengths: Tensor) -> Any:
    outputs, final = self.layer(self.packed(source, lengths))
    data, *others = outputs
    outputs = PackedSequence(self.linear(self.norm(data)), *others)
    return unpack(outputs._replace(data=torch.tanh(outputs.data))), final


def sorts_and_restores(self: Any, source: Tensor, lengths: Tensor) -> Any:
    descending, order = lengths.sort(descending=True)
    embedded = self.embedding(source[order])
    packed = pack_padded_sequence(embedded, descending.tolist(), batch_first=True)
    outputs, final = self.layer(packed)
    back = order.argsort()
    return unpack(outputs)[back], final.index_select(1, back)


def masks_by_unpacked_lengths(self: Any, source: Tensor, lengths: Tensor) -> Any:
    outputs, _ = self.layer(self.packed(source, lengths))
    padded, counts = pad_packed_sequence(outputs, batch_first=True)
    mask = torch.arange(padded.shape[1]) < counts[:, None]
    last = padded[torch.arange(padded.size(0)), counts - 1]
    return padded.masked_fill(~mask[..., None], -5.0), last[None]


class Doubled(nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002
        outputs, final = super().forward(input, hx)
        return outputs, final * 2


WAYS: dict[str, Callable[[], Any]] = {
    "lengths as int64": lambda: stranger(with_lengths(Tensor.long)),
    "lengths as a list": lambda: stranger(
        with_lengths(lambda lengths: lengths.tolist())
    ),
    "lengths as an array": lambda: stranger(
        with_lengths(lambda lengths: lengths.cpu().numpy())
    ),
    "a fixed total length": lambda: stranger(
        with_total(lambda source: {"total_length": 20, "padding_value": -3.0})
    ),
    "a total length beyond": lambda: stranger(
        with_total(lambda source: {"total_length": source.shape[1] + 1})
    ),
    "keywords": lambda: stranger(calls_with_keywords),
    "a learned start": lambda: stranger(
        learns_its_start, nn.LSTM(5, 4, bidirectional=True, batch_first=True)
    ),
    "the module's path": lambda: stranger(packs_by_the_modules_path),
    "packed ids": lambda: stranger(embeds_what_is_packed),
    "packed data projected": lambda: stranger(projects_what_is_packed),
    "sorted and restored": lambda: stranger(sorts_and_restores),
    "unpacked lengths": lambda: stranger(masks_by_unpacked_lengths),
    "a layer of its own": lambda: stranger(
        with_lengths(Tensor.cpu), Doubled(5, 4, batch_first=True, bidirectional=True)
    ),
}


# Of these one trace each is left to `make test-all`: others write much the same.
ALIKE = "lengths as an array", "a total length beyond", "keywords", "packed ids"


@pytest.mark.parametrize("way", slow_among(WAYS, *ALIKE))
def test_packing_is_taken_as_strangers_write_it(way: str) -> None:
    check_ragged_batches(WAYS[way]())


def test_a_source_above_a_fixed_total_length_fails_rather_than_be_cut() -> None:
    module = WAYS["a fixed total length"]()
    model = trace_encoder(module, *contract_and_example(module))
    lengths = torch.tensor([20, 4], dtype=torch.int32)
    run_encoder(model, torch.ones(2, 20, dtype=torch.int64), lengths)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
        run_encoder(model, torch.ones(2, 21, dtype=torch.int64), lengths + 1)


def packs_a_list(self: Any, source: Tensor, lengths: Tensor) -> Any:
    rows = [self.embedding(row) for row in source]
    outputs, final = self.layer(pack_sequence(rows))
    return unpack(outputs), final


def unpacks_a_list(self: Any, source: Tensor, lengths: Tensor) -> Any:
    outputs, final = self.layer(self.packed(source, lengths))
    rows = unpack_sequence(outputs)
    return rnn.pad_sequence(rows, batch_first=True), final


def reads_batch_sizes(self: Any, source: Tensor, lengths: Tensor) -> Any:
    packed = self.packed(source, lengths)
    start = torch.zeros(2, int(packed.batch_sizes[0]), 4)
    outputs, final = self.layer(packed, start)
    return unpack(outputs), final


def counts_steps_by_batch_sizes(self: Any, source: Tensor, lengths: Tensor) -> Any:
    outputs, final = self.layer(self.packed(source, lengths))
    return unpack(outputs, total_length=outputs.batch_sizes.shape[0]), final


def reads_the_longest_from_a_list(self: Any, source: Tensor, lengths: Tensor) -> Any:
    counts = lengths.tolist()
    outputs, final = self.layer(self.packed(source, counts))
    return unpack(outputs, total_length=max(counts)), final


def reads_one_row(self: Any, source: Tensor, lengths: Tensor) -> Any:
    outputs, _ = self.layer(self.embedding(source[:, 0]))
    return outputs, outputs[None]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (packs_a_list, "pack_sequence has a Python list.*use pack_padded_sequence"),
        (unpacks_a_list, "unpack_sequence has a Python list.*pad_packed_sequence"),
        (reads_batch_sizes, r"batch_sizes can't be exported.*source\.shape\[0\]"),
        (counts_steps_by_batch_sizes, "batch_sizes can't be exported"),
        (reads_the_longest_from_a_list, r"serve pack_padded_sequence only.*shape\[1\]"),
        (reads_one_row, "GRU got an input of 2 axes; give it a batch"),
        (
            with_lengths(lambda lengths: [7, 6, 5, 4][: len(lengths)]),
            "lengths that are no tensor, which freezes them",
        ),
    ],
)
def test_what_tracing_would_freeze_is_refused(
    read: Callable[..., Any], message: str
) -> None:
    module = stranger(read)
    with pytest.raises(ExportError, match=message):
        trace_encoder(module, *contract_and_example(module))


def test_a_packed_sequence_made_elsewhere_is_refused() -> None:
    made = pack_padded_sequence(torch.zeros(3, 7, 5), torch.tensor([7, 6, 5]), True)
    module = stranger(lambda self, source, lengths: self.layer(made))
    contract, traced_with = contract_and_example(stranger(with_lengths(Tensor.cpu)))
    with pytest.raises(ExportError, match="not made by pack_padded_sequence"):
        trace_encoder(module, contract, traced_with)


def test_a_layer_that_is_hidden_from_its_module_is_refused() -> None:
    module = stranger(with_lengths(Tensor.cpu))
    vars(module)["layer"] = module._modules.pop("layer")
    with pytest.raises(ExportError, match=r"GRU is no submodule.*register it"):
        trace_encoder(module, *contract_and_example(module))


def packs_sorted_rows_only(self: Any, source: Tensor, lengths: Tensor) -> Any:
    packed = pack_padded_sequence(self.embedding(source), lengths, batch_first=True)
    outputs, final = self.layer(packed)
    return unpack(outputs), final


def test_sorted_packing_takes_any_order_where_it_is_let() -> None:
    module = stranger(packs_sorted_rows_only)
    source, lengths = torch.ones(2, 3, dtype=torch.int64), torch.tensor([2, 3])
    with packing.any_order():
        check_ragged_batches(module)
    with pytest.raises(RuntimeError, match="enforce_sorted=False"):
        module.encode(source, lengths)


def test_methods_that_make_lists_are_put_back() -> None:
    methods = [getattr(FakeTensor, name) for name in ("tolist", "numpy")]
    with onnx_recurrence(stranger(with_lengths(Tensor.cpu))):
        assert FakeTensor.tolist is not methods[0]
    found = [getattr(FakeTensor, name) for name in ("tolist", "numpy")]
    assert found == methods
    assert "numpy" not in vars(FakeTensor)  # inherited, as before
