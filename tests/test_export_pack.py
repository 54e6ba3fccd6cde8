import os
from pathlib import Path

import pytest
from toy_bundle import write_toy_bundle

from seq2edge.export.pack import check_target, publish, staging
from seq2edge.runtime.bundle import Bundle
from seq2edge.runtime.errors import OutputError


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "place" / "bundle"


def export(output: Path, force: bool = False, seed: int = 0) -> None:
    check_target(output, force)
    with staging(output) as folder:
        write_toy_bundle(folder / "fp32", seed)
        publish(folder / "fp32", output, force)


def weights(bundle: Path) -> bytes:
    return (bundle / "weights.bin").read_bytes()


def test_a_bundle_appears_whole_and_alone(output: Path) -> None:
    export(output)
    Bundle.load(output)
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]


def test_an_empty_folder_is_taken(output: Path) -> None:
    output.mkdir(parents=True)
    export(output)
    Bundle.load(output)


def test_a_bundle_is_replaced_only_by_force(output: Path) -> None:
    export(output)
    before = weights(output)
    with pytest.raises(OutputError, match=r"is a bundle already.*--force"):
        export(output, seed=1)
    assert weights(output) == before
    export(output, force=True, seed=1)
    assert weights(output) != before
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]


def test_another_folder_is_never_replaced(output: Path) -> None:
    output.mkdir(parents=True)
    (output / "thesis.txt").write_text("ten years of work", encoding="utf-8")
    with pytest.raises(OutputError, match="not empty and no bundle"):
        export(output, force=True)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]


def test_a_file_or_broken_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="is a file"):
        export(tmp_path / "file", force=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="broken link"):
        export(tmp_path / "link", force=True)


def test_a_full_disk_is_one_sentence(output: Path) -> None:
    def fill() -> None:
        with staging(output) as folder:
            raise OSError(28, "No space left on device", str(folder / "weights.bin"))

    with pytest.raises(OutputError, match=r"weights\.bin: No space left on device"):
        fill()
    assert list(output.parent.iterdir()) == []


def interrupted_export(output: Path, error: type[BaseException]) -> None:
    with staging(output) as folder:
        write_toy_bundle(folder / "fp32")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_an_export_nothing_is_left(
    output: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        interrupted_export(output, error)
    assert list(output.parent.iterdir()) == []


def test_a_failing_replacement_keeps_the_old_bundle(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(output)
    before = weights(output)
    rename = os.rename

    def fails_for_the_new(source: Path, target: Path) -> None:
        if Path(source).name == "fp32":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_for_the_new)
    with pytest.raises(OutputError, match="No space left"):
        export(output, force=True, seed=1)
    assert weights(output) == before
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]


def test_a_place_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="can't be written"):
        export(tmp_path / "file" / "bundle")
