"""Would scoring be faster if the graph itself picked each row's one log-probability?

    python benchmarks/scores_head.py BUNDLE

One step of the scores head, whose (rows, vocabulary) come to Python, against the same
with a Gather behind it, and with ReduceLogSumExp in place of the log-softmax. Medians
of alternating calls, one thread; the ratio is to the scores head.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.prune import prune

SOURCE = 20  # tokens
CALLS = 300

PICKED = ("Squeeze", ["picked", "axis"], ["due_log_prob"])
GATHERED = [
    ("GatherElements", ["log_probs", "column"], ["picked"]),
    PICKED,
]
SUMMED = [
    ("GatherElements", ["logits", "column"], ["due_logit"]),
    ("ReduceLogSumExp", ["logits", "axis"], ["normalizer"]),
    ("Sub", ["due_logit", "normalizer"], ["picked"]),
    PICKED,
]


def variant(head: onnx.ModelProto, nodes: list[Any]) -> onnx.ModelProto:
    """The head with `due` (rows,) in, and its log-probability (rows,) out."""
    model = onnx.ModelProto()
    model.CopyFrom(head)
    graph = model.graph
    state = [value for value in graph.output if value.name.startswith("next.")]
    del graph.output[:]
    out = helper.make_tensor_value_info("due_log_prob", TensorProto.FLOAT, ["rows"])
    graph.output.extend([out, *state])
    graph.input.append(
        helper.make_tensor_value_info("due", TensorProto.INT64, ["rows"])
    )
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    graph.node.append(make_node("Unsqueeze", ["due", "axis"], ["column"]))
    for kind, read, written in nodes:
        axis = {"axis": 1} if kind == "GatherElements" else {}
        graph.node.append(make_node(kind, read, written, **axis))
    prune(graph)
    return model


def session(path: Path) -> onnxruntime.InferenceSession:
    """As the engine makes it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(os.fspath(path), options)


def run(graph: onnxruntime.InferenceSession, feed: Mapping[str, Any]) -> list[Any]:
    """One call with what the graph takes."""
    found: list[Any] = graph.run(
        None, {port.name: feed[port.name] for port in graph.get_inputs()}
    )
    return found


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def main(bundle: Path) -> None:
    """Measure at 1 to 32 rows."""
    head = onnx.load(bundle / "decoder.scores.onnx", load_external_data=False)
    models = {
        "all fetched": head,
        "gathered": variant(head, GATHERED),
        "log-sum-exp": variant(head, SUMMED),
    }
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(bundle / "weights.bin", folder)
        graphs = {}
        for name, model in models.items():
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(model.SerializeToString())
            graphs[name] = session(path)
    encoder = session(bundle / "encoder.onnx")
    for rows in (1, 4, 16, 32):
        print(rows, "rows:", *measured(encoder, graphs, rows), sep="  ")


def measured(
    encoder: onnxruntime.InferenceSession,
    graphs: Mapping[str, onnxruntime.InferenceSession],
    rows: int,
) -> list[str]:
    """Microseconds a step, and the ratio to the first."""
    source = np.random.default_rng(0).integers(5, 100, (rows, SOURCE))
    lengths = np.full(rows, SOURCE, np.int32)
    names = [port.name for port in encoder.get_outputs()]
    encoded = run(encoder, {"source": source, "source_lengths": lengths})
    feed = dict(zip(names, encoded, strict=True))
    due = np.full(rows, 7)
    feed |= {"token": due, "parents": np.arange(rows), "due": due}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(CALLS):
        for name, graph in graphs.items():
            began = time.perf_counter()
            result = run(graph, feed)[0]
            found = result if result.ndim == 1 else result[np.arange(rows), due]
            times[name].append(time.perf_counter() - began)
            assert np.isfinite(found).all()
    medians = {name: float(np.median(each)) for name, each in times.items()}
    first = next(iter(medians.values()))
    return [
        f"{name} {1e6 * median:.0f} us ({median / first:.2f})"
        for name, median in medians.items()
    ]


if __name__ == "__main__":
    main()
