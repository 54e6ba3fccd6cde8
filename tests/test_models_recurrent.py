"""The reference networks: one step, the whole target, padding and beams agree."""

import itertools

import pytest
import torch
from torch import Tensor

from seq2edge.models.attention import source_mask
from seq2edge.models.config import ATTENTIONS, CELLS, CONTEXTS, TIES, ModelConfig
from seq2edge.models.recurrent_model import (
    RecurrentModel,
    build_model,
    count_parameters,
)
from seq2edge.runtime.errors import ConfigError

EVERY = list(itertools.product(CELLS, ATTENTIONS, CONTEXTS))
SOURCE = torch.tensor([[5, 6, 7, 8, 3], [9, 3, 0, 0, 0], [4, 8, 3, 0, 0]])
LENGTHS = torch.tensor([5, 2, 3], dtype=torch.int32)
TARGET = torch.tensor([[2, 5, 9, 4], [2, 7, 7, 0], [2, 8, 0, 0]])


def tiny(**changes: object) -> RecurrentModel:
    values: dict[str, object] = {
        "source_vocabulary": 12,
        "target_vocabulary": 12,
        "embedding_size": 6,
        "encoder_hidden": 4,
        "decoder_hidden": 8,
        **changes,
    }
    return build_model(ModelConfig(**values), seed=3).eval()  # type: ignore[arg-type]


def stepwise(model: RecurrentModel, target: Tensor) -> Tensor:
    memory, state = model.encode(SOURCE, LENGTHS)
    logits = []
    for token in target.unbind(1):
        step_logits, state = model.step(token, memory, state)
        logits.append(step_logits)
    return torch.stack(logits, dim=1)


@pytest.mark.parametrize(("cell", "attention", "context"), EVERY)
@torch.inference_mode()
def test_training_pass_equals_the_steps(
    cell: str, attention: str, context: str
) -> None:
    model = tiny(cell=cell, attention=attention, context=context)
    whole = model(SOURCE, LENGTHS, TARGET)
    torch.testing.assert_close(whole, stepwise(model, TARGET), atol=1e-6, rtol=1e-5)
    assert whole.std() > 0.01  # and they agree on something


@pytest.mark.parametrize(("cell", "attention", "context"), EVERY)
@torch.inference_mode()
def test_padding_never_changes_a_sentence(
    cell: str, attention: str, context: str
) -> None:
    model = tiny(cell=cell, attention=attention, context=context)
    together = model(SOURCE, LENGTHS, TARGET)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(
            SOURCE[row : row + 1, :length],
            LENGTHS[row : row + 1],
            TARGET[row : row + 1],
        )
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_beams_share_the_memory_of_their_sentence() -> None:
    model = tiny()
    memory, state = model.encode(SOURCE, LENGTHS)
    tokens = torch.tensor([5, 6, 7, 8, 9, 4])  # two beams a sentence
    wide = {name: part.repeat_interleave(2, dim=0) for name, part in state.items()}
    logits, _ = model.step(tokens, memory, wide)
    for beam in range(2):
        single, _ = model.step(tokens[beam::2], memory, state)
        torch.testing.assert_close(logits[beam::2], single, atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_output_depends_on_source_and_on_earlier_target() -> None:
    model = tiny()
    base = model(SOURCE, LENGTHS, TARGET)
    source, target = SOURCE.clone(), TARGET.clone()
    source[0, 2] = 10
    target[0, 1] = 10
    assert (model(source, LENGTHS, TARGET)[0] - base[0]).abs().max() > 1e-4
    changed = (model(SOURCE, LENGTHS, target)[0] - base[0]).abs().amax(-1)
    assert changed[0] == 0  # causal
    assert changed[1] > 1e-4
    assert changed[3] > 1e-4


@pytest.mark.parametrize("tie", TIES)
def test_tied_tables_are_one_parameter(tie: str) -> None:
    tables = {"none": 3, "output": 2, "all": 1}[tie]
    untied = count_parameters(tiny(tie="none"))
    assert count_parameters(tiny(tie=tie)) == untied - (3 - tables) * 12 * 6


def test_mask_covers_what_lies_past_the_length() -> None:
    mask = source_mask(torch.tensor([2, 0], dtype=torch.int32), 3)
    assert mask.tolist() == [[0.0, 0.0, -1e9], [-1e9, -1e9, -1e9]]


def test_loss_is_the_mean_cross_entropy_of_real_tokens() -> None:
    model = tiny()
    expected = torch.tensor([[5, 9, 4, 3], [7, 7, 3, 0], [8, 3, 0, 0]])
    log_probs = model(SOURCE, LENGTHS, TARGET).log_softmax(-1)
    picked = log_probs.gather(2, expected[..., None]).squeeze(2)
    by_hand = -picked[expected != 0].mean()
    loss = model.loss(SOURCE, LENGTHS, TARGET, expected)
    torch.testing.assert_close(loss, by_hand)


def test_dropout_acts_in_training_only() -> None:
    model = tiny(dropout=0.5)
    calm = model(SOURCE, LENGTHS, TARGET)
    torch.testing.assert_close(calm, model(SOURCE, LENGTHS, TARGET))
    model.train()
    torch.manual_seed(0)
    assert (model(SOURCE, LENGTHS, TARGET) - calm).abs().max() > 1e-3


def test_every_fault_of_a_configuration_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig(10, 12, cell="grü", decoder_layers=1, dropout=1.5)
    message = str(caught.value)
    for part in ("'grü'", "decoder_layers of 2", "dropout = 1.5", "joint vocabulary"):
        assert part in message


def test_dot_attention_needs_equal_widths() -> None:
    with pytest.raises(ConfigError, match="dot attention"):
        ModelConfig(10, 10, attention="dot", decoder_hidden=320)
