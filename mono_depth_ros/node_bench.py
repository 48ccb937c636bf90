"""Time of the whole node, a process of its own, from a camera's stamp to the last publish."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.ros_process import RosProcess, dds_environment, private_domain
from mono_depth_ros.stage_bench import HFOV_DEG

START_S = 60.0
# What the node reports of itself, by what it means.
FIGURES = {
    "node: stamp to last publish": "latency_ms",
    "node: in the network": "engine_ms",
    "node: overhead (stamp to publish - network)": "overhead_ms",
}


def bench_node(
    model: Path, image: npt.NDArray[np.uint8], rate: float, seconds: float
) -> list[dict[str, str | float]]:
    """What the node reports of itself in /diagnostics while it gets `image` at `rate` frames/s for
    `seconds`, with depth, camera_info and the full-resolution cloud subscribed.

    Args:
        image: HxWx3 uint8 RGB.

    Raises:
        RuntimeError: ROS 2 is not there, or the node ended or published nothing.
    """
    try:
        import rclpy
    except ImportError as error:
        raise RuntimeError(
            f"the node needs ROS 2 ({error}); source it, or pip install -r requirements/ros.txt"
        ) from None
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2
    from std_msgs.msg import Header

    from mono_depth_ros.messages import camera_info_message, image_message

    os.environ.update(dds_environment())
    domain = private_domain()
    height, width = image.shape[:2]
    camera = CameraModel.from_hfov(width, height, HFOV_DEG)
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
    rows: list[dict[str, str | float]] = []
    for name, key in FIGURES.items():
        row: dict[str, str | float] = {"stage": name, "camera": f"{width}x{height}"}
        for p in ("p50", "p95"):
            if f"{key}_{p}" in last:
                row[f"ms_{p}"] = float(last[f"{key}_{p}"])
        rows.append(row)
    # Sent at `rate`, so frames/s say whether the node kept up, not how fast it could be.
    rows[0]["sent_hz"], rows[0]["published_hz"] = rate, float(last["rate_hz"])
    return rows
