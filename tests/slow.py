"""Parameters of tests, of which some are only for `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_among(names: Iterable[Any], *slow: Any) -> list[Any]:
    """The names, those that are slow marked so; each of these must be a name."""
    every = list(names)
    assert {*slow} <= {*every}
    return [
        pytest.param(name, marks=pytest.mark.slow) if name in slow else name
        for name in every
    ]
