"""What rewriting an ONNX graph takes, whatever is rewritten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import onnx
from onnx import helper

Proto = TypeVar("Proto", onnx.ModelProto, onnx.NodeProto)


def copied(proto: Proto) -> Proto:
    """A copy of a model or a node that can be changed."""
    result = type(proto)()
    result.CopyFrom(proto)
    return result


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies of an If, a Loop or a Scan."""
    return [graph for a in node.attribute for graph in (a.g, *a.graphs)]


def reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those in its subgraphs included."""
    graphs = subgraphs(node)
    inside = {name for graph in graphs for child in graph.node for name in reads(child)}
    inside |= {value.name for graph in graphs for value in graph.output}
    return inside.union(node.input)


def set_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Gives a graph other nodes, without those and the constants that lead to no output.

    Value information goes, too: what it says of types and shapes may no longer be so.

    Args:
        nodes: in topological order.
    """
    kept: list[onnx.NodeProto] = []
    used = {output.name for output in graph.output}
    for node in reversed(list(nodes)):
        if used.intersection(node.output):
            used.update(reads(node))
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    sparse = [tensor for tensor in graph.sparse_initializer if tensor.values.name in used]
    result = helper.make_graph(
        kept[::-1], graph.name, graph.input, graph.output, constants, sparse_initializer=sparse
    )
    graph.CopyFrom(result)
