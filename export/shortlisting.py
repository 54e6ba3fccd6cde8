"""Heads that choose among the candidates of a shortlist, and never look at the others.

As in Marian (Junczys-Dowmunt et al. 2018, W18-2716), where it is a lexical shortlist:
of the output layer a step reads and computes a tenth. Nothing verifies it,
so that quality is judged with it. A sentence has its own candidates whatever batch it
is in: the batch multiplies the union of all, and a mask leaves each its own.
"""

from onnx import ModelProto, TensorProto, ValueInfoProto, helper
from onnx.helper import make_node

from seq2edge.export.candidates import BIAS, CANDIDATES, SCALE, WEIGHT, over_candidates
from seq2edge.export.output_layer import OutputLayer
from seq2edge.export.prune import prune
from seq2edge.runtime.manifest import LOGITS

MASK = "candidate_mask"  # (rows or 1, candidates): 0, or -inf of another sentence's


def shortlist_head(decoder: ModelProto, layer: OutputLayer) -> ModelProto:
    """What the candidates need of the output layer, gathered once a batch."""
    model = ModelProto()
    model.CopyFrom(decoder)
    graph = model.graph
    graph.name = "decoder.shortlist"
    part = over_candidates(graph, layer, single=False)
    part.add_constants(graph)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(part.gathering)
    graph.input.append(_candidates())
    graph.output.extend(_gathered(layer))
    prune(graph)
    return model


def shortlisted(decoder: ModelProto, layer: OutputLayer) -> ModelProto:
    """The decoder with the logits (rows, candidates) of the candidates only."""
    model = ModelProto()
    model.CopyFrom(decoder)
    graph = model.graph
    part = over_candidates(graph, layer, single=False)
    part.add_constants(graph)
    made, nodes = layer.products, [*part.nodes]
    nodes[-1].output[0] = "logits.unmasked"
    nodes.append(make_node("Add", ["logits.unmasked", MASK], [LOGITS]))
    left = [node for node in graph.node if not made.intersection(node.output)]
    del graph.node[:]
    graph.node.extend([*left, *nodes])
    mask = helper.make_tensor_value_info(MASK, TensorProto.FLOAT, ["masks", CANDIDATES])
    graph.input.extend([_candidates(), mask, *_gathered(layer)])
    [logits] = [value for value in graph.output if value.name == LOGITS]
    logits.type.tensor_type.shape.dim[-1].dim_param = CANDIDATES
    return model


def _candidates() -> ValueInfoProto:
    return helper.make_tensor_value_info(CANDIDATES, TensorProto.INT64, [CANDIDATES])


def _gathered(layer: OutputLayer) -> list[ValueInfoProto]:
    make = helper.make_tensor_value_info
    return [
        make(WEIGHT, TensorProto.INT8, [layer.features, CANDIDATES]),
        make(SCALE, TensorProto.FLOAT, [CANDIDATES]),
        make(BIAS, TensorProto.FLOAT, [CANDIDATES]),
    ]
