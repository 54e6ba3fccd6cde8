"""The range of every activation that a product of the decoder quantizes.

The float graphs read real sentences and their own translations, step by step, and the
least and greatest value of each activation is kept. A calibration that a model never
leaves in decoding costs nothing at run time, where a range found at each step does.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.quantize import Ranges
from seq2edge.runtime.stepper import Inputs

Array = NDArray[Any]
Batch = tuple[Inputs, Sequence[Sequence[int]]]  # a batch and the tokens of each row


def calibrate(
    encoder: ModelProto,
    decoder: ModelProto,
    activations: Sequence[str],
    batches: Iterable[Batch],
    start: int,
) -> Ranges:
    """Least and greatest value of each activation over all steps of all batches."""
    encode = _session(encoder)
    step = _session(_with_extremes(decoder, activations))
    lows = np.full(len(activations), np.inf)
    highs = np.full(len(activations), -np.inf)
    for inputs, targets in batches:
        for low, high in _steps(encode, step, inputs, targets, start):
            lows, highs = np.minimum(lows, low), np.maximum(highs, high)
    return {
        name: (float(low), float(high))
        for name, low, high in zip(activations, lows, highs, strict=True)
        if np.isfinite(low) and np.isfinite(high)
    }


def _steps(
    encode: onnxruntime.InferenceSession,
    step: onnxruntime.InferenceSession,
    inputs: Inputs,
    targets: Sequence[Sequence[int]],
    start: int,
) -> Iterable[tuple[Array, Array]]:
    """The extremes of each activation, step by step, over the rows not yet ended."""
    tensors = _run(encode, inputs)
    lengths = np.array([len(target) for target in targets])
    token = np.full(len(targets), start, np.int64)
    for length in range(lengths.max() + 1):
        outputs = _run(step, {"token": token, **tensors})
        live = lengths >= length
        extremes = np.stack(
            [part[live] for name, part in outputs.items() if name.startswith("range.")]
        )  # (activations, rows, 2)
        yield extremes[..., 0].min(axis=1), extremes[..., 1].max(axis=1)
        for name, tensor in outputs.items():
            if name.startswith("next."):
                tensors[name.replace("next.", "state.", 1)] = tensor
        token = np.array(
            [target[length] if length < len(target) else start for target in targets],
            np.int64,
        )


def _run(
    session: onnxruntime.InferenceSession, feed: Mapping[str, Array]
) -> dict[str, Array]:
    """Every output by name; what the graph doesn't take is not fed."""
    names = [port.name for port in session.get_outputs()]
    taken = {port.name: feed[port.name] for port in session.get_inputs()}
    return dict(zip(names, session.run(names, taken), strict=True))


def _with_extremes(decoder: ModelProto, activations: Sequence[str]) -> ModelProto:
    """A copy whose outputs range.* hold each row's extremes, (rows, 2)."""
    model = ModelProto()
    model.CopyFrom(decoder)
    graph = model.graph
    axis = numpy_helper.from_array(np.array([1], np.int64), "range_axis")
    graph.initializer.append(axis)
    for place, name in enumerate(activations):
        low, high, out = (f"{part}.{place}" for part in ("low", "high", "range"))
        graph.node.extend(
            [
                make_node("Flatten", [name], [f"flat.{place}"], axis=1),
                make_node("ReduceMin", [f"flat.{place}", "range_axis"], [low]),
                make_node("ReduceMax", [f"flat.{place}", "range_axis"], [high]),
                make_node("Concat", [low, high], [out], axis=1),
            ]
        )
        graph.output.append(
            helper.make_tensor_value_info(out, TensorProto.FLOAT, ["rows", 2])
        )
    return model


def _session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)
