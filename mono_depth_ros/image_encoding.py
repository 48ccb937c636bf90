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
    """How the bytes of one sensor_msgs encoding become RGB.

    Attributes:
        smallest: height and width of the smallest image that it can hold.
        multiple: what height and width are multiples of.
    """

    dtype: type[np.uint8 | np.uint16]
    channels: int
    to_rgb: int | None
    smallest: tuple[int, int] = (1, 1)
    multiple: tuple[int, int] = (1, 1)


# ROS names a Bayer pattern after its first two-by-two pixels, OpenCV after pixel (1, 1):
# https://docs.opencv.org/4.x/de/d25/imgproc_color_conversions.html
_BAYER_TO_RGB = {
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
}
# A plane of Y before one of U and V (or V and U) of every other row and column. The rows of both
# are `step` apart, and `height` is that of the image, so 1.5 times as many rows are in the message:
# https://www.kernel.org/doc/html/latest/userspace-api/media/v4l/pixfmt-yuv-planar.html
_SEMIPLANAR_TO_RGB = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
# Likewise with U and V of every pixel, in rows of two steps.
_FULL_CHROMA = "nv24"
# 8UC3 and 8UC4 have no colours of their own, and are read in OpenCV's order. 16UC1 and 32FC1 are
# left out, since they are depth.
_ENCODINGS = {
    "rgb8": _Encoding(np.uint8, 3, None),
    "bgr8": _Encoding(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Encoding(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Encoding(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "8UC3": _Encoding(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC4": _Encoding(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Encoding(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Encoding(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": _Encoding(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "yuv422": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY, multiple=(1, 2)),
    "uyvy": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY, multiple=(1, 2)),
    "yuv422_yuy2": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2, multiple=(1, 2)),
    "yuyv": _Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2, multiple=(1, 2)),
    **{
        name: _Encoding(np.uint8, 1, code, multiple=(2, 2))
        for name, code in _SEMIPLANAR_TO_RGB.items()
    },
    _FULL_CHROMA: _Encoding(np.uint8, 1, None),
    # OpenCV makes smaller ones black.
    **{name: _Encoding(np.uint8, 1, code, smallest=(3, 3)) for name, code in _BAYER_TO_RGB.items()},
}
# BT.601, video range, which is what OpenCV assumes of the other YUV encodings.
_YUV_TO_RGB = np.array(
    [
        [1.164, 0, 1.596, -1.164 * 16 - 1.596 * 128],
        [1.164, -0.392, -0.813, -1.164 * 16 + (0.392 + 0.813) * 128],
        [1.164, 2.017, 0, -1.164 * 16 - 2.017 * 128],
    ],
    np.float32,
)


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


def _chroma(message: RawImage) -> npt.NDArray[np.uint8]:
    """The second plane of an nv12, nv21 or nv24 Image: hxwx2, a view."""
    height, width, step = message.height, message.width, message.step
    if message.encoding == _FULL_CHROMA:
        rows, columns, step = height, width, 2 * step
    else:
        rows, columns = height // 2, width // 2
    needed = message.step * height + step * (rows - 1) + 2 * columns
    if len(message.data) < needed:
        raise ValueError(
            f"image data has {len(message.data)} bytes, {width}x{height} {message.encoding} of"
            f" step {message.step} needs {needed}; it was truncated on the way"
        )
    shape, strides = (rows, columns, 2), (step, 2, 1)
    return np.ndarray(shape, np.uint8, message.data, message.step * height, strides)


# More than any camera streams (8K): what decodes to more is an attack or an accident.
_MAX_PIXELS = 1 << 25
_PNG = b"\x89PNG\r\n\x1a\n"
# Start of frame, with the size: all of SOF0 to SOF15 but DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _encoded_size(data: bytes | memoryview) -> tuple[int, int]:
    """Width and height that a PNG or JPEG says it has; (0, 0) if it is neither.

    Read before anything is decoded, since a picture of few bytes can claim to have many pixels.
    ISO/IEC 15948 11.2.2 (IHDR) and ITU-T T.81 B.2.2 (frame header).
    """
    if data[:8] == _PNG and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:2] != b"\xff\xd8":
        return 0, 0
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        # A marker may be preceded by fill bytes, and these have no segment.
        stands_alone = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += (
            (1 if marker == 0xFF else 2)
            if stands_alone
            else (2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2))
        )
    return 0, 0


