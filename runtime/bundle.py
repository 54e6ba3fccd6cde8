"""The bundle: one folder that holds a model, and the manifest that says what is in it.

A bundle is checked before any of it is used: format, schema, that no name leaves the
folder, sizes, then hashes. The hashes find damage, not malice: who can change a file
can change the manifest.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2edge.runtime.errors import BundleError
from seq2edge.runtime.manifest import MANIFEST, FileEntry, Manifest, listed

GOLDEN = "golden.json"
TUNING = "tuning.json"  # what the device adds: no part of the bundle; see `tuning`


@dataclass(frozen=True)
class Bundle:
    """A checked folder and its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path | str, check_hashes: bool = True) -> "Bundle":
        """Check the folder and read its manifest; BundleError says what is wrong."""
        path = Path(path)
        value = _read_manifest(path)
        try:
            manifest = Manifest.from_json(value)
        except BundleError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from None
        bundle = cls(path, manifest)
        try:
            bundle._check_files(check_hashes)
        except OSError as error:
            raise BundleError(f"{error.filename} can't be read: {error}") from None
        return bundle

    def file(self, name: str) -> Path:
        """Where the file of this name lies."""
        return self.path / name

    @property
    def bytes(self) -> int:
        """Size on disk, the manifest included."""
        listed = sum(entry.bytes for entry in self.manifest.files.values())
        return listed + self.file(MANIFEST).stat().st_size

    def fingerprint(self) -> str:
        """The sha256 of its manifest, which has those of all other files."""
        return _sha256(self.file(MANIFEST))

    def damaged_files(self) -> list[str]:
        """Names of the files whose content isn't what the manifest says."""
        files = self.manifest.files.items()
        return [
            name for name, entry in files if _sha256(self.file(name)) != entry.sha256
        ]

    def _check_files(self, check_hashes: bool) -> None:
        names = self.manifest.files
        self._refuse("missing files", lambda name: not self._is_file(name))
        self._refuse("files that lead out of the folder", self._leads_out)
        self._refuse(
            "files of another size than the manifest says",
            lambda name: self.file(name).stat().st_size != names[name].bytes,
        )
        if check_hashes and (damaged := self.damaged_files()):
            raise BundleError(
                f"{self.path}: damaged files, by their sha256: {listed(damaged)}; "
                "copy or export the bundle again"
            )

    def _refuse(self, fault: str, is_faulty: Callable[[str], bool]) -> None:
        faulty = [name for name in self.manifest.files if is_faulty(name)]
        if faulty:
            raise BundleError(
                f"{self.path}: {fault}: {listed(faulty)}; "
                "copy or export the bundle again"
            )

    def _is_file(self, name: str) -> bool:
        # A broken link, or one that goes round in circles, is a missing file too.
        return self.file(name).is_file()

    def _leads_out(self, name: str) -> bool:
        return not self.file(name).resolve().is_relative_to(self.path.resolve())


def hash_files(folder: Path) -> dict[str, FileEntry]:
    """The `files` of a manifest for all that lies in the folder, in order of name."""
    return {
        name: FileEntry((folder / name).stat().st_size, _sha256(folder / name))
        for name in _file_names(folder)
    }


def unlisted_files(bundle: Bundle) -> list[str]:
    """Files in the folder that nobody knows: they are neither checked nor used."""
    listed = bundle.manifest.files
    return [name for name in _file_names(bundle.path) if name not in listed]


def is_bundle(path: Path) -> bool:
    """Whether the folder was written as a bundle, be it damaged, older or newer."""
    try:
        value = _read_manifest(path)
    except BundleError:
        return False
    return isinstance(value, dict) and {"format", "encoder", "files"} <= value.keys()


def read_json(path: Path, mend: str = "copy or export the bundle again") -> object:
    """A JSON file, or a BundleError that names the place of the fault.

    mend: what to do about one that is damaged.
    """
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
        )
    except FileNotFoundError:
        raise BundleError(f"{path} is missing; {mend}") from None
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BundleError(f"{path} is not UTF-8; {mend}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is not valid JSON, perhaps cut short ({error}); {mend}"
        ) from None


def _read_manifest(path: Path) -> object:
    try:
        exists, is_folder = path.exists(), path.is_dir()
        has_manifest = (path / MANIFEST).is_file()
    except OSError as error:  # no permission, or a name too long for the system
        raise BundleError(f"{path} can't be read: {error.strerror}") from None
    if not exists:
        raise BundleError(f"{path} does not exist; give the folder of a bundle")
    if not is_folder:
        raise BundleError(f"{path} is not a folder; give the folder of a bundle")
    if not has_manifest:
        raise BundleError(
            f"{path} has no {MANIFEST}, so it is no bundle; "
            "make one with `seq2edge export`"
        )
    return read_json(path / MANIFEST)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"key {key!r} is given twice")
    return unique


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in files)
    return sorted(name for name in names if name not in (MANIFEST, TUNING))
