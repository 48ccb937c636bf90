"""Organised coloured point clouds: one point a pixel, x y z rgb, NaN where there is no depth."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel

# Little-endian float32 x, y, z and packed 0x00RRGGBB, the layout of PCL's PointXYZRGB without its
# padding: https://pointclouds.org/documentation/structpcl_1_1_point_x_y_z_r_g_b.html
POINT_STEP = 16
DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])


class CloudBuilder:
    """Back-projects depth of one camera: X = (u - cx) Z / fx, Y = (v - cy) Z / fy.

    Points are in the camera's optical frame (REP 103: x right, y down, z forward), metres.

    Args:
        camera: intrinsics of the depth image.
        stride: takes every `stride`-th row and column.
    """

    def __init__(self, camera: CameraModel, stride: int = 1) -> None:
        if stride < 1:
            raise ValueError(f"cloud stride {stride} is not at least 1")
        self.camera, self.stride = camera, stride
        rays_x, rays_y = camera.rays()
        self._rays_x, self._rays_y = rays_x[None, ::stride], rays_y[::stride, None]
        self.height, self.width = self._rays_y.size, self._rays_x.size
        self._planes = np.empty((3, self.height, self.width), np.float32)
        self._bgra = np.zeros((self.height, self.width, 4), np.uint8)

    def build(
        self,
        depth: npt.NDArray[np.float32],
        image: npt.NDArray[np.uint8],
        out: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.void]:
        """Makes the cloud.

        Args:
            depth: HxW float32 metres along Z; not finite means no point.
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
        # 0 * inf and inf - inf are NaN, so adding z * 0 turns both infinities into NaN.
        with np.errstate(invalid="ignore"):
            np.multiply(depth[::s, ::s], np.float32(0), out=z)
            np.add(z, depth[::s, ::s], out=z)
        np.multiply(z, self._rays_x, out=x)
        np.multiply(z, self._rays_y, out=y)
        cv2.cvtColor(np.ascontiguousarray(image[::s, ::s]), cv2.COLOR_RGB2BGRA, dst=self._bgra)
        self._bgra[..., 3] = 0
        cv2.merge((x, y, z, self._bgra.view(np.float32)[..., 0]), dst=out)
        return out.view(DTYPE)[..., 0]
