"""Nodes, weights and inputs of a graph that nothing reads any more."""

from onnx import GraphProto, NodeProto


def prune(graph: GraphProto) -> None:
    """Drop all that no output depends on; what is left stays in its order."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= names_read(node)
    nodes = kept[::-1]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = [value for value in graph.input if value.name in needed]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    graph.input.extend(inputs)


def names_read(node: NodeProto) -> set[str]:
    """What a node reads, its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names = names.union(*(names_read(inner) for inner in graph.node))
    return names
