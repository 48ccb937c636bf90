"""Depth, camera_info and points as serialised ROS messages, without ROS."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from mono_depth_ros.bag_reader import CAMERA_INFO, TYPES
from mono_depth_ros.camera import CameraModel
from mono_depth_ros.cloud import POINT_STEP, CloudBuilder
from mono_depth_ros.depth_encoding import millimetres
from mono_depth_ros.estimator import DepthFrame
from mono_depth_ros.image_topic import IMAGE

POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
_BIG_ENDIAN = sys.byteorder == "big"
_FLOAT32 = 7  # sensor_msgs/PointField


def _payload(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)


def _camera_info(camera: CameraModel, header: Any) -> memoryview:
    k = camera.matrix()
    message = TYPES.types[CAMERA_INFO](
        header, camera.height, camera.width, "plumb_bob", np.zeros(5), k.ravel(),
        np.eye(3).ravel(), np.hstack([k, np.zeros((3, 1))]).ravel(), 0, 0,
        TYPES.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )  # fmt: skip
    return TYPES.serialize_cdr(message, CAMERA_INFO)


class DepthMessages:
    """Makes the three messages of each frame, as `mono_depth_ros.messages` does for the node.

    Args:
        encoding: `32FC1` metres or `16UC1` millimetres.
        stride: the cloud has every `stride`-th row and column.
    """

    def __init__(self, encoding: str, stride: int) -> None:
        self._encoding, self._stride = encoding, stride
        self._builder: CloudBuilder | None = None
        field = TYPES.types["sensor_msgs/msg/PointField"]
        self._fields = [
            field(name, 4 * i, _FLOAT32, 1) for i, name in enumerate(["x", "y", "z", "rgb"])
        ]

    def serialise(
        self, frame: DepthFrame, header: Any
    ) -> tuple[memoryview, memoryview, memoryview]:
        """Image, CameraInfo and PointCloud2 with the header of the image, rosbags' or like it."""
        height, width = frame.depth.shape
        pixels = frame.depth if self._encoding == "32FC1" else millimetres(frame.depth)
        image = TYPES.types[IMAGE](
            header, height, width, self._encoding, _BIG_ENDIAN, width * pixels.itemsize,
            _payload(pixels),
        )  # fmt: skip
        if self._builder is None or self._builder.camera != frame.camera:
            self._builder = CloudBuilder(frame.camera, self._stride)
            self._points = np.empty((self._builder.height, self._builder.width, 4), np.float32)
        self._builder.build(frame.depth, frame.image, self._points)
        rows, columns = self._points.shape[:2]
        cloud = TYPES.types[POINT_CLOUD](
            header, rows, columns, self._fields, _BIG_ENDIAN, POINT_STEP, POINT_STEP * columns,
            _payload(self._points), False,
        )  # fmt: skip
        return (
            TYPES.serialize_cdr(image, IMAGE),
            _camera_info(frame.camera, header),
            TYPES.serialize_cdr(cloud, POINT_CLOUD),
        )
