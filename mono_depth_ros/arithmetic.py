"""What a network has to compute and to move, counted on its ONNX graph: the floor of its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx
from onnx import shape_inference

# All but a few per cent of the arithmetic of a convolutional network or transformer.
COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Cost:
    """Work of the convolutions and matrix products of one inference.

    Attributes:
        flops: floating-point operations, two for each multiply-add.
        weights: number of weight and bias values that they read.
        activations: number of values that they read and write beside the weights, each layer for
            itself: the traffic of a runtime that keeps nothing in its caches between layers and
            fuses all else into them.
    """

    flops: int
    weights: int
    activations: int

    def bytes_moved(self, width: int) -> int:
        """Bytes of weights and activations at `width` bytes a value."""
        return (self.weights + self.activations) * width


def cost(model: onnx.ModelProto) -> Cost:
    """Counts the work of a graph of fixed shapes; bodies of If and Loop are left out.

    Multiply-adds of an output value: input channels of its group times the kernel's area (Conv), or
    the length of the common axis (MatMul, Gemm). ConvTranspose spends output channels of the group
    times the kernel's area on each input value.

    Raises:
        ValueError: the graph is not valid, or a counted operator has no fixed shape; the message
            names the tensor.
    """
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise ValueError(f"shapes cannot be inferred: {str(error).splitlines()[0]}") from None
    shapes = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*graph.input, *graph.value_info, *graph.output)
        if info.type.tensor_type.HasField("shape")
    }
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})

    def shape(name: str) -> tuple[int, ...]:
        if not all(size > 0 for size in shapes.get(name, (0,))):
            raise ValueError(f"tensor {name} has no fixed shape")
        return shapes[name]

    # Weights may pass through a Cast or DequantizeLinear; what depends on weights only is one too.
    constant = {tensor.name for tensor in graph.initializer}
    flops, weights, activations = 0, set[str](), 0
    for node in graph.node:
        sources: Sequence[str] = [name for name in node.input if name]
        if constant.issuperset(sources):
            constant.update(node.output)
        elif node.op_type in COUNTED:
            multiply_adds = _multiply_adds(
                node, [shape(name) for name in sources], shape(node.output[0])
            )
            flops += 2 * multiply_adds
            weights.update(constant.intersection(sources))
            moving = [*(name for name in sources if name not in constant), node.output[0]]
            activations += sum(prod(shape(name)) for name in moving)
    return Cost(flops, sum(prod(shape(name)) for name in weights), activations)


def _multiply_adds(
    node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]
) -> int:
    first, second = inputs[:2]
    if node.op_type == "Conv":
        return prod(output) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(output) * first[0 if transposed else -1]
