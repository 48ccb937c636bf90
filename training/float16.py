"""Types the inside of a network float16 in the ONNX file itself, as TensorRT 10 and 11 want it.

What precedes the first convolution (colour scaling) and what begins with the last one (the head and
the way back to metres) stays float32: between 1 and 2 the steps of float16 are 0.1 %, which an
exponential would show as terraces in smooth surfaces.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Inputs that the ONNX specification keeps float32 whatever type an operator works in.
_ALWAYS_FLOAT32 = {("Resize", 2)}


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with float16 weights and activations; its inputs and outputs have the same types.

    Args:
        model: float32, without control flow; nodes in topological order.

    Raises:
        ValueError: there are not two convolutions, a first one and a head.
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = model.graph
    nodes = list(graph.node)
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    if len(convolutions) < 2:
        raise ValueError("a network needs two convolutions, a first one and a head, to be float16")
    first, head = convolutions[0], convolutions[-1]
    inside = nodes[first:head]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    made = {name for node in inside for name in node.output if name in floats}
    converted: dict[str, str] = {}
    result = nodes[:first]

    def cast(name: str, to: int) -> str:
        if name not in converted:
            converted[name] = f"{name}_{TensorProto.DataType.Name(to).lower()}"
            result.append(helper.make_node("Cast", [name], [converted[name]], to=to))
        return converted[name]

    def half(name: str) -> str:
        tensor = weights.get(name)
        if tensor is None:
            return cast(name, TensorProto.FLOAT16) if name in floats - made else name
        if tensor.data_type != TensorProto.FLOAT:
            return name
        if name not in converted:
            converted[name] = f"{name}_float16"
            array = numpy_helper.to_array(tensor).astype(np.float16)
            graph.initializer.append(numpy_helper.from_array(array, converted[name]))
        return converted[name]

    for node in inside:
        for i, name in enumerate(node.input):
            if (node.op_type, i) not in _ALWAYS_FLOAT32:
                node.input[i] = half(name)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        result.append(node)
    for node in nodes[head:]:
        for i, name in enumerate(node.input):
            if name in made:
                node.input[i] = cast(name, TensorProto.FLOAT)
        result.append(node)

    used = {name for node in result for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    # Without value_info: what it says of types is no longer so.
    typed = helper.make_graph(result, graph.name, graph.input, graph.output, kept)
    graph.CopyFrom(typed)
    return model
