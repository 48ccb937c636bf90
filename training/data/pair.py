"""One RGB-D frame with its intrinsics."""

from __future__ import annotations

from dataclasses import dataclass

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
