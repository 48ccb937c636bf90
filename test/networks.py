"""Small ONNX networks whose answer is known exactly, in the format that the package exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 96, 128
FOCAL = 100.0
# The red-channel network's metres per grey level.
RED_SCALE = 0.04


def document(focal: float = FOCAL, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, Any]:
    """Valid metadata."""
    return {
        "schema": 1,
        "architecture": "test",
        "input": {"height": size[0], "width": size[1]},
        "training_focal_px": {"fx": focal, "fy": focal},
        "depth_m": {"min": 0.1, "max": 20.0},
        "data": [],
        "metrics": {},
        "licence": "Apache-2.0",
        "commit": "test",
    }


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    focal: float = FOCAL,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    reduction: int = 2,
) -> Path:
    height, width = size
    depth = [1, height // reduction, width // reduction]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, depth)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"mono_depth": json.dumps(document(focal, size))})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def red_channel(path: Path, factor: float = RED_SCALE) -> Path:
    """Depth is the red channel, averaged two by two, times `factor` metres."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["nchw", "zero", "one", "axis"], ["red"]),
        helper.make_node("AveragePool", ["red"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mul", ["half", "factor"], ["metres"]),
        helper.make_node("Squeeze", ["metres", "axis"], ["depth"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
        "factor": np.array(factor, np.float32),
    }
    return _save(path, nodes, constants)


def two_channels(path: Path, size: tuple[int, int], focal: float) -> Path:
    """Depth is 256 times the red channel plus the green one, in millimetres, pixel by pixel.

    Args:
        size: height and width of camera and network.
        focal: of the camera in pixels, so that nothing is scaled.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "weights"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", "axis"], ["depth"], keepdims=0),
    ]
    constants = {
        "weights": np.array([0.256, 0.001, 0], np.float32),
        "axis": np.array([3], np.int64),
    }
    return _save(path, nodes, constants, focal, size, reduction=1)


def to_two_channels(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The HxWx3 image of which `two_channels` makes HxW metres; 65.535 m where there are more."""
    code = np.rint(depth.clip(0, 65.535) * 1000).astype(np.uint16)
    return np.stack([code >> 8, code & 255, np.zeros_like(code)], axis=-1).astype(np.uint8)


def not_finite(path: Path) -> Path:
    """Depth is 0/0 wherever the red channel is 0, elsewhere 1 m."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["nchw", "zero", "one", "axis"], ["red"]),
        helper.make_node("MaxPool", ["red"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Div", ["half", "half"], ["ratio"]),
        helper.make_node("Squeeze", ["ratio", "axis"], ["depth"]),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
    }
    return _save(path, nodes, constants)


def apparent_size(path: Path, side: float) -> Path:
    """A network that judges distance as ours do, by apparent size: it knows that the bright square
    in the picture has sides of `side` metres, and answers focal * side / sqrt(bright pixels).
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["bright"]),
        helper.make_node("ReduceSum", ["bright"], ["area3"], keepdims=0),
        helper.make_node("Div", ["area3", "three"], ["area"]),
        helper.make_node("Sqrt", ["area"], ["pixels"]),
        helper.make_node("Div", ["product", "pixels"], ["distance"]),
        helper.make_node("Expand", ["distance", "shape"], ["depth"]),
    ]
    constants = {
        "white": np.array(255, np.float32),
        "three": np.array(3, np.float32),
        "product": np.array(FOCAL * side, np.float32),
        "shape": np.array([1, HEIGHT // 2, WIDTH // 2], np.int64),
    }
    return _save(path, nodes, constants)


def slow(path: Path, convolutions: int) -> Path:
    """The red-channel network with a detour that takes its time and changes nothing."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "widen"], ["x0"], pads=[1, 1, 1, 1]),
    ]
    for i in range(convolutions):
        nodes += [
            helper.make_node("Conv", [f"x{i}", "weight"], [f"y{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Clip", [f"y{i}", "dark", "bright"], [f"x{i + 1}"]),
        ]
    nodes += [
        helper.make_node("ReduceMean", [f"x{convolutions}", "axis"], ["detour"]),
        helper.make_node("Mul", ["detour", "nothing"], ["zero_map"]),
        helper.make_node("Slice", ["nchw", "zero", "one", "axis"], ["red"]),
        helper.make_node("Add", ["red", "zero_map"], ["sum"]),
        helper.make_node("AveragePool", ["sum"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Mul", ["half", "factor"], ["metres"]),
        helper.make_node("Squeeze", ["metres", "axis"], ["depth"]),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "widen": rng.normal(0, 0.1, (64, 3, 3, 3)).astype(np.float32),
        # More than He initialisation, and clipped: the signal neither explodes nor fades to
        # denormal numbers, which some processors are a hundred times slower with.
        "weight": rng.normal(0, 1.5 * (2 / 576) ** 0.5, (64, 64, 3, 3)).astype(np.float32),
        "dark": np.array(0, np.float32),
        "bright": np.array(1, np.float32),
        "nothing": np.array(1e-30, np.float32),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
        "factor": np.array(RED_SCALE, np.float32),
    }
    return _save(path, nodes, constants)


def convolutions(path: Path, seed: int = 0) -> Path:
    """A first convolution, a rectifier, and a head, as real networks have: positive depth of about
    2 m that depends on every byte.
    """
    nodes = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["colours"]),
        helper.make_node("Conv", ["colours", "first"], ["x"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Conv", ["y", "last"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["z", "offset"], ["metres"]),
        helper.make_node("Squeeze", ["metres", "axis"], ["depth"]),
    ]
    rng = np.random.default_rng(seed)
    constants = {
        "scale": np.array(1 / 255, np.float32),
        "first": rng.uniform(0, 0.2, (8, 3, 3, 3)).astype(np.float32),
        "last": rng.uniform(0, 0.01, (1, 8, 3, 3)).astype(np.float32),
        "offset": np.array(1, np.float32),
        "axis": np.array([1], np.int64),
    }
    return _save(path, nodes, constants)
