"""A checkpoint goes to disk and back, and a damaged one is refused in one sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seq2edge.models.about import About
from seq2edge.models.build import build_model
from seq2edge.models.checkpoint import (
    Checkpoint,
    CheckpointInfo,
    Sample,
    distinct_weights,
    write_checkpoint,
)
from seq2edge.models.inputs import input_specs
from seq2edge.models.network import Network
from seq2edge.models.recurrent_config import RecurrentConfig
from seq2edge.runtime.errors import CheckpointError
from seq2edge.runtime.manifest import Limits, TokenizerSpec
from seq2edge.runtime.options import SearchOptions
from seq2edge.runtime.vocabulary import Vocabulary

CONFIG = RecurrentConfig(
    12, 12, embedding_size=6, encoder_hidden=4, decoder_hidden=8, cell="lstm"
)
INFO = CheckpointInfo(
    format=1,
    about=About("toy", "en", "de"),
    model=CONFIG,
    inputs=input_specs(CONFIG),
    labels=(),
    metric="bleu",
    vocabulary=Vocabulary(12, 0, 1, 2, 3),
    tokenizer=TokenizerSpec("sentencepiece", "source.spm", "source.spm", True),
    limits=Limits(20, 20),
    search=SearchOptions(4, 0.6),
    training={"dev_bleu": 1.5},
)


@pytest.fixture
def model() -> Network:
    return build_model(CONFIG, seed=1).eval()


@pytest.fixture
def folder(tmp_path: Path, model: Network) -> Path:
    spm = tmp_path / "trained.spm"
    spm.write_bytes(b"pieces")
    weights = distinct_weights(model, torch.float16)
    path = tmp_path / "checkpoint"
    write_checkpoint(path, INFO, weights, {"source.spm": spm}, Sample(["a\tb"]))
    return path


def test_a_checkpoint_comes_back_as_it_was(folder: Path, model: Network) -> None:
    loaded = Checkpoint.load(folder)
    assert loaded.info == INFO
    assert not loaded.module.training
    for name, weight in model.named_parameters():
        got = loaded.module.get_parameter(name)
        assert got.dtype == torch.float32
        assert torch.equal(got, weight.half().float())
    assert (folder / "sample.tsv").read_text(encoding="utf-8") == "a\tb\n"
    assert (folder / "source.spm").read_bytes() == b"pieces"


def test_a_shared_table_is_stored_once(folder: Path) -> None:
    stored = [name for name in load_file(folder / "model.safetensors") if "emb" in name]
    assert stored == ["target_embedding.weight"]


def test_weights_are_checked_both_ways(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.bridge.bias"]
    weights["extra"] = torch.zeros(1)
    weights["decoder.readout.bias"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.load(folder)
    message = str(caught.value)
    assert "lacks decoder.bridge.bias" in message
    assert "has extra" in message
    assert "decoder.readout.bias is [7] where [6] is due" in message


def test_truncated_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="no readable safetensors"):
        Checkpoint.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "source.spm", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        Checkpoint.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "newer than this seq2edge reads"),
        ({"surplus": 1}, "surplus is not a known key"),
        (
            {"model": {"architecture": "recurrent", "cell": "gru"}},
            "embedding_size is missing",
        ),
        (
            {"model": {"cell": "gru"}},
            "model.architecture must be 'recurrent' or 'transformer', not missing",
        ),
        ({"model": {"architecture": "rnn"}}, "'transformer', not 'rnn'"),
        ({"limits": {"source_tokens": "9", "target_tokens": 9}}, "must be an integer"),
    ],
)
def test_a_wrong_config_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, **changes}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.load(folder)


def test_a_config_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"config\.json: Expecting property name"):
        Checkpoint.load(folder)


def test_a_tokenizer_outside_the_folder_is_refused(folder: Path) -> None:
    file = folder / "config.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("source.spm", "../trained.spm"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"trained\.spm"):
        Checkpoint.load(folder)
