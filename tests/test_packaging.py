"""The wheel must hold every module, and the runtime must stay free of torch."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from toy_bundle import SENTENCES, write_toy_bundle

ROOT = Path(__file__).parents[1]
ROOMS = ("export", "runtime", "models")
HEAVY = ("torch", "onnx", "onnxscript", "transformers", "seq2edge.export")


def modules(room: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*.py")}


def test_every_folder_with_modules_is_packaged() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    config = tomllib.loads(text)["tool"]["setuptools"]
    folders = {
        f"seq2edge.{Path(module).parent.as_posix().replace('/', '.')}"
        for room in ROOMS
        for module in modules(room)
    }
    packaged = set(config["packages"])
    folders |= {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in (ROOT / "seq2edge").rglob("*.py")
    }
    assert folders == packaged == set(config["package-dir"])


def test_the_wheel_holds_every_module_once(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {f"seq2edge/{module}" for room in ROOMS for module in modules(room)}
    wanted |= {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "seq2edge").rglob("*.py")
    }
    packaged = [name for name in names if name.endswith(".py")]
    assert sorted(packaged) == sorted(wanted)
    assert "seq2edge/py.typed" in names


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    write_toy_bundle(folder)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["export", "--help"],
        ["train", "--help"],
        ["translate", "BUNDLE", SENTENCES[0]],
        ["verify", "BUNDLE"],
        ["inspect", "BUNDLE"],
        ["profile", "BUNDLE", "--repeat", "1"],
        ["profile", "BUNDLE", "--repeat", "3", "--tune"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_light_commands_never_import_torch(
    arguments: list[str], bundle: Path, tmp_path: Path
) -> None:
    given = [str(bundle) if part == "BUNDLE" else part for part in arguments]
    script = (
        "import sys; from seq2edge.cli import main; "
        f"main({given!r}, standalone_mode=False); "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines()[-1] == "[]"


def test_importing_the_runtime_pulls_in_nothing_slow() -> None:
    script = (
        "import sys; import seq2edge.runtime; "
        "print(sorted({'numpy', 'onnxruntime', 'sentencepiece'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


# What a greedy translation has no use for: other tasks, and what they import.
IDLE = (
    "numpy.random",
    "seq2edge.runtime.alignment",
    "seq2edge.runtime.beams",
    "seq2edge.runtime.branches",
    "seq2edge.runtime.footprint",
    "seq2edge.runtime.looks",
    "seq2edge.runtime.predictor",
    "seq2edge.runtime.sampling",
    "seq2edge.runtime.scoring",
    "seq2edge.runtime.weighing",
)


def test_a_translation_imports_only_what_it_needs(bundle: Path) -> None:
    arguments = ["translate", str(bundle), "--beam-size", "1", SENTENCES[0]]
    script = (
        "import sys; from seq2edge.cli import main; "
        f"main({arguments!r}, standalone_mode=False); "
        f"print(sorted(set({IDLE!r}) & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"
