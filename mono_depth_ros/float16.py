"""Types the inside of a network float16 in the ONNX file itself, as TensorRT 10 and 11 want it.

What precedes the first convolution (colour scaling) and what begins with the last one (the head and
the way back to metres) stays float32: between 1 and 2 the steps of float16 are 0.1 %, which an
exponential would show as terraces in smooth surfaces. In between stays float32 what passes through
numbers out of float16's range (65504) or accuracy: norms, sums, squares, exponentials, quotients.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mono_depth_ros.onnx_graph import copied, set_nodes

_NORMS = (
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
    "LRN",
)
_SUMS = (
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    "ReduceL1",
    "ReduceL2",
    "ReduceProd",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "CumSum",
)
_FUNCTIONS = ("Softmax", "LogSoftmax", "Softplus", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Div")
_FLOAT32 = frozenset(_NORMS + _SUMS + _FUNCTIONS)
# These go on in float32 where all that they read was computed in it: the epsilon of a norm that is
# written out as mean, power and root, its factor and its offset.
_FOLLOWING = frozenset(("Add", "Sub", "Mul", "Neg", "Abs", "Max", "Min", "Clip"))
# Inputs that the ONNX specification keeps float32 whatever type an operator works in.
_ALWAYS_FLOAT32 = frozenset((("Resize", 2), ("Upsample", 1)))
# From this opset on the scales of Q/DQ may be float16.
_FLOAT16_SCALES = 19
_QDQ = ("QuantizeLinear", "DequantizeLinear")
# Operators that move elements and compute nothing, so that they may come before a Cast or after.
_MOVING = frozenset(
    ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Identity")
)


def uint8_into_cast(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each uint8 input goes into a Cast to float32 before anything else.

    TensorRT takes uint8 inputs for nothing but that. The Casts that did it later are removed.

    Raises:
        ValueError: the network computes with bytes before it casts them.
    """
    result = copied(model)
    graph = result.graph
    nodes: list[NodeProto] = []
    floats: dict[str, str] = {}  # what was uint8, by its name now that it is float32
    renamed: dict[str, str] = {}  # what a Cast that is gone gave: what it read
    for source in graph.input:
        if source.type.tensor_type.elem_type == TensorProto.UINT8:
            floats[source.name] = f"{source.name}_float32"
            nodes.append(
                helper.make_node("Cast", [source.name], [floats[source.name]], to=TensorProto.FLOAT)
            )
    outputs = {output.name for output in graph.output}
    for node in graph.node:
        changed = [name for name in node.input if name in floats]
        for i, name in enumerate(node.input):
            node.input[i] = floats.get(name, renamed.get(name, name))
        if changed and node.op_type == "Cast":
            to_float = next(a.i for a in node.attribute if a.name == "to") == TensorProto.FLOAT
            if to_float and node.output[0] not in outputs:
                renamed[node.output[0]] = node.input[0]
                continue
        elif changed:
            if node.op_type not in _MOVING or outputs.intersection(node.output):
                raise ValueError(
                    f"{node.op_type} reads the uint8 input {changed[0]}; TensorRT needs a Cast to"
                    " float32 before it"
                )
            floats[node.output[0]] = node.output[0]
        nodes.append(node)
    set_nodes(graph, nodes)
    return result


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with float16 weights and activations; its inputs and outputs have the same types.

    A node whose weights are beyond the range of float16 stays float32, and so do the Q/DQ of an
    INT8 network where a scale is so small that float16 loses digits (2^-14).

    Args:
        model: float32, without control flow; nodes in topological order.

    Raises:
        ValueError: there are not two convolutions, a first one and a head; there is control flow;
            or an operator's types cannot be inferred.
    """
    if any(node.op_type in _QDQ for node in model.graph.node):
        model = _with_float16_scales(model)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise ValueError(f"cannot be float16: {str(error).splitlines()[0]}") from None
    graph = model.graph
    nodes = list(graph.node)
    if any(a.HasField("g") or a.graphs for node in nodes for a in node.attribute):
        raise ValueError("a network with control flow (If, Loop, Scan) cannot be float16")
    convolutions = [i for i, node in enumerate(nodes) if node.op_type == "Conv"]
    if len(convolutions) < 2:
        raise ValueError("a network needs two convolutions, a first one and a head, to be float16")
    head = convolutions[-1]
    # The Q/DQ of an INT8 convolution belong to it.
    first = next(i for i, node in enumerate(nodes) if node.op_type in ("Conv", *_QDQ))
    weights = {tensor.name: tensor for tensor in graph.initializer}
    narrow = {tensor.name for tensor in graph.initializer if not _fits(tensor)}
    scales = {node.input[1] for node in nodes if node.op_type in _QDQ and node.input[1] in weights}
    narrow |= {name for name in scales if _is_tiny(weights[name])}
    values = (*graph.input, *graph.value_info, *graph.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {name for name, t in weights.items() if t.data_type == TensorProto.FLOAT}
    outputs = {output.name for output in graph.output}
    made: set[str] = set()  # in float16
    other: dict[str, str] = {}  # a tensor's name in the other type
    result: list[NodeProto] = []

    def cast(name: str, to: int) -> str:
        if name not in other:
            other[name] = f"{name}_{TensorProto.DataType.Name(to).lower()}"
            if name in weights:
                array = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(array, other[name]))
            else:
                result.append(helper.make_node("Cast", [name], [other[name]], to=to))
        return other[name]

    def is_half(node: NodeProto) -> bool:
        sources = [name for name in node.input if name in floats]
        to_float = [a for a in node.attribute if a.name == "to" and a.i == TensorProto.FLOAT]
        if (
            node.op_type in _FLOAT32
            or outputs.intersection(node.output)
            or narrow.intersection(node.input)
            or not (sources or (node.op_type == "Cast" and to_float))
        ):
            return False
        computed = [name for name in sources if name not in weights]
        squared = node.op_type == "Mul" and node.input[0] == node.input[1]
        follows = node.op_type in _FOLLOWING and computed and not made.intersection(computed)
        return not squared and not follows

    for i, node in enumerate(nodes):
        half = first <= i < head and is_half(node)
        for j, name in enumerate(node.input):
            if half and name in floats - made and (node.op_type, j) not in _ALWAYS_FLOAT32:
                node.input[j] = cast(name, TensorProto.FLOAT16)
            elif name in made and not half:
                node.input[j] = cast(name, TensorProto.FLOAT)
        if half:
            made.update(name for name in node.output if name in floats)
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
        result.append(node)
    set_nodes(graph, result)
    return model


def _with_float16_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= _FLOAT16_SCALES:
        return model
    return onnx.version_converter.convert_version(model, _FLOAT16_SCALES)


def _fits(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT:
        return True
    array = np.abs(numpy_helper.to_array(tensor))
    return bool((array <= np.finfo(np.float16).max).all())


def _is_tiny(scale: TensorProto) -> bool:
    return bool((np.abs(numpy_helper.to_array(scale)) < np.finfo(np.float16).tiny).any())
