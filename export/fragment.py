"""Nodes and constants that replace one node of a graph, named after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.helper import make_node

CONTRIB = "com.microsoft"


@dataclass
class Fragment:
    """A piece of graph under way; every name in it begins with the prefix."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def constant(self, name: str, value: Any) -> str:
        """Name a constant, in full or not; the full name is returned."""
        full = name if name.startswith(f"{self.prefix}.") else f"{self.prefix}.{name}"
        self.constants[full] = np.asarray(value)
        return full

    def add(self, kind: str, inputs: Sequence[str], name: str, **more: Any) -> str:
        """Add a node of one output, whose full name is returned."""
        return self.add_as(kind, inputs, f"{self.prefix}.{name}", **more)

    def add_as(self, kind: str, inputs: Sequence[str], output: str, **more: Any) -> str:
        """Add a node that writes a given name."""
        self.nodes.append(make_node(kind, inputs, [output], **more))
        return output

    def add_many(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **more: Any
    ) -> None:
        """Add a node that writes several given names."""
        self.nodes.append(make_node(kind, inputs, outputs, **more))

    def split(
        self, value: str, names: Sequence[str], sizes: Sequence[int] | None = None
    ) -> list[str]:
        """Split the last axis, evenly if no sizes are given."""
        outputs = [f"{self.prefix}.{name}" for name in names]
        if sizes is None:
            self.add_many("Split", [value], outputs, axis=-1, num_outputs=len(names))
        else:
            parts = self.constant(f"{names[0]}.sizes", np.array(sizes, np.int64))
            self.add_many("Split", [value, parts], outputs, axis=-1)
        return outputs
