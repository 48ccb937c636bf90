"""Two clouds for a costmap: points that mark obstacles, and points up to which space is free.

Nav2's layers (obstacle_layer.cpp, voxel_layer.cpp, observation_buffer.cpp of nav2_costmap_2d) clear
before they mark: each point of a clearing source clears the cells, or voxels, from the sensor to
it. NaN and infinite points clear nothing, so far rays need an end. Points outside an observation
source's own min_obstacle_height and max_obstacle_height (0 and 0 unless set) are dropped before
either, which would drop ceilings, and a floor that is seen a little too low; here no ray ends
above the obstacle band or below the ground. Beyond the band a ray says nothing of obstacles anyway.
The voxel layer stops two cells short of each point; the two-dimensional layer clears whatever a
ray passes above, so that it forgets low obstacles that have left the view below, and is better fed
with a scan.

Points on depth steps are not filtered here. In simulated rooms with depth up-sampled by
`EdgeAwareUpsampler`, 0.1 to 0.4 % of the marked cells were more than 10 cm from an obstacle, as
many as with such a filter; linear interpolation would make it 4 to 16 %.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.mounting import Mounting


class ObstacleClouds:
    """Makes both clouds of one camera, in its optical frame.

    Args:
        camera: intrinsics of the depth image.
        mounting: how the camera is held.
        min_height, max_height: metres above the ground; what is in between is an obstacle.
        max_range: horizontal metres; obstacles further off are left out, and rays end there.
        stride: takes every `stride`-th row and column.

    Raises:
        ValueError: the heights or the range are empty, or the stride is below 1.
    """

    def __init__(
        self,
        camera: CameraModel,
        mounting: Mounting,
        min_height: float,
        max_height: float,
        max_range: float,
        stride: int = 1,
    ) -> None:
        if stride < 1:
            raise ValueError(f"obstacle stride {stride} is not at least 1")
        if not 0 < max_range < math.inf:
            raise ValueError(f"obstacle range {max_range} m is not above 0 and finite")
        self.camera, self.mounting, self.stride = camera, mounting, stride
        self.min_height, self.max_height, self.max_range = min_height, max_height, max_range
        grid = np.s_[::stride, ::stride]
        near, far = (limit[grid] for limit in mounting.band(camera, min_height, max_height))
        forward, left, rise = mounting.rays(camera)[:, ::stride, ::stride]
        # Straight down, any range takes no depth at all.
        far_off = max_range / np.hypot(forward, left).clip(1e-9)
        self._near = near.astype(np.float32)
        self._far = np.minimum(far, far_off).astype(np.float32)

        # Where a ray leaves the heights from the ground to the top of the band for good.
        ground = min(0.0, min_height)
        # A level ray stays where it is, as far as anyone looks.
        rise = np.where(np.abs(rise) < 1e-12, 1e-12, rise)
        leaves = (np.where(rise > 0, max_height, ground) - mounting.height) / rise
        # From above the band, what does not descend never comes to it: no point (not above 0).
        self._reach = np.minimum(leaves, far_off).astype(np.float32)

        x, y = camera.rays()
        self._rays = np.empty((*self._near.shape, 3), np.float32)
        self._rays[..., 0], self._rays[..., 1] = x[None, ::stride], y[::stride, None]
        self._rays[..., 2] = 1
        self._rays = self._rays.reshape(-1, 3)
        self._obstacles, self._clearing = np.empty_like(self._rays), np.empty_like(self._rays)
        self._depth, self._end = np.empty_like(self._near), np.empty_like(self._near)
        self._mask, self._other = np.empty(near.shape, bool), np.empty(near.shape, bool)

    def build(
        self, depth: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Makes the clouds.

        Args:
            depth: HxW float32 metres along Z; NaN unknown, -Inf too near, +Inf too far.

        Returns:
            Obstacles and clearing, Nx3 float32 each, finite, in the optical frame (x right, y down,
            z forward). Both are overwritten by the next call.

            Obstacles: the points in the band and within `max_range`. Clearing: where the ray of
            each pixel with known depth ends: at the point itself, at `max_range`, at the top of the
            band going up or at the ground going down, whichever comes first.

        Raises:
            ValueError: the size is not the camera's.
        """
        if depth.shape != (self.camera.height, self.camera.width):
            raise ValueError(
                f"depth {depth.shape} is not of size {(self.camera.height, self.camera.width)}"
            )
        np.copyto(self._depth, depth[:: self.stride, :: self.stride])
        np.greater_equal(self._depth, self._near, out=self._mask)
        np.less_equal(self._depth, self._far, out=self._other)
        self._mask &= self._other
        obstacles = self._points(self._depth, self._obstacles)
        # NaN stays, and is not above 0; nor is -Inf.
        np.minimum(self._depth, self._reach, out=self._end)
        np.greater(self._end, 0, out=self._mask)
        return obstacles, self._points(self._end, self._clearing)

    def _points(
        self, depth: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """The points of the masked pixels at `depth`, a view of `out`."""
        chosen = np.flatnonzero(self._mask)
        points = np.take(self._rays, chosen, axis=0, out=out[: chosen.size], mode="clip")
        z = depth.ravel()[chosen]
        # Faster than all three at once, whose inner loop would be three long.
        for axis in range(3):
            points[:, axis] *= z
        return points
