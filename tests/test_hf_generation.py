"""A folder's generation settings, in our search over its module in torch, find what
generate finds.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hf_folders import ENGLISH, change, marian_folder, marian_tokenizer

from seq2edge.models.loading import load_checkpoint
from seq2edge.models.torch_stepper import TorchStepper
from seq2edge.models.transformer import Transformer
from seq2edge.runtime.translator import Translator

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "as Marian's": {},
    "one beam": {"num_beams": 1},
    "sums of 1": {"renormalize_logits": True},
    "sums of 1 of fewer": {"renormalize_logits": True, "suppress_tokens": [5, 9, 30]},
    "long ones": {"length_penalty": 2.0, "early_stopping": "never"},
    "early": {"early_stopping": True, "num_beams": 3},
    "the default length": {"max_length": 20},
    "new tokens": {"max_new_tokens": 7},
    "no end before": {"min_length": 6},
    "no new end before": {"min_new_tokens": 6, "max_new_tokens": 9},
    "no repetition": {"no_repeat_ngram_size": 2, "num_beams": 2},
    "repetition penalized": {"repetition_penalty": 1.7},
    "bad words": {"bad_words_ids": [[12], [7, 8]], "suppress_tokens": [3]},
    "a first token": {"forced_bos_token_id": 17},
    "a free end": {"forced_eos_token_id": None},
    "another start": {"decoder_start_token_id": 4},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model that writes something else for each text."""
    folder = tmp_path_factory.mktemp("hf")
    return folder, marian_folder(folder, init_std=0.3, decoder_layers=1)


def translator_of(folder: Path) -> Translator:
    loaded = load_checkpoint(folder)
    info, module = loaded.info, loaded.module
    assert isinstance(module, Transformer)
    assert info.vocabulary is not None
    assert info.search is not None
    stepper = TorchStepper(module)
    return Translator(stepper, info.vocabulary, info.limits, defaults=info.search)


def settings_of(folder: Path, other: Path, **values: object) -> None:
    """The same folder in another place, with other settings of generation."""
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    change(other / "generation_config.json", **values)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_mean_what_they_mean_to_generate(
    name: str, made: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, model = made
    settings_of(folder, tmp_path, **SETTINGS[name])
    # As an argument, it would be mixed with the model's own wherever it is the default.
    own = type(model.generation_config).from_pretrained(tmp_path)
    model.generation_config = own
    tokenizer, translator = marian_tokenizer(folder), translator_of(tmp_path)
    written = set()
    for text in ENGLISH:
        given = tokenizer([text], return_tensors="pt")
        [[best]] = translator.generate([{"source": given.input_ids[0].numpy()}])
        found = model.generate(
            **given,
            output_scores=True,
            return_dict_in_generate=True,
        )
        [[_, *ids]] = found.sequences.tolist()
        end = own.eos_token_id
        assert best.tokens == tuple(ids[: ids.index(end)] if end in ids else ids)
        if own.num_beams > 1:
            assert best.score == pytest.approx(found.sequences_scores.item(), abs=1e-3)
        written.add(best.tokens)
    assert len(written) > len(ENGLISH) // 2


def test_sums_of_one_change_the_scores(made: tuple[Path, Any], tmp_path: Path) -> None:
    """Tokens that never come have a probability that is spread over others or isn't."""
    folder, _ = made
    source = {"source": marian_tokenizer(folder)(ENGLISH[0]).input_ids}
    scores = []
    for sums in (False, True):
        other = tmp_path / str(sums)
        other.mkdir()
        often = {"suppress_tokens": [85, 119], "renormalize_logits": sums}
        settings_of(folder, other, **often)
        [[best]] = translator_of(other).generate([source])
        scores.append(best.score)
    assert scores[1] > scores[0] + 0.005


def test_a_folder_is_read_without_transformers(made: tuple[Path, Any]) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from seq2edge.models.loading import load_checkpoint; "
        "load_checkpoint(Path(sys.argv[1])); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(made[0])], check=True)
