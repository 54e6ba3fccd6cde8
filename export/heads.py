"""Ways to read one decoder step: the best token, the k best, all of them, or the k best
and the attention.

Logits of a whole vocabulary cost more to hand to Python than to compute; so the graph
itself chooses. The decoder is written once and each head is a copy of its graph (its
weights lie in the shared weights.bin) with a few nodes behind it; a process loads the
head that it uses. All but the greedy one also reorder the state in the graph. What only
the attention needs is in no head but its own.
"""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

from seq2edge.export.beam_loop import beam_loop
from seq2edge.export.candidates import TOKENS
from seq2edge.export.greedy_loop import ahead_loop, draft_loop
from seq2edge.export.many_rows import for_many_rows
from seq2edge.export.output_layer import SMALLEST, OutputLayer, output_layer
from seq2edge.export.prune import prune
from seq2edge.export.recipe import Chooses
from seq2edge.export.shortlisting import shortlist_head, shortlisted
from seq2edge.export.speculation import verify_head
from seq2edge.export.top import Constants, top
from seq2edge.runtime.errors import ExportError
from seq2edge.runtime.manifest import LOGITS, Task

ATTENTION = "attention"
Outputs = list[onnx.ValueInfoProto]
MakeHead = Callable[[ModelProto], ModelProto]


def greedy_head(decoder: ModelProto) -> ModelProto:
    """Add the best token of each row and its log-probability."""
    # LogSoftmax and TopK(1) took no longer than ArgMax and ReduceMax at batch 1, and
    # less than ReduceLogSumExp at 5 rows and above (vocabulary 5,000).
    results = "best_log_probs", "best_tokens"
    best, constants = _best(decoder, "one", results, single=True)
    nodes = [
        make_node("LogSoftmax", [LOGITS], ["log_probs"], axis=-1),
        *best,
        make_node("Squeeze", ["best_log_probs", "last_axis"], ["best_log_prob"]),
        make_node("Squeeze", ["best_tokens", "last_axis"], ["best_token"]),
    ]
    outputs = [
        _value("best_log_prob", TensorProto.FLOAT, ["rows"]),
        _value("best_token", TensorProto.INT64, ["rows"]),
    ]
    constants |= {"one": np.array([1]), "last_axis": np.array([-1])}
    return _with_head(decoder, "greedy", nodes, outputs, constants)


def beam_head(decoder: ModelProto) -> ModelProto:
    """Add the `count` best tokens of each row, after a reordering by `parents`."""
    return _top_head(decoder, "beam")


def attention_head(decoder: ModelProto) -> ModelProto:
    """The same with the attention of each row."""
    return _top_head(decoder, "attention")


def _top_head(decoder: ModelProto, name: str) -> ModelProto:
    results = "top_log_probs", "top_tokens"
    best, constants = _best(decoder, "count", results)
    nodes = [make_node("LogSoftmax", [LOGITS], ["log_probs"], axis=-1), *best]
    outputs = [
        _value("top_log_probs", TensorProto.FLOAT, ["rows", "count"]),
        _value("top_tokens", TensorProto.INT64, ["rows", "count"]),
    ]
    model = _with_head(decoder, name, nodes, outputs, constants)
    model.graph.input.append(_value("count", TensorProto.INT64, [1]))
    _reorder_state(model.graph)
    return model


def _best(
    decoder: ModelProto, count: str, results: tuple[str, str], single: bool = False
) -> tuple[list[NodeProto], Constants]:
    """Nodes that find the best tokens by `log_probs`: of all, or of a shortlist.

    Of these a place is looked up; of so few, TopK finds the best by itself faster.
    """
    if all(value.name != TOKENS for value in decoder.graph.input):
        return top("log_probs", logits_width(decoder), count, results, single)
    log_probs, tokens = results
    nodes = [
        make_node("TopK", ["log_probs", count], [log_probs, "best_places"]),
        make_node("Gather", [TOKENS, "best_places"], [tokens]),
    ]
    return nodes, {}


def scores_head(decoder: ModelProto) -> ModelProto:
    """Add all log-probabilities of each row, after a reordering by `parents`.

    And what the log-softmax has taken from each row's logits, which is the same for
    all: it is found at the largest, for others may be -inf.
    """
    nodes = [
        make_node("LogSoftmax", [LOGITS], ["log_probs"], axis=-1),
        make_node("ReduceMax", [LOGITS, "last_axis"], ["largest_logit"]),
        make_node("ReduceMax", ["log_probs", "last_axis"], ["largest_log_prob"]),
        make_node("Sub", ["largest_logit", "largest_log_prob"], ["log_normalizer"]),
    ]
    outputs = [
        _value("log_probs", TensorProto.FLOAT, ["rows", "vocabulary"]),
        _value("log_normalizer", TensorProto.FLOAT, ["rows", 1]),
    ]
    model = _with_head(decoder, "scores", nodes, outputs, {"last_axis": np.array([-1])})
    _reorder_state(model.graph)
    return model


def stream_head(step: ModelProto) -> ModelProto:
    """The step of a tagger: it has few labels, and its logits come out as they are."""
    model = ModelProto()
    model.CopyFrom(step)
    _raise_to_float32(model.graph)
    model.graph.name = "decoder.stream"
    return model


