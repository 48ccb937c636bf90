"""Pinhole intrinsics: scaling, region of interest, rectification, viewing rays.

Pixel (0, 0) is the centre of the top-left pixel, as in OpenCV and sensor_msgs/CameraInfo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CameraModel:
    """An ideal (rectified) pinhole camera.

    Attributes:
        width, height: image size in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera size {self.width}x{self.height} is empty")
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(math.isfinite(value) for value in values) or self.fx <= 0 or self.fy <= 0:
            raise ValueError(
                f"intrinsics fx={self.fx} fy={self.fy} cx={self.cx} cy={self.cy} are not those of"
                " a camera; calibrate it, or give its horizontal field of view instead"
            )

    @classmethod
    def from_hfov(cls, width: int, height: int, hfov_deg: float) -> CameraModel:
        """Square pixels, centred principal point, and a horizontal field of view in degrees.

        Raises:
            ValueError: the field of view is not between 0 and 180 degrees.
        """
        if not 0 < hfov_deg < 180:
            raise ValueError(f"horizontal field of view {hfov_deg} deg is not between 0 and 180")
        f = width / 2 / math.tan(math.radians(hfov_deg) / 2)
        return cls(width, height, f, f, (width - 1) / 2, (height - 1) / 2)

    @property
    def focal(self) -> float:
        """Geometric mean of fx and fy in pixels: the one number that apparent size scales with."""
        return math.sqrt(self.fx * self.fy)

    def scaled(self, width: int, height: int) -> CameraModel:
        """The same view resampled to another size."""
        sx, sy = width / self.width, height / self.height
        return CameraModel(
            width,
            height,
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
        )

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraModel:
        """The window whose top-left pixel is (x, y)."""
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def matrix(self) -> npt.NDArray[np.float64]:
        """K: 3x3 float64."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def rays(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Viewing rays at Z = 1 in the optical frame (REP 103: x right, y down, z forward).

        Returns:
            x/z of each column (W float32) and y/z of each row (H float32).
        """
        x = (np.arange(self.width) - self.cx) / self.fx
        y = (np.arange(self.height) - self.cy) / self.fy
        return x.astype(np.float32), y.astype(np.float32)


_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# OpenCV takes these numbers of plumb_bob / rational_polynomial coefficients.
_POLYNOMIAL_COUNTS = (4, 5, 8, 12, 14)


@dataclass(frozen=True)
class Calibration:
    """What sensor_msgs/CameraInfo says of a camera, at its full resolution.

    Attributes:
        width, height: full-resolution size in pixels, before binning and region of interest.
        k: 3x3 row-major intrinsics of the raw image.
        d: distortion coefficients of `model`.
        model: `plumb_bob`, `rational_polynomial`, `equidistant`, or empty for none.
        r: 3x3 row-major rectification rotation.
        p: 3x4 row-major projection of the rectified image; all zeros means "same as k".
        binning: pixels averaged in x and y (0 and 1 mean none).
        roi: x, y, width, height of the window that is sent, in full-resolution pixels; width or
            height 0 means all.
    """

    width: int
    height: int
    k: tuple[float, ...]
    d: tuple[float, ...] = ()
    model: str = ""
    r: tuple[float, ...] = _IDENTITY
    p: tuple[float, ...] = (0.0,) * 12
    binning: tuple[int, int] = (1, 1)
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the images that this calibration belongs to."""
        width, height = self.roi[2] or self.width, self.roi[3] or self.height
        return width // max(self.binning[0], 1), height // max(self.binning[1], 1)

    def _to_image(self, k: tuple[float, ...]) -> CameraModel:
        """Full-resolution intrinsics seen through the region of interest and binning.

        sensor_msgs/CameraInfo: the region is cut from the full-resolution image, then binned.
        """
        x, y, _, _ = self.roi
        full = CameraModel(self.width, self.height, k[0], k[4], k[2], k[5])
        columns, rows = self.image_size
        # Binning drops what is left over of the last columns and rows.
        window = full.cropped(
            x, y, columns * max(self.binning[0], 1), rows * max(self.binning[1], 1)
        )
        return window.scaled(columns, rows)

    def raw(self) -> CameraModel:
        """Intrinsics of the images as they come (distorted).

        Raises:
            ValueError: K is zero or not finite.
        """
        return self._to_image(self.k)

    def rectified(self) -> CameraModel:
        """Intrinsics of the images after rectification.

        Raises:
            ValueError: K or P is not a camera's.
        """
        p = self.p
        if p[0] == 0:
            return self.raw()
        return self._to_image((p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]))

    def rectify_maps(
        self,
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16], npt.NDArray[np.bool_]] | None:
        """Fixed-point maps for `cv2.remap` from the raw to the rectified image.

        Returns:
            HxWx2 int16, HxW uint16, and an HxW mask of pixels that the raw image does not cover;
            None if the image is rectified already.

        Raises:
            ValueError: unknown distortion model, a wrong number of coefficients, or no intrinsics.
        """
        raw, ideal = self.raw(), self.rectified()
        distorted = any(self.d)
        turned = not np.allclose(self.r, _IDENTITY, atol=1e-9) and any(self.r)
        if not distorted and not turned and raw == ideal:
            return None
        rotation = np.array(self.r, np.float64).reshape(3, 3) if turned else np.eye(3)
        d = np.array(self.d, np.float64)
        size = (ideal.width, ideal.height)
        if self.model == "equidistant" and distorted:
            if d.size != 4:
                raise ValueError(f"distortion model equidistant takes 4 coefficients, not {d.size}")
            xy = cv2.fisheye.initUndistortRectifyMap(
                raw.matrix(), d, rotation, ideal.matrix(), size, cv2.CV_32FC1
            )
        elif self.model in ("plumb_bob", "rational_polynomial") or not distorted:
            if distorted and d.size not in _POLYNOMIAL_COUNTS:
                raise ValueError(f"distortion model {self.model} cannot have {d.size} coefficients")
            xy = cv2.initUndistortRectifyMap(
                raw.matrix(),
                d if distorted else np.zeros(5),
                rotation,
                ideal.matrix(),
                size,
                cv2.CV_32FC1,
            )
        else:
            raise ValueError(
                f"distortion model '{self.model}' is unknown; known: plumb_bob,"
                " rational_polynomial, equidistant; or rectify upstream and set rectify to false"
            )
        x, y = xy
        # Written so that NaN, from coefficients that make no sense there, is outside too.
        outside = ~((x >= 0) & (y >= 0) & (x <= raw.width - 1) & (y <= raw.height - 1))
        fixed, fraction = cv2.convertMaps(x, y, cv2.CV_16SC2)
        return np.asarray(fixed, np.int16), np.asarray(fraction, np.uint16), outside
