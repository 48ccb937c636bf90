"""The steps around a network as part of its graph: it then takes the camera's image as it is, and
returns depth at the camera's resolution, so that a GPU does all of it.

They are what `DepthEstimator` does on the CPU: the resize to the network's input (OpenCV's
INTER_AREA), and `EdgeAwareUpsampler`. The graph is for one image size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.version_converter
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mono_depth_ros.filters import EDGE_BEND, EDGE_RATIO, coarse_neighbours
from mono_depth_ros.float16 import uint8_into_cast
from mono_depth_ros.model import DepthModel

# From here on axes are inputs, which is how the steps are written.
MIN_OPSET = 13
INPUT, OUTPUT = "camera_image", "camera_depth"


def area_weights(source: int, target: int) -> npt.NDArray[np.float32]:
    """The `target` x `source` matrix with which each new pixel is the mean of what it covers.

    >>> area_weights(3, 2).astype(float).round(2).tolist()
    [[0.67, 0.33, 0.0], [0.0, 0.33, 0.67]]
    """
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def enlarging_weights(source: int, target: int) -> npt.NDArray[np.float32]:
    """The `target` x `source` matrix of OpenCV's INTER_AREA where it makes an image larger: within
    an old pixel the new ones repeat it, and between two that which lies on both is mixed.

    >>> enlarging_weights(2, 3).astype(float).round(2).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    new = np.arange(target)
    # In OpenCV's order of operations, which decides where a product should be whole.
    left = np.floor(new * (1 / (target / source))).astype(np.intp)
    right = np.minimum(left + 1, source - 1)
    share = (new + 1) - (left + 1) * target / source
    share = np.where(share <= 0, 0, share - np.floor(share))
    weights = np.zeros((target, source), np.float32)
    np.add.at(weights, (new, left), 1 - share)
    np.add.at(weights, (new, right), share)
    return weights


