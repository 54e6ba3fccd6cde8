"""onnxruntime-tools 1.7.0, in a process of its own.

Upstream moved it into onnxruntime in 2020 and last released it in 2021; imported beside
`onnxruntime.transformers` it breaks that. So nothing here imports it: two of its tools,
the table of a profile and a second opinion on the optimised graph, run as subprocesses.
Its fusions for BERT don't know today's operator sets and stay switched off.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from seq2edge.runtime.errors import ExportError

_PROFILE = """
import sys
from onnxruntime_tools.transformers import profiler
records = profiler.load_profile_json(sys.argv[1])
print("[table]")
print("\\n".join(profiler.parse_profile_results(records, True, float(sys.argv[2]))))
print("\\n".join(profiler.group_profile_results(records, True, False)))
"""
_NODES = """
import collections, json, sys
from onnxruntime_tools import optimizer
model = optimizer.optimize_model(sys.argv[1], opt_level=99, only_onnxruntime=True)
kinds = collections.Counter(node.op_type for node in model.model.graph.node)
print("[table]")
print(json.dumps(kinds))
"""


def profile_table(profile: Path, threshold: float = 0.01) -> str:
    """Its table of an onnxruntime profile: nodes above a share of the time, and kinds.

    `profile` is the JSON that a session wrote with profiling enabled.
    """
    return _run(_PROFILE, str(profile), str(threshold))


def optimized_nodes(graph: Path) -> dict[str, int]:
    """How many nodes of each kind its optimizer leaves of a bundle's graph."""
    with tempfile.TemporaryDirectory() as folder:
        # It writes beside the graph that it reads, and a bundle is not ours to litter.
        for file in (graph, graph.parent / "weights.bin"):
            if file.exists():
                shutil.copyfile(file, Path(folder) / file.name)
        counts: dict[str, int] = json.loads(_run(_NODES, f"{folder}/{graph.name}"))
    return counts


def _run(program: str, *arguments: str) -> str:
    """What a program prints behind the mark; ExportError says why there is nothing."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'onnxruntime_tools'" in done.stderr:
        raise ExportError(
            "onnxruntime-tools is not installed: pip install 'seq2edge[export]'"
        )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        raise ExportError(f"onnxruntime-tools failed on {arguments[0]}: {reason}")
    return done.stdout.partition("[table]\n")[2]
