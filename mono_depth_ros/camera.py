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
# cv2.remap counts rows and columns in 16 bits.
_MAX_SIDE = 32767
# A focal length or principal point beyond this many image sides is no lens's (fields of view from
# 0.01 to 179.9 degrees), and would overflow single precision further on.
_MAX_SIDES = 1e4
# Rounded to three decimals a rotation is still one.
_ROTATION_TOLERANCE = 0.01


def _is_rotation(r: tuple[float, ...]) -> bool:
    """Whether nine row-major numbers are a right-handed orthonormal matrix."""
    a, b, c = r[:3], r[3:6], r[6:]
    cross = (b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0])
    products = ((a, a, 1), (b, b, 1), (c, c, 1), (a, b, 0), (a, c, 0), (b, c, 0), (a, cross, 1))
    return all(
        abs(sum(x * y for x, y in zip(u, v, strict=True)) - value) < _ROTATION_TOLERANCE
        for u, v, value in products
    )


@dataclass(frozen=True)
class Calibration:
    """What sensor_msgs/CameraInfo says of a camera, at its full resolution.

    It holds whatever it is given; everything that is computed from it raises ValueError, with one
    line, for what cannot be a camera: a matrix of another length, numbers that are not finite, an
    empty or impossible size, a focal length that is not positive, an R that does not rotate, a
    region that leaves the image, or binning that leaves nothing of it.

    Attributes:
        width, height: full-resolution size in pixels, before binning and region of interest.
        k: 3x3 row-major intrinsics of the raw image.
        d: distortion coefficients of `model`.
        model: `plumb_bob`, `rational_polynomial`, `equidistant`, or empty for none.
        r: 3x3 row-major rectification rotation; all zeros means none.
        p: 3x4 row-major projection of the rectified image; focal lengths of zero mean "same as k".
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

    def _check(self) -> None:
        """Raises ValueError for what cannot be a camera's, but for its distortion."""
        size = f"{self.width}x{self.height}"
        if not (1 <= self.width <= _MAX_SIDE and 1 <= self.height <= _MAX_SIDE):
            raise ValueError(
                f"calibration is for {size} images, but sides are 1 to {_MAX_SIDE} pixels;"
                " an empty image, or a broken camera_info"
            )
        lengths = len(self.k), len(self.r), len(self.p)
        if lengths != (9, 9, 12):
            raise ValueError(f"calibration's K, R, P have {lengths} numbers, not (9, 9, 12)")
        if not all(map(math.isfinite, (*self.k, *self.d, *self.r, *self.p))):
            raise ValueError(
                "calibration holds numbers that are not finite; calibrate the camera again, or"
                " check its driver"
            )
        x, y, width, height = self.roi
        if (
            min(self.roi) < 0
            or x + (width or self.width) > self.width
            or y + (height or self.height) > self.height
        ):
            raise ValueError(f"region of interest {self.roi} is not within a {size} image")
        if min(self.binning) < 0 or 0 in self.image_size:
            raise ValueError(f"binning {self.binning} leaves an empty image of {size}")
        if any(self.r) and self.r != _IDENTITY and not _is_rotation(self.r):
            raise ValueError("rectification matrix R does not rotate; calibrate the camera again")

    def _to_image(self, fx: float, fy: float, cx: float, cy: float) -> CameraModel:
        """Full-resolution intrinsics seen through the region of interest and binning.

        sensor_msgs/CameraInfo: the region is cut from the full-resolution image, then binned. It is
        a window of the sensor, so the same for the raw and the rectified image, whatever
        roi.do_rectify says. image_geometry does likewise, but scales the principal point as if
        pixels were counted from the image's corner, half a binned pixel away from OpenCV's centre.
        """
        x, y, _, _ = self.roi
        for name, value, side in (("x", fx, self.width), ("y", fy, self.height)):
            if not 1 / _MAX_SIDES < value / side < _MAX_SIDES:
                raise ValueError(
                    f"focal length f{name}={value} of a {self.width}x{self.height} image is not"
                    " that of a camera; calibrate it"
                )
        if max(abs(cx) / self.width, abs(cy) / self.height) > _MAX_SIDES:
            raise ValueError(
                f"principal point cx={cx} cy={cy} is nowhere near the image; calibrate the camera"
            )
        full = CameraModel(self.width, self.height, fx, fy, cx, cy)
        columns, rows = self.image_size
        # Binning drops what is left over of the last columns and rows.
        window = full.cropped(
            x, y, columns * max(self.binning[0], 1), rows * max(self.binning[1], 1)
        )
        return window.scaled(columns, rows)

    def raw(self) -> CameraModel:
        """Intrinsics of the images as they come (distorted).

        Raises:
            ValueError: not a camera's (see the class).
        """
        self._check()
        return self._to_image(self.k[0], self.k[4], self.k[2], self.k[5])

    def rectified(self) -> CameraModel:
        """Intrinsics of the images after rectification.

        Where P is missing they are those of K, so that a fisheye lens keeps its scale in the middle
        and loses what does not fit on the plane: no plane holds 180 degrees.

        Raises:
            ValueError: not a camera's (see the class).
        """
        self._check()
        p = self.p
        if p[0] == 0 and p[5] == 0:
            return self.raw()
        return self._to_image(p[0], p[5], p[2], p[6])

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
        size = (ideal.width, ideal.height)
        arguments = (rotation, ideal.matrix(), size, cv2.CV_32FC1)
        d = np.array(self.d if distorted else (0.0,) * 5, np.float64)
        if self.model == "equidistant" and distorted:
            if d.size < 4 or d[4:].any():  # padded to the length of plumb_bob
                raise ValueError(f"distortion model equidistant takes 4 coefficients, not {d.size}")
            xy = cv2.fisheye.initUndistortRectifyMap(raw.matrix(), d[:4], *arguments)
        elif self.model in ("plumb_bob", "rational_polynomial") or not distorted:
            if d.size not in _POLYNOMIAL_COUNTS:
                raise ValueError(f"distortion model {self.model} cannot have {d.size} coefficients")
            xy = cv2.initUndistortRectifyMap(raw.matrix(), d, *arguments)
        else:
            raise ValueError(
                f"distortion model {self.model!r:.40} is unknown; known: plumb_bob,"
                " rational_polynomial, equidistant; or rectify upstream and set rectify to off"
            )
        x, y = xy
        # Written so that NaN, from coefficients that make no sense there, is outside too.
        outside = ~((x >= 0) & (y >= 0) & (x <= raw.width - 1) & (y <= raw.height - 1))
        fixed, fraction = cv2.convertMaps(x, y, cv2.CV_16SC2)
        return np.asarray(fixed, np.int16), np.asarray(fraction, np.uint16), outside
