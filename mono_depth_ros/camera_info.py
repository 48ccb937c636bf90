"""sensor_msgs/CameraInfo -> `Calibration`, without ROS."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from mono_depth_ros.camera import Calibration


class UncalibratedError(ValueError):
    """A CameraInfo of a camera that nobody has calibrated: K is zero."""


class RegionOfInterest(Protocol):
    """The fields of sensor_msgs/RegionOfInterest that a calibration needs."""

    x_offset: int
    y_offset: int
    width: int
    height: int


class CameraInfo(Protocol):
    """The fields of sensor_msgs/CameraInfo that a calibration needs."""

    width: int
    height: int
    distortion_model: str
    d: Iterable[float]
    k: Iterable[float]
    r: Iterable[float]
    p: Iterable[float]
    binning_x: int
    binning_y: int
    roi: RegionOfInterest


def calibration_from_info(message: CameraInfo) -> Calibration:
    """Reads a CameraInfo of rclpy, rosbags or the like.

    Raises:
        UncalibratedError: K is zero.
        ValueError: K, D, R or P holds numbers that are not finite.
    """
    k, p = tuple(map(float, message.k)), tuple(map(float, message.p))
    if k[0] == 0 or k[4] == 0:
        raise UncalibratedError(
            "camera_info has K[0] = 0: the camera is not calibrated; run camera_calibration"
        )
    if not all(math.isfinite(value) for value in (*k, *p, *message.d, *message.r)):
        raise ValueError("camera_info holds numbers that are not finite; check the camera driver")
    return Calibration(
        width=int(message.width),
        height=int(message.height),
        k=k,
        d=tuple(map(float, message.d)),
        model=str(message.distortion_model),
        r=tuple(map(float, message.r)),
        p=p,
        binning=(int(message.binning_x), int(message.binning_y)),
        roi=(
            int(message.roi.x_offset),
            int(message.roi.y_offset),
            int(message.roi.width),
            int(message.roi.height),
        ),
    )
