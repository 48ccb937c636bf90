"""Images and depth maps from encoded files; every fault is a `DataError` that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from training.data.frame import DataError

# A depth map as it is stored, before it has a unit: HxW of 8 or 16 bit.
Codes: TypeAlias = npt.NDArray[np.uint8 | np.uint16]


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; the data set is incomplete") from None


def _decode(data: bytes, flags: int, name: str) -> npt.NDArray[Any]:
    # OpenCV has its own error for an empty file.
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if pixels is None:
        raise DataError(f"{name}: damaged, or not an image; fetch it again")
    return np.asarray(pixels)


def decode_rgb(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """An encoded image as HxWx3 uint8 RGB.

    Raises:
        DataError: it is damaged or no image; the message starts with `name`.
    """
    bgr = _decode(data, cv2.IMREAD_COLOR, name)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def decode_codes(data: bytes, name: str) -> Codes:
    """An encoded depth map as it is stored.

    Raises:
        DataError: it is damaged, or not one channel of 8 or 16 bit; the message starts with `name`.
    """
    codes = _decode(data, cv2.IMREAD_UNCHANGED, name)
    if codes.ndim != 2 or codes.dtype not in (np.uint8, np.uint16):
        channels = codes.shape[2] if codes.ndim == 3 else 1
        raise DataError(
            f"{name}: {channels} channel(s) of {codes.dtype}; depth must be a one-channel image of"
            " 8 or 16 bit"
        )
    return np.asarray(codes, codes.dtype)


def to_metres(
    codes: Codes, metres_per_unit: float, invalid: tuple[int, ...] = (0,)
) -> npt.NDArray[np.float32]:
    """HxW float32 metres; codes that are `invalid` become NaN."""
    depth = codes.astype(np.float32) * np.float32(metres_per_unit)
    for code in invalid:
        depth[codes == code] = np.nan
    return depth


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Reads an image file as HxWx3 uint8 RGB.

    Raises:
        DataError: the file is missing, damaged or no image.
    """
    return decode_rgb(read_bytes(path), str(path))


def read_depth_png(
    path: Path, metres_per_unit: float, invalid: tuple[int, ...] = (0,)
) -> npt.NDArray[np.float32]:
    """Reads a one-channel 8 or 16 bit PNG as HxW float32 metres; `invalid` codes become NaN.

    Raises:
        DataError: the file is missing, damaged, or not such an image.
    """
    return to_metres(decode_codes(read_bytes(path), str(path)), metres_per_unit, invalid)
