"""Every structure: steps, whole passes, padding and beams agree."""

import itertools
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from seq2edge.models.build import build_model
from seq2edge.models.classifier import Classifier
from seq2edge.models.recurrent_config import (
    ATTENTIONS,
    CELLS,
    CONTEXTS,
    SUMMARIES,
    SUMMARY_USES,
    RecurrentConfig,
)
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.models.tagger import Tagger

# oneDNN compiles an LSTM anew for every shape: a test in 2 s instead of 0.05.
pytestmark = pytest.mark.usefixtures("plain_torch")

Tensors = dict[str, Tensor]
LENGTHS = {"source": [5, 2, 3], "article": [4, 6, 1], "question": [2, 1, 3]}
TARGET = torch.tensor([[2, 5, 9, 4], [2, 7, 7, 0], [2, 8, 0, 0]])
LABELS = 5
FEATURES = 3


@pytest.fixture(scope="module")
def plain_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    yield
    torch._C._set_mkldnn_enabled(before)
    torch.set_num_threads(threads)


def sized(**changes: object) -> RecurrentConfig:
    values: dict[str, object] = {
        "source_vocabulary": 12,
        "target_vocabulary": 12,
        "embedding_size": 6,
        "encoder_hidden": 4,
        "decoder_hidden": 8,
        **changes,
    }
    return RecurrentConfig(**values)  # type: ignore[arg-type]


def writer(**changes: object) -> RecurrentModel:
    model = build_model(sized(**changes), seed=3).eval()
    assert isinstance(model, RecurrentModel)
    return model


def tagger(**changes: object) -> Tagger:
    config = sized(task="tagging", labels=LABELS, **changes)
    model = build_model(config, seed=4).eval()
    assert isinstance(model, Tagger)
    return model


def classifier(**changes: object) -> Classifier:
    config = sized(task="classification", labels=LABELS, **changes)
    model = build_model(config, seed=5).eval()
    assert isinstance(model, Classifier)
    return model


def batch_of(inputs: Mapping[str, str]) -> Tensors:
    """Three ragged rows of every input, padded with zeros."""
    draw = torch.Generator().manual_seed(9)
    batch: Tensors = {}
    for name, kind in inputs.items():
        if kind in ("vector", "class"):
            vector = torch.randn(3, FEATURES, generator=draw)
            batch[name] = vector if kind == "vector" else torch.tensor([0, 2, 1])
            continue
        lengths = torch.tensor(LENGTHS[name], dtype=torch.int32)
        time = int(lengths.max())
        values = torch.randint(4, 12, (3, time), generator=draw)
        if kind == "frames":
            values = torch.randn(3, time, FEATURES, generator=draw)
        for row, length in enumerate(lengths.tolist()):
            values[row, length:] = 0
        batch[name], batch[f"{name}_lengths"] = values, lengths
    return batch


def row_of(batch: Tensors, row: int) -> Tensors:
    """One row by itself, without its padding."""
    alone = {name: values[row : row + 1] for name, values in batch.items()}
    for name in batch:
        if f"{name}_lengths" in batch:
            alone[name] = alone[name][:, : int(batch[f"{name}_lengths"][row])]
    return alone


def stepwise(model: RecurrentModel, batch: Tensors, target: Tensor) -> Tensor:
    memory, state = model.encode(**batch)
    logits = []
    for token in target.unbind(1):
        step_logits, state = model.step(token, memory, state)
        logits.append(step_logits)
    return torch.stack(logits, dim=1)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def agrees(model: RecurrentModel) -> None:
    """Whole pass, steps, rows alone and beams say the same of a ragged batch."""
    batch = batch_of(model.config.inputs)
    whole = model(batch, TARGET)
    assert whole.std() > 0.01  # and they agree on something
    close(whole, stepwise(model, batch, TARGET))
    for row in range(3):
        close(model(row_of(batch, row), TARGET[row : row + 1])[0], whole[row])
    memory, state = model.encode(**batch)
    wide = {name: part.repeat_interleave(2, dim=0) for name, part in state.items()}
    tokens = torch.tensor([5, 6, 7, 8, 9, 4])  # two beams a row
    logits, _ = model.step(tokens, memory, wide)
    for beam in range(2):
        close(logits[beam::2], model.step(tokens[beam::2], memory, state)[0])


@pytest.mark.parametrize(
    ("cell", "bidirectional", "layers"),
    [*itertools.product(CELLS, (True, False), (1, 2))],
)
@torch.inference_mode()
def test_cells_directions_and_depths_agree(
    cell: str, bidirectional: bool, layers: int
) -> None:
    shape = {
        "cell": cell,
        "bidirectional": bidirectional,
        "encoder_layers": layers,
        "decoder_layers": layers,
        "context": "output",
    }
    agrees(writer(**shape))
    agrees(writer(**shape, attention="none"))


