"""ROS messages <-> arrays and `Calibration`.

Incoming payloads are read as NumPy views of the message. Outgoing payloads are written through an
`array.array('B')`: rclpy copies any other type into a uint8[] field element by element.
"""

from __future__ import annotations

import array
import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.cloud import POINT_STEP
from mono_depth_ros.depth_encoding import millimetres


@dataclass(frozen=True)
class _Encoding:
    """How the bytes of one sensor_msgs encoding become RGB."""

    dtype: type[np.uint8 | np.uint16]
    channels: int
    to_rgb: int | None


# ROS names a Bayer pattern after its first two-by-two pixels, OpenCV after pixel (1, 1):
# https://docs.opencv.org/4.x/de/d25/imgproc_color_conversions.html
_ENCODINGS = {
    "rgb8": _Encoding(np.uint8, 3, None),
    "bgr8": _Encoding(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "8UC3": _Encoding(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "mono8": _Encoding(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Encoding(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": _Encoding(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "yuv422": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": _Encoding(np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Encoding(np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Encoding(np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Encoding(np.uint8, 1, cv2.COLOR_BayerGB2RGB),
}

_LITTLE_ENDIAN_HOST = np.dtype(np.uint16).newbyteorder("=") == np.dtype("<u2")


def _pixels(message: Image, dtype: np.dtype[np.generic], channels: int) -> npt.NDArray[np.generic]:
    """HxWxC (HxW for one channel) view of an Image's bytes, after checking that they are there."""
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if height == 0 or width == 0:
        raise ValueError(f"image is {width}x{height}; the camera driver sends empty images")
    if step < row:
        raise ValueError(
            f"image step {step} is less than a row of {width} {message.encoding} pixels ({row})"
        )
    # The last row need not be padded.
    if len(message.data) < step * (height - 1) + row:
        raise ValueError(
            f"image data has {len(message.data)} bytes, {height} rows of step {step} need"
            f" {step * height}; it was truncated on the way"
        )
    shape: tuple[int, ...] = (height, width, channels)
    strides: tuple[int, ...] = (step, channels * dtype.itemsize, dtype.itemsize)
    if channels == 1:
        shape, strides = shape[:2], strides[:2]
    return np.ndarray(shape, dtype, buffer=message.data, strides=strides)


def image_to_rgb(message: Image, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
    """Converts a sensor_msgs/Image to HxWx3 uint8 RGB.

    Args:
        out: HxWx3 uint8 to reuse if it has the right size.

    Returns:
        For contiguous rgb8 a view of the message, otherwise `out` or a new array.

    Raises:
        ValueError: unknown encoding, empty image, a step that is too small, or truncated data.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ValueError(
            f"image encoding '{message.encoding}' is not supported;"
            f" supported: {', '.join(_ENCODINGS)}"
        )
    dtype: np.dtype[np.generic] = np.dtype(encoding.dtype)
    if message.is_bigendian and dtype.itemsize > 1:
        dtype = dtype.newbyteorder(">")
    pixels = _pixels(message, dtype, encoding.channels)
    if dtype.itemsize == 2:
        pixels = (pixels >> 8).astype(np.uint8)  # type: ignore[operator]
    if encoding.to_rgb is None:
        return np.ascontiguousarray(pixels, np.uint8)
    if encoding.channels == 2 and message.width % 2:
        raise ValueError(f"image encoding '{message.encoding}' needs an even width")
    if out is not None and out.shape != (message.height, message.width, 3):
        out = None
    try:
        # OpenCV takes padded rows as they are; only a stride within the row would be copied.
        rgb = cv2.cvtColor(pixels, encoding.to_rgb, dst=out)  # type: ignore[arg-type]
        return np.asarray(rgb, np.uint8)
    except cv2.error as error:
        raise ValueError(
            f"image {message.width}x{message.height} {message.encoding} cannot be converted"
            f" ({error.err})"
        ) from None


def compressed_to_rgb(message: CompressedImage) -> npt.NDArray[np.uint8]:
    """Decodes a sensor_msgs/CompressedImage (JPEG or PNG) to HxWx3 uint8 RGB.

    Raises:
        ValueError: empty, truncated or not an image.
    """
    data = np.frombuffer(message.data, np.uint8)
    try:
        image = (
            cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if data.size
            else None
        )
    except cv2.error:  # a header that asks for more pixels than OpenCV allows
        image = None
    if image is None:
        raise ValueError(
            f"compressed image of {data.size} bytes, format '{message.format}', cannot be decoded"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def depth_to_array(message: Image) -> npt.NDArray[np.float32]:
    """Reads a depth Image, 32FC1 metres or 16UC1 millimetres, as HxW float32 metres.

    0 in 16UC1 becomes NaN (REP 118).

    Raises:
        ValueError: another encoding, empty, or truncated.
    """
    kinds: dict[str, np.dtype[np.generic]] = {
        "32FC1": np.dtype(np.float32),
        "16UC1": np.dtype(np.uint16),
    }
    if message.encoding not in kinds:
        raise ValueError(f"depth encoding '{message.encoding}' is not 32FC1 or 16UC1")
    dtype = kinds[message.encoding].newbyteorder(">" if message.is_bigendian else "<")
    pixels = _pixels(message, dtype, 1)
    depth = np.array(pixels, np.float32)
    if message.encoding == "16UC1":
        depth[depth == 0] = np.nan
        depth *= np.float32(1e-3)
    return depth


def stamp_ns(header: Header) -> int:
    """The stamp of a header in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def calibration_from_info(message: CameraInfo) -> Calibration:
    """Reads a CameraInfo.

    Raises:
        ValueError: K is zero (uncalibrated) or not finite, or P holds numbers that are not finite.
    """
    k, p = tuple(map(float, message.k)), tuple(map(float, message.p))
    if k[0] == 0 or k[4] == 0:
        raise ValueError(
            "camera_info has K[0] = 0: the camera is not calibrated; run camera_calibration, or set"
            " the parameter fallback_hfov_deg"
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
