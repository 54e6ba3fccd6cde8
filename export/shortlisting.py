"""Heads that choose among the tokens of a shortlist, and never look at the others.

As in Marian (Junczys-Dowmunt et al. 2018, W18-2716), where it is a lexical shortlist:
of the output layer a step reads and computes a tenth. Nothing verifies it, so that
quality is judged with it. A sentence has its own candidates, beside the common tokens,
whatever batch it is in: the batch multiplies the union of all, and a mask leaves each
its own.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from onnx.helper import make_node

from seq2edge.export.candidates import (
    BIAS,
    CANDIDATES,
    SCALE,
    TOKENS,
    WEIGHT,
    CandidateLayer,
    over_common_and_candidates,
)
from seq2edge.export.output_layer import OutputLayer
from seq2edge.export.prune import prune
from seq2edge.runtime.manifest import LOGITS

MASK = "candidate_mask"  # (rows or 1, candidates): 0, or -inf of another sentence's
Ids = NDArray[np.integer]


def shortlist_head(decoder: ModelProto, layer: OutputLayer, common: Ids) -> ModelProto:
    """What the candidates need of the output layer, gathered once a batch."""
    model, part = _begun(decoder, layer, common)
    graph = model.graph
    graph.name = "decoder.shortlist"
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(part.gathering)
    graph.input.append(_value(CANDIDATES, TensorProto.INT64, [CANDIDATES]))
    graph.output.extend(_gathered(layer))
    prune(graph)
    return model


def shortlisted(decoder: ModelProto, layer: OutputLayer, common: Ids) -> ModelProto:
    """The decoder with the logits (rows, tokens) of common tokens, then candidates."""
    model, part = _begun(decoder, layer, common)
    graph = model.graph
    *products, joined = part.nodes
    masked = make_node("Add", ["own.logits", MASK], ["own.masked"])
    left = [n for n in graph.node if not layer.products.intersection(n.output)]
    del graph.node[:]
    graph.node.extend([*left, *part.loading, *products, masked, joined])
    graph.input.append(_value(MASK, TensorProto.FLOAT, ["masks", CANDIDATES]))
    graph.input.extend(_gathered(layer))
    [logits] = [value for value in graph.output if value.name == LOGITS]
    logits.type.tensor_type.shape.dim[-1].dim_param = "tokens"
    return model


def _begun(
    decoder: ModelProto, layer: OutputLayer, common: Ids
) -> tuple[ModelProto, CandidateLayer]:
    """A copy with the constants of the layer over candidates."""
    model = ModelProto()
    model.CopyFrom(decoder)
    part = over_common_and_candidates(model.graph, layer, common, own="own.masked")
    part.add_constants(model.graph)
    return model, part


def _gathered(layer: OutputLayer) -> list[ValueInfoProto]:
    return [
        _value(WEIGHT, TensorProto.INT8, [layer.features, CANDIDATES]),
        _value(SCALE, TensorProto.FLOAT, [CANDIDATES]),
        _value(BIAS, TensorProto.FLOAT, [CANDIDATES]),
        _value(TOKENS, TensorProto.INT64, ["tokens"]),
    ]


def _value(name: str, kind: int, shape: list[str | int]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
