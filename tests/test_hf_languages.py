"""A multilingual model is told its languages at export, and others at run time."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from hf_folders import (
    ENGLISH,
    GERMAN,
    LANGUAGES,
    marian_folder,
    marian_tokenizer,
    write_json,
)
from hf_multilingual import KINDS, multilingual_folder, tokenizer_of
from slow import slow_among

from seq2edge.cli import main
from seq2edge.models.loading import load_checkpoint
from seq2edge.runtime.errors import BundleError, CheckpointError, ConfigError
from seq2edge.runtime.languages import LanguagePair
from seq2edge.runtime.manifest import Manifest
from seq2edge.runtime.translator import Translator

EXPORTED = slow_among(
    ["m2m100", "nllb", "mbart", "mbart50"], "nllb", "mbart", "mbart50"
)
SHALLOW: Mapping[str, Any] = {"encoder_layers": 1, "decoder_layers": 1}
Found = list[tuple[tuple[int, ...], float]]


@dataclass(frozen=True)
class Made:
    folder: Path
    model: Any
    arguments: tuple[str, ...]  # of its export

    @cached_property
    def bundle(self) -> Path:
        return export(self.folder, *self.arguments)


def seq2edge(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def export(folder: Path, *arguments: object) -> Path:
    """Through the command, with the corpus as the folder's sample."""
    lines = zip(ENGLISH, GERMAN, strict=True)
    text = "".join(f"{one}\t{other}\n" for one, other in lines)
    (folder / "sample.tsv").write_text(text, encoding="utf-8")
    bundle = folder.parent / "bundle"
    result = seq2edge("export", folder, bundle, *arguments)
    assert result.exit_code == 0, result.output
    return bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """By kind, each once."""

    @cache
    def make(name: str) -> Made:
        folder, kind = tmp_path_factory.mktemp("hf") / "model", KINDS[name]
        model = multilingual_folder(folder, name, **SHALLOW)
        languages = "--source-language", kind.source, "--target-language", kind.target
        return Made(folder, model, languages)

    return make


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("hf") / "opus-mt-en-mul"
    model = marian_folder(
        folder, languages=LANGUAGES, init_std=0.3, max_length=20, **SHALLOW
    )
    return Made(folder, model, ("--target-language", "deu"))


def generated(made: Made, tokenizer: Any, text: str, beams: int, **more: Any) -> Found:
    """What transformers writes: ids without start and end, and the score."""
    found = made.model.generate(
        **tokenizer([text], return_tensors="pt"),
        num_beams=beams,
        output_scores=True,
        return_dict_in_generate=True,
        **more,
    )
    [[_, *ids]] = found.sequences.tolist()
    end = made.model.config.eos_token_id
    ids = ids[: ids.index(end)] if end in ids else ids
    return [(tuple(ids), found.sequences_scores.item() if beams > 1 else 0.0)]


def assert_translates(
    translator: Translator, expected: Callable[[str, int], Found]
) -> None:
    """Tokens of text, greedily and with beams, and the scores of beams."""
    written = set()
    for beams in (1, 3):
        options = replace(translator.defaults, beam_size=beams)
        for text in ENGLISH:
            [(ids, score)] = expected(text, beams)
            assert translator.tokenizer is not None
            source = {"source": translator.tokenizer.encode(text)}
            [[best]] = translator.generate([source], options)
            assert best.tokens == ids
            if beams > 1:
                assert best.score == pytest.approx(score, abs=1e-3)
            written.add(ids)
    assert len(written) >= len(ENGLISH)


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("changed", [False, True])
def test_tokens_are_those_of_transformers_told_the_same(
    name: str, changed: bool, made: Callable[[str], Made]
) -> None:
    kind, one = KINDS[name], made(name)
    source, target = kind.source, kind.target
    translator = Translator.load(one.bundle)
    if changed:
        source, target = kind.other, kind.source
        translator = translator.for_languages(source, target)
    theirs = tokenizer_of(one.folder, name, src_lang=source)
    token = theirs.convert_tokens_to_ids(
        f"__{target}__" if name == "m2m100" else target
    )
    key = "decoder_start_token_id" if kind.starts else "forced_bos_token_id"
    assert_translates(
        translator,
        lambda text, beams: generated(one, theirs, text, beams, **{key: token}),
    )


@pytest.mark.parametrize("code", [None, "nld"])
def test_marian_reads_its_language_in_front(code: str | None, marian: Made) -> None:
    translator = Translator.load(marian.bundle)
    if code:
        translator = translator.for_languages(target=code)
    theirs = marian_tokenizer(marian.folder)
    assert_translates(
        translator,
        lambda text, beams: generated(
            marian, theirs, f">>{code or 'deu'}<< {text}", beams
        ),
    )


