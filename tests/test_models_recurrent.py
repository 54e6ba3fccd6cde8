"""The recurrent encoder-decoder in training, and the faults of a configuration."""

import pytest
import torch

from seq2edge.models.attention import source_mask
from seq2edge.models.build import build_model, count_parameters
from seq2edge.models.network import Batch
from seq2edge.models.recurrent_config import TIES, RecurrentConfig
from seq2edge.models.recurrent_model import RecurrentModel
from seq2edge.runtime.errors import ConfigError

INPUTS = {
    "source": torch.tensor([[5, 6, 7, 8, 3], [9, 3, 0, 0, 0], [4, 8, 3, 0, 0]]),
    "source_lengths": torch.tensor([5, 2, 3], dtype=torch.int32),
}
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
    config = RecurrentConfig(**values)  # type: ignore[arg-type]
    model = build_model(config, seed=3).eval()
    assert isinstance(model, RecurrentModel)
    return model


@torch.inference_mode()
def test_output_depends_on_source_and_on_earlier_target() -> None:
    model = tiny()
    base = model(INPUTS, TARGET)
    source, target = INPUTS["source"].clone(), TARGET.clone()
    source[0, 2] = 10
    target[0, 1] = 10
    changed = model({**INPUTS, "source": source}, TARGET)
    assert (changed[0] - base[0]).abs().max() > 1e-4
    by_position = (model(INPUTS, target)[0] - base[0]).abs().amax(-1)
    assert by_position[0] == 0  # causal
    assert by_position[1] > 1e-4
    assert by_position[3] > 1e-4


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
    log_probs = model(INPUTS, TARGET).log_softmax(-1)
    picked = log_probs.gather(2, expected[..., None]).squeeze(2)
    by_hand = -picked[expected != 0].mean()
    loss = model.loss(Batch(INPUTS, expected, tokens=9, target=TARGET))
    torch.testing.assert_close(loss, by_hand)


def test_dropout_acts_in_training_only() -> None:
    model = tiny(dropout=0.5)
    calm = model(INPUTS, TARGET)
    torch.testing.assert_close(calm, model(INPUTS, TARGET))
    model.train()
    torch.manual_seed(0)
    assert (model(INPUTS, TARGET) - calm).abs().max() > 1e-3


def test_every_fault_of_a_configuration_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        RecurrentConfig(10, 12, cell="grü", decoder_layers=1, dropout=1.5)
    message = str(caught.value)
    for part in ("'grü'", "decoder_layers of 2", "dropout = 1.5", "joint vocabulary"):
        assert part in message


FAULTS: list[tuple[dict[str, object], str]] = [
    ({"attention": "dot"}, "dot attention needs encoder outputs"),
    ({"attention": "scaled_dot"}, "scaled_dot attention needs encoder outputs"),
    ({"attention": "multi_head", "attention_heads": 7}, "doesn't divide"),
    ({"attention": "multi_head", "attention_heads": 0}, "attention_heads = 0"),
    ({"summary": "last"}, r"finals \(512 together\) as wide as the decoder \(320\)"),
    ({"inputs": {}}, "inputs is empty"),
    ({"inputs": {"source": "text"}}, r"inputs\.source = 'text'; use one of tokens"),
    ({"inputs": {"a b": "tokens"}}, r"inputs\.a b is no name"),
    (
        {"inputs": {"a": "tokens", "a_lengths": "tokens"}},
        "is the name of a's lengths",
    ),
    ({"inputs": {"a": "vector"}, "features": 3}, "attention needs tokens or frames"),
    ({"inputs": {"a": "frames"}}, "features = 0; at least 1 with frames or vector"),
    ({"features": 4}, "features = 4, and no input is frames or vector"),
    ({"classes": 4}, "classes = 4, and no input is class"),
    ({"labels": 4}, "generation writes tokens"),
    ({"task": "tagging"}, "labels = 0; at least 1"),
    ({"task": "translation"}, "task = 'translation'; use one of generation"),
    (
        {"task": "tagging", "labels": 2, "inputs": {"a": "tokens", "b": "tokens"}},
        "tagging needs one input",
    ),
    (
        {"inputs": {"a": "class", "b": "class"}, "classes": 2, "attention": "none"},
        "more than one class",
    ),
    (
        {"inputs": {"a": "class"}, "classes": 2, "summary": "sum"},
        "summary = 'sum' needs tokens or frames",
    ),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS)
def test_a_senseless_configuration_is_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RecurrentConfig(10, 10, **changes)  # type: ignore[arg-type]


def test_what_a_task_does_not_use_is_not_judged() -> None:
    RecurrentConfig(10, 0, task="tagging", labels=3, decoder_layers=1)
    RecurrentConfig(0, 10, inputs={"a": "class"}, classes=2, attention="none")
    RecurrentConfig(10, 10, attention="none", decoder_layers=1)