@pytest.mark.parametrize(
    ("attention", "context"), [*itertools.product(ATTENTIONS, CONTEXTS)]
)
@pytest.mark.parametrize("cell", ["elman", "lstm"])
@torch.inference_mode()
def test_attentions_and_contexts_agree(cell: str, attention: str, context: str) -> None:
    agrees(writer(cell=cell, attention=attention, context=context))


@pytest.mark.parametrize(
    ("summary", "use", "attention", "cell"),
    [*itertools.product(SUMMARIES, SUMMARY_USES, ("none", "general"), ("gru", "lstm"))],
)
@torch.inference_mode()
def test_summaries_and_their_uses_agree(
    summary: str, use: str, attention: str, cell: str
) -> None:
    model = writer(summary=summary, summary_use=use, attention=attention, cell=cell)
    agrees(model)
    memory, state = model.encode(**batch_of(model.config.inputs))
    assert ("summary" in memory) == (use != "state")
    assert memory.get("summary", torch.zeros(3, 8)).shape == (3, 8)
    if use == "input":
        assert not any(part.any() for part in state.values())


INPUTS: list[dict[str, str]] = [
    {"source": "frames"},
    {"article": "tokens", "question": "tokens"},
    {"article": "frames", "question": "tokens"},
    {"type": "class", "source": "tokens"},
    {"values": "vector", "article": "tokens", "question": "tokens"},
]


def sizes_of(inputs: Mapping[str, str]) -> dict[str, object]:
    kinds = inputs.values()
    featured = "vector" in kinds or "frames" in kinds
    return {
        "inputs": inputs,
        "features": FEATURES if featured else 0,
        "classes": 3 if "class" in kinds else 0,
    }


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("attention", ["none", "additive", "multi_head"])
@pytest.mark.parametrize("use", ["state", "both"])
@torch.inference_mode()
def test_frames_and_several_inputs_agree(
    inputs: dict[str, str], attention: str, use: str
) -> None:
    sizes = sizes_of(inputs)
    agrees(writer(attention=attention, summary_use=use, **sizes))
    agrees(writer(attention=attention, summary="sum", summary_use=use, **sizes))


@pytest.mark.parametrize("kind", ["vector", "class"])
@pytest.mark.parametrize("use", SUMMARY_USES)
@pytest.mark.parametrize("cell", CELLS)
@torch.inference_mode()
def test_one_vector_or_class_becomes_a_sequence(kind: str, use: str, cell: str) -> None:
    sizes = sizes_of({"start": kind})
    model = writer(attention="none", summary_use=use, cell=cell, **sizes)
    agrees(model)
    batch = batch_of(model.config.inputs)
    logits = model(batch, TARGET[:1].expand(3, -1))
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    assert not hasattr(model, "encoder")


@pytest.mark.parametrize("use", ["input", "both"])
@torch.inference_mode()
def test_a_class_may_stand_for_itself_as_summary(use: str) -> None:
    sizes = sizes_of({"start": "class"}) | {"decoder_hidden": 6}
    model = writer(attention="none", summary="last", summary_use=use, **sizes)
    agrees(model)
    memory, _ = model.encode(start=torch.tensor([1]))
    table = model.get_parameter("input_maps.of_start.weight")
    assert torch.equal(memory["summary"][0], table[1])


@pytest.mark.parametrize("cell", CELLS)
@torch.inference_mode()
def test_the_last_state_joins_the_ends_of_both_directions(cell: str) -> None:
    model = writer(
        cell=cell, summary="last", attention="none", encoder_layers=2, decoder_layers=1
    )
    batch = batch_of(model.config.inputs)
    _, state = model.encode(**batch)
    layers = list(model.encoder.layers)
    for row in range(3):
        outputs = model.source_embedding(row_of(batch, row)["source"])
        first, _ = layers[0](outputs)  # (1, time, 8), by torch's own loop
        second, _ = layers[1](first)
        forward, backward = second[0, -1, :4], second[0, 0, 4:]
        close(state["hidden_0"][row], torch.cat([forward, backward]))
    if cell == "lstm":
        assert not state["cell_0"].any()


@torch.inference_mode()
def test_a_sum_runs_over_real_positions_only() -> None:
    model = writer(summary="sum", summary_use="both", attention="none")
    batch = batch_of(model.config.inputs)
    memory, state = model.encode(**batch)
    embedded = model.source_embedding(batch["source"])
    annotations, _ = model.encoder(embedded, batch["source_lengths"])
    for row, length in enumerate(LENGTHS["source"]):
        total = annotations[row, :length].sum(0)
        weight = model.get_parameter("decoder.bridge.weight")
        bias = model.get_parameter("decoder.bridge.bias")
        close(memory["summary"][row], torch.tanh(weight @ total + bias))
    assert torch.equal(state["hidden_0"], memory["summary"])
    assert torch.equal(state["hidden_1"], memory["summary"])


