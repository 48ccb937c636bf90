"""A camera on a robot: held at one height and pitch, and found by way of the robot's frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mono_depth_ros.sim.pose import Pose, Vector, heading


@dataclass(frozen=True, eq=False)
class Transform:
    """A frame in its parent's frame.

    Attributes:
        translation: (3,) float64 metres.
        rotation: (3, 3) float64, parent from child.
    """

    translation: Vector
    rotation: Vector


def _yaw(pose: Pose) -> float:
    return math.atan2(pose.rotation[1, 2], pose.rotation[0, 2])


def mounted(pose: Pose, height: float, pitch_deg: float) -> Pose:
    """The camera above the same spot, with the same heading, as a robot would carry it.

    Args:
        pose: of a camera that does not look straight up or down, which would have no heading.
        height: metres above the floor.
        pitch_deg: positive looks down (REP 103).
    """
    x, y = pose.position[:2]
    return heading((x, y, height), _yaw(pose), -math.radians(pitch_deg))


def robot_frames(pose: Pose) -> tuple[Transform, Transform]:
    """A camera's pose as a robot's tf tree has it (REP 105).

    Returns:
        the base on the floor below the camera, x along the camera's heading, in the world; and the
        camera's optical frame in that base. One after the other they are the pose.
    """
    yaw = _yaw(pose)
    c, s = math.cos(yaw), math.sin(yaw)
    turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    x, y, z = pose.position
    base = Transform(np.array([x, y, 0.0]), turn)
    return base, Transform(np.array([0.0, 0.0, z]), turn.T @ pose.rotation)
