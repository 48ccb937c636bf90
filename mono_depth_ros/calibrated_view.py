"""The camera behind images of any size: what is known of it, and its geometry at each size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.estimator import Rectifier

# Images of one camera at several sizes keep its aspect ratio but for rounding.
_ASPECT_TOLERANCE = 0.01


class CameraError(ValueError):
    """Intrinsics that are unusable or do not fit the images; the message names the remedy."""


def resized(calibration: Calibration, width: int, height: int) -> Calibration:
    """The calibration of the same view, resampled to width x height pixels.

    Distortion acts on rays, so its coefficients stay. Binning and region of interest must be unset.

    Raises:
        ValueError: another aspect ratio, so not the same view.
    """
    sx, sy = width / calibration.width, height / calibration.height
    if abs(sx / sy - 1) > _ASPECT_TOLERANCE:
        raise ValueError(
            f"this calibration is for {calibration.width}x{calibration.height}, the image is"
            f" {width}x{height}: not the same view; use images of the calibrated camera, or --hfov"
        )
    # Pixel centres are whole numbers, so the image's corner is at (-0.5, -0.5).
    resize = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    k, p = np.reshape(calibration.k, (3, 3)), np.reshape(calibration.p, (3, 4))
    return replace(
        calibration,
        width=width,
        height=height,
        k=tuple((resize @ k).ravel().tolist()),
        p=tuple((resize @ p).ravel().tolist()),
    )


class View:
    """A camera at one image size.

    Attributes:
        rectifier: from raw to rectified images.

    Raises:
        ValueError: the calibration is not usable.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.rectifier = Rectifier(calibration)
        self._turned = not np.allclose(calibration.r, Calibration.r, atol=1e-6)

    def rectify_depth(self, depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Measured depth of the raw image -> of the rectified one, without mixing pixels.

        Args:
            depth: HxW float32 metres along Z, NaN where not measured.

        Returns:
            HxW float32 metres, NaN where the raw image does not reach.

        Raises:
            CameraError: rectification turns the camera, which changes Z.
        """
        if self.rectifier.maps is None:
            return depth
        if self._turned:
            raise CameraError(
                "the calibration's rectification matrix turns the camera, which measured depth"
                " cannot follow; use a monocular calibration"
            )
        # By hand, since cv2.remap with INTER_NEAREST rounds these fixed-point maps (a whole pixel
        # and 32nds of one, y before x) in some versions of OpenCV and cuts them off in others.
        fixed, fraction, outside = self.rectifier.maps
        columns = fixed[..., 0] + (fraction % 32 >= 16)
        rows = fixed[..., 1] + (fraction // 32 >= 16)
        height, width = depth.shape
        nearest: npt.NDArray[np.float32] = depth[
            rows.clip(0, height - 1), columns.clip(0, width - 1)
        ]
        nearest[outside] = np.nan
        return nearest


class Views:
    """The view for each image size.

    Args:
        known: a calibration, or a horizontal field of view in degrees.
        origin: the file or option that it is from, for messages.
    """

    def __init__(self, known: Calibration | float, origin: str) -> None:
        self._known, self._origin = known, origin
        self._size: tuple[int, int] | None = None
        self._view: View | None = None

    def at(self, width: int, height: int) -> View:
        """The view for images of a size in pixels; kept until the size changes.

        Raises:
            CameraError: the calibration is not usable, or not for images of this shape.
        """
        if self._view is None or self._size != (width, height):
            try:
                if isinstance(self._known, Calibration):
                    calibration = resized(self._known, width, height)
                else:
                    k = CameraModel.from_hfov(width, height, self._known).matrix()
                    calibration = Calibration(width, height, tuple(k.ravel().tolist()))
                self._view, self._size = View(calibration), (width, height)
            except ValueError as error:
                raise CameraError(f"{self._origin}: {error}") from None
        return self._view
