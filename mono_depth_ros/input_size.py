"""The same network at another input size, without exporting it again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable

import onnx
from onnx import helper, numpy_helper, shape_inference

from mono_depth_ros.model import METADATA_KEY, DepthModel, ModelError, ModelMetadata


def resized(model: DepthModel, height: int, width: int) -> DepthModel:
    """A fully convolutional network at another input size.

    Exporters write the sizes that a decoder resizes to into the graph as numbers. Each is a certain
    part of the input size (1/2, 1/4 ..., as the skip connection that it meets), and stays that
    part. What else may depend on the input size, such as a transformer's position embedding, cannot
    be changed so; such a network is refused.

    Args:
        model: as `read_model` gives it.
        height, width: of the input, in pixels.

    Returns:
        The network at that input size. Output size and training focal lengths change in proportion;
        accuracies in the metadata, measured at the old size, are left out.

    Raises:
        ModelError: the graph does not allow that size.
    """
    old, new = (model.metadata.height, model.metadata.width), (height, width)
    if new == old:
        return model
    proto = onnx.load_model_from_string(model.onnx)
    graph = proto.graph
    document = model.metadata.document
    targets = _resize_targets(graph)
    image, depth = (
        [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (graph.input[0], graph.output[0])
    )
    if image != [1, *old, 3] or len(depth) != 3 or min(depth) < 1:
        raise ModelError(f"{model.path}: is not 1xHxWx3 in, 1xhxw out; export the model again")
    maps = [depth[1:], *(numpy_helper.to_array(target)[-2:].tolist() for target in targets)]
    multiple = document["input"].get("multiple_of")
    multiple = multiple if isinstance(multiple, int) and multiple > 0 else 1
    steps = [
        math.lcm(multiple, side // math.gcd(side, *parts))
        for side, parts in zip(old, zip(*maps, strict=True), strict=True)
    ]
    where = f"{model.path}: cannot run at {height}x{width}"
    if min(new) < 1 or any(side % step for side, step in zip(new, steps, strict=True)):
        raise ModelError(
            f"{where}: exported at {old[0]}x{old[1]}, its height must be a multiple of"
            f" {steps[0]} and its width of {steps[1]}"
        )
    for target in targets:
        sizes = numpy_helper.to_array(target).copy()
        sizes[-2:] = sizes[-2:] * new // old
        target.CopyFrom(numpy_helper.from_array(sizes, target.name))
    _set_sides(graph.input[0], [1, *new, 3])
    _set_sides(
        graph.output[0], [1, *(p * n // o for p, n, o in zip(maps[0], new, old, strict=True))]
    )
    del graph.value_info[:]
    _check(proto, where)
    factors = {"fx": width / old[1], "fy": height / old[0]}
    focal = document["training_focal_px"]
    document = {
        **document,
        "input": {**document["input"], "height": height, "width": width},
        "training_focal_px": {key: focal[key] * factor for key, factor in factors.items()},
        "metrics": {},
    }
    text = json.dumps(document)
    helper.set_model_props(proto, {METADATA_KEY: text})
    content = proto.SerializeToString()
    metadata = ModelMetadata.from_json(text, str(model.path))
    return DepthModel(model.path, hashlib.sha256(content).hexdigest(), content, metadata)


def _resize_targets(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Constants, each once, that say what size a Resize has; height and width are the last two."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                constants[node.output[0]] = attribute.t
    names = {node.input[3] for node in graph.node if node.op_type == "Resize" and node.input[3:]}
    return [constants[name] for name in sorted(names & constants.keys())]


def _set_sides(value: onnx.ValueInfoProto, sides: Iterable[int]) -> None:
    for dim, side in zip(value.type.tensor_type.shape.dim, sides, strict=True):
        dim.dim_value = side


def _check(proto: onnx.ModelProto, where: str) -> None:
    """Raises ModelError where the sizes within a graph do not fit together."""
    try:
        graph = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise ModelError(
            f"{where}: export it at that size ({' '.join(str(error).split()):.200})"
        ) from None
    counts = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    # Inference takes the size that a Reshape has written in it without counting.
    for node in graph.node:
        counted = [counts.get(name, 0) for name in (node.input[:1] + node.output[:1])]
        if node.op_type == "Reshape" and all(counted) and counted[0] != counted[1]:
            raise ModelError(
                f"{where}: its Reshape '{node.name}' is made for one input size; export it at that"
                " size"
            )
