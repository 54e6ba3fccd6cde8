"""The k largest of each row, in two stages where a row is long.

onnxruntime's TopK keeps a heap a row, and takes longer than the log-softmax before it.
Here the largest number of every group of some 64 is found first, and the k largest lie
in the k groups whose largest are largest. Times of this over TopK alone (8,073 numbers
a row, AVX512): k = 1: 0.95 at one row, 0.75 at 4 and 32; k = 8: 0.75, 0.40, 0.42. Rows
that don't divide into such groups are filled up, which copies them.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.helper import make_node

GROUP = 64  # 16 and 32 are slower at one row, equal at many
NEAR = range(48, 97)  # group sizes that are as good
LONG = 1024  # numbers a row, from which on there are two stages

Constants = dict[str, NDArray[np.generic]]


def top(
    scores: str, size: int, count: str, results: tuple[str, str], single: bool = False
) -> tuple[list[NodeProto], Constants]:
    """Nodes that find the `count` largest of scores (rows, size), and their indices.

    results: names of both, (rows, count), the largest first; of equals the one of the
    lower index comes first, as in TopK. single: count is 1.
    """
    if size < LONG:
        return [make_node("TopK", [scores, count], [*results])], {}
    group = min((g for g in NEAR if size % g == 0), key=_from_best, default=GROUP)
    groups = -(-size // group)
    constants: Constants = {
        "top.grouped": np.array([0, groups, group], np.int64),
        "top.members": np.arange(group, dtype=np.int64)[None, None],
        "top.group": np.array(group, np.int64),
        "top.groups": np.array([groups], np.int64),
        "top.inner": np.array([2], np.int64),
        "top.flat": np.array([0, -1], np.int64),
    }
    filling, cutting, found = list[NodeProto](), list[NodeProto](), results[1]
    if size % group:
        constants |= {
            "top.padding": np.array([0, 0, 0, groups * group - size], np.int64),
            "top.nothing": np.array(-np.inf, np.float32),
            "top.last": np.array(size - 1, np.int64),
        }
        filled, found = "top.filled", "top.found"
        filling = [make_node("Pad", [scores, "top.padding", "top.nothing"], [filled])]
        # What fills up only comes where a row has nothing finite left.
        cutting = [make_node("Min", [found, "top.last"], [results[1]])]
        scores = filled
    nodes = [
        *filling,
        make_node("Reshape", [scores, "top.grouped"], ["top.by_group"]),
        make_node(
            "ReduceMax", ["top.by_group", "top.inner"], ["top.largest"], keepdims=0
        ),
        *_chosen_groups(count, single),
        make_node("Mul", ["top.chosen", "top.group"], ["top.firsts"]),
        make_node("Unsqueeze", ["top.firsts", "top.inner"], ["top.firsts_3"]),
        make_node("Add", ["top.firsts_3", "top.members"], ["top.indices_3"]),
        make_node("Reshape", ["top.indices_3", "top.flat"], ["top.indices"]),
        make_node("GatherElements", [scores, "top.indices"], ["top.left"], axis=1),
        make_node("TopK", ["top.left", count], [results[0], "top.places"]),
        make_node("GatherElements", ["top.indices", "top.places"], [found], axis=1),
        *cutting,
    ]
    return nodes, constants


def _from_best(group: int) -> int:
    return abs(group - GROUP)


def _chosen_groups(count: str, single: bool) -> list[NodeProto]:
    """The groups that hold the largest, in ascending order for the sake of equals."""
    if single:
        return [make_node("TopK", ["top.largest", count], ["top.heads", "top.chosen"])]
    return [
        make_node("Min", [count, "top.groups"], ["top.wanted"]),
        make_node("TopK", ["top.largest", "top.wanted"], ["top.heads", "top.by_size"]),
        make_node(
            "TopK",
            ["top.by_size", "top.wanted"],
            ["top.chosen", "top.order"],
            largest=0,
        ),
    ]
