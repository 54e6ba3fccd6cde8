"""From which width on does a recurrent layer gain by int8 on this processor?

    python benchmarks/recurrent_int8.py [--rounds 25] [--hidden 256] [--cell gru]

Prints two tables in Markdown, each of layers with random weights whose inputs are as
wide as they are, one thread: an encoder's layer over 20 tokens, and one step of a
decoder's cell. Rounds alternate the contenders; fp32 is given in microseconds, an int8
form as how many times faster than it; all are medians of the thread's processor time.
Sizes are those of the weights.

scan and anchored are forms of `export/recurrences.py`; dynamic is onnxruntime's
DynamicQuantizeLSTM as it comes, which scales a whole batch at once. How far that moves
a row of a batch of 8 from the same row alone is printed under the tables.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node
from torch import Tensor, nn
from traced import traced

from seq2edge.export.quantize import encoder_activations, product_inputs, quantize
from seq2edge.export.recipe import NEVER, Calibration, Recipe, to_int8

Array = NDArray[Any]
Session = onnxruntime.InferenceSession
HIDDEN = (64, 128, 256, 512, 1024)
LAYERS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
OPERATORS = {"elman": ("RNN", 1), "gru": ("GRU", 3), "lstm": ("LSTM", 4)}
TOKENS = 20
SCAN = Recipe(scan_from_hidden=1, anchored_from_hidden=NEVER, relu_scan_from_hidden=1)
ANCHORED = Recipe(anchored_from_hidden=1)


def operator(cell: str, hidden: int, directions: int) -> ModelProto:
    """An encoder of one recurrent operator, in fp32."""
    kind, gates = OPERATORS[cell]
    random = np.random.default_rng(0)
    shapes = {
        "W": (directions, gates * hidden, hidden),
        "R": (directions, gates * hidden, hidden),
        "B": (directions, 2 * gates * hidden),
    }
    weights = [
        numpy_helper.from_array(
            (random.uniform(-1, 1, shape) * hidden**-0.5).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]
    more = {"linear_before_reset": 1} if cell == "gru" else {}
    direction = "bidirectional" if directions == 2 else "forward"
    node = make_node(
        kind,
        ["frames", *shapes, "frames_lengths"],
        ["Y", "Y_h"],
        hidden_size=hidden,
        direction=direction,
        **more,
    )
    return encoder(node, hidden, weights)


def encoder(node: Any, hidden: int, weights: Sequence[TensorProto]) -> ModelProto:
    """A graph of one node."""
    graph = helper.make_graph(
        [node],
        "encoder",
        [
            helper.make_tensor_value_info(
                "frames", TensorProto.FLOAT, ["time", "batch", hidden]
            ),
            helper.make_tensor_value_info(
                "frames_lengths", TensorProto.INT32, ["batch"]
            ),
        ],
        [
            helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4),
            helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, [None] * 3),
        ],
        weights,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def int8(model: ModelProto, recipe: Recipe) -> ModelProto:
    """The layer in the form that a recipe gives it."""
    names = encoder_activations(model, recipe)
    inputs = feed(model, 8)
    inputs["frames_lengths"][:] = TOKENS  # no padding in the ranges
    session = open_session(model)
    read = dict(zip(("Y", "Y_h"), session.run(None, inputs), strict=True))
    found = {**inputs, **read}
    ranges = {n: (float(found[n].min()), float(found[n].max())) for n in names}
    return quantize(model, None, Calibration(ranges), recipe).encoder


def dynamic(model: ModelProto) -> ModelProto:
    """DynamicQuantizeLSTM with our weights and its own way with activations."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    constants = {"B": arrays["B"]}
    for name in ("W", "R"):
        integers, scales = to_int8(arrays[name], 2, 7)
        constants[name] = np.ascontiguousarray(integers.transpose(0, 2, 1))
        constants[f"{name} scales"] = scales[..., 0]
        constants[f"{name} zeros"] = np.zeros(scales.shape[:2], np.int8)
    node = make_node(
        "DynamicQuantizeLSTM",
        [
            *("frames", "W", "R", "B", "frames_lengths", "", "", ""),
            *("W scales", "W zeros", "R scales", "R zeros"),
        ],
        ["Y", "Y_h"],
        domain="com.microsoft",
        hidden_size=arrays["R"].shape[2],
        direction="bidirectional" if len(arrays["R"]) == 2 else "forward",
    )
    weights = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    return encoder(node, arrays["W"].shape[2], weights)


def feed(model: ModelProto, batch: int) -> dict[str, Array]:
    """Random inputs; the first row is as long as the batch, the others shorter."""
    width = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    random = np.random.default_rng(1)
    lengths = random.integers(TOKENS // 2, TOKENS + 1, batch).astype(np.int32)
    lengths[0] = TOKENS
    frames = random.uniform(-1, 1, (TOKENS, batch, width)).astype(np.float32)
    return {"frames": frames, "frames_lengths": lengths}


class Step(nn.Module):
    """A decoder of one cell, without attention and output layer."""

    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, hidden)
        self.layer = LAYERS[cell](hidden, hidden)

    def encode(self, source: Tensor, source_lengths: Tensor) -> Any:
        """Zeros as the first state."""
        names = ("hidden", "cell")[: 1 + isinstance(self.layer, nn.LSTM)]
        size = (source.shape[0], self.layer.hidden_size)
        return {}, {name: torch.zeros(size) + source.sum() * 0 for name in names}

    def step(self, token: Tensor, memory: Any, state: Any) -> Any:
        """The next state, which is all there is."""
        before = [part[None] for part in state.values()]
        given = tuple(before) if len(before) > 1 else before[0]
        outputs, after = self.layer(self.embedding(token)[None], given)
        parts = after if isinstance(after, tuple) else (after,)
        following = {name: p[0] for name, p in zip(state, parts, strict=True)}
        return outputs[0], following