@torch.inference_mode()
def test_two_sources_are_read_together_by_one_attention() -> None:
    model = writer(inputs={"article": "tokens", "question": "tokens"})
    batch = batch_of(model.config.inputs)
    memory, _ = model.encode(**batch)
    assert memory["keys"].shape == (3, 6 + 3, 8)
    masked = memory["mask"] < -1
    for row, (article, question) in enumerate([(4, 2), (6, 1), (1, 3)]):
        padding = [*range(article, 6), *range(6 + question, 9)]
        assert masked[row].nonzero().flatten().tolist() == padding
    other = batch["question"].clone()
    other[0, 1] = 3 if other[0, 1] != 3 else 4
    changed = model({**batch, "question": other}, TARGET)
    assert (changed[0] - model(batch, TARGET)[0]).abs().max() > 1e-4
    assert model.encoder is not model.other_encoders["of_question"]


@pytest.mark.parametrize("kind", ["tokens", "frames"])
@pytest.mark.parametrize(
    ("cell", "layers"), [*itertools.product(CELLS, (1, 2)), ("lstm", 3)]
)
@torch.inference_mode()
def test_streaming_says_what_the_whole_tagger_says(
    kind: str, cell: str, layers: int
) -> None:
    sizes = sizes_of({"source": kind})
    model = tagger(cell=cell, encoder_layers=layers, bidirectional=False, **sizes)
    batch = batch_of(model.config.inputs)
    outputs, last = model.encode(**batch)
    state = {name: torch.zeros_like(part) for name, part in last.items()}
    for time in range(5):
        logits, state = model.step(batch["source"][:, time], {}, state)
        for row, length in enumerate(LENGTHS["source"]):
            if time < length:
                close(logits[row], outputs["logits"][row, time])
            if time == length - 1:
                for name, part in last.items():
                    close(state[name][row], part[row])


@pytest.mark.parametrize("kind", ["tokens", "frames"])
@pytest.mark.parametrize(
    ("cell", "bidirectional"), [*itertools.product(CELLS, (True, False))]
)
@torch.inference_mode()
def test_a_tagger_reads_a_row_alone_as_in_a_batch(
    kind: str, cell: str, bidirectional: bool
) -> None:
    sizes = sizes_of({"source": kind})
    model = tagger(cell=cell, bidirectional=bidirectional, **sizes)
    batch = batch_of(model.config.inputs)
    outputs, state = model.encode(**batch)
    assert bool(state) != bidirectional
    assert outputs["logits"].shape == (3, 5, LABELS)
    for row, length in enumerate(LENGTHS["source"]):
        alone, _ = model.encode(**row_of(batch, row))
        close(alone["logits"][0], outputs["logits"][row, :length])


@pytest.mark.parametrize(
    "inputs", [{"source": "tokens"}, *INPUTS, {"v": "vector", "c": "class"}]
)
@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("cell", CELLS)
@torch.inference_mode()
def test_a_classifier_reads_a_row_alone_as_in_a_batch(
    inputs: dict[str, str], summary: str, cell: str
) -> None:
    sizes = sizes_of(inputs)
    if summary == "sum" and "v" in inputs:
        summary = "mapped"  # there is nothing to sum over
    model = classifier(summary=summary, cell=cell, **sizes)
    batch = batch_of(model.config.inputs)
    outputs, state = model.encode(**batch)
    assert outputs["logits"].shape == (3, LABELS)
    assert state == {}
    for row in range(3):
        alone, _ = model.encode(**row_of(batch, row))
        close(alone["logits"][0], outputs["logits"][row])


@torch.inference_mode()
def test_scaled_dot_divides_by_the_root_of_the_width() -> None:
    scaled, plain = (writer(attention=kind) for kind in ("scaled_dot", "dot"))
    values = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
    memory = {"values": values, "mask": torch.zeros(1, 4)}
    query = values[:, :1]
    close(
        scaled.decoder.attention(query, memory),
        plain.decoder.attention(query / 8**0.5, memory),
    )


@torch.inference_mode()
def test_heads_are_attentions_of_their_own() -> None:
    attention = writer(attention="multi_head", attention_heads=2).decoder.attention
    draw = torch.Generator().manual_seed(1)
    annotations = torch.randn(1, 5, 8, generator=draw)
    queries = torch.randn(1, 3, 8, generator=draw)
    reference = torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    parts = ("query", "key", "value")
    stacked: list[Tensor] = [attention.get_parameter(f"{p}.weight") for p in parts]
    reference.in_proj_weight.copy_(torch.cat(stacked))
    reference.out_proj.weight.copy_(attention.get_parameter("join.weight"))
    memory = attention.project(annotations) | {"mask": torch.zeros(1, 5)}
    wanted, _ = reference(queries, annotations, annotations)
    close(attention(queries, memory), wanted)
