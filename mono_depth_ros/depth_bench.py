"""Measures the speed of every stage: engines, the steps around them, and the whole node over DDS.

Quote ratios from one run: absolute times move by tens of percent between runs and machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.colormap import colorize
from mono_depth_ros.engines import EngineError, open_engine
from mono_depth_ros.estimator import DepthEstimator, Rectifier
from mono_depth_ros.filters import EdgeAwareUpsampler
from mono_depth_ros.model import default_model
from mono_depth_ros.ros_process import RosProcess, dds_environment, private_domain

WIDTH, HEIGHT, HFOV_DEG = 640, 480, 60.0
COMBINATIONS = (("openvino", "float32"), ("openvino", "bfloat16"), ("onnx", "float32"))
START_S = 60.0
Row = dict[str, str | float]


def measure(call: Callable[[], object], repeat: int) -> dict[str, float]:
    """Median and 95th percentile of `repeat` calls in milliseconds, after five uncounted."""
    times = []
    for i in range(repeat + 5):
        started = time.perf_counter()
        call()
        if i >= 5:
            times.append((time.perf_counter() - started) * 1e3)
    p50, p95 = np.percentile(times, (50, 95))
    return {"ms_p50": round(float(p50), 2), "ms_p95": round(float(p95), 2)}


def picture() -> npt.NDArray[np.uint8]:
    """A 640x480 RGB image of the virtual room, for stages whose time depends on the content."""
    from mono_depth_ros.sim.renderer import Renderer
    from mono_depth_ros.sim.scene import build_room
    from mono_depth_ros.sim.trajectory import Trajectory

    room = build_room(0)
    with Renderer(room, CameraModel.from_hfov(WIDTH, HEIGHT, HFOV_DEG)) as renderer:
        return renderer.rgb(Trajectory(room.plan).pose(4.0))


def bench_engines(model: Path, image: npt.NDArray[np.uint8], repeat: int) -> list[Row]:
    """Time of the network alone at its input size, per engine and precision."""
    rows: list[Row] = []
    for engine, precision in COMBINATIONS:
        try:
            opened = open_engine(model, engine, precision)
        except EngineError as error:
            rows.append({"stage": f"engine {engine} {precision}", "error": str(error)})
            continue
        height, width = opened.input_spec.shape[1:3]
        small = np.asarray(
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
        figures = measure(partial(opened.infer, small), repeat)
        rows.append({"stage": f"engine {opened.describe()}, {width}x{height}", **figures})
        opened.close()
    return rows


def bench_stages(model: Path, image: npt.NDArray[np.uint8], repeat: int) -> list[Row]:
    """Time of each step around the network at camera resolution."""
    estimator = DepthEstimator.open(model)
    camera = CameraModel.from_hfov(WIDTH, HEIGHT, HFOV_DEG)
    frame = estimator.estimate(image, camera)
    depth = frame.depth.copy()
    height, width = estimator.engine.input_spec.shape[1:3]
    small = np.empty((height, width, 3), np.uint8)
    cv2.resize(image, (width, height), dst=small, interpolation=cv2.INTER_AREA)
    coarse = estimator.engine.infer(small).copy()
    upsample = EdgeAwareUpsampler((coarse.shape[0], coarse.shape[1]), (HEIGHT, WIDTH))
    builder = CloudBuilder(camera)
    points = np.empty((builder.height, builder.width, 4), np.float32)
    k = (camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0)
    rectifier = Rectifier(Calibration(WIDTH, HEIGHT, k, (-0.2, 0.05, 0.0, 0.0, 0.0), "plumb_bob"))
    colour = np.empty_like(image)
    stages: dict[str, Callable[[], object]] = {
        "rectify": lambda: rectifier(image),
        "preprocess (resize)": lambda: cv2.resize(
            image, (width, height), dst=small, interpolation=cv2.INTER_AREA
        ),
        "edge-aware up-sampling": lambda: upsample(coarse, image),
        "estimate, network included": lambda: estimator.estimate(image, camera),
        "cloud, every pixel": lambda: builder.build(depth, image, out=points),
        "colour map": lambda: colorize(depth, 0.1, 10.0, out=colour),
    }
    rows: list[Row] = [
        {"stage": f"{name}, {WIDTH}x{HEIGHT}", **measure(call, repeat)}
        for name, call in stages.items()
    ]
    estimator.close()
    return rows


def bench_node(model: Path, image: npt.NDArray[np.uint8], rate: float, seconds: float) -> list[Row]:
    """Stamp-to-publish time of the node process at `rate`, with depth, camera_info and the
    full-resolution cloud subscribed, as the node itself reports it in /diagnostics.

    Raises:
        RuntimeError: the node ended or published nothing.
    """
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2
    from std_msgs.msg import Header

    from mono_depth_ros.messages import camera_info_message, image_message

    os.environ.update(dds_environment())
    domain = private_domain()
    camera = CameraModel.from_hfov(WIDTH, HEIGHT, HFOV_DEG)
    reports: list[dict[str, str]] = []
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        process = RosProcess("mono_depth_ros.node", domain, logs / "node", model=model)
        stack.callback(process.stop)
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        stack.callback(rclpy.shutdown, context=context)
        node = rclpy.create_node("bench_camera", context=context)
        stack.callback(node.destroy_node)
        executor = SingleThreadedExecutor(context=context)
        stack.callback(executor.shutdown)
        executor.add_node(node)
        images = node.create_publisher(Image, "image_raw", qos_profile_sensor_data)
        infos = node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        message = image_message(image, "rgb8", Header(frame_id="camera_optical_frame"))

        def publish() -> None:
            message.header.stamp = node.get_clock().now().to_msg()
            infos.publish(camera_info_message(camera, message.header))
            images.publish(message)

        def on_diagnostics(array: DiagnosticArray) -> None:
            reports.append({entry.key: entry.value for entry in array.status[0].values})

        def ignore(serialised: bytes) -> None:
            pass

        outputs = {
            "depth/image_rect": Image,
            "depth/camera_info": CameraInfo,
            "points": PointCloud2,
        }
        for topic, kind in outputs.items():
            node.create_subscription(kind, topic, ignore, qos_profile_sensor_data, raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
        node.create_timer(1 / rate, publish)
        end = time.monotonic() + START_S
        began = False
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.2)
            if not process.running():
                raise RuntimeError(f"the node ended early:\n{process.output()}")
            if not began and reports and "latency_ms_p50" in reports[-1]:
                began, end = True, time.monotonic() + seconds
        if not began:
            raise RuntimeError(f"the node published nothing:\n{process.output()}")
    last = reports[-1]
    names = {
        "node: stamp to last publish": ("latency_ms_p50", "latency_ms_p95"),
        "node: in the network": ("engine_ms_p50", None),
        "node: overhead (stamp to publish - network)": ("overhead_ms_p50", None),
    }
    rows: list[Row] = []
    for name, (p50, p95) in names.items():
        row: Row = {"stage": f"{name}, {WIDTH}x{HEIGHT} at {rate:g} Hz", "ms_p50": float(last[p50])}
        if p95:
            row["ms_p95"] = float(last[p95])
        rows.append(row)
    rows.append({"stage": "node: rate", "hz": float(last["rate_hz"])})
    return rows


def cpu_name() -> str:
    """The processor's model name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(rows: list[Row]) -> str:
    """The rows for reading."""
    lines = [f"{'stage':66}{'p50 ms':>9}{'p95 ms':>9}"]
    for row in rows:
        if "error" in row:
            lines.append(f"{row['stage']:66}{row['error']}")
        elif "hz" in row:
            lines.append(f"{row['stage']:66}{row['hz']:>9} Hz")
        else:
            lines.append(f"{row['stage']:66}{row['ms_p50']:>9}{row.get('ms_p95', ''):>9}")
    return "\n".join(lines)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="depth_bench",
        description=__doc__,
        epilog="examples:\n  depth_bench\n  depth_bench --model mine.onnx --json bench.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="ONNX file; default: the one that ships")
    parser.add_argument("--repeat", type=int, default=60, help="calls a figure")
    parser.add_argument("--rate", type=float, default=15.0, help="frames/s sent to the node")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of the node's run")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; exit status 0 only if everything was measured."""
    args = parse_args(argv)
    try:
        model = args.model or default_model()
        image = picture()
        rows = bench_engines(model, image, args.repeat)
        rows += bench_stages(model, image, args.repeat)
        rows += bench_node(model, image, args.rate, args.seconds)
        cores = len(os.sched_getaffinity(0))
        result = {"cpu": cpu_name(), "cores": cores, "model": str(model), "rows": rows}
        if args.json is not None:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(result, indent=2) + "\n")
    except (ValueError, RuntimeError, OSError) as error:
        print(f"depth_bench: {error}", file=sys.stderr)
        return 1
    print(f"{cpu_name()}, {cores} cores, {model.name}\n{table(rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
