"""The runtime on the committed bundles of a trained model: no torch, no onnx needed."""

import itertools
import random
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from seq2edge.runtime import SearchOptions, Translator
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.verify import verify

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
# As in toy_language, which needs torch to import.
WORDS = {"one": "eins", "two": "zwei", "red": "rot", "dog": "Hund", "sun": "Sonne"}
SENTENCES = [" ".join(words) for words in itertools.permutations(WORDS, 3)]
PRECISIONS = ("fp32", "int8")


def correct(source: str) -> str:
    return " ".join(WORDS[word] for word in reversed(source.split()))


@pytest.fixture(params=PRECISIONS)
def translator(request: pytest.FixtureRequest) -> Translator:
    return Translator.load(DATA / f"toy-{request.param}")


@pytest.mark.parametrize("beam_size", [1, 4])
def test_the_model_knows_its_language(translator: Translator, beam_size: int) -> None:
    options = SearchOptions(beam_size)
    found = translator.translate_batch(SENTENCES, options)
    right = sum(
        one.text == correct(source)
        for source, one in zip(SENTENCES, found, strict=True)
    )
    assert right >= 0.95 * len(SENTENCES)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_company_changes_no_sentence(translator: Translator, beam_size: int) -> None:
    options = SearchOptions(beam_size)
    alone = [translator.translate(source, options).tokens for source in SENTENCES]
    order = list(range(len(SENTENCES)))
    random.Random(3).shuffle(order)
    together = translator.translate_batch([SENTENCES[i] for i in order], options)
    assert [one.tokens for one in together] == [alone[i] for i in order]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_golden_examples_come_out_the_same_here(precision: str) -> None:
    result = verify(DATA / f"toy-{precision}")
    assert result.examples > 0
    assert result.passed, result.text()


def test_int8_reached_every_large_matrix() -> None:
    manifest = Bundle.load(DATA / "toy-int8").manifest
    assert manifest.quantization is not None
    assert manifest.precision == "int8"
    assert "int8" in manifest.certificate
    assert "fp32" in manifest.certificate


def test_the_wheel_alone_translates(tmp_path: Path) -> None:
    """In a clean environment, with nothing but the wheel and what it asks for."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    environment = tmp_path / "clean"
    venv.create(environment)
    python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--quiet", "--no-compile", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    bundle = shutil.copytree(DATA / "toy-int8", tmp_path / "bundle")

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), *map(str, command)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    absent = run("-c", "import torch")
    assert "No module named 'torch'" in absent.stderr
    found = run("-m", "seq2edge", "translate", bundle, SENTENCES[0])
    assert (found.stdout, found.stderr) == (correct(SENTENCES[0]) + "\n", "")
    assert run("-m", "seq2edge", "verify", bundle).returncode == 0
    # What needs an extra says which.
    refused = run("-m", "seq2edge", "export", "somewhere", "else")
    assert refused.returncode == 1
    assert "pip install 'seq2edge[export]'" in refused.stderr
    source = tmp_path / "source"
    source.write_text(SENTENCES[0], encoding="utf-8")
    pair = ("--source", source, "--reference", source)
    refused = run("-m", "seq2edge", "evaluate", bundle, *pair)
    assert refused.returncode == 1
    assert "pip install 'seq2edge[evaluate]'" in refused.stderr
