"""Time of each step around the network, at the camera's resolution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.colormap import colorize
from mono_depth_ros.estimator import DepthEstimator, Rectifier
from mono_depth_ros.filters import EdgeAwareUpsampler
from mono_depth_ros.latency import percentiles, time_calls

HFOV_DEG = 60.0
SIZES = ((640, 480), (1280, 720))


def room_picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    """HxWx3 uint8 RGB of the virtual room; the time of some stages depends on the content.

    Raises:
        RuntimeError: MuJoCo is not installed, or cannot render.
    """
    try:
        from mono_depth_ros.sim.renderer import Renderer
    except ImportError as error:
        raise RuntimeError(
            f"stages and node are measured on rendered images ({error});"
            " pip install -r requirements/run.txt"
        ) from None
    from mono_depth_ros.sim.scene import build_room
    from mono_depth_ros.sim.trajectory import Trajectory

    room = build_room(0)
    with Renderer(room, CameraModel.from_hfov(width, height, HFOV_DEG)) as renderer:
        return renderer.rgb(Trajectory(room.plan).pose(4.0))


def bench_stages(
    model: Path, image: npt.NDArray[np.uint8], repeat: int
) -> list[dict[str, str | float]]:
    """Percentiles of each stage for a camera image, HxWx3 uint8 RGB.

    Raises:
        ModelError, EngineError: the network cannot be loaded.
    """
    height, width = image.shape[:2]
    camera = CameraModel.from_hfov(width, height, HFOV_DEG)
    estimator = DepthEstimator.open(model)
    depth = estimator.estimate(image, camera).depth.copy()
    network = estimator.engine.input_spec.shape[1:3]
    small = np.empty((*network, 3), np.uint8)

    def resize() -> object:
        return cv2.resize(image, network[::-1], dst=small, interpolation=cv2.INTER_AREA)

    resize()
    coarse = estimator.engine.infer(small).copy()
    upsample = EdgeAwareUpsampler((coarse.shape[0], coarse.shape[1]), (height, width))
    builder = CloudBuilder(camera)
    points = np.empty((builder.height, builder.width, 4), np.float32)
    k = (camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0)
    rectifier = Rectifier(Calibration(width, height, k, (-0.2, 0.05, 0.0, 0.0, 0.0), "plumb_bob"))
    colour = np.empty_like(image)
    stages: dict[str, Callable[[], object]] = {
        "rectify": lambda: rectifier(image),
        f"resize to {network[1]}x{network[0]}": resize,
        "edge-aware up-sampling": lambda: upsample(coarse, image),
        "estimate, network included": lambda: estimator.estimate(image, camera),
        "cloud, every pixel": lambda: builder.build(depth, image, out=points),
        "colour map": lambda: colorize(depth, 0.1, 10.0, out=colour),
    }
    rows: list[dict[str, str | float]] = [
        {"stage": name, "camera": f"{width}x{height}", **percentiles(time_calls(call, repeat))}
        for name, call in stages.items()
    ]
    estimator.close()
    return rows
