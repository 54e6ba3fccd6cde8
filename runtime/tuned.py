"""What options an engine has that is given none: its bundle's tuning, or the defaults.

Kept apart from `tuning`, whose records take 5 ms to import: a start without a tuning
costs nothing for it but a look into two folders.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from seq2edge.runtime.bundle import TUNING, Bundle

if TYPE_CHECKING:
    from seq2edge.runtime.sessions import EngineOptions


def engine_options(bundle: Bundle) -> "EngineOptions":
    """Those of the tuning that counts here, or the defaults.

    BundleError if a damaged tuning is in the way.
    """
    from seq2edge.runtime.sessions import EngineOptions

    if any(map(os.path.isfile, places(bundle))):
        from seq2edge.runtime.tuning import applying

        if found := applying(bundle):
            return found.tuning.chosen.options
    return EngineOptions()


def places(bundle: Bundle) -> Iterator[Path]:
    """Where a tuning may lie, the first to be looked for first."""
    yield bundle.file(TUNING)
    if cache := _cache():
        yield cache / "seq2edge" / bundle.fingerprint() / TUNING


def _cache() -> Path | None:
    """The user's; None where there is no home either."""
    given = (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache"))
    return next((Path(path) for path in given if os.path.isabs(path)), None)