def step_graphs(cell: str, hidden: int) -> dict[str, ModelProto]:
    """A decoder's step in fp32 and int8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Step(cell, hidden).eval()
    sources = [[1, 2, 3], [2]]
    first, model, _ = traced(module, sources, 1)
    recipe = Recipe()
    ranges = dict.fromkeys(product_inputs(model, recipe), (-1.0, 1.0))
    quantized = quantize(first, model, Calibration(decoder=ranges), recipe).decoder
    assert quantized is not None
    return {"fp32": model, "int8": quantized}


def open_session(model: ModelProto) -> Session:
    """One thread, quietly."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return Session(model.SerializeToString(), options)


def weight_bytes(model: ModelProto) -> int:
    """What its constants take on disk."""
    return sum(numpy_helper.to_array(t).nbytes for t in model.graph.initializer)


def microseconds(
    sessions: Mapping[str, Session], inputs: Mapping[str, Array], rounds: int
) -> dict[str, float]:
    """The median of each contender's rounds, in the processor's time."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            session.run(None, inputs)
            # Not the clock on the wall: a neighbour's turn is no time of ours.
            repeats, begin = 0, time.thread_time()
            while repeats < 3 or time.thread_time() - begin < 0.004:
                session.run(None, inputs)
                repeats += 1
            times[name].append(1e6 * (time.thread_time() - begin) / repeats)
    return {name: statistics.median(found) for name, found in times.items()}


def moved_by_the_batch(session: Session, inputs: Mapping[str, Array]) -> float:
    """The greatest difference between a row in the batch and the row alone."""
    together = session.run(["Y"], inputs)[0]
    greatest = 0.0
    for row, length in enumerate(inputs["frames_lengths"]):
        alone = {
            "frames": inputs["frames"][:length, row : row + 1],
            "frames_lengths": inputs["frames_lengths"][row : row + 1],
        }
        outputs = session.run(["Y"], alone)[0][:, :, 0]
        difference = np.abs(outputs - together[:length, :, row]).max()
        greatest = max(greatest, float(difference))
    return greatest


def contenders(cell: str, model: ModelProto) -> dict[str, ModelProto]:
    """The layer in each of its forms."""
    found = {"fp32": model, "scan": int8(model, SCAN)}
    if cell == "lstm":
        found |= {"anchored": int8(model, ANCHORED), "dynamic": dynamic(model)}
    return found


def layers(cells: Sequence[str], widths: Sequence[int], rounds: int) -> None:
    """The encoder's table."""
    forms = ("scan", "anchored", "dynamic")
    columns = [
        f"batch {batch}: {name}" for batch in (1, 8) for name in ("fp32", *forms)
    ]
    print(row("cell", "hidden", "directions", *columns, "fp32 kB", "int8 kB"))
    print(row(*["---"] * 13))
    moved: dict[str, float] = {}
    for cell in cells:
        for hidden in widths:
            for directions in (1, 2):
                model = operator(cell, hidden, directions)
                models = contenders(cell, model)
                sessions = {name: open_session(m) for name, m in models.items()}
                shown: list[object] = [cell, hidden, directions]
                for batch in (1, 8):
                    inputs = feed(model, batch)
                    found = microseconds(sessions, inputs, rounds)
                    shown += [f"{found['fp32']:.0f}"]
                    shown += [times_faster(found, name) for name in forms]
                    for name, session in sessions.items():
                        difference = moved_by_the_batch(session, inputs)
                        moved[name] = max(moved.get(name, 0.0), difference)
                best = "anchored" if cell == "lstm" else "scan"
                sizes = [weight_bytes(models[name]) // 1000 for name in ("fp32", best)]
                print(row(*shown, *sizes), flush=True)
    print("\nA row alone and in a batch differ by at most:")
    print(", ".join(f"{name} {value:.2g}" for name, value in moved.items()))


def steps(cells: Sequence[str], widths: Sequence[int], rounds: int) -> None:
    """The decoder's table."""
    print(row("cell", "hidden", "fp32 us", "int8", "fp32 kB", "int8 kB"))
    print(row(*["---"] * 6))
    random = np.random.default_rng(2)
    for cell in cells:
        for hidden in widths:
            models = step_graphs(cell, hidden)
            sessions = {name: open_session(m) for name, m in models.items()}
            inputs: dict[str, Array] = {"token": np.array([1])}
            for port in sessions["fp32"].get_inputs():
                if port.name != "token":
                    state = random.uniform(-1, 1, (1, hidden))
                    inputs[port.name] = state.astype(np.float32)
            found = microseconds(sessions, inputs, rounds)
            sizes = [weight_bytes(model) // 1000 for model in models.values()]
            fp32 = f"{found['fp32']:.0f}"
            print(
                row(cell, hidden, fp32, times_faster(found, "int8"), *sizes), flush=True
            )


def times_faster(found: Mapping[str, float], name: str) -> str:
    """Than fp32, or nothing if there is no such contender."""
    return f"{found['fp32'] / found[name]:.2f}" if name in found else ""


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


@click.command()
@click.option("--rounds", default=25, show_default=True)
@click.option("--hidden", "widths", type=int, multiple=True, default=HIDDEN)
@click.option("--cell", "cells", multiple=True, default=tuple(LAYERS))
def main(rounds: int, widths: tuple[int, ...], cells: tuple[str, ...]) -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    print(f"An encoder's layer over {TOKENS} tokens; int8 in times faster than fp32\n")
    layers(cells, widths, rounds)
    print("\nOne step of a decoder's cell, one row\n")
    steps(cells, widths, rounds)


if __name__ == "__main__":
    main()
