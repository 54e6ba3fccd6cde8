"""The bundle is refused, in one sentence that names the place, before it is used."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_bundle import toy_manifest, write_toy_bundle

from seq2edge.runtime.bundle import Bundle, hash_files, is_bundle, unlisted_files
from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.manifest import MANIFEST, Manifest

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy_bundle(tmp_path / "toy")
    return tmp_path / "toy"


def edit(folder: Path, change: Edit) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def put(path: str, value: object) -> Edit:
    """An edit that sets manifest.a.b to a value, by the path "a.b"."""
    *parents, last = path.split("/")

    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in parents:
            place = place[int(key) if key.isdigit() else key]
        place[last] = value

    return change


def remove(key: str) -> Edit:
    return lambda manifest: manifest.pop(key)


def refusal(folder: Path, check_hashes: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder, check_hashes)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_a_written_bundle_loads_as_it_was_written(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.manifest == toy_manifest(folder)
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest
    assert bundle.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert unlisted_files(bundle) == []


def test_writing_a_manifest_leaves_no_other_file(folder: Path) -> None:
    before = sorted(folder.iterdir())
    toy_manifest(folder).write(folder)
    assert sorted(folder.iterdir()) == before


def test_text_beyond_ascii_survives_the_manifest(folder: Path) -> None:
    edit(folder, put("name", "für 中 😀"))
    Bundle.load(folder).manifest.write(folder)
    assert Bundle.load(folder).manifest.name == "für 中 😀"


def test_what_is_no_bundle_is_told_apart(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")
    assert "has no manifest.json" in refusal(tmp_path)
    (tmp_path / "file").touch()
    assert "is not a folder" in refusal(tmp_path / "file")
    assert "can't be read" in refusal(tmp_path / ("long" * 1000))


def test_a_newer_format_asks_for_an_upgrade(folder: Path) -> None:
    edit(folder, put("format", 7))
    edit(folder, put("something new", {}))
    message = refusal(folder)
    assert "format 7 is newer than this one reads (1)" in message
    assert "upgrade seq2edge" in message
    assert is_bundle(folder)


TABLE = {
    "names": ["rows"],
    "dtype": "int8",
    "shape": [4, 4],
    "file": "weights.bin",
    "offset": 0,
}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"format": 1, "task": "seq', "not valid JSON, perhaps cut short"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be an object"),
        (b'{"format": 1, "format": 1}', "'format' is given twice"),
        (b'{"format": NaN}', "NaN is not a number"),
        (b'{"format": ' + b"1" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_a_damaged_manifest_is_refused(
    folder: Path, content: bytes, expected: str
) -> None:
    (folder / MANIFEST).write_bytes(content)
    message = refusal(folder)
    assert expected in message
    assert MANIFEST in message
    assert not is_bundle(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove("limits"), "limits is missing"),
        (put("limitz", 1), "limitz is not a known key"),
        (put("limits/pages", 1), "limits.pages is not a known key"),
        (put("format", "1"), "format must be an integer, not '1'"),
        (put("format", 0), "format is 0"),
        (put("format", True), "format must be an integer, not True"),
        (put("task", "singing"), "task must be 'generation' or 'tagging' or"),
        (put("task", "tagging"), "outputs has no logits, which tagging reads"),
        (put("task", "classification"), "labels is empty in classification"),
        (put("vocabulary", None), "vocabulary is null, and generation needs it"),
        (put("search", None), "search is null, and generation needs it"),
        (put("labels", ["a"]), "labels is not empty in generation"),
        (put("limits/target_tokens", 0), "limits.target_tokens is 0"),
        (put("inputs/0/labels", ["a"]), "a class has labels, and nothing else has"),
        (put("inputs/0/kind", "frames"), "a frames input has 3 axes"),
        (put("precision", "int2"), "precision must be 'fp32' or 'int8' or 'int4'"),
        (put("limits/source_tokens", 0), "limits.source_tokens is 0"),
        (put("limits/source_tokens", 1.5), "limits.source_tokens must be an integer"),
        (
            put("search/length_penalty", -1),
            "search: length_penalty -1.0 must be",
        ),
        (put("search/length_penalty", "1"), "search.length_penalty must be a number"),
        (put("search/beam_size", 0), "search: beam_size 0 must be at least 1"),
        (put("vocabulary/end", 40), "vocabulary.end is 40, outside of 0 to 39"),
        (put("vocabulary", 5), "vocabulary must be an object, not 5"),
        (put("tokenizer", {}), "tokenizer.kind must be 'sentencepiece' or"),
        (put("tokenizer/kind", []), "tokenizer.kind must be 'sentencepiece' or"),
        (put("inputs", []), "inputs is empty"),
        (put("inputs", {}), "inputs must be a list"),
        (put("inputs/0/kind", "vector"), "vectors and classes none"),
        (put("inputs/0/lengths", "source"), "inputs names source twice"),
        (put("memory/1/name", "values"), "memory names values twice"),
        (put("memory/0/shape", ["rows", 1]), "memory.values: axis 0"),
        (put("memory/0/shape", ["batch", 1.5]), "memory[0].shape[1] must be"),
        (put("memory/0/dtype", "complex"), "memory[0].dtype must be"),
        (put("state/0/shape", []), "state.sum: axis 0 of its shape must be 'rows'"),
        (put("heads", {}), "heads is empty"),
        (put("heads/best", "weights.bin"), "heads has best"),
        (put("heads/beam", "gone.onnx"), "files does not list gone.onnx"),
        (put("encoder", "gone.onnx"), "files does not list gone.onnx"),
        (put("files/weights.bin/sha256", "abc"), "files.weights.bin"),
        (put("files/weights.bin/bytes", -1), "files.weights.bin"),
        (put("tables", [TABLE | {"offset": 1 << 40}]), "rows lies outside of weights"),
        (put("tables", [TABLE | {"offset": -1}]), "rows lies outside of weights.bin"),
        (put("tables", [TABLE | {"shape": [-4, 4]}]), "rows lies outside of weights"),
        (put("tables", [TABLE | {"file": "gone"}]), "files does not list gone"),
        (put("certificate", None), "certificate must be an object"),
    ],
)
def test_a_fault_in_the_manifest_is_named(
    folder: Path, change: Edit, expected: str
) -> None:
    edit(folder, change)
    message = refusal(folder)
    assert expected in message
    assert message.startswith(f"{folder / MANIFEST}: ")
    assert message.endswith("export the bundle again")


NASTY: list[object] = [None, True, 0, -1, 1.5, 10**30, "", "x", [], {}, [[]], {"a": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    inside = [(*path, key) for key, _ in items]
    for key in list(inside):
        child = value[key[-1]]
        if isinstance(child, dict | list):
            inside += places(child, key)
    return inside


def test_no_value_anywhere_in_a_manifest_ends_in_anything_but_a_bundle_error(
    folder: Path,
) -> None:
    original = toy_manifest(folder).to_json()
    for path in places(original):
        for nasty in NASTY:
            value = json.loads(json.dumps(original))
            parent = value
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = nasty
            with contextlib.suppress(BundleError):
                Manifest.from_json(value)


def test_all_faults_of_a_kind_are_told_at_once(folder: Path) -> None:
    edit(folder, remove("limits"))
    edit(folder, put("name", 3))
    edit(folder, put("vocabulary/pad", "0"))
    message = refusal(folder)
    assert "limits is missing" in message
    assert "name must be a string, not 3" in message
    assert "vocabulary.pad must be an integer" in message


@pytest.mark.parametrize(
    "name",
    ["../out", "/etc/passwd", "a\\b", "C:x", "a//b", "./a", ".", "", "a/../b", "a\0b"],
)
def test_a_name_that_could_leave_the_folder_is_refused(folder: Path, name: str) -> None:
    entry = {"bytes": 0, "sha256": "0" * 64}
    edit(folder, lambda manifest: manifest["files"].update({name: entry}))
    assert "not relative and inside the folder" in refusal(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.bin"
    (folder / "weights.bin").rename(outside)
    (folder / "weights.bin").symlink_to(outside)
    assert "lead out of the folder: weights.bin" in refusal(folder)


def test_a_link_inside_the_folder_is_fine(folder: Path) -> None:
    (folder / "weights.bin").rename(folder / "real.bin")
    (folder / "weights.bin").symlink_to("real.bin")
    assert unlisted_files(Bundle.load(folder)) == ["real.bin"]


def test_a_bundle_may_be_reached_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    Bundle.load(tmp_path / "link")


def test_missing_files_are_named_together(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "joint.spm").unlink()
    (folder / "joint.spm").symlink_to("joint.spm")  # round in circles
    message = refusal(folder, check_hashes=False)
    assert "missing files: joint.spm, weights.bin" in message


def test_a_truncated_file_is_found_without_hashing(folder: Path) -> None:
    os.truncate(folder / "weights.bin", 100)
    message = refusal(folder, check_hashes=False)
    assert "another size than the manifest says: weights.bin" in message


def test_a_flipped_bit_is_found_by_its_hash(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[5000] ^= 1
    (folder / "weights.bin").write_bytes(content)
    assert "damaged files, by their sha256: weights.bin" in refusal(folder)
    Bundle.load(folder, check_hashes=False)


def test_hashes_cover_folders_and_leave_out_the_manifest(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_bytes(b"abc")
    files = hash_files(folder)
    assert MANIFEST not in files
    assert files["more/notes.txt"].bytes == 3
    assert files["more/notes.txt"].sha256.startswith("ba7816bf8f01cfea")
    assert unlisted_files(Bundle.load(folder)) == ["more/notes.txt"]


def test_only_a_folder_with_a_manifest_of_ours_is_a_bundle(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "weights.bin").unlink()
    assert is_bundle(folder)  # a damaged one may be replaced
    assert not is_bundle(tmp_path / "nowhere")
    assert not is_bundle(tmp_path)
    (tmp_path / MANIFEST).write_text('{"name": "a web app", "icons": []}')
    assert not is_bundle(tmp_path)
