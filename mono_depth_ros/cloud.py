"""Organised coloured point clouds: one point a pixel, x y z rgb, NaN where there is no depth."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.mounting import Mounting

# Little-endian float32 x, y, z and packed 0x00RRGGBB, the layout of PCL's PointXYZRGB without its
# padding: https://pointclouds.org/documentation/structpcl_1_1_point_x_y_z_r_g_b.html
POINT_STEP = 16
_RGB = np.uint32(0x00FFFFFF)
DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


class CloudBuilder:
    """Back-projects depth of one camera: X = (u - cx) Z / fx, Y = (v - cy) Z / fy.

    Points are in the camera's optical frame (REP 103: x right, y down, z forward), metres.

    Args:
        camera: intrinsics of the depth image.
        stride: takes every `stride`-th row and column.
        min_range, max_range: distance from the optical centre in metres.
        mounting: how the camera is held; only needed for heights.
        min_height, max_height: metres above the ground.

    Raises:
        ValueError: the stride is below 1, a range or height band is empty, or there are heights
            without a mounting.
    """

    def __init__(
        self,
        camera: CameraModel,
        stride: int = 1,
        min_range: float = 0.0,
        max_range: float = math.inf,
        mounting: Mounting | None = None,
        min_height: float = -math.inf,
        max_height: float = math.inf,
    ) -> None:
        if stride < 1:
            raise ValueError(f"cloud stride {stride} is not at least 1")
        if not min_range < max_range:
            raise ValueError(f"cloud range {min_range} to {max_range} m is empty")
        self.camera, self.stride = camera, stride
        self.min_range, self.max_range = min_range, max_range
        self.mounting, self.min_height, self.max_height = mounting, min_height, max_height
        rays_x, rays_y = camera.rays()
        self._rays_x, self._rays_y = rays_x[None, ::stride], rays_y[::stride, None]
        self.height, self.width = self._rays_y.size, self._rays_x.size
        self._planes = np.empty((3, self.height, self.width), np.float32)
        self._bgra = np.zeros((self.height, self.width, 4), np.uint8)
        self._near, self._far = self._limits()
        self._limited = np.empty((self.height, self.width), np.float32)
        self._excess = np.empty_like(self._limited)

    def _limits(self) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None]:
        """The smallest and the largest Z of each pixel's point, hxw each; None: there is no limit.

        Ranges and heights are linear in Z along a ray, so that a pixel has one interval.
        """
        length = np.sqrt(1 + np.square(self._rays_x) + np.square(self._rays_y))
        near, far = self.min_range / length, self.max_range / length
        if math.isfinite(self.min_height) or math.isfinite(self.max_height):
            if self.mounting is None:
                raise ValueError("a cloud between heights needs to know how the camera is mounted")
            s = self.stride
            band = self.mounting.band(self.camera, self.min_height, self.max_height)
            near = np.maximum(near, band[0][::s, ::s])
            far = np.minimum(far, band[1][::s, ::s])
        return (
            near.astype(np.float32) if (near > 0).any() else None,
            far.astype(np.float32) if (far < np.inf).any() else None,
        )

    def _limit(self, depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`depth` (hxw) with what is out of limits +Inf."""
        # Each is 0 within, +Inf beyond. OpenCV, which says nothing of infinities that meet.
        if self._far is not None:
            cv2.subtract(depth, self._far, dst=self._excess)
            cv2.threshold(self._excess, 0, math.inf, cv2.THRESH_BINARY, dst=self._excess)
            cv2.add(depth, self._excess, dst=self._limited)
            depth = self._limited
        if self._near is not None:
            cv2.subtract(self._near, depth, dst=self._excess)
            cv2.threshold(self._excess, 0, math.inf, cv2.THRESH_BINARY, dst=self._excess)
            cv2.add(depth, self._excess, dst=self._limited)
            depth = self._limited
        return depth

    def _strided(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Every `stride`-th row and column of an image, contiguous."""
        s = self.stride
        if s == 1 or image.shape[0] % s or image.shape[1] % s:
            return np.ascontiguousarray(image[::s, ::s])
        # The same pixels, five times as fast.
        size = (self.width, self.height)
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)

    def build(
        self,
        depth: npt.NDArray[np.float32],
        image: npt.NDArray[np.uint8],
        out: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.void]:
        """Makes the cloud.

        Args:
            depth: HxW float32 metres along Z; not finite or out of limits means no point.
            image: HxWx3 uint8 RGB.
            out: hxwx4 float32, contiguous, to fill (h, w: `height`, `width`); None allocates.

        Returns:
            hxw array of `DTYPE`, a view of `out`.

        Raises:
            ValueError: sizes differ from the camera's, or `out` cannot hold the cloud.
        """
        size = (self.camera.height, self.camera.width)
        if depth.shape != size or image.shape != (*size, 3):
            raise ValueError(f"depth {depth.shape} and image {image.shape} are not of size {size}")
        if out is None:
            out = np.empty((self.height, self.width, 4), np.float32)
        elif (
            out.shape != (self.height, self.width, 4)
            or out.dtype != np.float32
            or not out.flags.c_contiguous
        ):
            raise ValueError(
                f"out {out.dtype} {out.shape} is not contiguous float32"
                f" {(self.height, self.width, 4)}"
            )
        s = self.stride
        x, y, z = self._planes
        depth = depth[::s, ::s]
        if self._near is not None or self._far is not None:
            depth = self._limit(depth)
        # 0 * inf and inf - inf are NaN, so adding z * 0 turns both infinities into NaN.
        with np.errstate(invalid="ignore"):
            np.multiply(depth, np.float32(0), out=z)
            np.add(z, depth, out=z)
        np.multiply(z, self._rays_x, out=x)
        np.multiply(z, self._rays_y, out=y)
        cv2.cvtColor(self._strided(image), cv2.COLOR_RGB2BGRA, dst=self._bgra)
        packed = self._bgra.view(np.uint32)[..., 0]
        np.bitwise_and(packed, _RGB, out=packed)
        cv2.merge((x, y, z, packed.view(np.float32)), dst=out)
        return out.view(DTYPE)[..., 0]
