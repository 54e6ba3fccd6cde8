"""What several files of tests begin with."""

from pathlib import Path

import pytest
from toy_bundle import write_toy_bundle


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a toy bundle, which tests only read."""
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    write_toy_bundle(folder)
    return folder
