"""The range of every activation that an int8 product quantizes, and more for int4.

The float graphs read real sentences and, step by step, their own translations, and the
least and greatest value of each activation is kept. A range that a model never leaves
costs nothing at run time, where one found at each step does. Weights of four bits are
rounded by how the features of their inputs go together: their second moments.

The encoder reads each row alone and cut to its lengths: whatever the layout of an
activation, no padding is in it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.recipe import Moments, Ranges
from seq2edge.runtime.stepper import Inputs

Array = NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """A batch of inputs, and what the steps of each row read, in order."""

    inputs: Inputs
    readings: Sequence[Array]  # tokens (steps,), or frames (steps, features)
    from_zeros: bool = False  # a stream's state, which doesn't come from the encoder


def calibrate_encoder(
    encoder: ModelProto, activations: Sequence[str], batches: Iterable[Inputs]
) -> Ranges:
    """Least and greatest value of each activation over all rows of all batches."""
    if not activations:
        return {}
    session = session_of(_with_extremes(encoder, activations, by_row=False))
    found = (
        _extremes(_run(session, row)) for inputs in batches for row in _rows(inputs)
    )
    return _widest(activations, found)


def calibrate_steps(
    encoder: ModelProto,
    decoder: ModelProto,
    activations: Sequence[str],
    batches: Iterable[Batch],
) -> Ranges:
    """Least and greatest value of each activation over all steps of all batches."""
    if not activations:
        return {}
    encode = session_of(encoder)
    step = session_of(_with_extremes(decoder, activations, by_row=True))
    found = (
        _extremes_of_rows(outputs, live)
        for batch in batches
        for outputs, live in _steps(encode, step, batch)
    )
    return _widest(activations, found)


def second_moments(
    encoder: ModelProto,
    decoder: ModelProto,
    activations: Sequence[str],
    batches: Iterable[Batch],
) -> Moments:
    """The sum of the outer products of each activation over all steps of all batches.

    Its last axis are the features.
    """
    encode, step = session_of(encoder), session_of(_showing(decoder, activations))
    sums: dict[str, Array] = {}
    for batch in batches:
        for outputs, live in _steps(encode, step, batch):
            for name in activations:
                values = outputs[name][live]
                flat = values.reshape(-1, values.shape[-1])
                sums[name] = sums.get(name, np.float32(0)) + flat.T @ flat
    return sums


def _widest(activations: Sequence[str], found: Iterable[tuple[Array, Array]]) -> Ranges:
    """The extremes of the extremes; what was never seen is left out."""
    lows = np.full(len(activations), np.inf)
    highs = np.full(len(activations), -np.inf)
    for low, high in found:
        lows, highs = np.minimum(lows, low), np.maximum(highs, high)
    return {
        name: (float(low), float(high))
        for name, low, high in zip(activations, lows, highs, strict=True)
        if np.isfinite(low) and np.isfinite(high)
    }


def _rows(inputs: Inputs) -> Iterator[dict[str, Array]]:
    """Each row of a batch, alone and without its padding."""
    for row in range(len(next(iter(inputs.values())))):
        alone = {name: array[row : row + 1] for name, array in inputs.items()}
        for name in inputs:
            lengths = alone.get(f"{name}_lengths")
            if lengths is not None:
                alone[name] = alone[name][:, : max(1, int(lengths[0]))]
        yield alone


def _extremes(outputs: Mapping[str, Array]) -> tuple[Array, Array]:
    """Least and greatest value of each activation of one row."""
    found = np.concatenate(
        [part for name, part in outputs.items() if name.startswith("range.")]
    )  # (activations, 2)
    return found[:, 0], found[:, 1]


def _extremes_of_rows(outputs: Mapping[str, Array], live: Array) -> tuple[Array, Array]:
    """Least and greatest value of each activation of a step."""
    extremes = np.stack(
        [part[live] for name, part in outputs.items() if name.startswith("range.")]
    )  # (activations, rows, 2)
    return extremes[..., 0].min(axis=1), extremes[..., 1].max(axis=1)


def _steps(
    encode: onnxruntime.InferenceSession,
    step: onnxruntime.InferenceSession,
    batch: Batch,
) -> Iterator[tuple[dict[str, Array], Array]]:
    """What each step reads and writes, and which rows have not yet ended."""
    tensors = _run(encode, batch.inputs)
    if batch.from_zeros:
        tensors = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
    names = [port.name for port in step.get_inputs()]
    reads = "frame" if "frame" in names else "token"
    lengths = np.array([len(reading) for reading in batch.readings])
    for place in range(lengths.max()):
        # A row that has ended reads its last position again, and is not looked at.
        tensors[reads] = np.stack(
            [reading[min(place, len(reading) - 1)] for reading in batch.readings]
        )
        outputs = _run(step, tensors)
        yield tensors | outputs, lengths > place
        for name, tensor in outputs.items():
            if name.startswith("next."):
                tensors[name.replace("next.", "state.", 1)] = tensor


def _run(
    session: onnxruntime.InferenceSession, feed: Mapping[str, Array]
) -> dict[str, Array]:
    """Every output by name; what the graph doesn't take is not fed."""
    names = [port.name for port in session.get_outputs()]
    taken = {port.name: feed[port.name] for port in session.get_inputs()}
    return dict(zip(names, session.run(names, taken), strict=True))


def _showing(original: ModelProto, activations: Sequence[str]) -> ModelProto:
    """A copy whose outputs are the activations too."""
    model = ModelProto()
    model.CopyFrom(original)
    shown = {value.name for value in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in activations
        if name not in shown
    )
    return model


def _with_extremes(
    original: ModelProto, activations: Sequence[str], by_row: bool
) -> ModelProto:
    """A copy whose outputs range.* hold extremes: (rows, 2), or (1, 2) of all."""
    model = ModelProto()
    model.CopyFrom(original)
    graph = model.graph
    axis = numpy_helper.from_array(np.array([1], np.int64), "range_axis")
    graph.initializer.append(axis)
    for place, name in enumerate(activations):
        low, high, out = (f"{part}.{place}" for part in ("low", "high", "range"))
        flat = f"flat.{place}"
        graph.node.extend(
            [
                make_node("Flatten", [name], [flat], axis=int(by_row)),
                make_node("ReduceMin", [flat, "range_axis"], [low]),
                make_node("ReduceMax", [flat, "range_axis"], [high]),
                make_node("Concat", [low, high], [out], axis=1),
            ]
        )
        graph.output.append(
            helper.make_tensor_value_info(out, TensorProto.FLOAT, [None, 2])
        )
    return model


def session_of(model: ModelProto) -> onnxruntime.InferenceSession:
    """It runs a model that is in memory, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)
