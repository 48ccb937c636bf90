"""ROS messages <-> arrays and `Calibration`.

Incoming payloads are read as NumPy views of the message. Outgoing payloads are written through an
`array.array('B')`: rclpy copies any other type into a uint8[] field element by element. The classes
here keep a message and fill its payload in place, frame after frame: publish it before it changes.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import numpy.typing as npt
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros import camera_info
from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.cloud import POINT_STEP
from mono_depth_ros.disparity import right_projection
from mono_depth_ros.image_encoding import compressed_to_rgb, depth_to_array, image_to_rgb
from mono_depth_ros.output_profiles import CloudLayout

__all__ = [
    "CloudMessage",
    "DisparityMessage",
    "ImageMessage",
    "calibration_from_info",
    "calibration_from_serialised",
    "camera_info_message",
    "compressed_to_rgb",
    "depth_to_array",
    "image_message",
    "image_to_rgb",
    "scan_message",
    "stamp_ns",
    "xyz_cloud_message",
]

_LITTLE_ENDIAN_HOST = np.dtype(np.uint16).newbyteorder("=") == np.dtype("<u2")
# dtype and channels of the image encodings that go out
_LAYOUTS: dict[str, tuple[type[np.generic], int]] = {
    "32FC1": (np.float32, 1),
    "16UC1": (np.uint16, 1),
    "mono16": (np.uint16, 1),
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "bgra8": (np.uint8, 4),
}


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


def calibration_from_serialised(serialised: bytes) -> Calibration:
    """As `calibration_from_info`, from the bytes of a raw subscription, which may be any bytes."""
    try:
        message = deserialize_message(serialised, CameraInfo)
    except RuntimeError as error:  # RMWError
        raise ValueError(
            f"camera_info of {len(serialised)} bytes cannot be read"
            f" ({' '.join(str(error).split())}); check what publishes it"
        ) from None
    return calibration_from_info(message)


def camera_info_message(
    camera: CameraModel,
    header: Header,
    baseline: float = 0.0,
    distortion_model: str = "plumb_bob",
    coefficients: int = 5,
) -> CameraInfo:
    """CameraInfo of an ideal camera.

    No distortion, K and P at the image's size, no roi or binning left to apply.

    Args:
        baseline: metres from the left camera of the stereo pair that it is the right one of.
        distortion_model: of the coefficients.
        coefficients: their number; each is 0.
    """
    message = CameraInfo(header=header, width=camera.width, height=camera.height)
    message.distortion_model = distortion_model
    message.d = [0.0] * coefficients
    message.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = right_projection(camera, baseline)
    return message


def _bytes(values: npt.NDArray[np.generic]) -> array.array[int]:
    data = array.array("B")
    if values.size:  # an empty array has no bytes to cast
        data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


class ImageMessage:
    """An Image of one size and encoding.

    Attributes:
        pixels: HxW or HxWxC view of the payload, to be written to.

    Raises:
        ValueError: an encoding that this package does not send.
    """

    def __init__(self, height: int, width: int, encoding: str) -> None:
        if encoding not in _LAYOUTS:
            raise ValueError(f"image encoding '{encoding}' is not one of {', '.join(_LAYOUTS)}")
        kind, channels = _LAYOUTS[encoding]
        dtype: np.dtype[np.generic] = np.dtype(kind)
        self._message = Image(height=height, width=width, encoding=encoding)
        self._message.step = width * channels * dtype.itemsize
        self._message.is_bigendian = 0 if _LITTLE_ENDIAN_HOST else 1
        self._message.data = array.array("B", bytes(height * self._message.step))
        shape = (height, width) if channels == 1 else (height, width, channels)
        # From the message, because some versions of its setter keep a copy.
        self.pixels: npt.NDArray[Any] = np.frombuffer(self._message.data, dtype).reshape(shape)

    def message(self, header: Header) -> Image:
        """The message with the pixels as they are now."""
        self._message.header = header
        return self._message


def image_message(pixels: npt.NDArray[np.generic], encoding: str, header: Header) -> Image:
    """An Image of HxW or HxWxC pixels, whatever their dtype is; `encoding` must say the same."""
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1])
    message.encoding = encoding
    message.is_bigendian = 0 if _LITTLE_ENDIAN_HOST else 1
    message.data = _bytes(pixels)
    message.step = len(message.data) // pixels.shape[0]
    return message


def _point_fields(**offsets: int) -> list[PointField]:
    return [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in offsets.items()
    ]


class CloudMessage:
    """A PointCloud2 of x, y, z, rgb in one of the layouts of the drivers.

    Args:
        height, width: of the organised cloud.
        layout: of the message.

    Attributes:
        points: hxwx4 float32, for `CloudBuilder.build(out=...)`: organised, in the optical frame.
            In the generic layout it is a view of the payload.
    """

    def __init__(self, height: int, width: int, layout: CloudLayout) -> None:
        self._layout = layout
        self._message = PointCloud2(height=height, width=width, is_dense=not layout.organised)
        self._message.fields = _point_fields(x=0, y=4, z=8, rgb=layout.rgb_offset)
        self._message.is_bigendian = not _LITTLE_ENDIAN_HOST
        self._message.point_step = layout.point_step
        self._message.row_step = layout.point_step * width
        self._message.data = array.array("B", bytes(height * self._message.row_step))
        # As in ImageMessage.
        payload = np.frombuffer(self._message.data, np.float32).reshape(height, width, -1)
        as_built = layout == CloudLayout(point_step=POINT_STEP)
        self.points = payload if as_built else np.empty((height, width, 4), np.float32)
        self._payload = None if as_built else payload

    def message(self, header: Header) -> PointCloud2:
        """The message with the points as they are now."""
        self._message.header = header
        if self._payload is not None and self._layout.organised:
            self._rearrange(self.points, self._payload)
        elif self._payload is not None:
            known = self.points[np.isfinite(self.points[..., 2])]
            points = np.zeros((known.shape[0], self._layout.point_step // 4), np.float32)
            self._rearrange(known, points)
            self._message.height, self._message.width = 1, known.shape[0]
            self._message.row_step = self._layout.point_step * known.shape[0]
            self._message.data = _bytes(points)
        return self._message

    def _rearrange(self, built: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
        if self._layout.forward == "z":
            out[..., :3] = built[..., :3]
        else:
            out[..., 0] = built[..., 2]
            np.negative(built[..., :2], out=out[..., 1:3])
        out[..., self._layout.rgb_offset // 4] = built[..., 3]


def xyz_cloud_message(points: npt.NDArray[np.float32], header: Header) -> PointCloud2:
    """A dense PointCloud2 of Nx3 finite float32 points."""
    count = points.shape[0]
    message = PointCloud2(header=header, height=1, width=count, is_dense=True)
    message.fields = _point_fields(x=0, y=4, z=8)
    message.is_bigendian = not _LITTLE_ENDIAN_HOST
    message.point_step, message.row_step = 12, 12 * count
    message.data = _bytes(points)
    return message


class DisparityMessage:
    """A DisparityImage of a virtual stereo pair; invalid is below `min_disparity`.

    Args:
        camera: intrinsics of the left camera.
        baseline: T in metres.
        depth_range: nearest and furthest valid depth in metres.

    Attributes:
        pixels: HxW float32 view of the payload, for `disparity(out=...)`.
    """

    def __init__(
        self, camera: CameraModel, baseline: float, depth_range: tuple[float, float]
    ) -> None:
        product = camera.fx * baseline
        self._message = DisparityImage(f=camera.fx, t=baseline)
        self._message.min_disparity = product / depth_range[1]
        self._message.max_disparity = product / max(depth_range[0], 1e-3)
        self._message.delta_d = 1.0 / 16
        self._message.valid_window.width = camera.width
        self._message.valid_window.height = camera.height
        self._image = ImageMessage(camera.height, camera.width, "32FC1")
        self.pixels = self._image.pixels

    def message(self, header: Header) -> DisparityImage:
        """The message with the pixels as they are now."""
        self._message.header = header
        self._message.image = self._image.message(header)
        return self._message


def scan_message(
    ranges: npt.NDArray[np.float32],
    angles: tuple[float, float, float],
    limits: tuple[float, float],
    period: float,
    header: Header,
) -> LaserScan:
    """A LaserScan of ranges in metres, anticlockwise.

    Args:
        angles: of the first and the last range, and between two, radians.
        limits: nearest and furthest range, metres.
        period: seconds between two scans; 0 where it is not known.
    """
    message = LaserScan(header=header, scan_time=period)
    message.angle_min, message.angle_max, message.angle_increment = angles
    message.range_min, message.range_max = limits
    data = array.array("f")
    data.frombytes(np.ascontiguousarray(ranges, np.float32).data.cast("B"))
    message.ranges = data
    return message
