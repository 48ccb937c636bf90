"""A laser scan from a depth image: the nearest thing in a band of heights, by direction."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.mounting import Mounting

# Rows worked on at a time, so that buffers stay in the processor's cache.
_CHUNK = 128
# Rows of a column that may be taken together, where they look the same way.
_BLOCKS = (32, 16, 8, 4, 2)
# Straight below a camera, neighbouring pixels look in all directions; bins need not be that wide.
_WIDEST_BIN = math.radians(1)
# A ray that is in the band for less depth than this (metres) sees nothing there.
_THINNEST = 1e-6


class ScanBuilder:
    """Turns depth of one camera into the ranges of a sensor_msgs/LaserScan.

    The scan lies in the level frame (see `Mounting`): its origin is the optical centre, ranges are
    horizontal, angle 0 is ahead, and angles grow anticlockwise seen from above, as in LaserScan. A
    bin is as wide as the widest step between two pixels, so that bins have no gaps. Each pixel
    counts, and lies less than a bin from the middle of the bin that it is put in.

    Attributes:
        angle_min, angle_max: directions of the first and the last bin in radians.
        angle_increment: from one bin to the next.
        size: number of bins.

    Args:
        camera: intrinsics of the depth image.
        mounting: how the camera is held.
        min_height, max_height: metres above the ground; what is in between is an obstacle.
        range_min, range_max: horizontal metres.

    Raises:
        ValueError: the heights or ranges are empty, or no pixel looks there.
    """

    def __init__(
        self,
        camera: CameraModel,
        mounting: Mounting,
        min_height: float,
        max_height: float,
        range_min: float,
        range_max: float,
    ) -> None:
        if not 0 <= range_min < range_max < math.inf:
            raise ValueError(f"scan range {range_min} to {range_max} m is empty")
        self.camera, self.mounting = camera, mounting
        self.min_height, self.max_height = min_height, max_height
        self.range_min, self.range_max = range_min, range_max
        near, far = mounting.band(camera, min_height, max_height)
        forward, left, _ = mounting.rays(camera)
        # Straight down, any range takes no depth at all.
        horizontal = np.hypot(forward, left).clip(1e-9)
        far = np.minimum(far, range_max / horizontal)
        looks = far - near > _THINNEST
        if not looks.any():
            raise ValueError(
                f"no pixel of the camera looks at heights {min_height} to {max_height} m within"
                f" {range_max} m; correct camera_height and camera_pitch_deg, or the scan's heights"
            )
        used = np.flatnonzero(looks.any(axis=1))
        self._rows = slice(int(used[0]), int(used[-1]) + 1)
        near, far, looks = near[self._rows], far[self._rows], looks[self._rows]
        angles = np.arctan2(left, forward)[self._rows]
        self._set_bins(angles, looks)
        # Looking down, a ray may leave the band after a few metres: beyond, who knows.
        self._leaves_early = far * horizontal[self._rows] < range_max * (1 - 1e-6)
        # A pixel that cannot see the band says nothing: NaN.
        self._horizontal = np.where(looks, horizontal[self._rows], np.nan).astype(np.float32)
        # From inside the band, a ray begins in it, and all nearer depth is in it too: -Inf as well.
        self._inside = min_height <= mounting.height <= max_height
        near, far = np.where(looks, near, 0), np.where(looks, far, 1)
        half = far if self._inside else (far - near) / 2
        self._centre = ((near + far) / 2).astype(np.float32)
        self._scale = (1 / half).astype(np.float32)
        self._ranges = np.empty((_CHUNK, camera.width), np.float32)
        self._place = np.empty((_CHUNK, camera.width), np.float32)
        self._unknown = np.empty((_CHUNK, camera.width), np.bool_)
        self._before = np.empty((_CHUNK, camera.width), np.bool_)

    def _set_bins(self, angles: npt.NDArray[np.float64], looks: npt.NDArray[np.bool_]) -> None:
        """Lays bins over the directions (hxW radians) of the pixels that look at the band."""
        steps = [np.abs(np.diff(angles, axis=axis)) for axis in (0, 1)]
        both = (looks[1:] & looks[:-1], looks[:, 1:] & looks[:, :-1])
        widest = max(
            float(np.minimum(step, 2 * np.pi - step).max(where=pair, initial=0))
            for step, pair in zip(steps, both, strict=True)
        )
        self.angle_increment = min(widest, _WIDEST_BIN) or 1 / self.camera.fx

        for block in (*_BLOCKS, 1):
            starts = np.arange(0, angles.shape[0], block)
            low = np.minimum.reduceat(np.where(looks, angles, np.inf), starts)
            high = np.maximum.reduceat(np.where(looks, angles, -np.inf), starts)
            # With more, a camera on its side would fill every second bin only.
            if (high - low).max() <= self.angle_increment / 2:
                break
        self._block = block
        self._blocks = np.empty(low.shape, np.float32)
        looking = np.flatnonzero(low <= high)
        middle = (low.ravel()[looking] + high.ravel()[looking]) / 2
        self.angle_min = float(middle.min())
        bins = np.rint((middle - self.angle_min) / self.angle_increment).astype(np.intp)
        self.size = int(bins.max()) + 1
        self.angle_max = self.angle_min + (self.size - 1) * self.angle_increment
        order = np.argsort(bins, kind="stable")
        self._order = looking[order]
        self._sorted = np.empty(order.size, np.float32)
        self._bins, self._starts = np.unique(bins[order], return_index=True)

    def build(
        self, depth: npt.NDArray[np.float32], out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Makes the ranges.

        Args:
            depth: HxW float32 metres along Z; NaN unknown, -Inf too near, +Inf too far.
            out: (`size`,) float32 to fill; None allocates.

        Returns:
            (`size`,) float32 horizontal metres (REP 117): +Inf where nothing is in the band within
            `range_max` and the camera sees it up to there, -Inf where something is nearer than
            `range_min` or than the camera can tell, NaN where nothing is known. A camera outside
            the band knows nothing of it where its view ends before it.

        Raises:
            ValueError: the size is not the camera's.
        """
        if depth.shape != (self.camera.height, self.camera.width):
            raise ValueError(
                f"depth {depth.shape} is not of size {(self.camera.height, self.camera.width)}"
            )
        depth = depth[self._rows]
        for row in range(0, depth.shape[0], _CHUNK):
            self._reduce(depth[row : row + _CHUNK], row)
        if out is None:
            out = np.empty(self.size, np.float32)
        out.fill(np.nan)
        # fmin passes NaN over unless there is nothing else.
        np.take(self._blocks, self._order, out=self._sorted, mode="clip")
        out[self._bins] = np.fmin.reduceat(self._sorted, self._starts)
        out[out < self.range_min] = -np.inf
        return out

    def _reduce(self, depth: npt.NDArray[np.float32], row: int) -> None:
        """Range of the nearest pixel in each block of a chunk of rows that begins at `row`."""
        rows = slice(row, row + depth.shape[0])
        ranges, place = self._ranges[: depth.shape[0]], self._place[: depth.shape[0]]
        unknown, before = self._unknown[: depth.shape[0]], self._before[: depth.shape[0]]
        # OpenCV, which says nothing of infinities that meet. In the band, `place` is at most 1, and
        # before it, which only a camera outside it can be, below -1.
        if self._inside:
            cv2.multiply(depth, self._scale[rows], dst=place)
        else:
            cv2.subtract(depth, self._centre[rows], dst=place)
            cv2.multiply(place, self._scale[rows], dst=place)
        np.greater(place, 1, out=unknown)
        unknown &= self._leaves_early[rows]
        if not self._inside:
            np.less(place, -1, out=before)
            unknown |= before
        # 0 up to the end of the band, +Inf beyond.
        cv2.threshold(place, 1, math.inf, cv2.THRESH_BINARY, dst=place)
        cv2.multiply(depth, self._horizontal[rows], dst=ranges)
        cv2.add(ranges, place, dst=ranges)
        np.copyto(ranges, np.nan, where=unknown)
        first, count = row // self._block, -(-depth.shape[0] // self._block)
        self._ranges[depth.shape[0] :] = np.nan
        np.fmin.reduce(
            self._ranges[: count * self._block].reshape(count, self._block, -1),
            axis=1,
            out=self._blocks[first : first + count],
        )
