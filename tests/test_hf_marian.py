"""A MarianMT folder computes, reads and writes here what it does in transformers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_folders import ENGLISH, GERMAN, marian_folder, marian_tokenizer
from hf_parity import assert_same

from seq2edge.export.pipeline import export_checkpoint
from seq2edge.export.spec import ExportOptions
from seq2edge.models.loading import load_checkpoint
from seq2edge.models.transformer import Transformer
from seq2edge.runtime.translator import Translator

UNTIED = {"share_encoder_decoder_embeddings": False}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "usual": {},
    "relu": {"activation_function": "relu"},
    "gelu": {"activation_function": "gelu"},
    "gelu_new": {"activation_function": "gelu_new"},
    "unscaled": {"scale_embedding": False},
    "deep encoder": {"encoder_layers": 3, "decoder_layers": 1},
    "other heads": {"encoder_attention_heads": 2, "decoder_attention_heads": 8},
    "other widths": {"encoder_ffn_dim": 64, "decoder_ffn_dim": 20, "d_model": 64},
    "untied output": {"tie_word_embeddings": False},
    "untied sides": UNTIED,
    "all untied": {**UNTIED, "tie_word_embeddings": False},
    "separate vocabularies": {"separate": True},
    "separate and untied": {"separate": True, "tie_word_embeddings": False},
}


def module_of(folder: Path) -> Transformer:
    module = load_checkpoint(folder).module
    assert isinstance(module, Transformer)
    return module


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_encoder_are_those_of_transformers(
    name: str, tmp_path: Path
) -> None:
    model = marian_folder(tmp_path, **CONFIGS[name])
    assert_same(model, module_of(tmp_path))


@pytest.mark.parametrize("name", ["usual", "untied output", "all untied"])
def test_a_pickled_file_is_read_as_well(name: str, tmp_path: Path) -> None:
    model = marian_folder(tmp_path, pickled=True, **CONFIGS[name])
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(model, module_of(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_into_float32(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model = marian_folder(tmp_path, dtype=dtype)
    module = module_of(tmp_path)
    assert {weight.dtype for weight in module.parameters()} == {torch.float32}
    assert_same(model, module)


def test_positions_that_a_file_holds_are_checked_and_not_used(tmp_path: Path) -> None:
    model = marian_folder(tmp_path, pickled=True)
    file = tmp_path / "pytorch_model.bin"
    weights = torch.load(file)
    for side in ("encoder", "decoder"):
        table = getattr(model.model, side).embed_positions.weight
        weights[f"model.{side}.embed_positions.weight"] = table.detach().clone()
    torch.save(weights, file)
    assert_same(model, module_of(tmp_path))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder whose model translates the corpus, and the model."""
    folder = tmp_path_factory.mktemp("opus") / "opus-mt-en-de"
    return folder, marian_folder(
        folder, steps=120, decoder_layers=1, renormalize_logits=True
    )


@pytest.fixture(scope="module")
def bundle(taught: tuple[Path, Any]) -> Path:
    folder, _ = taught
    sample = folder.parent / "sample.tsv"
    lines = zip(ENGLISH, GERMAN, strict=True)
    sample.write_text("".join(f"{a}\t{b}\n" for a, b in lines), encoding="utf-8")
    path = folder.parent / "bundle"
    export_checkpoint(folder, path, ExportOptions(sample=sample))
    return path


def texts() -> list[str]:
    """The corpus, and sentences made of its words."""
    draw = random.Random(3)
    words = " ".join(ENGLISH).split()
    made = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(34)]
    return [*ENGLISH, *made]


def generated(
    taught: tuple[Path, Any], given: Sequence[str], beams: int
) -> list[tuple[tuple[int, ...], float]]:
    """What transformers writes of a batch: ids without start and end, and scores."""
    folder, model = taught
    found = model.generate(
        **marian_tokenizer(folder)(list(given), return_tensors="pt", padding=True),
        num_beams=beams,
        output_scores=True,
        return_dict_in_generate=True,
    )
    silent = (model.config.eos_token_id, model.config.pad_token_id)
    ids = [tuple(i for i in row if i not in silent) for row in found.sequences.tolist()]
    scores = found.sequences_scores.tolist() if beams > 1 else [0.0] * len(ids)
    return list(zip(ids, scores, strict=True))


def sources(folder: Path, given: Sequence[str]) -> list[dict[str, list[int]]]:
    tokenizer = marian_tokenizer(folder)
    return [{"source": tokenizer(text).input_ids} for text in given]


def test_greedy_search_writes_what_transformers_writes(
    taught: tuple[Path, Any], bundle: Path
) -> None:
    translator = Translator.load(bundle)
    options = replace(translator.defaults, beam_size=1)
    for text in texts():
        [[found]] = translator.generate(sources(taught[0], [text]), options)
        [(expected, _)] = generated(taught, [text], beams=1)
        assert found.tokens == expected, text


@pytest.mark.parametrize("rows", [1, 7])
def test_the_defaults_find_what_four_beams_of_transformers_find(
    rows: int, taught: tuple[Path, Any], bundle: Path
) -> None:
    translator, given = Translator.load(bundle), texts()
    assert translator.defaults.beam_size == 4
    different = set()
    for first in range(0, len(given), rows):
        batch = given[first : first + rows]
        found = translator.generate(sources(taught[0], batch))
        for [best], (ids, score) in zip(
            found, generated(taught, batch, beams=4), strict=True
        ):
            assert best.tokens == ids, batch
            assert best.score == pytest.approx(score, abs=1e-3), batch
            different.add(ids)
    assert len(given) >= 40
    assert len(different) > len(given) // 2


def test_the_bundle_translates_the_corpus(bundle: Path) -> None:
    translator = Translator.load(bundle)
    assert [one.text for one in translator.translate_batch(ENGLISH)] == list(GERMAN)
