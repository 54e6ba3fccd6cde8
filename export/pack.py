"""A bundle's folder: filled beside its place, checked, then renamed into it.

A reader never sees half a bundle, and a failing export leaves what was there. Only a
bundle is ever replaced, and only if asked for.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seq2edge.runtime.bundle import is_bundle
from seq2edge.runtime.errors import OutputError


def check_target(output: Path, force: bool) -> None:
    """Refuse, before any work, a place that the bundle could not take."""
    if output.is_symlink() and not output.exists():
        raise OutputError(f"{output} is a broken link; remove it or name another place")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is a file; name a folder that isn't there yet")
    if not _holds_anything(output):
        return
    if not is_bundle(output):
        raise OutputError(
            f"{output} is not empty and no bundle; name another folder, "
            "for only a bundle is ever replaced"
        )
    if not force:
        raise OutputError(f"{output} is a bundle already; replace it with --force")


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A new hidden folder beside the output, which goes however this block ends."""
    parent = output.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=parent))
    except OSError as error:
        raise OutputError(
            f"{parent} can't be written ({error.strerror}); name another place"
        ) from None
    try:
        yield folder
    except OSError as error:  # a full disk, or a file that went away
        raise OutputError(
            f"{error.filename or folder}: {error.strerror or error}; "
            "no bundle was written"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(bundle: Path, output: Path, force: bool) -> None:
    """Rename a finished bundle, inside its staging folder, to its place."""
    check_target(output, force)  # again: hours may have passed
    old = bundle.parent / "replaced"
    try:
        bundle.chmod(0o777 & ~_umask())  # mkdtemp's are private
        if _holds_anything(output):
            os.rename(output, old)
            try:
                os.rename(bundle, output)
            except BaseException:
                os.rename(old, output)
                raise
        else:
            if output.exists():
                output.rmdir()
            os.rename(bundle, output)
    except OSError as error:
        raise OutputError(
            f"{output} can't be written ({error.strerror}); name another place"
        ) from None


def _holds_anything(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise OutputError(
            f"{folder} can't be read ({error.strerror}); name another place"
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