class _Graph:
    """Collects nodes and constants under names that no network has."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, *inputs: str | npt.NDArray[Any], **attributes: Any) -> str:
        """The name of the output of a new node; arrays become constants."""
        names = [self.constant(x) if isinstance(x, np.ndarray) else x for x in inputs]
        output = f"camera_{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def constant(self, array: npt.NDArray[Any]) -> str:
        name = f"camera_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def slice(self, x: str, rows: tuple[int, int], columns: tuple[int, int]) -> str:
        """x[..., rows, columns] of a 1x1xhxw map; ends count from the end as in Python, 0 is it."""
        far = np.iinfo(np.int64).max
        starts = np.array([rows[0], columns[0]])
        ends = np.array([end if end < 0 else far for end in (rows[1], columns[1])])
        return self.add("Slice", x, starts, ends, np.array([2, 3]))

    def resized(self, image: str, source: tuple[int, int], target: tuple[int, int]) -> str:
        """A 1x3xHxW image of whole numbers at another size, in whole numbers, by area."""
        if source == target:
            return image
        larger = target[0] > source[0] or target[1] > source[1]
        weights = enlarging_weights if larger else area_weights
        rows = weights(source[0], target[0])
        columns = weights(source[1], target[1]).T.copy()
        means = self.add("MatMul", self.add("MatMul", rows, image), columns)
        # OpenCV rounds halves to even numbers, but those of two by two pixels up.
        if source == (2 * target[0], 2 * target[1]):
            return self.add("Floor", self.add("Add", means, self.scalar(0.5)))
        return self.add("Round", means)

    def steps(self, inverse: str) -> tuple[str, str, str]:
        """Where a 1x1xhxw map of inverse depth steps, and its 3x3 minimum and maximum."""
        high = self.add("MaxPool", inverse, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        negative = self.add("Neg", inverse)
        low = self.add("Neg", self.add("MaxPool", negative, kernel_shape=[3, 3], pads=[1] * 4))
        # Second differences, zero on the border, where there is nothing to take them with.
        middle = self.slice(inverse, (1, -1), (1, -1))
        twice = self.add("Add", middle, middle)
        bends = []
        for before, after in (
            (((1, -1), (0, -2)), ((1, -1), (2, 0))),
            (((0, -2), (1, -1)), ((2, 0), (1, -1))),
        ):
            sides = self.add("Add", self.slice(inverse, *before), self.slice(inverse, *after))
            bends.append(self.add("Abs", self.add("Sub", sides, twice)))
        inner = self.add("Max", *bends)
        bend = self.add("Pad", inner, np.array([0, 0, 1, 1, 0, 0, 1, 1]))
        near_bend = self.add("MaxPool", bend, kernel_shape=[5, 5], pads=[2, 2, 2, 2])
        height = self.add("Sub", high, low)
        apart = self.add("Greater", high, self.add("Mul", low, self.scalar(EDGE_RATIO)))
        bent = self.add("Greater", near_bend, self.add("Mul", height, self.scalar(EDGE_BEND)))
        return self.add("And", apart, bent), low, high

    def upsampled(
        self, depth: str, image: str, coarse: tuple[int, int], fine: tuple[int, int]
    ) -> str:
        """`EdgeAwareUpsampler` of 1xhxw depth, guided by a 1x3xHxW image; gives 1xHxW depth."""
        inverse = self.add("Unsqueeze", self.add("Reciprocal", depth), np.array([1]))
        for _ in range(2):
            step, low, high = self.steps(inverse)
            is_high = self.add(
                "Less", self.add("Sub", high, inverse), self.add("Sub", inverse, low)
            )
            snapped = self.add("Where", is_high, high, low)
            inverse = self.add("Where", step, snapped, inverse)
        edge, _, _ = self.steps(inverse)
        smooth = self.add(
            "Resize",
            inverse,
            "",
            "",
            np.array([1, 1, *fine]),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        guide = self.resized(image, fine, coarse)
        rows, columns, row_distance, column_distance = coarse_neighbours(coarse, fine)
        best_distance = best = ""
        for i in range(2):
            row_values = self.add("Gather", inverse, rows[i], axis=2)
            row_guide = self.add("Gather", guide, rows[i], axis=2)
            for j in range(2):
                value = self.add("Gather", row_values, columns[j], axis=3)
                colour = self.add("Gather", row_guide, columns[j], axis=3)
                apart = self.add("Abs", self.add("Sub", colour, image))
                difference = self.add("ReduceSum", apart, np.array([1]), keepdims=1)
                nearness = row_distance[i][:, None] + column_distance[j][None, :]
                distance = self.add("Add", difference, nearness[None, None])
                if not best:
                    best_distance, best = distance, value
                    continue
                closer = self.add("Less", distance, best_distance)
                best = self.add("Where", closer, value, best)
                best_distance = self.add("Min", distance, best_distance)
        # The nearest coarse pixel decides what is beside a step.
        flag = self.add("Cast", edge, to=TensorProto.FLOAT)
        for axis, (few, many) in enumerate(zip(coarse, fine, strict=True)):
            nearest = ((np.arange(many) + 0.5) * few / many).astype(np.int64)
            flag = self.add("Gather", flag, nearest, axis=2 + axis)
        beside = self.add("Greater", flag, self.scalar(0.5))
        chosen = self.add("Where", beside, best, smooth)
        return self.add("Squeeze", self.add("Reciprocal", chosen), np.array([1]))


def with_camera(model: DepthModel, height: int, width: int) -> DepthModel:
    """The network with resize and up-sampling around it, for camera images of one size.

    Args:
        model: uint8 1xhxwx3 in, float32 1xh'xw' out.
        height, width: of the camera's images, in pixels.

    Returns:
        uint8 1xHxWx3 in, float32 1xHxW out, at the training focal length; NaN where the network's
        answer is. `metadata` is that of the network, whose input size the focal length refers to.

    Raises:
        ValueError: the network computes with bytes before it casts them.
    """
    proto = onnx.load_model_from_string(model.onnx)
    opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < MIN_OPSET:
        proto = onnx.version_converter.convert_version(proto, MIN_OPSET)
    proto = uint8_into_cast(proto)
    network = proto.graph
    cast, *inner = network.node
    size = (model.metadata.height, model.metadata.width)
    result = network.output[0]
    _, *coarse = (dim.dim_value for dim in result.type.tensor_type.shape.dim)
    graph = _Graph()
    pixels = graph.add("Cast", INPUT, to=TensorProto.FLOAT)
    image = graph.add("Transpose", pixels, perm=[0, 3, 1, 2])
    small = graph.resized(image, (height, width), size)
    graph.nodes.append(helper.make_node("Transpose", [small], [cast.output[0]], perm=[0, 2, 3, 1]))
    graph.nodes += inner
    depth = graph.upsampled(result.name, image, (coarse[0], coarse[1]), (height, width))
    graph.nodes.append(helper.make_node("Identity", [depth], [OUTPUT]))
    whole = helper.make_graph(
        graph.nodes,
        network.name,
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, height, width])],
        [*network.initializer, *graph.constants],
        sparse_initializer=network.sparse_initializer,
    )
    proto.graph.CopyFrom(whole)
    return replace(model, onnx=proto.SerializeToString(), camera_size=(height, width))
