"""Every attention and context shows what it looked at, and says what a step says."""

import itertools

import pytest
import torch
from test_models_structures import (
    LENGTHS,
    TARGET,
    batch_of,
    close,
    plain_torch,
    row_of,
    writer,
)
from torch import Tensor
from toy_modules import AligningGru, AttentiveGru, build

from seq2edge.models.attention import MultiHeadAttention
from seq2edge.models.contract import attended_step
from seq2edge.models.recurrent_config import ATTENTIONS, CONTEXTS
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.runtime.errors import InputError

__all__ = ["plain_torch"]
pytestmark = pytest.mark.usefixtures("plain_torch")

Tensors = dict[str, Tensor]
TWO = {"article": "tokens", "question": "tokens"}
KINDS = [kind for kind in ATTENTIONS if kind != "none"]


def attentions(model: RecurrentModel, batch: Tensors, target: Tensor) -> Tensor:
    """(batch, target, positions), each step held equal to `step`."""
    step = model.step_with_attention
    assert step is not None
    memory, state = model.encode(**batch)
    found = []
    for token in target.unbind(1):
        expected, expected_state = model.step(token, memory, state)
        logits, attention, state = step(token, memory, state)
        torch.testing.assert_close(logits, expected, rtol=0, atol=0)
        assert state.keys() == expected_state.keys()
        assert all(torch.equal(state[name], expected_state[name]) for name in state)
        found.append(attention)
    return torch.stack(found, dim=1)


@pytest.mark.parametrize(("kind", "context"), [*itertools.product(KINDS, CONTEXTS)])
@torch.inference_mode()
def test_a_row_sums_to_one_and_knows_no_padding(kind: str, context: str) -> None:
    shape = {"attention": kind, "context": context, "decoder_layers": 2}
    model = writer(**shape, attention_heads=2)
    batch = batch_of({"source": "tokens"})
    found = attentions(model, batch, TARGET)
    assert found.dtype == torch.float32
    assert found.shape == (3, 4, 5)
    assert found.std() > 0.001
    close(found.sum(dim=2), torch.ones(3, 4))
    for row, length in enumerate(LENGTHS["source"]):
        assert not found[row, :, length:].any()
        alone = attentions(model, row_of(batch, row), TARGET[row : row + 1])
        close(alone[0], found[row, :, :length])


@torch.inference_mode()
def test_several_inputs_lie_one_behind_the_other() -> None:
    model = writer(inputs=TWO)
    batch = batch_of(TWO)
    found = attentions(model, batch, TARGET)
    assert found.shape == (3, 4, 6 + 3)
    pairs = zip(LENGTHS["article"], LENGTHS["question"], strict=True)
    for row, (article, question) in enumerate(pairs):
        assert not found[row, :, article:6].any()
        assert not found[row, :, 6 + question :].any()
        assert found[row, :, :article].any()
        assert found[row, :, 6 : 6 + question].any()


@torch.inference_mode()
def test_beams_are_rows_beside_each_other() -> None:
    model = writer()
    step = model.step_with_attention
    assert step is not None
    memory, state = model.encode(**batch_of({"source": "tokens"}))
    wide = {name: part.repeat_interleave(2, dim=0) for name, part in state.items()}
    tokens = torch.tensor([5, 6, 7, 8, 9, 4])
    _, attention, _ = step(tokens, memory, wide)
    for beam in range(2):
        close(attention[beam::2], step(tokens[beam::2], memory, state)[1])


def test_several_heads_show_their_mean() -> None:
    attention = MultiHeadAttention(2, 4, 4)
    weights = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]]]])  # one query, two heads
    assert attention.alignment(weights).tolist() == [[[0.75, 0.25]]]


def test_a_model_without_attention_offers_none() -> None:
    model = writer(attention="none")
    assert model.step_with_attention is None
    assert attended_step(model) is None
    assert attended_step(build(AttentiveGru)) is None
    assert attended_step(build(AligningGru)) is not None
    batch = {
        name: tensor.numpy() for name, tensor in batch_of({"source": "tokens"}).items()
    }
    decoding = TorchStepper(model).start(batch)
    with pytest.raises(InputError, match="this module has no step_with_attention"):
        decoding.attended(TARGET[:, 0].numpy(), None, 1)
