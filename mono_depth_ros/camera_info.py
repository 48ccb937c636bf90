"""sensor_msgs/CameraInfo -> `Calibration`, without ROS."""

from __future__ import annotations

import re
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

    roi.do_rectify is not read: see `Calibration` for what the region means.

    Raises:
        UncalibratedError: K is zero.
        ValueError: it cannot be a camera's (see `Calibration`); one line. The distortion model is
            checked by what rectifies, since a rectified image needs none.
    """
    k = tuple(map(float, message.k))
    if len(k) == 9 and (k[0] == 0 or k[4] == 0):
        raise UncalibratedError(
            "camera_info has K[0] = 0: the camera is not calibrated; run camera_calibration"
        )
    calibration = Calibration(
        width=int(message.width),
        height=int(message.height),
        k=k,
        d=tuple(map(float, message.d)),
        model=str(message.distortion_model),
        r=tuple(map(float, message.r)),
        p=tuple(map(float, message.p)),
        binning=(int(message.binning_x), int(message.binning_y)),
        roi=(
            int(message.roi.x_offset),
            int(message.roi.y_offset),
            int(message.roi.width),
            int(message.roi.height),
        ),
    )
    calibration.raw()
    calibration.rectified()
    return calibration


_RECTIFIED = {"rect", "rectified"}
_TRANSPORT = re.compile("/(compressed|compressedDepth|theora|ffmpeg|zstd)$")


def already_rectified(topic: str) -> bool:
    """Whether the name of an image topic says that its images are rectified.

    Nothing else does: image_proc publishes `image_rect` and `image_rect_color` beside the raw
    image's camera_info, whose D is that of the lens, and depth_image_proc and RTAB-Map take P for
    the camera of what they are given, by contract. ZED drivers call theirs `rgb/image_rect_color`
    or `rgb/color/rect/image`, RealSense `infra1/image_rect_raw`. An image under any other name is
    as its camera_info says: with D of zeros and P equal to K there is nothing to rectify.

    >>> already_rectified("/camera/image_rect/compressed"), already_rectified("/camera/image_raw")
    (True, False)
    """
    folder, _, name = _TRANSPORT.sub("", topic).rpartition("/")
    words = set(name.split("_"))
    if "raw" not in words:
        words |= set(folder.rpartition("/")[2].split("_"))
    return not _RECTIFIED.isdisjoint(words)
