"""A folder that can't be had ends in one sentence: file, key, value and what to do."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hf_folders import change, marian_folder, write_json
from safetensors.torch import load_file, save_file
from torch import Tensor

from seq2edge.cli import main
from seq2edge.models.loading import load_checkpoint
from seq2edge.runtime.errors import CheckpointError

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
CONFIG, GENERATION = "config.json", "generation_config.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "model"
    marian_folder(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A whole folder, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def refusal(folder: Path, *names: str) -> str:
    """The message, one sentence that has all these words and tells what to do."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    for name in names:
        assert name in message
    assert "\n" not in message
    assert re.search("; (copy|export|use|mend|save)", message), message
    return message


def change_tensors(
    folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    save_file(edit(load_file(folder / SAFE)), folder / SAFE)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize("name", ["source.spm", "target.spm", "vocab.json", SAFE])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refusal(folder, name, "copy")


def test_a_folder_without_config_is_no_checkpoint(folder: Path) -> None:
    (folder / CONFIG).unlink()
    refusal(folder, CONFIG)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_named(content: bytes, folder: Path) -> None:
    (folder / CONFIG).write_bytes(content)
    refusal(folder, CONFIG)


@pytest.mark.parametrize("name", ["vocab.json", GENERATION, "tokenizer_config.json"])
def test_other_json_that_is_damaged_is_named(name: str, folder: Path) -> None:
    (folder / name).write_text('{"a": ', encoding="utf-8")
    refusal(folder, name, "JSON")


@pytest.mark.parametrize("name", ["source.spm", "target.spm"])
def test_a_damaged_sentencepiece_model_is_named(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"no model")
    refusal(folder, name)


def test_a_vocabulary_of_another_size_is_refused(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    write_json(folder / "vocab.json", {**vocabulary, "new": len(vocabulary)})
    refusal(folder, "vocab.json", str(len(vocabulary) + 1), str(len(vocabulary)))


def test_an_id_that_is_none_is_refused(folder: Path) -> None:
    change(folder / "vocab.json", **{"</s>": "zero"})
    refusal(folder, "vocab.json", "</s>", "zero")


@pytest.mark.parametrize("pickled", [False, True])
def test_truncated_weights_are_named(pickled: bool, tmp_path: Path) -> None:
    marian_folder(tmp_path, pickled=pickled)
    name = PICKLED if pickled else SAFE
    truncate(tmp_path / name)
    refusal(tmp_path, name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_rotary_positions", True),
        ("normalize_before", True),
        ("is_decoder", True),
        ("activation_function", "mish"),
        ("d_model", "wide"),
        ("d_model", 33),
        ("encoder_layers", 0),
        ("max_position_embeddings", 1 << 40),
        ("encoder_attention_heads", 5),
        ("architectures", ["MarianForCausalLM"]),
    ],
)
def test_a_config_key_that_cannot_be_had_is_named(
    key: str, value: object, folder: Path
) -> None:
    change(folder / CONFIG, **{key: value})
    refusal(folder, CONFIG, str(value))


@pytest.mark.parametrize(
    "key", ["d_model", "encoder_layers", "decoder_ffn_dim", "vocab_size"]
)
def test_a_config_that_asks_for_all_memory_is_refused(key: str, folder: Path) -> None:
    change(folder / CONFIG, **{key: 1 << 40})
    refusal(folder)


def test_lengths_that_contradict_each_other_are_refused(folder: Path) -> None:
    change(folder / GENERATION, max_length=10, min_length=20)
    refusal(folder, GENERATION, "min_length 19 is above max_length 9")


def test_several_faults_come_at_once(folder: Path) -> None:
    change(folder / CONFIG, normalize_before=True, d_model=0, mystery=[1])
    refusal(folder, "normalize_before = True", "d_model = 0", "mystery = [1]")


@pytest.mark.parametrize("model_type", ["t5", "bert", "gpt2", None, ["marian"]])
def test_another_model_type_is_refused(model_type: object, folder: Path) -> None:
    change(folder / CONFIG, model_type=model_type)
    refusal(folder, CONFIG, f"model_type {model_type!r}", "marian")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_calls_is_not_run(how: str, folder: Path, tmp_path: Path) -> None:
    crater, file = tmp_path / "crater", folder / PICKLED
    content = {**load_file(folder / SAFE), "bomb": Bomb(crater)}
    (folder / SAFE).unlink()
    if how == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    refusal(folder, PICKLED, "code")
    assert not crater.exists()
    pickle.loads(pickle.dumps(Bomb(crater)))
    assert crater.exists()


def test_a_pickle_of_something_else_is_refused(folder: Path) -> None:
    (folder / SAFE).unlink()
    torch.save([torch.zeros(100_000)], folder / PICKLED)
    refusal(folder, PICKLED, "tensors")


def test_a_tensor_that_is_missing_is_named(folder: Path) -> None:
    name = "model.encoder.layers.1.fc1.weight"
    change_tensors(
        folder, lambda found: {key: found[key] for key in found if key != name}
    )
    refusal(folder, SAFE, f"lacks {name}")


def test_a_tensor_too_many_is_named(folder: Path) -> None:
    name = "model.encoder.layers.2.fc1.weight"
    change_tensors(folder, lambda found: {**found, name: torch.zeros(2)})
    refusal(folder, SAFE, f"has {name}")


def test_a_tensor_of_another_shape_or_type_is_named(folder: Path) -> None:
    names = "model.encoder.layers.0.fc1.bias", "model.encoder.layers.1.fc1.bias"
    wrong = {names[0]: torch.zeros(7), names[1]: torch.zeros(48, dtype=torch.int64)}
    change_tensors(folder, lambda found: {**found, **wrong})
    refusal(folder, SAFE, f"{names[0]} is [7] where [48] is due", "torch.int64")


def test_tied_tables_that_differ_are_named(folder: Path) -> None:
    name = "model.decoder.embed_tokens.weight"
    change_tensors(
        folder, lambda found: {**found, name: found["model.shared.weight"] + 1}
    )
    refusal(folder, SAFE, name, "model.shared.weight", "tied")


def test_positions_that_are_no_sines_are_named(folder: Path) -> None:
    name = "model.encoder.embed_positions.weight"
    change_tensors(folder, lambda found: {**found, name: torch.zeros(64, 32)})
    refusal(folder, SAFE, name)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_beam_groups", 2),
        ("penalty_alpha", 0.6),
        ("eos_token_id", [0, 5]),
        ("num_beams", 0),
        ("length_penalty", "long"),
        ("my_own_rule", 1),
        ("renormalize_logits", "yes"),
        ("length_penalty", -1.0),
    ],
)
def test_a_generation_key_that_cannot_be_had_is_named(
    key: str, value: object, folder: Path
) -> None:
    change(folder / GENERATION, **{key: value})
    refusal(folder, GENERATION, f"{key} = {value!r}")


