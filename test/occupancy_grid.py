"""An occupancy grid as Nav2's layers compute it, and what a room really has in it.

Nothing here knows how clouds and scans are made: points and ranges come in as decoded arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import mujoco
import numpy as np
import numpy.typing as npt

from mono_depth_ros.sim.part import Part
from mono_depth_ros.sim.plan import Plan
from mono_depth_ros.sim.pose import Pose
from mono_depth_ros.sim.scene import Scene

Points = npt.NDArray[np.float64]
UNKNOWN, FREE, OCCUPIED = -1, 0, 1


class VoxelGrid:
    """What nav2_costmap_2d's VoxelLayer keeps; with one layer of voxels, its ObstacleLayer.

    Attributes:
        cells: (nx, ny, nz) int8: UNKNOWN, FREE or OCCUPIED.
        low: (3,) metres, its smallest corner.
        resolution: (3,) metres along x, y and z.
    """

    def __init__(self, low: npt.ArrayLike, high: npt.ArrayLike, resolution: npt.ArrayLike) -> None:
        self.low = np.asarray(low, np.float64)
        self.resolution = np.asarray(resolution, np.float64)
        shape = np.ceil((np.asarray(high) - self.low) / self.resolution - 1e-9).astype(int)
        self.cells = np.full(shape, UNKNOWN, np.int8)

    def indices(self, points: Points) -> npt.NDArray[np.intp]:
        """(n, 3) cells of (N, 3) world points that are inside, n <= N."""
        cells = np.floor((points - self.low) / self.resolution).astype(np.intp)
        inside: npt.NDArray[np.bool_] = ((cells >= 0) & (cells < self.cells.shape)).all(axis=1)
        return np.asarray(cells[inside], np.intp)

    def integrate(
        self, origin: npt.ArrayLike, marking: Points, clearing: Points, margin: float
    ) -> None:
        """Clears the lines from `origin` to each `clearing` point, then marks `marking`.

        Args:
            origin: (3,) world, metres.
            marking, clearing: (N, 3) world, metres.
            margin: metres by which lines end early.
        """
        origin = np.asarray(origin, np.float64)
        # One line for each cell that a line ends in.
        x, y, z = np.floor((clearing - self.low) / self.resolution).astype(np.int64).T
        _, first = np.unique((x << 40) + (y << 20) + z, return_index=True)
        way = clearing[first] - origin
        length = np.linalg.norm(way, axis=1)
        way *= ((length - margin) / length).clip(0)[:, None]
        steps = int(np.ceil(length.max(initial=0) / self.resolution.min() * 2)) + 1
        for part in np.linspace(0, 1, steps):
            self.cells[tuple(self.indices(origin + part * way).T)] = FREE
        self.cells[tuple(self.indices(marking).T)] = OCCUPIED

    def occupied(self) -> npt.NDArray[np.bool_]:
        """(nx, ny): columns with an occupied voxel."""
        return np.asarray((self.cells == OCCUPIED).any(axis=2), np.bool_)

    def centres(self, columns: npt.NDArray[np.bool_]) -> Points:
        """(n, 2) metres: the middles of chosen columns (nx, ny)."""
        return self.low[:2] + (np.argwhere(columns) + 0.5) * self.resolution[:2]


def to_world(points: npt.NDArray[np.floating], pose: Pose) -> Points:
    """(N, 3) points in the optical frame to the world."""
    return points.astype(np.float64) @ pose.rotation.T + pose.position


def scan_to_world(
    ranges: npt.NDArray[np.floating],
    angle_min: float,
    angle_increment: float,
    range_max: float,
    pose: Pose,
) -> tuple[Points, Points]:
    """Marking and clearing points (N, 3) of a LaserScan, as Nav2 has them with `inf_is_valid`."""
    yaw = np.arctan2(pose.rotation[1, 2], pose.rotation[0, 2])
    angles = yaw + angle_min + angle_increment * np.arange(ranges.size)
    direction = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], 1)
    hit, none = np.isfinite(ranges), np.isposinf(ranges)
    marking = pose.position + direction[hit] * ranges[hit, None]
    return marking, np.concatenate([marking, pose.position + direction[none] * range_max])


@dataclass(frozen=True)
class GroundTruth:
    """What stands in a room between two heights, from the shapes that it is built of.

    Attributes:
        low: (2,) metres, the smallest corner of the map.
        distance: (nx, ny) metres to the nearest obstacle, 0 inside one.
    """

    low: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float32]

    STEP = 0.01

    @classmethod
    def of(cls, plan: Plan, min_height: float, max_height: float) -> GroundTruth:
        """Rasters all parts, and all that is outside the room, at 1 cm."""
        low = np.array([-0.5, -0.5])
        shape = np.ceil((plan.size[:2] + 1) / cls.STEP).astype(int)
        solid = np.ones(shape, bool)
        inside = np.round((-low) / cls.STEP).astype(int)
        beyond = np.round((plan.size[:2] - low) / cls.STEP).astype(int)
        solid[inside[0] : beyond[0], inside[1] : beyond[1]] = False
        heights = np.arange(min_height, max_height, cls.STEP) + cls.STEP / 2
        for part in plan.parts:
            bounds = part.bounds()
            first = np.floor((bounds[0, :2] - low) / cls.STEP).astype(int).clip(0)
            last = np.ceil((bounds[1, :2] - low) / cls.STEP).astype(int) + 1
            z = heights[(heights > bounds[0, 2] - cls.STEP) & (heights < bounds[1, 2] + cls.STEP)]
            x, y = (low[i] + (np.arange(first[i], last[i]) + 0.5) * cls.STEP for i in (0, 1))
            points = np.stack(np.meshgrid(x, y, z, indexing="ij"), -1)
            solid[first[0] : last[0], first[1] : last[1]] |= _contains(part, points).any(axis=2)
        free = cv2.distanceTransform((~solid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return cls(low, np.asarray(free * cls.STEP, np.float32))

    def at(self, points: Points) -> npt.NDArray[np.float32]:
        """(N,) metres from (N, 2) points to the nearest obstacle."""
        cells = np.floor((points[:, :2] - self.low) / self.STEP).astype(int)
        x, y = cells.clip(0, np.array(self.distance.shape) - 1).T
        return np.asarray(self.distance[x, y], np.float32)


def _contains(part: Part, points: Points) -> npt.NDArray[np.bool_]:
    """Whether (..., 3) points are in a part; sheets thinner than the raster are made as thick."""
    half = np.maximum(part.half, GroundTruth.STEP)
    local = np.abs((points - part.centre) @ part.rotation) / half
    if part.shape == "box":
        return np.asarray((local <= 1).all(-1))
    if part.shape == "cylinder":
        return np.asarray((np.hypot(local[..., 0], local[..., 1]) <= 1) & (local[..., 2] <= 1))
    return np.asarray(np.linalg.norm(local, axis=-1) <= 1)


def ray_cast(scene: Scene, pose: Pose, rays: Points) -> npt.NDArray[np.float64]:
    """Depth along (N, 3) optical rays with z = 1 by mj_ray, without OpenGL; +Inf hits nothing."""
    data = mujoco.MjData(scene.model)
    mujoco.mj_forward(scene.model, data)
    geom = np.empty(1, np.int32)
    found = [
        mujoco.mj_ray(scene.model, data, pose.position, ray, None, True, -1, geom)
        for ray in rays @ pose.rotation.T
    ]
    depth = np.array(found, np.float64)
    depth[depth < 0] = np.inf
    return depth


def distances(points: Points, targets: Points) -> npt.NDArray[np.float64]:
    """(N,) metres from (N, 2) points to the nearest of (M, 2) targets."""
    nearest = [
        np.linalg.norm(targets[:, None] - block, axis=2).min(axis=0, initial=np.inf)
        for block in np.array_split(points, len(points) // 256 + 1)
    ]
    return np.concatenate(nearest)