def image_to_rgb(
    message: RawImage, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """Converts a sensor_msgs/Image to HxWx3 uint8 RGB.

    Args:
        out: HxWx3 uint8 to reuse if it has the right size.

    Returns:
        For contiguous rgb8 a view of the message, otherwise `out` or a new array.

    Raises:
        ValueError: unknown encoding, empty image, a size that the encoding cannot have, a step that
            is too small, or truncated data; one line.
    """
    encoding = _ENCODINGS.get(message.encoding)
    if encoding is None:
        raise ValueError(
            f"image encoding {message.encoding!r:.40} is not supported;"
            f" supported: {', '.join(_ENCODINGS)}"
        )
    dtype: np.dtype[np.generic] = np.dtype(encoding.dtype)
    if message.is_bigendian and dtype.itemsize > 1:
        dtype = dtype.newbyteorder(">")
    samples = _pixels(message, dtype, encoding.channels)
    size = (message.height, message.width)
    if any(n < least for n, least in zip(size, encoding.smallest, strict=True)) or any(
        n % multiple for n, multiple in zip(size, encoding.multiple, strict=True)
    ):
        raise ValueError(
            f"image encoding '{message.encoding}' cannot hold {message.width}x{message.height}"
            " pixels; check the camera driver"
        )
    pixels: npt.NDArray[np.uint8] = samples  # type: ignore[assignment]
    if dtype.itemsize == 2:
        pixels = (samples >> 8).astype(np.uint8)  # type: ignore[operator]
    if out is not None and out.shape != (*size, 3):
        out = None
    try:
        # OpenCV takes padded rows as they are; only a stride within the row would be copied.
        if message.encoding in _SEMIPLANAR_TO_RGB:
            code = _SEMIPLANAR_TO_RGB[message.encoding]
            rgb = cv2.cvtColorTwoPlane(pixels, _chroma(message), code, dst=out)
        elif message.encoding == _FULL_CHROMA:
            rgb = cv2.transform(cv2.merge((pixels, _chroma(message))), _YUV_TO_RGB, dst=out)
        elif encoding.to_rgb is not None:
            rgb = cv2.cvtColor(pixels, encoding.to_rgb, dst=out)
        elif out is None or pixels.flags.c_contiguous:
            rgb = np.ascontiguousarray(pixels)
        else:
            np.copyto(out, pixels)
            rgb = out
    except cv2.error as error:
        raise ValueError(
            f"image {message.width}x{message.height} {message.encoding} cannot be converted"
            f" ({' '.join(error.err.split())})"
        ) from None
    return np.asarray(rgb, np.uint8)


# OpenCV from 4.11 on decodes to RGB by itself.
_IMREAD_RGB: int | None = getattr(cv2, "IMREAD_COLOR_RGB", None)


def compressed_to_rgb(
    message: EncodedImage, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """Decodes a sensor_msgs/CompressedImage (JPEG or PNG) to HxWx3 uint8 RGB.

    Whether it is JPEG or PNG is in its bytes, and its colours are what any viewer would show:
    compressed_image_transport converts to bgr8 (mono8) before it encodes, which is what OpenCV's
    encoder takes, so `rgb8; jpeg compressed bgr8` is a correct JPEG of an rgb8 image. The one
    exception is a Bayer mosaic, which `bayer_rggb8; png compressed ` holds as it is.
    Source: compressed_image_transport/src/compressed_publisher.cpp in
    https://github.com/ros-perception/image_transport_plugins.

    16 bits become 8, alpha is dropped, grey fills all three channels.

    Args:
        out: HxWx3 uint8 to reuse if it has the right size. Where OpenCV can decode to RGB by
            itself, which is faster, it allocates the result.

    Raises:
        ValueError: empty, truncated, neither JPEG nor PNG, or too large; one line.
    """
    data = np.frombuffer(message.data, np.uint8)
    width, height = _encoded_size(data.data)
    what = f"compressed image of {data.size} bytes, format {message.format!r:.60},"
    if width * height == 0:
        raise ValueError(f"{what} cannot be decoded: it is neither JPEG nor PNG")
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{what} cannot be decoded: {width}x{height} are too many pixels")
    name, _, codec = message.format.partition(";")
    flags, to_rgb = _IMREAD_RGB, None
    if "png" in codec and name in _BAYER_TO_RGB:
        flags, to_rgb = cv2.IMREAD_GRAYSCALE, _BAYER_TO_RGB[name]
    elif flags is None:
        flags, to_rgb = cv2.IMREAD_COLOR, cv2.COLOR_BGR2RGB
    if out is not None and out.shape != (height, width, 3):
        out = None
    try:
        image = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None and to_rgb is not None:
            image = cv2.cvtColor(image, to_rgb, dst=out)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"{what} cannot be decoded: it is damaged, or was cut short")
    return np.asarray(image, np.uint8)


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
        raise ValueError(f"depth encoding {message.encoding!r:.40} is not 32FC1 or 16UC1")
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
            f"compressed depth format {message.format!r:.60} is not supported; set the publisher's"
            " compressedDepth format to png, or record the raw topic"
        )
    data = np.frombuffer(message.data, np.uint8)
    png = data[_DEPTH_HEADER_BYTES if has_header else 0 :]
    width, height = _encoded_size(png.data)
    try:
        usable = 0 < width * height <= _MAX_PIXELS
        code = cv2.imdecode(png, cv2.IMREAD_UNCHANGED) if usable else None
    except cv2.error:
        code = None
    if code is None or code.ndim != 2 or code.dtype != np.uint16:
        raise ValueError(
            f"compressed depth of {data.size} bytes, format {message.format!r:.60}, is not a"
            " 16-bit PNG"
        )
    if encoding == "16UC1":
        return _metres(code)
    a, b = data[4:_DEPTH_HEADER_BYTES].view("<f4")
    with np.errstate(all="ignore"):  # numbers that no publisher would write
        depth = a / (code.astype(np.float32) - b)
    depth[code == 0] = np.nan
    return np.asarray(depth, np.float32)
