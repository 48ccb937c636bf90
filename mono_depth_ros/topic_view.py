"""ROS 2 topics of a depth node -> a Rerun recording."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from mono_depth_ros import messages
from mono_depth_ros.camera_info import calibration_from_info
from mono_depth_ros.rerun_recording import CameraRecording, thinning

DEPTH = "depth/image_rect"
M = TypeVar("M")
# Depth 1: what was not shown in time is dropped, by the middleware, before it costs anything here.
# Reliable, since big best-effort messages get lost between machines; a publisher that keeps a few
# messages does not wait for a slow reader.
_RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# For cameras, which mostly are not reliable.
_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
# Topics of one frame come one after the other; this many frames are told apart.
_KEPT_STAMPS = 32
# In Rerun's words.
_LEVELS = {
    DiagnosticStatus.OK: "INFO",
    DiagnosticStatus.WARN: "WARN",
    DiagnosticStatus.ERROR: "ERROR",
    DiagnosticStatus.STALE: "ERROR",
}
_COLOUR_TYPES = (PointField.FLOAT32, PointField.UINT32)


def cloud_points(
    message: PointCloud2, max_points: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32] | None]:
    """The finite points of a cloud, thinned.

    Args:
        message: with float32 x, y, z, and maybe rgb (0x00RRGGBB in the bytes of a float32 or
            uint32).
        max_points: keeps at most so many.

    Returns:
        Nx3 float32 metres and N uint32 0x00RRGGBB, or None where the cloud has no colour.

    Raises:
        ValueError: x, y or z is missing or of another type, or data is truncated.
    """
    order = ">" if message.is_bigendian else "<"
    offsets = {f.name: f.offset for f in message.fields if f.datatype == PointField.FLOAT32}
    colour = {
        f.name: f.offset
        for f in message.fields
        if f.name in ("rgb", "rgba") and f.datatype in _COLOUR_TYPES
    }
    if missing := {"x", "y", "z"} - offsets.keys():
        raise ValueError(f"cloud has no float32 field {', '.join(sorted(missing))}")
    rgb = next(iter(colour), None)
    names = ["x", "y", "z", *([rgb] if rgb else [])]
    places = [offsets["x"], offsets["y"], offsets["z"], *([colour[rgb]] if rgb else [])]
    step, row = message.point_step, message.row_step
    needed = row * (message.height - 1) + step * message.width if message.height else 0
    if max(places) + 4 > step or row < step * message.width or len(message.data) < needed:
        raise ValueError(
            f"cloud of {message.height}x{message.width} points of {step} bytes in rows of {row}"
            f" does not fit its {len(message.data)} bytes"
        )
    dtype = np.dtype(
        {
            "names": names,
            "formats": [f"{order}f4"] * 3 + [f"{order}u4"] * (len(names) - 3),
            "offsets": places,
            "itemsize": step,
        }
    )
    shape = (message.height, message.width)
    points: npt.NDArray[Any] = np.ndarray(shape, dtype, buffer=message.data, strides=(row, step))
    s = thinning(*shape, max_points)
    points = points[::s, ::s].reshape(-1)
    positions = np.stack([points[name] for name in "xyz"], axis=-1).astype(np.float32, copy=False)
    finite = np.isfinite(positions).all(axis=1)
    colours = (points[rgb][finite] & 0xFFFFFF).astype(np.uint32) if rgb else None
    return positions[finite], colours


def scan_points(message: LaserScan) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The valid ranges of a scan as x and y: float32 metres in its frame.

    Valid is range_min <= r <= range_max (sensor_msgs/LaserScan); REP 117's infinities are not.
    """
    r = np.asarray(message.ranges, np.float32)
    angle = message.angle_min + np.arange(r.size) * message.angle_increment
    valid = np.isfinite(r) & (r >= message.range_min) & (r <= message.range_max)
    r, angle = r[valid], angle[valid]
    return (r * np.cos(angle)).astype(np.float32), (r * np.sin(angle)).astype(np.float32)