HEADS: Mapping[str, Mapping[str, MakeHead]] = {
    "generation": {
        "greedy": greedy_head,
        "beam": beam_head,
        "scores": scores_head,
        ATTENTION: attention_head,
    },
    "tagging": {"stream": stream_head},
}


def heads_of(
    decoder: ModelProto,
    task: Task,
    chooses: Chooses = "steps",
    common: NDArray[np.integer] | None = None,
) -> Mapping[str, MakeHead]:
    """What makes each head that a decoder can have.

    common (n,): the tokens of a shortlist that are common to all sources; without
    them, each head goes one step at a time.
    """
    made = dict(HEADS[task])
    if all(value.name != ATTENTION for value in decoder.graph.output):
        made.pop(ATTENTION, None)
    layer = None if chooses == "steps" else output_layer(decoder)
    if layer is None and chooses == "shortlist":
        raise ExportError(
            f"a shortlist is for a vocabulary of {SMALLEST} tokens or more, and an "
            "output layer that is a product; export without it"
        )
    for name in {"beam", ATTENTION}.intersection(made):
        made[name] = _of_many_rows(made[name])
    if layer is None or common is None:
        return made
    restricts = chooses == "shortlist"
    if restricts:
        made |= _shortlisting(made, layer, common)
    else:
        made |= _drafting(layer, common)
    among = (layer, common) if restricts else None
    made["beam_ahead"] = lambda decoder: beam_loop(
        for_many_rows(_unattended(decoder)), logits_width(decoder), among
    )
    return made


def _of_many_rows(make: MakeHead) -> MakeHead:
    """A head of beams."""
    return lambda decoder: for_many_rows(make(decoder))


def _drafting(layer: OutputLayer, common: NDArray[np.integer]) -> dict[str, MakeHead]:
    return {
        "draft": lambda decoder: draft_loop(_unattended(decoder), layer, common),
        "verify": lambda decoder: verify_head(greedy_head(decoder), layer),
    }


def _shortlisting(
    made: Mapping[str, MakeHead], layer: OutputLayer, common: NDArray[np.integer]
) -> dict[str, MakeHead]:
    """All heads that choose; the scores are still those of all tokens."""

    def among(name: str, make: MakeHead) -> MakeHead:
        dropped = (lambda model: model) if name == ATTENTION else _unattended
        return lambda decoder: make(shortlisted(dropped(decoder), layer, common))

    choosing = {k: among(k, make) for k, make in made.items() if k != "scores"}
    return choosing | {
        "shortlist": lambda decoder: shortlist_head(decoder, layer, common),
        "ahead": lambda decoder: ahead_loop(_unattended(decoder), layer, common),
    }


def _with_head(
    decoder: ModelProto,
    name: str,
    nodes: list[NodeProto],
    outputs: Outputs,
    constants: Constants,
) -> ModelProto:
    """Replace the output `logits` by what the nodes make of it, ahead of next.*."""
    model = ModelProto()
    model.CopyFrom(decoder)
    graph = model.graph
    if name != ATTENTION:
        _drop_attention(graph)
    _raise_to_float32(graph)
    graph.name = f"decoder.{name}"
    graph.node.extend(nodes)
    following = [value for value in graph.output if value.name != LOGITS]
    del graph.output[:]
    graph.output.extend([*outputs, *following])
    graph.initializer.extend(
        numpy_helper.from_array(values, key) for key, values in constants.items()
    )
    return model


def logits_width(model: ModelProto) -> int:
    """The last axis of a graph's logits."""
    names = (LOGITS, f"output.{LOGITS}")
    [logits] = [value for value in model.graph.output if value.name in names]
    size: int = logits.type.tensor_type.shape.dim[-1].dim_value
    return size


def _unattended(decoder: ModelProto) -> ModelProto:
    """A copy without the attention."""
    model = ModelProto()
    model.CopyFrom(decoder)
    _drop_attention(model.graph)
    return model


def _drop_attention(graph: onnx.GraphProto) -> None:
    """Leave out the attention, and the nodes that nothing else reads."""
    left = [value for value in graph.output if value.name != ATTENTION]
    if len(left) < len(graph.output):
        del graph.output[:]
        graph.output.extend(left)
        prune(graph)


def _raise_to_float32(graph: onnx.GraphProto) -> None:
    """Log-probabilities of a half-precision decoder are still taken in float32."""
    logits = next(value for value in graph.output if value.name == LOGITS)
    if logits.type.tensor_type.elem_type == TensorProto.FLOAT:
        return
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == LOGITS:
                node.output[place] = "logits_as_computed"
    logits.type.tensor_type.elem_type = TensorProto.FLOAT
    cast = make_node("Cast", ["logits_as_computed"], [LOGITS], to=TensorProto.FLOAT)
    graph.node.append(cast)


def _reorder_state(graph: onnx.GraphProto) -> None:
    """Row i of every state goes on from row parents[i] of what is fed."""
    states = [value for value in graph.input if value.name.startswith("state.")]
    gathers = []
    for value in states:
        gathered = f"reordered.{value.name}"
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == value.name:
                    node.input[place] = gathered
        gathers.append(make_node("Gather", [value.name, "parents"], [gathered], axis=0))
        value.type.tensor_type.shape.dim[0].dim_param = "previous_rows"
    if states:
        graph.input.append(_value("parents", TensorProto.INT64, ["rows"]))
    nodes = [*gathers, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _value(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
