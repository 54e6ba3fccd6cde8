"""The most expensive operators of a graph, from onnxruntime's own profile."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KERNEL = "_kernel_time"  # what onnxruntime appends to the name of a node
_BODIES = ("Loop", "Scan", "If")  # whose time is that of the nodes inside


@dataclass(frozen=True)
class Operator:
    """One node of a graph, over all runs of a profile."""

    node: str
    kind: str  # e.g. MatMul
    calls: int
    total_us: int  # onnxruntime counts whole microseconds, and cuts off the rest
    share: float  # of all the graph's runs


def most_expensive(profiles: Iterable[Path], count: int = 10) -> tuple[Operator, ...]:
    """The nodes that took most of the time in these profiles, the costliest first."""
    spent: dict[tuple[str, str], list[int]] = defaultdict(list)
    total_us = 0
    for path in profiles:
        for event in json.loads(path.read_text(encoding="utf-8")):
            if event["cat"] == "Session" and event["name"] == "model_run":
                total_us += event["dur"]
            elif _is_kernel(event) and event["args"]["op_name"] not in _BODIES:
                node = event["name"].removesuffix(_KERNEL)
                spent[node, event["args"]["op_name"]].append(event["dur"])
    ranked = sorted(spent, key=lambda key: (-sum(spent[key]), key))[:count]
    return tuple(
        Operator(
            node=node,
            kind=kind,
            calls=len(spent[node, kind]),
            total_us=sum(spent[node, kind]),
            share=sum(spent[node, kind]) / max(total_us, 1),
        )
        for node, kind in ranked
    )


def _is_kernel(event: dict[str, Any]) -> bool:
    name: str = event["name"]
    return event["cat"] == "Node" and name.endswith(_KERNEL)
