"""Nodes, weights and inputs of a graph that nothing reads any more."""

from collections.abc import Sequence

from onnx import GraphProto, NodeProto


def prune(graph: GraphProto) -> None:
    """Drop all that no output depends on; what is left stays in its order."""
    results = {value.name for value in graph.output}
    nodes = needed_for(graph.node, results)
    needed = results.union(*(names_read(node) for node in nodes))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = [value for value in graph.input if value.name in needed]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    graph.input.extend(inputs)


def needed_for(nodes: Sequence[NodeProto], results: set[str]) -> list[NodeProto]:
    """Those of the nodes, in their order, that results depend on."""
    needed, kept = set(results), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= names_read(node)
    return kept[::-1]


def only_readers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node that reads a value, of values that nothing else reads, no result."""
    results = {value.name for value in graph.output}
    return {
        name: nodes[0]
        for name, nodes in readers(graph).items()
        if len(nodes) == 1 and name not in results
    }


def readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each value."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in names_read(node):
            found.setdefault(name, []).append(node)
    return found


def names_read(node: NodeProto) -> set[str]:
    """What a node reads, its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names = names.union(*(names_read(inner) for inner in graph.node))
    return names
