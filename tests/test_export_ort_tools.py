import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from toy_bundle import toy_inputs, write_toy_bundle

from seq2edge.export.ort_tools import optimized_nodes, profile_table
from seq2edge.runtime.errors import ExportError


def test_its_table_names_the_operators_of_a_profile(tmp_path: Path) -> None:
    write_toy_bundle(tmp_path / "bundle")
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    encoder = tmp_path / "bundle" / "encoder.onnx"
    session = onnxruntime.InferenceSession(encoder, options)
    session.run(None, toy_inputs([[4, 5, 6], [7, 3]]))
    table = profile_table(Path(session.end_profiling()), threshold=0.0)
    assert "Gather" in table
    assert "Grouped" not in table.splitlines()[0]


def test_its_optimizer_counts_nodes_and_leaves_the_bundle_alone(
    tmp_path: Path,
) -> None:
    write_toy_bundle(tmp_path / "bundle")
    before = sorted(path.name for path in (tmp_path / "bundle").iterdir())
    counts = optimized_nodes(tmp_path / "bundle" / "decoder.greedy.onnx")
    assert counts["Tanh"] == 2
    assert sorted(path.name for path in (tmp_path / "bundle").iterdir()) == before


def test_what_it_can_not_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("no json", encoding="utf-8")
    with pytest.raises(ExportError, match=r"onnxruntime-tools failed on .*json"):
        profile_table(tmp_path / "profile.json")


def test_it_is_never_imported_here() -> None:
    program = (
        "import sys, seq2edge.export, seq2edge.export.ort_tools;"
        "assert 'onnxruntime_tools' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
