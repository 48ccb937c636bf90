"""How a camera is held above the ground: heights, bearings and ranges of what its pixels see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel

# REP 103: a camera's body frame (x forward, y left, z up) from its optical frame (x right, y down,
# z forward).
_BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
# Nearer to the vertical than this, the optical axis has no heading worth the name.
_VERTICAL = math.sin(math.radians(0.1))


def quaternion_matrix(x: float, y: float, z: float, w: float) -> npt.NDArray[np.float64]:
    """3x3 rotation of a quaternion of length 1."""
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@dataclass(frozen=True)
class Mounting:
    """Where the ground is, seen from a camera.

    The level frame sits at the optical centre: z up, x along the optical axis as seen on a map, y
    left (REP 103). The optical axis of a camera that looks straight down or up has no direction
    on a map; x is then the upper edge of the image, or the lower one, which is what x tends to as a
    camera without roll is pitched there.

    Attributes:
        height: of the optical centre above the ground in metres.
        rotation: 3x3 row-major, the level frame from the optical frame.
    """

    height: float
    rotation: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rotation) != 9 or not np.isfinite((self.height, *self.rotation)).all():
            raise ValueError(
                f"camera height {self.height} m and rotation {self.rotation} are not one and nine"
                " finite numbers"
            )
        matrix = self.matrix()
        if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6) or np.linalg.det(matrix) < 0:
            raise ValueError(f"camera rotation {self.rotation} is not a rotation")

    @classmethod
    def from_angles(cls, height: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> Mounting:
        """A camera that is first rolled about its forward axis, then pitched about its left one.

        Args:
            height: metres above the ground.
            pitch_deg: -90 to 90 degrees; positive looks down (right-hand rule about y).
            roll_deg: degrees; positive lowers the right-hand side (right-hand rule about x).

        Raises:
            ValueError: a number is not finite, or the pitch is out of range.
        """
        if not abs(pitch_deg) <= 90:
            raise ValueError(f"camera pitch {pitch_deg} deg is not between -90 and 90")
        pitch, roll = math.radians(pitch_deg), math.radians(roll_deg)
        c, s = math.cos(pitch), math.sin(pitch)
        about_y = np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
        c, s = math.cos(roll), math.sin(roll)
        about_x = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
        return cls(height, _numbers(about_y @ about_x @ _BODY_FROM_OPTICAL))

    @classmethod
    def from_transform(cls, translation: Sequence[float], quaternion: Sequence[float]) -> Mounting:
        """The mounting that a transform (tf) to the optical frame tells.

        Args:
            translation: x, y, z in metres of the optical centre in a base frame whose z points up
                and whose origin lies on the ground.
            quaternion: x, y, z, w of the base frame from the optical frame; its yaw is removed.

        Raises:
            ValueError: a number is not finite, or the quaternion is zero.
        """
        x, y, z, w = quaternion
        length = math.sqrt(x * x + y * y + z * z + w * w)
        if not 0 < length < math.inf:
            raise ValueError(f"quaternion {tuple(quaternion)} is not a rotation")
        x, y, z, w = x / length, y / length, z / length, w / length
        matrix = quaternion_matrix(x, y, z, w)
        ahead = matrix[:2, 2]
        if math.hypot(*ahead) < _VERTICAL:
            ahead = matrix[:2, 1] * math.copysign(1, matrix[2, 2])
        c, s = ahead / math.hypot(*ahead)
        return cls(translation[2], _numbers(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ matrix))

    def matrix(self) -> npt.NDArray[np.float64]:
        """3x3 float64, the level frame from the optical frame."""
        return np.array(self.rotation, np.float64).reshape(3, 3)

    def level_quaternion(self) -> tuple[float, float, float, float]:
        """x, y, z, w of the optical frame from the level frame.

        With no translation, it is the transform (tf) that hangs the level frame, in which a scan
        is, under the optical frame.
        """
        vector = cv2.Rodrigues(self.matrix().T)[0].ravel()
        angle = float(np.linalg.norm(vector))
        x, y, z = vector * (math.sin(angle / 2) / max(angle, 1e-12))
        return float(x), float(y), float(z), math.cos(angle / 2)

    def rays(self, camera: CameraModel) -> npt.NDArray[np.float64]:
        """Viewing rays in the level frame at Z = 1.

        A point of depth Z lies at Z times its ray: x forward, y left, z up; it is `height` more
        than that above the ground.

        Returns:
            3xHxW float64.
        """
        x, y = camera.rays()
        u, v = np.meshgrid(x.astype(np.float64), y.astype(np.float64))
        a, b, c = self.matrix().T[:, :, None, None]
        rays: npt.NDArray[np.float64] = a * u + b * v + c
        return rays

    def band(
        self, camera: CameraModel, min_height: float, max_height: float
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Depths at which each pixel's ray is between two heights above the ground.

        Height is linear in depth, so this is one interval. It is empty (the first number is larger
        than the second) where a ray never gets there.

        Returns:
            HxW float64 each: the smallest Z, 0 where the camera itself is in the band, and the
            largest Z.

        Raises:
            ValueError: the band is empty.
        """
        if not min_height < max_height:
            raise ValueError(f"height band {min_height} to {max_height} m is empty")
        rise = self.rays(camera)[2]
        # A level ray stays where it is as far as anyone looks.
        rise = np.where(np.abs(rise) < 1e-12, 1e-12, rise)
        low, high = (min_height - self.height) / rise, (max_height - self.height) / rise
        return np.minimum(low, high).clip(0), np.maximum(low, high)


def _numbers(matrix: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in matrix.ravel())
