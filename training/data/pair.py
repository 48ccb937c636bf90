"""One RGB-D frame with its intrinsics, and data sets of them held in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Pair:
    """An image and its registered depth.

    Attributes:
        image: HxWx3 uint8 RGB.
        depth: HxW float32, metres along the optical axis, NaN where there is none.
        fx, fy: focal lengths in pixels of `image`.
        name: where it came from, for messages and CSV rows.
    """

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    fx: float
    fy: float
    name: str


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Reads an image file as HxWx3 uint8 RGB.

    Raises:
        ValueError: the file is missing or is not an image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path}: cannot be read as an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_depth_png(path: Path, metres_per_unit: float) -> npt.NDArray[np.float32]:
    """Reads a single-channel PNG as HxW float32 metres; 0 becomes NaN.

    Raises:
        ValueError: the file is missing or has not one channel.
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2:
        raise ValueError(f"{path}: cannot be read as a one-channel depth image")
    depth = raw.astype(np.float32) * np.float32(metres_per_unit)
    depth[raw == 0] = np.nan
    return depth


def read_all(readers: Sequence[Callable[[], Pair]]) -> list[Pair]:
    """Calls every reader on a few threads (image decoding releases the GIL), keeping order."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda read: read(), readers))