def test_a_language_in_the_text_comes_before_the_chosen_one(marian: Made) -> None:
    translator = Translator.load(marian.bundle)
    given = [f">>fra<< {text}" for text in ENGLISH]
    chosen = translator.for_languages(target="fra").translate_batch(ENGLISH)
    assert [one.text for one in translator.translate_batch(given)] == [
        one.text for one in chosen
    ]


def test_a_language_that_is_forced_is_not_in_the_text(
    made: Callable[[str], Made],
) -> None:
    translator = Translator.load(made("m2m100").bundle)
    first = translator.translate(ENGLISH[0])
    assert first.tokens[0] == "__de__"
    assert "__" not in first.text


def test_a_score_counts_the_language_that_is_forced(
    made: Callable[[str], Made],
) -> None:
    one = made("m2m100")
    tokenizer = tokenizer_of(one.folder, "m2m100", src_lang="en", tgt_lang="de")
    batch = tokenizer(ENGLISH[0], text_target="Ein Baum", return_tensors="pt")
    with torch.no_grad():
        loss = one.model(**batch).loss.item()  # a mean over [language] X </s>
    score = Translator.load(one.bundle).score(ENGLISH[0], "Ein Baum")
    assert score.log_prob == pytest.approx(-loss * batch["labels"].numel(), rel=1e-4)


def test_the_command_takes_languages(made: Callable[[str], Made]) -> None:
    bundle = made("m2m100").bundle
    options = ["--source-language", "fr", "--target-language", "ro"]
    result = seq2edge("translate", bundle, *options, ENGLISH[0])
    assert result.exit_code == 0
    told = Translator.load(bundle).for_languages("fr", "ro")
    assert result.stdout == f"{told.translate(ENGLISH[0]).text}\n"


def test_an_unknown_language_ends_in_one_sentence_with_the_known(
    made: Callable[[str], Made],
) -> None:
    one = made("m2m100")
    bundle = one.folder.parent / "another"
    for arguments in (
        ("translate", one.bundle, "--target-language", "deu", "text"),
        ("export", one.folder, bundle, "--source-language", "deu"),
    ):
        result = seq2edge(*arguments)
        assert result.exit_code == 1
        assert "'deu' is not known" in result.stderr
        assert "da, de, el, en, es, et" in result.stderr
    assert not bundle.exists()


def test_languages_that_are_needed_are_asked_for(
    tmp_path: Path, made: Callable[[str], Made]
) -> None:
    folder = Path(shutil.copytree(made("mbart50").folder, tmp_path / "model"))
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "MBart50Tokenizer"}
    )
    with pytest.raises(CheckpointError, match="source and target"):
        load_checkpoint(folder)
    with pytest.raises(CheckpointError, match="use --target-language with one of af_"):
        load_checkpoint(folder, LanguagePair(source="en_XX"))


def test_a_folder_may_say_its_languages_itself(
    tmp_path: Path, made: Callable[[str], Made]
) -> None:
    folder = Path(shutil.copytree(made("mbart50").folder, tmp_path / "model"))
    tokenizer = tokenizer_of(folder, "mbart50", src_lang="fi_FI", tgt_lang="uk_UA")
    tokenizer.save_pretrained(folder)
    about = load_checkpoint(folder).info.about
    assert (about.source_language, about.target_language) == ("fi_FI", "uk_UA")


def test_a_model_of_one_pair_is_told_none(tmp_path: Path, marian: Made) -> None:
    marian_folder(tmp_path)
    with pytest.raises(CheckpointError, match="knows one pair; leave them out"):
        load_checkpoint(tmp_path, LanguagePair(target="deu"))
    with pytest.raises(ConfigError, match="isn't told the source language"):
        Translator.load(marian.bundle).for_languages(source="eng")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("source", "xxx_Latn", "has no token for 'xxx_Latn'"),
        ("target", "xxx_Latn", "has no token for 'xxx_Latn'"),
        ("tokens", {"deu_Latn": 5, "eng_Latn": 900}, "vocabulary for eng_Latn"),
        ("tokens", {"deu_Latn": -1, "eng_Latn": 5}, "vocabulary for deu_Latn"),
        ("source_place", "middle", "source_place"),
    ],
)
def test_a_manifest_whose_languages_contradict_it_is_refused(
    key: str, value: object, expected: str, made: Callable[[str], Made]
) -> None:
    manifest = json.loads((made("m2m100").bundle / "manifest.json").read_text("utf-8"))
    manifest["tokenizer"]["languages"][key] = value
    with pytest.raises(BundleError, match=expected):
        Manifest.from_json(manifest)


def test_inspect_lists_the_languages(made: Callable[[str], Made], marian: Made) -> None:
    shown = seq2edge("inspect", made("m2m100").bundle).stdout
    assert "languages 100: af, am, ar, ast" in shown
    assert "by default it reads en, writes de" in shown
    shown = seq2edge("inspect", marian.bundle).stdout
    assert "languages 3: deu, fra, nld" in shown
    assert "by default it writes deu" in shown
