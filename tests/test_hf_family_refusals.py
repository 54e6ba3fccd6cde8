"""What of M2M100, NLLB and mBART folders can't be had, in one sentence."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hf_folders import change, write_json
from hf_multilingual import KINDS, MODEL, multilingual_folder

from seq2edge.models.loading import load_checkpoint
from seq2edge.runtime.errors import CheckpointError
from seq2edge.runtime.languages import LanguagePair

SETTINGS = "tokenizer_config.json"
Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Make:
    @cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("hf") / "model"
        multilingual_folder(folder, name, encoder_layers=1, decoder_layers=1)
        return folder

    return make


@pytest.fixture
def whole(originals: Make, tmp_path: Path) -> Make:
    """A copy of a folder, to be damaged."""
    return lambda name: Path(shutil.copytree(originals(name), tmp_path / "model"))


def refusal(folder: Path, name: str, *words: str) -> None:
    languages = LanguagePair(KINDS[name].source, KINDS[name].target)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, languages)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", ["m2m100", "nllb", "mbart", "mbart50"])
def test_a_model_of_pieces_that_is_missing_or_damaged_is_named(
    name: str, whole: Make
) -> None:
    folder = whole(name)
    (folder / MODEL).write_bytes(b"no model")
    refusal(folder, name, MODEL, "damaged", "copy the whole folder")
    (folder / MODEL).unlink()
    refusal(folder, name, MODEL, "missing", "copy the whole folder")


def test_languages_of_another_class_do_not_fit_the_model(whole: Make) -> None:
    folder = whole("mbart")
    change(folder / SETTINGS, tokenizer_class="MBart50Tokenizer")
    refusal(folder, "mbart", MODEL, "tokens, where the model has")


def test_a_vocabulary_with_more_tokens_than_the_model_is_refused(whole: Make) -> None:
    folder = whole("m2m100")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    more = {f"new{place}": len(vocabulary) + place for place in range(4)}
    write_json(folder / "vocab.json", {**vocabulary, **more})
    refusal(folder, "m2m100", "vocab.json", "tokens, where the model has")


def test_a_class_of_another_family_is_refused(whole: Make) -> None:
    folder = whole("mbart")
    change(folder / SETTINGS, tokenizer_class="T5Tokenizer")
    refusal(folder, "mbart", SETTINGS, "'T5Tokenizer'", "MBart50Tokenizer")


def test_nllb_needs_its_languages_listed(whole: Make) -> None:
    folder = whole("nllb")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    listing = settings.pop("added_tokens_decoder")
    write_json(folder / SETTINGS, settings)
    refusal(folder, "nllb", SETTINGS, "tokenizer.json", "languages")
    tokens = [{"id": int(id_), **token} for id_, token in listing.items()]
    write_json(folder / "tokenizer.json", {"added_tokens": tokens})
    load_checkpoint(folder, LanguagePair("eng_Latn", "deu_Latn"))


def test_a_language_that_a_folder_names_must_be_known(whole: Make) -> None:
    folder = whole("m2m100")
    change(folder / SETTINGS, src_lang="xx")
    refusal(folder, "m2m100", SETTINGS, "src_lang = 'xx'")


def test_other_language_codes_are_refused(whole: Make) -> None:
    folder = whole("m2m100")
    change(folder / SETTINGS, language_codes="mine")
    refusal(folder, "m2m100", SETTINGS, "language_codes = 'mine'", "wmt21")


@pytest.mark.parametrize(
    "token", [{"content": "x", "rstrip": True}, {"lstrip": True}, "x"]
)
def test_an_added_token_that_cannot_be_had_is_refused(
    token: object, whole: Make
) -> None:
    folder = whole("nllb")
    change(folder / SETTINGS, added_tokens_decoder={"200": token})
    refusal(folder, "nllb", SETTINGS)


def test_bart_is_refused_with_its_reason(whole: Make) -> None:
    folder = whole("mbart")
    change(folder / "config.json", model_type="bart")
    refusal(folder, "mbart", "'bart' isn't supported", "byte-level BPE")
