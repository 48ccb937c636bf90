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
            used.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    graph.CopyFrom(helper.make_graph(kept[::-1], graph.name, graph.input, graph.output, constants))
