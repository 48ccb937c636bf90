"""The nearest obstacle in each direction, as a planar laser scanner would see it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel

SECTORS = 64
# Rows over which the slope of a surface is taken, and pixels that an obstacle must have, as shares
# of the image height and of the pixels of a sector.
_ROWS, _PIXELS = 1 / 48, 1 / 200


def nearest_obstacles(
    depth: npt.NDArray[np.float32], camera: CameraModel
) -> npt.NDArray[np.float32]:
    """Distance of the nearest obstacle in each of `SECTORS` upright strips of the image.

    An obstacle is a surface that is steeper than 45 degrees to the camera's axis, up and down:
    between two rows some pixels apart its height Y = (v - cy) Z / fy changes by more than its depth
    Z. That leaves out floor and ceiling, which would otherwise be the nearest thing in every
    direction, for any camera that is tilted by less than 45 degrees, and needs no knowledge of its
    height. The distance is that of the n-th nearest such pixel, n being 1/200 of the strip: a speck
    of noise is no obstacle, and a table leg is.

    Args:
        depth: HxW float32 metres along Z; not finite means unknown.
        camera: its intrinsics.

    Returns:
        SECTORS float32 metres from left to right (fewer in narrower images), +Inf where there is no
        obstacle.
    """
    height, width = depth.shape
    rows = min(max(round(height * _ROWS), 1), height - 1)
    sectors = min(SECTORS, width)
    if rows < 1:
        return np.full(sectors, np.inf, np.float32)
    known = np.where(np.isfinite(depth), depth, np.float32(np.nan))
    y = known * camera.rays()[1][:, None]
    # Comparisons with NaN are false: a pixel beside a hole is no obstacle.
    steep = np.abs(y[rows:] - y[:-rows]) > np.abs(known[rows:] - known[:-rows])
    distance = np.where(steep, known[rows:], np.float32(np.inf))
    nearest = np.empty(sectors, np.float32)
    for i, strip in enumerate(np.array_split(distance, sectors, axis=1)):
        n = max(round(height * strip.shape[1] * _PIXELS), 1)
        nearest[i] = np.partition(strip, n - 1, axis=None)[n - 1] if n <= strip.size else np.inf
    return nearest
