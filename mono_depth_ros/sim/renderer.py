"""Colour and exact depth of a scene through a pinhole camera with any intrinsics."""

from __future__ import annotations

import os
from types import TracebackType

import cv2
import mujoco
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.sim.pose import Pose
from mono_depth_ros.sim.scene import Scene

_NEAR_M = 0.05
_FAR_M = 60.0


class Renderer:
    """Draws one scene through one camera. All calls must come from the thread that made it."""

    def __init__(self, scene: Scene, camera: CameraModel) -> None:
        """Opens a GL context and uploads the scene.

        Raises:
            RuntimeError: OpenGL cannot be loaded; says what to install.
        """
        model = scene.model
        self.camera = camera
        self._rect = mujoco.MjrRect(0, 0, camera.width, camera.height)
        self._gl = _open_gl(camera.width, camera.height)
        self._gl.make_current()
        model.vis.global_.offwidth, model.vis.global_.offheight = camera.width, camera.height
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 8)
        self._fill(model)
        self._rgb = np.empty((camera.height, camera.width, 3), np.uint8)
        self._depth = np.empty((camera.height, camera.width), np.float32)
        self._drawn: Pose | None = None
        self._coloured = False

    def _fill(self, model: mujoco.MjModel) -> None:
        # Nothing moves: geoms and lens are set once, and a frame only moves the camera.
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        mujoco.mjv_updateScene(
            model,
            data,
            mujoco.MjvOption(),
            None,
            mujoco.MjvCamera(),
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "FOG", "HAZE"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = False
        c = self.camera
        for eye in self._scene.camera:  # MuJoCo draws the mean of its two stereo eyes
            eye.orthographic = 0
            eye.frustum_near, eye.frustum_far = _NEAR_M, _FAR_M
            # Pixel (0, 0) is the centre of the top-left pixel, so edges lie half a pixel out.
            eye.frustum_width = c.width / 2 / c.fx * _NEAR_M
            eye.frustum_center = ((c.width - 1) / 2 - c.cx) / c.fx * _NEAR_M
            eye.frustum_top = (c.cy + 0.5) / c.fy * _NEAR_M
            eye.frustum_bottom = (c.cy + 0.5 - c.height) / c.fy * _NEAR_M

    def rgb(self, pose: Pose, out: npt.NDArray[np.uint8] | None = None) -> npt.NDArray[np.uint8]:
        """Colour image.

        Args:
            pose: of the camera.
            out: (H, W, 3) uint8 to fill instead of a new array.

        Returns:
            (H, W, 3) uint8 sRGB.
        """
        self._draw(pose, colour=True)
        mujoco.mjr_readPixels(self._rgb, None, self._rect, self._context)
        out = np.empty_like(self._rgb) if out is None else out
        # OpenGL's first row is the lowest. The blur is a lens's, and stands in for multisampling,
        # which takes twice as long and makes depth inexact.
        cv2.GaussianBlur(self._rgb[::-1], (3, 3), 0.55, dst=out)
        return out

    def depth(
        self, pose: Pose, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Exact depth; after `rgb` of the same pose it costs no drawing.

        Args:
            pose: of the camera.
            out: (H, W) float32 to fill instead of a new array.

        Returns:
            (H, W) float32 metres along the optical axis; +inf where there is nothing.
        """
        self._draw(pose, colour=False)
        mujoco.mjr_readPixels(None, self._depth, self._rect, self._context)
        out = np.empty_like(self._depth) if out is None else out
        # Reversed float z (1 near, 0 far) keeps its precision at any distance.
        np.multiply(self._depth[::-1], np.float32((_FAR_M - _NEAR_M) / _FAR_M), out=out)
        out += np.float32(_NEAR_M / _FAR_M)
        np.divide(np.float32(_NEAR_M), out, out=out)
        out[out > 0.999 * _FAR_M] = np.inf
        return out

    def _draw(self, pose: Pose, colour: bool) -> None:
        if self._context is None:
            raise RuntimeError("this renderer is closed; make a new one")
        self._gl.make_current()
        if pose is self._drawn and (self._coloured or not colour):
            return
        for eye in self._scene.camera:
            eye.pos, eye.forward, eye.up = pose.position, pose.rotation[:, 2], -pose.rotation[:, 1]
        # Segmentation drawing leaves the textures out.
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = not colour
        mujoco.mjr_render(self._rect, self._scene, self._context)
        self._drawn, self._coloured = pose, colour

    def close(self) -> None:
        """Frees the GL context; closing twice does nothing."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._context = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open_gl(width: int, height: int) -> mujoco.gl_context.GLContext:
    choice = os.environ.get("MUJOCO_GL", "egl")
    try:
        if choice == "egl":
            # Not through mujoco.gl_context, which prefers a window.
            from mujoco.egl import GLContext
        else:
            from mujoco.gl_context import GLContext
        return GLContext(width, height)
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise RuntimeError(
            f"cannot open OpenGL with MUJOCO_GL={choice} ({error}); on Debian and"
            " Ubuntu: apt install libegl1 libgl1-mesa-dri"
        ) from error
