"""What several files of tests begin with."""

from functools import cache
from pathlib import Path

import pytest
from onnxscript._internal.values import TracedOnnxFunction
from toy_bundle import write_toy_bundle


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a toy bundle, which tests only read."""
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    write_toy_bundle(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def signatures_read_once() -> None:
    """torch.onnx reads those of a thousand functions anew for each graph.

    That is a fifth of the time that a small module takes to trace.
    """
    reader: property = vars(TracedOnnxFunction)["function_ir"]
    assert reader.fget is not None
    setattr(TracedOnnxFunction, "function_ir", property(cache(reader.fget)))  # noqa: B010
