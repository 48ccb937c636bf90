"""ROS messages <-> arrays and `Calibration`.

Incoming payloads are read as NumPy views of the message. Outgoing payloads are written through an
`array.array('B')`: rclpy copies any other type into a uint8[] field element by element.
"""

from __future__ import annotations

import array

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros import camera_info
from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.cloud import POINT_STEP
from mono_depth_ros.depth_encoding import millimetres
from mono_depth_ros.image_encoding import compressed_to_rgb, depth_to_array, image_to_rgb

__all__ = [
    "CloudMessage",
    "calibration_from_info",
    "camera_info_message",
    "compressed_to_rgb",
    "depth_message",
    "depth_to_array",
    "disparity_message",
    "image_message",
    "image_to_rgb",
    "stamp_ns",
]

_LITTLE_ENDIAN_HOST = np.dtype(np.uint16).newbyteorder("=") == np.dtype("<u2")


def stamp_ns(header: Header) -> int:
    """The stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def calibration_from_info(message: CameraInfo) -> Calibration:
    """Reads a CameraInfo for the node.

    Raises:
        UncalibratedError, ValueError: as `camera_info.calibration_from_info`.
    """
    try:
        return camera_info.calibration_from_info(message)
    except camera_info.UncalibratedError as error:
        raise camera_info.UncalibratedError(
            f"{error}, or set the parameter fallback_hfov_deg"
        ) from None


def camera_info_message(camera: CameraModel, header: Header) -> CameraInfo:
    """CameraInfo of an ideal camera.

    No distortion, K and P at the image's size, no roi or binning left to apply.
    """
    message = CameraInfo(header=header, width=camera.width, height=camera.height)
    message.distortion_model = "plumb_bob"
    message.d = [0.0] * 5
    message.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [
        *(camera.fx, 0.0, camera.cx, 0.0),
        *(0.0, camera.fy, camera.cy, 0.0),
        *(0.0, 0.0, 1.0, 0.0),
    ]
    return message


def _payload(pixels: npt.NDArray[np.generic]) -> array.array[int]:
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return data


def image_message(pixels: npt.NDArray[np.generic], encoding: str, header: Header) -> Image:
    """An Image of HxW or HxWxC pixels, whatever their dtype is; `encoding` must say the same."""
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1])
    message.encoding = encoding
    message.is_bigendian = 0 if _LITTLE_ENDIAN_HOST else 1
    message.data = _payload(pixels)
    message.step = len(message.data) // pixels.shape[0]
    return message


def depth_message(depth: npt.NDArray[np.float32], encoding: str, header: Header) -> Image:
    """A depth Image: `32FC1` metres as they are, or `16UC1` millimetres.

    In the latter, 0 stands for whatever is not finite or does not fit 16 bits (REP 118).

    Raises:
        ValueError: another encoding.
    """
    if encoding == "32FC1":
        return image_message(depth, encoding, header)
    if encoding != "16UC1":
        raise ValueError(f"depth encoding '{encoding}' is not 32FC1 or 16UC1")
    return image_message(millimetres(depth), encoding, header)


_POINT_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(("x", "y", "z", "rgb"))
]


class CloudMessage:
    """A PointCloud2 whose payload is filled in place, frame after frame.

    Attributes:
        points: hxwx4 float32 view of the payload, for `CloudBuilder.build(out=...)`.
    """

    def __init__(self, height: int, width: int) -> None:
        self._message = PointCloud2(height=height, width=width, is_dense=False)
        self._message.fields = _POINT_FIELDS
        self._message.is_bigendian = not _LITTLE_ENDIAN_HOST
        self._message.point_step = POINT_STEP
        self._message.row_step = POINT_STEP * width
        self._message.data = array.array("B", bytes(height * width * POINT_STEP))
        # From the message, because some versions of its setter keep a copy.
        payload = np.frombuffer(self._message.data, np.float32)
        self.points = payload.reshape(height, width, 4)

    def message(self, header: Header) -> PointCloud2:
        """The message with the points as they are now; publish it before they change."""
        self._message.header = header
        return self._message


def disparity_message(
    depth: npt.NDArray[np.float32],
    camera: CameraModel,
    baseline: float,
    depth_range: tuple[float, float],
    header: Header,
) -> DisparityImage:
    """Disparity of a virtual stereo pair: d = f T / Z in pixels; invalid is below `min_disparity`.

    Args:
        baseline: T in metres.
        depth_range: nearest and furthest valid depth in metres.
    """
    product = camera.fx * baseline
    message = DisparityImage(header=header, f=camera.fx, t=baseline)
    message.min_disparity = product / depth_range[1]
    message.max_disparity = product / max(depth_range[0], 1e-3)
    message.delta_d = 1.0 / 16
    disparity = np.divide(np.float32(product), depth, dtype=np.float32)
    disparity[~np.isfinite(depth)] = -1.0
    message.image = image_message(disparity, "32FC1", header)
    message.valid_window.width, message.valid_window.height = camera.width, camera.height
    return message
