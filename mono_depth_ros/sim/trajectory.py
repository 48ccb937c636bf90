"""A camera's way through a room, as a pure function of time."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mono_depth_ros.sim.plan import Plan
from mono_depth_ros.sim.pose import Pose, heading

_SPEED_M_S = 0.4
_TURN_RAD_S = math.radians(16)  # on average; a quarter more at most
_HEIGHTS_M = (0.6, 1.4)


class Trajectory:
    """A smooth closed loop on the floor that the room keeps free, at changing height.

    The camera looks across the loop, so that the far half of the room fills the view, and turns
    once a lap.

    Attributes:
        period: seconds a lap takes.
    """

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        """The same plan and seed give the same loop."""
        rng = np.random.default_rng((plan.seed, seed))
        self._centre, self._radii = plan.walk.centre, plan.walk.radii
        self._phase = rng.uniform(0, 2 * np.pi, 4)
        self._way = float(rng.choice([-1, 1]))
        low, high = np.sort(rng.uniform(*_HEIGHTS_M, 2))
        self._height, self._sway = (low + high) / 2, (high - low) / 2
        lap = np.linspace(0, 2 * np.pi, 721)
        steps = np.diff(np.stack([self._position(a) for a in lap]), axis=0)
        fastest = np.linalg.norm(steps, axis=1).max() / (lap[1] - lap[0])
        self.period = 2 * math.pi * max(fastest / _SPEED_M_S, 1 / _TURN_RAD_S)

    def _position(self, angle: float) -> npt.NDArray[np.float64]:
        reach = 0.85 + 0.15 * math.sin(2 * angle + self._phase[0])
        around = angle + self._phase[1]
        xy = self._centre + self._radii * reach * np.array([math.cos(around), math.sin(around)])
        return np.array([*xy, self._height + self._sway * math.sin(angle + self._phase[2])])

    def pose(self, time: float) -> Pose:
        """Where the camera is.

        Args:
            time: seconds; the loop repeats every `period`.
        """
        angle = self._way * 2 * math.pi * (time / self.period % 1.0)
        position = self._position(angle)
        yaw = angle + self._phase[1] + math.pi + 0.25 * math.sin(angle + self._phase[3])
        pitch = -0.22 * (position[2] - 0.7) + 0.03 * math.sin(2 * angle + self._phase[3])
        return heading(position, yaw, pitch)
