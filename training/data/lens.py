"""The lens of a stored image, and the pair as it would be without the lens's distortion."""

from __future__ import annotations

import math
from dataclasses import dataclass as plain_dataclass
from functools import lru_cache
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt
from annotated_types import Gt
from pydantic import AllowInfNan, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from mono_depth_ros.camera import Calibration
from training.data.frame import DataError

Finite = Annotated[float, AllowInfNan(False)]
Positive = Annotated[Finite, Gt(0)]


@dataclass(frozen=True)
class Lens:
    """Intrinsics of a stored image, in its pixels; validated.

    Attributes:
        fx, fy: focal lengths.
        cx, cy: principal point; only a distorted image needs it.
        distortion: plumb_bob coefficients k1 k2 p1 p2 [k3]; empty or all zero for none.
        width, height: size of the image that this is for, where it is known.
    """

    fx: Positive
    fy: Positive
    cx: Finite | None = None
    cy: Finite | None = None
    distortion: tuple[Finite, ...] = ()
    width: int | None = None
    height: int | None = None

    @model_validator(mode="after")
    def _check(self) -> Lens:
        if len(self.distortion) not in (0, 4, 5):
            raise ValueError(f"distortion is k1 k2 p1 p2 [k3], not {len(self.distortion)} numbers")
        if any(self.distortion) and (self.cx is None or self.cy is None):
            raise ValueError("distortion needs the principal point, cx and cy")
        return self


LENS = TypeAdapter(Lens)


@plain_dataclass(frozen=True)
class _Maps:
    """Where each straight pixel comes from.

    Attributes:
        fixed, fraction: fixed-point maps of `cv2.remap`.
        nearest: HxW indices of the nearest pixels in the flattened stored image.
        outside: HxW, what the lens did not see.
    """

    fixed: npt.NDArray[np.int16]
    fraction: npt.NDArray[np.uint16]
    nearest: npt.NDArray[np.intp]
    outside: npt.NDArray[np.bool_]


@lru_cache(maxsize=8)
def _maps(lens: Lens, width: int, height: int) -> _Maps:
    cx, cy = lens.cx or 0.0, lens.cy or 0.0
    k = (lens.fx, 0.0, cx, 0.0, lens.fy, cy, 0.0, 0.0, 1.0)
    maps = Calibration(width, height, k, lens.distortion, "plumb_bob").rectify_maps()
    assert maps is not None, "only called for lenses that distort"
    fixed, fraction, outside = maps
    # cv2.remap(INTER_NEAREST) of OpenCV 5.0 rounds fixed-point maps along the wrong axis. Their
    # fraction counts 32nds of a pixel: those of x in the low five bits, those of y in the next.
    x = fixed[..., 0].astype(np.intp) + ((fraction & 31) >= 16)
    y = fixed[..., 1].astype(np.intp) + ((fraction >> 5) >= 16)
    return _Maps(fixed, fraction, np.where(outside, 0, y * width + x), outside)


def rectify(
    image: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32], lens: Lens, name: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Takes the distortion out of an image and its registered depth; fx and fy stay what they are.

    Pixels that the lens did not see are black and NaN. Depth is not interpolated: a mixture of
    foreground and background is a point in mid-air.

    Args:
        image: HxWx3 uint8.
        depth: HxW float32.
        lens: of both.
        name: for messages.

    Returns:
        The same shapes and types; the arguments themselves where there is no distortion.

    Raises:
        DataError: image and depth differ in size, or the lens is that of another size.
    """
    height, width = depth.shape
    if image.shape[:2] != depth.shape:
        raise DataError(
            f"{name}: image is {image.shape[1]}x{image.shape[0]}, depth {width}x{height}; depth"
            " must be registered to the image"
        )
    if lens.width not in (None, width) or lens.height not in (None, height):
        raise DataError(
            f"{name}: is {width}x{height}, its intrinsics are for {lens.width}x{lens.height};"
            " scale them"
        )
    if not any(lens.distortion):
        return image, depth
    maps = _maps(lens, width, height)
    straight = cv2.remap(image, maps.fixed, maps.fraction, cv2.INTER_LINEAR)
    straight[maps.outside] = 0
    straight_depth = depth.ravel()[maps.nearest]
    straight_depth[maps.outside] = math.nan
    return np.asarray(straight, np.uint8), straight_depth
