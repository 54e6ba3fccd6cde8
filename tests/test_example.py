"""The shipped model, exported and decoded for real."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from seq2edge.cli import main
from seq2edge.models.build import count_parameters
from seq2edge.models.checkpoint import Checkpoint
from seq2edge.models.recipe import Recipe
from seq2edge.runtime import SearchOptions, Translator
from seq2edge.runtime.bundle import Bundle

EXAMPLE = Path(__file__).parents[1] / "examples" / "en-de"
SENTENCES = 32
DEMO = (EXAMPLE / "demo.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command, on a part of its sample to save time."""
    folder = tmp_path_factory.mktemp("exported")
    lines = (EXAMPLE / "sample.tsv").read_text(encoding="utf-8").splitlines()
    sample = folder / "sample.tsv"
    first = {line.partition("\t")[0]: line for line in lines}
    chosen = list(first.values())[:SENTENCES]
    sample.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    bundle = folder / "int8"
    command = ["export", EXAMPLE, bundle, "--precision", "int8", "--sample", sample]
    result = CliRunner().invoke(main, [*map(str, command), "--max-bleu-loss", "3"])
    assert result.exit_code == 0, result.output
    return bundle


def test_the_checkpoint_is_small_and_made_by_its_recipe() -> None:
    checkpoint = Checkpoint.load(EXAMPLE)
    assert count_parameters(checkpoint.module) <= 6_000_000
    assert (EXAMPLE / "model.safetensors").stat().st_size <= 12_000_000
    weights = load_file(EXAMPLE / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {"torch.float16"}
    recipe = Recipe.load(EXAMPLE / "recipe.toml")
    size = recipe.tokenizer.vocabulary_size
    assert recipe.model_config(size, size) == checkpoint.info.model
    assert recipe.about == checkpoint.info.about


def test_the_certificate_holds_what_was_measured(int8: Path) -> None:
    certificate = json.loads((int8 / "manifest.json").read_text())["certificate"]
    fp32 = certificate["fp32"]
    for search in ("greedy", "beam"):
        assert fp32[search]["sentences"] == SENTENCES
        assert fp32[search]["exact"] >= SENTENCES - 1  # a near tie may fall otherwise
    assert 0 < fp32["largest_log_prob_difference"] < 1e-3
    assert "int8" in certificate


def test_int8_covers_nearly_all_weights(int8: Path) -> None:
    bundle = Bundle.load(int8)
    parameters = count_parameters(Checkpoint.load(EXAMPLE).module)
    assert bundle.bytes < 0.30 * 4 * parameters
    assert bundle.manifest.quantization is not None


@pytest.mark.parametrize("beam_size", [1, 5])
def test_the_bundle_speaks_german(int8: Path, beam_size: int) -> None:
    translator = Translator.load(int8)
    found = translator.translate_batch(DEMO, SearchOptions(beam_size))
    assert all(one.text and not one.flags.hit_length_limit for one in found)
    assert not any(one.flags.unknown for one in found)
    text = " ".join(one.text for one in found).lower()
    for word in ("ich", "deutschland", "bahnhof", "kostet", "ohne"):
        assert word in text


def test_the_bundle_passes_its_own_verification(int8: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(int8)])
    assert result.exit_code == 0, result.output
