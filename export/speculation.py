"""Greedy decoding with the output layer left for later: a draft, and its verification.

A step reads the weights of the output layer, which for a small model are half of all,
to choose one token. The draft head goes several steps in one run, and of the output
layer multiplies the rows of a few candidates only; the verify head then reads the whole
layer once for all these steps. Up to the first step where it finds another token the
draft was what greedy search gives, and that token is right as well.
(As speculative decoding, Leviathan et al. 2023, arXiv:2211.17192, with the model itself
under a vocabulary shortlist as the draft model.)

In int8 sums are whole numbers, so that what is verified is what a step computes.
"""

from onnx import ModelProto, TensorProto, helper

from seq2edge.export.output_layer import OutputLayer
from seq2edge.export.prune import prune
from seq2edge.export.step_loop import ROWS

HIDDEN = "hidden"


def verify_head(greedy: ModelProto, layer: OutputLayer) -> ModelProto:
    """The output layer and what chooses, over many `hidden` (rows, features)."""
    model = ModelProto()
    model.CopyFrom(greedy)
    graph = model.graph
    graph.name = "decoder.verify"
    made = layer.outputs
    kept = [value for value in graph.output if not value.name.startswith("next.")]
    del graph.output[:]
    graph.output.extend(kept)
    for node in graph.node:
        if made.intersection(node.output):
            for place, name in enumerate(node.input):
                node.input[place] = HIDDEN if name == layer.activation else name
    del graph.input[:]
    graph.input.append(
        helper.make_tensor_value_info(HIDDEN, TensorProto.FLOAT, [ROWS, layer.features])
    )
    prune(graph)
    return model
