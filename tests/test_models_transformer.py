"""The transformer against torch's own layers, and the SSRU against its equations."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seq2edge.models.build import build_model, count_parameters
from seq2edge.models.heads import mask_of
from seq2edge.models.positions import sinusoids
from seq2edge.models.ssru import Ssru, linear_scan
from seq2edge.models.transformer import Transformer
from seq2edge.models.transformer_config import DECODERS, NORMS, TransformerConfig
from seq2edge.models.transformer_layers import DecoderLayer, EncoderLayer
from seq2edge.runtime.errors import ConfigError

SIZE, HEADS, INNER = 16, 4, 24
LENGTHS = torch.tensor([5, 2, 3], dtype=torch.int32)
SOURCE = torch.tensor([[5, 6, 7, 8, 3], [9, 3, 0, 0, 0], [4, 8, 3, 0, 0]])
INPUTS = {"source": SOURCE, "source_lengths": LENGTHS}
TARGET = torch.tensor([[2, 5, 9, 4], [2, 7, 7, 0], [2, 8, 0, 0]])


def sized(**changes: Any) -> TransformerConfig:
    values: dict[str, Any] = {
        "source_vocabulary": 12,
        "target_vocabulary": 12,
        "size": SIZE,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_heads": HEADS,
        "decoder_heads": HEADS,
        "encoder_feed_forward": INNER,
        "decoder_feed_forward": INNER,
        "max_positions": 20,
        **changes,
    }
    return TransformerConfig(**values)


def built(**changes: Any) -> Transformer:
    model = build_model(sized(**changes), seed=3).eval()
    assert isinstance(model, Transformer)
    return model


def test_positions_are_sines_and_cosines_of_growing_wavelengths() -> None:
    table = sinusoids(3, 4, shifted=False)
    assert table[0].tolist() == [0, 0, 1, 1]
    expected = [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    assert table[2].tolist() == pytest.approx(expected)
    shifted = sinusoids(2, 6, shifted=True)[1]
    rates = [1, 1e-2, 1e-4]  # the last is 1 / 10000 itself
    assert shifted[:3].tolist() == pytest.approx([math.sin(rate) for rate in rates])


@torch.inference_mode()
def test_a_scan_is_the_loop_over_time() -> None:
    torch.manual_seed(1)
    for time in (1, 2, 3, 8, 13):
        kept, added = torch.rand(2, time, 3), torch.randn(2, time, 3)
        state, states = torch.zeros(2, 3), []
        for step in range(time):
            state = kept[:, step] * state + added[:, step]
            states.append(state)
        torch.testing.assert_close(linear_scan(kept, added), torch.stack(states, 1))


@torch.inference_mode()
def test_an_ssru_follows_its_equations() -> None:
    torch.manual_seed(1)
    ssru, inputs = Ssru(6), torch.randn(2, 5, 6)
    ssru.forget_bias.copy_(torch.randn(6))
    gate, candidate = ssru.project.weight.chunk(2)
    state, outputs = torch.zeros(2, 6), []
    for step in range(5):
        forget = torch.sigmoid(inputs[:, step] @ gate.T + ssru.forget_bias)
        state = forget * state + (1 - forget) * (inputs[:, step] @ candidate.T)
        outputs.append(state.clamp(min=0))
    torch.testing.assert_close(ssru(inputs), torch.stack(outputs, 1))


def mask(longest: int, count: int) -> Tensor:
    """What is no padding, for so many queries: (batch, 1, count, longest)."""
    return mask_of(torch.arange(longest) < LENGTHS[:, None], count)


def _vary(layer: nn.Module) -> None:
    """Norms and biases that differ from ones and zeros."""
    for parameter in layer.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)


def _weights_of(layer: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """A layer's weights under torch's names; ours with a + are one behind the other."""
    ours = dict(layer.named_parameters())
    return {
        f"{theirs}{kind}": torch.cat(
            [ours[f"{name}.{kind}"] for name in named.split("+")]
        )
        for theirs, named in names.items()
        for kind in ("weight", "bias")
    }


@torch.inference_mode()
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_layer_is_that_of_torch(norm: str, activation: str) -> None:
    torch.manual_seed(1)
    layer = EncoderLayer(sized(norm=norm, activation=activation)).eval()
    _vary(layer)
    theirs = nn.TransformerEncoderLayer(
        SIZE, HEADS, INNER, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    ).eval()
    names = {
        "self_attn.in_proj_": "attention.project",
        "self_attn.out_proj.": "attention.join",
        "linear1.": "feed_forward.widen",
        "linear2.": "feed_forward.narrow",
        "norm1.": "around_attention.norm",
        "norm2.": "around_feed_forward.norm",
    }
    theirs.load_state_dict(_weights_of(layer, names))
    inputs = torch.randn(3, 5, SIZE)
    found = layer(inputs, mask(5, 5))
    for row, length in enumerate(LENGTHS.tolist()):
        alone = theirs(inputs[row : row + 1, :length])[0]
        torch.testing.assert_close(found[row, :length], alone)


@torch.inference_mode()
@pytest.mark.parametrize("norm", NORMS)
def test_a_decoder_layer_is_that_of_torch(norm: str) -> None:
    torch.manual_seed(1)
    layer = DecoderLayer(sized(norm=norm)).eval()
    _vary(layer)
    theirs = nn.TransformerDecoderLayer(
        SIZE, HEADS, INNER, 0.0, batch_first=True, norm_first=norm == "pre"
    ).eval()
    names = {
        "self_attn.in_proj_": "mixer.project",
        "self_attn.out_proj.": "mixer.join",
        "multihead_attn.in_proj_": "cross.query+cross.project",
        "multihead_attn.out_proj.": "cross.join",
        "linear1.": "feed_forward.widen",
        "linear2.": "feed_forward.narrow",
        "norm1.": "around_mixer.norm",
        "norm2.": "around_cross.norm",
        "norm3.": "around_feed_forward.norm",
    }
    theirs.load_state_dict(_weights_of(layer, names))
    inputs, annotations = torch.randn(3, 4, SIZE), torch.randn(3, 5, SIZE)
    keys, values = layer.cross.memory(annotations)
    found = layer(inputs, keys, values, mask(5, 4))
    causal = nn.Transformer.generate_square_subsequent_mask(4)
    for row, length in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        alone = theirs(inputs[one], annotations[one, :length], tgt_mask=causal)
        torch.testing.assert_close(found[one], alone)


@torch.inference_mode()
@pytest.mark.parametrize("decoder", DECODERS)
def test_output_depends_on_source_and_on_earlier_target(decoder: str) -> None:
    model = built(decoder=decoder)
    base = model(INPUTS, TARGET)
    source, target = SOURCE.clone(), TARGET.clone()
    source[0, 2] = 10
    target[0, 1] = 10
    changed = model({**INPUTS, "source": source}, TARGET)
    assert (changed[0] - base[0]).abs().max() > 1e-4
    by_position = (model(INPUTS, target)[0] - base[0]).abs().amax(-1)
    assert by_position[0] == 0  # causal
    assert by_position[1] > 1e-4
    assert by_position[3] > 1e-4


@torch.inference_mode()
def test_a_cache_grows_by_a_position_each_step_and_a_cell_does_not() -> None:
    for decoder, axes in (("attention", (3, HEADS, 2, 4)), ("ssru", (3, SIZE))):
        model = built(decoder=decoder)
        memory, state = model.encode(**INPUTS)
        for token in TARGET.unbind(1)[:2]:
            _, state = model.step(token, memory, state)
        assert state.pop("position").tolist() == [2, 2, 2]
        assert {tuple(part.shape) for part in state.values()} == {axes}


@torch.inference_mode()
def test_attention_is_a_distribution_over_the_source_alone() -> None:
    model = built()
    memory, state = model.encode(**INPUTS)
    logits, attention, _ = model.step_with_attention(TARGET[:, 0], memory, state)
    torch.testing.assert_close(logits, model.step(TARGET[:, 0], memory, state)[0])
    torch.testing.assert_close(attention.sum(1), torch.ones(3))
    assert (attention[1, 2:] == 0).all()
    assert (attention[1, :2] > 0).all()


def test_tied_tables_are_one_parameter() -> None:
    untied = count_parameters(built(tie="none"))
    assert count_parameters(built(tie="output")) == untied - 12 * SIZE
    assert count_parameters(built(tie="all")) == untied - 2 * 12 * SIZE


def test_learned_positions_are_parameters_of_each_side() -> None:
    more = count_parameters(built(positions="learned", position_offset=2))
    assert more == count_parameters(built()) + 2 * 22 * SIZE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": "gru"}, "decoder = 'gru'; use one of attention, ssru"),
        ({"norm": "x", "activation": "y"}, "norm = 'x'.*activation = 'y'"),
        ({"encoder_heads": 3}, "encoder_heads = 3 doesn't divide size"),
        ({"size": 0}, "size = 0; at least 1"),
        ({"size": 15, "encoder_heads": 3, "decoder_heads": 3}, "need an even one"),
        ({"position_offset": -1}, "position_offset = -1"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"source_vocabulary": 9}, "needs one joint vocabulary"),
    ],
)
def test_a_configuration_says_all_that_is_wrong(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sized(**changes)
