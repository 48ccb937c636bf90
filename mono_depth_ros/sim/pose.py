"""Where a camera is and where it looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pose:
    """A camera in the world (REP 103: z up).

    Attributes:
        position: (3,) float64 metres.
        rotation: (3, 3) float64, world from optical frame (x right, y down, z forward).
    """

    position: Vector
    rotation: Vector


def heading(position: npt.ArrayLike, yaw: float, pitch: float = 0.0) -> Pose:
    """A camera without roll.

    Args:
        position: x, y, z in metres.
        yaw: radians about world z; 0 looks along +x, pi/2 along +y.
        pitch: radians above the horizon.
    """
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    level = math.cos(pitch)
    forward = np.array([math.cos(yaw) * level, math.sin(yaw) * level, math.sin(pitch)])
    rotation = np.column_stack([right, np.cross(forward, right), forward])
    return Pose(np.asarray(position, np.float64), rotation)
