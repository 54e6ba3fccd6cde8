"""Beam search of one sentence, several steps a run.

It goes on as a search does while nobody interferes: of all hypotheses' best tokens the
best `width` are looked at, and the best of these that don't end are the next beam. It
tells what each step looked at and how it went on, so that a search can follow, which
decides what a hypothesis that ends is worth and when there are enough; the loop ends
when `most_ended` of the better ones have ended.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node

from seq2edge.export.candidates import (
    CANDIDATES,
    TOKENS,
    over_common_and_candidates,
)
from seq2edge.export.output_layer import OutputLayer
from seq2edge.export.step_loop import (
    GOES_ON,
    ROWS,
    STEPS,
    Constants,
    Plan,
    Value,
    loop_head,
)
from seq2edge.export.top import top
from seq2edge.runtime.manifest import LOGITS

Ids = NDArray[np.integer]
_WHOLE, _FLOAT = TensorProto.INT64, TensorProto.FLOAT
_CARRIED = (
    (Value("carried.token", _WHOLE, [ROWS]), "token", "live.tokens"),
    (Value("carried.parents", _WHOLE, [ROWS]), "parents", "live.parents"),
    (Value("carried.totals", _FLOAT, [ROWS]), "totals", "live.totals"),
    (Value("carried.ended", _WHOLE, [1]), "loop.none", "ended.all"),
)
_LIVE = ["live.totals", "live.places"]
# Of every step all log-probabilities that were found; what was looked at of these, and
# where it is in row-major order; and which of this is the next beam.
_TOLD = {
    "beam_totals": Value("seen.totals", _FLOAT, ["width"]),
    "beam_log_probs": Value("top.log_probs", _FLOAT, [ROWS, "count"]),
    "beam_tokens": Value("seen.tokens", _WHOLE, ["width"]),
    "beam_flat": Value("seen.flat", _WHOLE, ["width"]),
    "beam_places": Value("live.places", _WHOLE, [ROWS]),
}


def beam_loop(
    decoder: ModelProto, size: int, among: tuple[OutputLayer, Ids] | None
) -> ModelProto:
    """size: of the vocabulary. among: output layer and common tokens of a shortlist."""
    before, choosing, reads = list[NodeProto](), list[NodeProto](), [LOGITS]
    inputs = [Value("token", _WHOLE, [ROWS])]
    found = "top.log_probs", "top.tokens"
    if among is None:
        best, constants = top("log_probs", size, "count", found)
    else:
        layer, common = among
        part = over_common_and_candidates(decoder.graph, layer, common)
        before, choosing = [*part.loading, *part.gathering], [*part.nodes]
        constants = dict(part.constants)
        reads = [layer.product.input[0]]
        inputs.append(Value(CANDIDATES, _WHOLE, [CANDIDATES]))
        best = [
            make_node("TopK", ["log_probs", "count"], [found[0], "top.places"]),
            make_node("Gather", [TOKENS, "top.places"], [found[1]]),
        ]
    softmax = make_node("LogSoftmax", [LOGITS], ["log_probs"], axis=-1)
    inputs += [
        Value("parents", _WHOLE, [ROWS]),
        Value("totals", _FLOAT, [ROWS]),
        Value("bans", _FLOAT, [size]),
        *(Value(name, _WHOLE, [1]) for name in ("count", "width", "beam")),
        *(Value(name, _WHOLE, [1]) for name in ("end", "most_ended")),
    ]
    plan = Plan(
        inputs=inputs,
        carried=_CARRIED,
        reads=reads,
        before=before,
        choosing=[*choosing, softmax, *best, *_next_beam(), *_ended()],
        told=_TOLD,
        behind=[],
        results=[
            Value(name, value.kind, [STEPS, *value.shape])
            for name, value in _TOLD.items()
        ],
        constants={**constants, **_constants()},
        parents="carried.parents",
    )
    return loop_head(decoder, plan)


def _next_beam() -> list[NodeProto]:
    """From the best tokens of each row to the next beam."""
    return [
        make_node("Gather", ["bans", "top.tokens"], ["top.bans"]),
        make_node("Add", ["top.log_probs", "top.bans"], ["top.scores"]),
        make_node("Unsqueeze", ["carried.totals", "loop.one"], ["totals.column"]),
        make_node("Add", ["top.scores", "totals.column"], ["sums"]),
        make_node("Reshape", ["sums", "loop.flat"], ["sums.flat"]),
        make_node("TopK", ["sums.flat", "width"], ["seen.totals", "seen.flat"], axis=0),
        make_node("Reshape", ["top.tokens", "loop.flat"], ["tokens.flat"]),
        make_node("Gather", ["tokens.flat", "seen.flat"], ["seen.tokens"]),
        make_node("Equal", ["seen.tokens", "end"], ["seen.ended"]),
        make_node("Where", ["seen.ended", "loop.gone", "seen.totals"], ["seen.live"]),
        make_node(
            "TopK", ["seen.live", "beam"], ["live.totals", "live.places"], axis=0
        ),
        make_node("Gather", ["seen.tokens", "live.places"], ["live.tokens"]),
        make_node("Gather", ["seen.flat", "live.places"], ["live.flat"]),
        make_node("Div", ["live.flat", "count"], ["live.parents"]),
    ]


def _ended() -> list[NodeProto]:
    """How many of the better half have ended, and whether to go on."""
    return [
        make_node("Slice", ["seen.ended", "loop.none", "beam"], ["better.ended"]),
        make_node("Cast", ["better.ended"], ["better.counted"], to=_WHOLE),
        make_node("ReduceSum", ["better.counted"], ["better.sum"], keepdims=1),
        make_node("Add", ["carried.ended", "better.sum"], ["ended.all"]),
        make_node("Less", ["ended.all", "most_ended"], ["some.left"]),
        make_node("Squeeze", ["some.left"], [GOES_ON]),
    ]


def _constants() -> Constants:
    return {
        "loop.one": np.array([1]),
        "loop.none": np.array([0]),
        "loop.flat": np.array([-1]),
        "loop.gone": np.array(-np.inf, np.float32),
    }