def test_sums_of_one_that_change_at_each_step_are_refused(folder: Path) -> None:
    change(folder / GENERATION, renormalize_logits=True)
    load_checkpoint(folder)
    change(folder / GENERATION, no_repeat_ngram_size=2, min_length=3)
    refusal(folder, "renormalize_logits = True", "no_repeat_ngram_size", "min_length")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        (CONFIG, "pad_token_id", 5000),
        (CONFIG, "pad_token_id", -1),
        (GENERATION, "decoder_start_token_id", 5000),
        (GENERATION, "forced_bos_token_id", 5000),
        (GENERATION, "bad_words_ids", [[5000]]),
        (GENERATION, "suppress_tokens", [5000]),
    ],
)
def test_an_id_outside_of_the_vocabulary_is_named(
    file: str, key: str, value: object, folder: Path
) -> None:
    change(folder / file, **{key: value})
    refusal(folder, key, str(value).strip("[]"))


def exported(folder: Path, bundle: Path) -> str:
    """What the command says as it refuses."""
    result = CliRunner().invoke(main, ["export", str(folder), str(bundle)])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert [path.name for path in bundle.parent.iterdir()] == [folder.name]
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("seq2edge: ")
    return last


@pytest.mark.parametrize("name", [SAFE, "source.spm"])
def test_the_command_ends_in_one_sentence_and_leaves_nothing(
    name: str, folder: Path, tmp_path: Path
) -> None:
    truncate(folder / name)
    (folder / "sample.tsv").write_text("a\tb\n", encoding="utf-8")
    assert name in exported(folder, tmp_path / "bundle")
