"""The bytes of image messages -> RGB and depth arrays, without ROS.

A message is anything with the fields of sensor_msgs/Image or CompressedImage: those of rclpy, of
rosbags, and others.
"""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Payload: TypeAlias = "bytes | memoryview | array.array[int] | npt.NDArray[np.uint8]"


class RawImage(Protocol):
    """The fields of sensor_msgs/Image that hold pixels."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Payload


class EncodedImage(Protocol):
    """The fields of sensor_msgs/CompressedImage that hold pixels."""

    format: str
    data: Payload


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


def _pixels(
    message: RawImage, dtype: np.dtype[np.generic], channels: int
) -> npt.NDArray[np.generic]:
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


def image_to_rgb(
    message: RawImage, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
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


def compressed_to_rgb(message: EncodedImage) -> npt.NDArray[np.uint8]:
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


def _metres(millimetres: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """16-bit millimetres -> float32 metres; 0 becomes NaN (REP 118)."""
    depth = np.array(millimetres, np.float32)
    depth[depth == 0] = np.nan
    depth *= np.float32(1e-3)
    return depth


def depth_to_array(message: RawImage) -> npt.NDArray[np.float32]:
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
    return _metres(pixels) if message.encoding == "16UC1" else np.array(pixels, np.float32)


# compressed_depth_image_transport's ConfigHeader: an enum and two floats.
_DEPTH_HEADER_BYTES = 12


def compressed_depth_to_array(message: EncodedImage) -> npt.NDArray[np.float32]:
    """Decodes the PNG of a depth CompressedImage as HxW float32 metres, NaN where there is none.

    `16UC1; compressedDepth png` and `16UC1; png compressed ` hold millimetres. `32FC1;
    compressedDepth png` holds inverse depth in 16 bits, v = A / Z + B with A = q (q + 1) and
    B = 1 - A / Z_max for the publisher's depth_quantization q and depth_max Z_max. A and B are in
    the 12 bytes before the PNG, and Z = A / (v - B); 0 stands for no depth.
    Source: compressed_depth_image_transport/src/codec.cpp in
    https://github.com/ros-perception/image_transport_plugins.

    Raises:
        ValueError: another format, empty, truncated, or not a 16-bit PNG of one channel.
    """
    encoding, _, codec = (part.strip() for part in message.format.partition(";"))
    has_header = codec.startswith("compressedDepth")
    # Before there was a choice of codecs, the format did not name one.
    if not (
        encoding in ("16UC1", "32FC1")
        and (codec in ("compressedDepth", "compressedDepth png") or codec.startswith("png"))
        and (has_header or encoding == "16UC1")
    ):
        raise ValueError(
            f"compressed depth format '{message.format}' is not supported; set the publisher's"
            " compressedDepth format to png, or record the raw topic"
        )
    data = np.frombuffer(message.data, np.uint8)
    png = data[_DEPTH_HEADER_BYTES if has_header else 0 :]
    try:
        code = cv2.imdecode(png, cv2.IMREAD_UNCHANGED) if png.size else None
    except cv2.error:  # a header that asks for more pixels than OpenCV allows
        code = None
    if code is None or code.ndim != 2 or code.dtype != np.uint16:
        raise ValueError(
            f"compressed depth of {data.size} bytes, format '{message.format}', is not a 16-bit PNG"
        )
    if encoding == "16UC1":
        return _metres(code)
    a, b = data[4:_DEPTH_HEADER_BYTES].view("<f4")
    with np.errstate(all="ignore"):  # numbers that no publisher would write
        depth = a / (code.astype(np.float32) - b)
    depth[code == 0] = np.nan
    return np.asarray(depth, np.float32)