class TopicView:
    """Shows the newest messages of one depth node. Everything happens in the executor's thread.

    Args:
        node: whose namespace the relative topics are in.
        recording: where they go.
        warn: told of messages that cannot be shown, once for each reason.
        max_points: of a cloud; 0 leaves clouds to the viewer, and the node makes none.
        scan: whether to ask for it; a node that cannot make one warns of that.
        image: topic; one that ends in /compressed is a CompressedImage.

    Attributes:
        counts: messages shown, by topic.
    """

    def __init__(
        self,
        node: Node,
        recording: CameraRecording,
        warn: Callable[[str], None],
        max_points: int,
        scan: bool = False,
        image: str = "image_rect",
    ) -> None:
        self._recording, self._warn, self._max_points = recording, warn, max_points
        self._namespace = node.get_namespace().strip("/")
        self._warned: set[str] = set()
        self._frames: OrderedDict[int, int] = OrderedDict()
        self._status = ("", "")
        self._frame = -1
        self.counts: dict[str, int] = {}
        compressed = image.endswith("/compressed")
        image_qos = _RELIABLE if image == "image_rect" else _BEST_EFFORT
        topics: list[tuple[type, str, Callable[[Any], None], QoSProfile]] = [
            (CameraInfo, "depth/camera_info", self._on_info, _RELIABLE),
            (CompressedImage if compressed else Image, image, self._on_image, image_qos),
            (Image, DEPTH, self._on_depth, _RELIABLE),
        ]
        if scan:
            topics.append((LaserScan, "scan", self._on_scan, _RELIABLE))
        if max_points:
            topics.append((PointCloud2, "points", self._on_points, _RELIABLE))
        for kind, topic, show, qos in topics:
            self.counts[topic] = 0
            node.create_subscription(kind, topic, self._shown(topic, show), qos)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _shown(self, topic: str, show: Callable[[M], None]) -> Callable[[M], None]:
        """A callback that survives messages that cannot be shown."""

        def callback(message: M) -> None:
            try:
                show(message)
            except ValueError as error:
                if str(error) not in self._warned:
                    self._warned.add(str(error))
                    self._warn(f"{topic}: {error}")
            else:
                self.counts[topic] += 1

        return callback

    def _set_time(self, header: Header) -> None:
        """One number for each stamp, whichever topic brings it first."""
        stamp = messages.stamp_ns(header)
        if stamp not in self._frames:
            self._frame += 1
            self._frames[stamp] = self._frame
            if len(self._frames) > _KEPT_STAMPS:
                self._frames.popitem(last=False)
        self._recording.set_time(self._frames[stamp], stamp_ns=stamp)

    def _on_info(self, message: CameraInfo) -> None:
        camera = calibration_from_info(message).rectified()
        self._set_time(message.header)
        self._recording.log_camera(camera)

    def _on_image(self, message: Image | CompressedImage) -> None:
        if isinstance(message, CompressedImage):
            image = messages.compressed_to_rgb(message)
        else:
            image = messages.image_to_rgb(message)
        self._set_time(message.header)
        self._recording.log_image(image)

    def _on_depth(self, message: Image) -> None:
        depth = messages.depth_to_array(message)
        self._set_time(message.header)
        self._recording.log_depth(depth)

    def _on_points(self, message: PointCloud2) -> None:
        positions, rgb = cloud_points(message, self._max_points)
        self._set_time(message.header)
        self._recording.log_points(positions, rgb)

    def _on_scan(self, message: LaserScan) -> None:
        x, y = scan_points(message)
        self._set_time(message.header)
        self._recording.log_scan(x, y)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            # The node's name with its namespace, then ": depth".
            name, _, what = status.name.partition(": ")
            if what != "depth" or name.strip("/").rpartition("/")[0] != self._namespace:
                continue
            # Shown with the newest frame: diagnostics need not be stamped by the images' clock.
            if self._frames:
                stamp, frame = next(reversed(self._frames.items()))
                self._recording.set_time(frame, stamp_ns=stamp)
            else:
                self._recording.set_time(0, stamp_ns=messages.stamp_ns(message.header))
            figures = {value.key: _number(value.value) for value in status.values}
            self._recording.log_figures(figures)
            level = _LEVELS.get(status.level, "ERROR")
            if (level, status.message) != self._status:
                self._status = (level, status.message)
                self._recording.log_status(level, status.message)


def _number(text: str) -> float:
    """NaN for what is not a number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
