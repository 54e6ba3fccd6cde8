"""Greedy search of one sentence, several steps a run, among the candidates.

It ends behind the end token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node

from seq2edge.export.candidates import CANDIDATES, TOKENS, over_candidates
from seq2edge.export.one_row import for_one_row
from seq2edge.export.output_layer import OutputLayer
from seq2edge.export.step_loop import GOES_ON, ROWS, STEPS, Plan, Value, loop_head
from seq2edge.runtime.manifest import LOGITS

_PLACE = Value("chosen_place", TensorProto.INT64, [ROWS])  # among the candidates


def draft_loop(
    decoder: ModelProto, layer: OutputLayer, common: NDArray[np.integer]
) -> ModelProto:
    """Tokens by the logits alone, and what the output layer would have read.

    A state that grows comes out as it is at last, any other as it was after each step.
    """
    chosen = [make_node("ArgMax", [LOGITS], [_PLACE.name], axis=1, keepdims=0)]
    hidden = Value(layer.activation, TensorProto.FLOAT, [ROWS, layer.features])
    plan = _plan(decoder, (layer, common), chosen, {"hidden": hidden}, "draft_tokens")
    return loop_head(for_one_row(decoder), replace(plan, keeps_states=True))


def ahead_loop(
    decoder: ModelProto, layer: OutputLayer, common: NDArray[np.integer]
) -> ModelProto:
    """Tokens, and their log-probabilities; states as they are at last."""
    chosen = [
        make_node("LogSoftmax", [LOGITS], ["log_probs"], axis=-1),
        make_node("TopK", ["log_probs", "loop.one"], ["best", "best_place"]),
        make_node("Squeeze", ["best", "loop.one"], ["best_log_prob"]),
        make_node("Squeeze", ["best_place", "loop.one"], [_PLACE.name]),
    ]
    log_probs = Value("best_log_prob", TensorProto.FLOAT, [ROWS])
    told = {"ahead_log_probs": log_probs}
    plan = _plan(decoder, (layer, common), chosen, told, "ahead_tokens")
    return loop_head(for_one_row(decoder), plan)


def _plan(
    decoder: ModelProto,
    among: tuple[OutputLayer, NDArray[np.integer]],
    chosen: Sequence[NodeProto],
    told: Mapping[str, Value],
    tokens: str,
) -> Plan:
    """tokens: what the head calls them.

    Places are told, and tokens looked up behind the Loop: what is carried can't be
    told, and a copy costs as much as a lookup.
    """
    layer, common = among
    part = over_candidates(decoder.graph, layer, common)
    whole, one = TensorProto.INT64, [1]
    choosing = [
        *part.nodes,
        *chosen,
        make_node("Gather", [TOKENS, _PLACE.name], ["chosen"]),
        make_node("Equal", ["chosen", "end"], ["at_end"]),
        make_node("Squeeze", ["at_end"], ["over"]),
        make_node("Not", ["over"], [GOES_ON]),
    ]
    results = [
        Value(tokens, whole, [STEPS, ROWS]),
        *(Value(name, v.kind, [STEPS, *v.shape]) for name, v in told.items()),
    ]
    return Plan(
        inputs=[
            Value("token", whole, [ROWS]),
            Value(CANDIDATES, whole, [CANDIDATES]),
            Value("end", whole, [*one]),
        ],
        carried=[(Value("carried.token", whole, [ROWS]), "token", "chosen")],
        reads=[layer.product.input[0], layer.activation],
        before=[*part.loading, *part.gathering],
        choosing=choosing,
        told={"places": _PLACE, **told},
        behind=[make_node("Gather", [TOKENS, "places"], [tokens])],
        results=results,
        constants={**part.constants, "loop.one": np.array(one)},
        one_row=True,
    )
