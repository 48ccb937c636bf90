"""The virtual stereo pair whose left camera is the real one: its disparity, its right camera."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel

# Below min_disparity, as stereo_msgs/DisparityImage has it for pixels without a match.
INVALID = -1.0


def disparity(
    depth: npt.NDArray[np.float32],
    fx: float,
    baseline: float,
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Disparity d = f T / Z in pixels, the Z = f T / d of stereo_msgs/DisparityImage solved for d.

    Args:
        depth: HxW float32 metres along Z, above 0; what is not finite is invalid.
        fx: horizontal focal length in pixels.
        baseline: T in metres.
        out: HxW float32, contiguous, to fill; not `depth` itself. None allocates.

    Returns:
        HxW float32, `INVALID` where depth is.
    """
    if out is None:
        out = np.empty(depth.shape, np.float32)
    # Both infinities times 0, plus themselves, are NaN.
    with np.errstate(invalid="ignore"):
        np.multiply(depth, np.float32(0), out=out)
        np.add(depth, out, out=out)
    np.divide(np.float32(fx * baseline), out, out=out)
    cv2.patchNaNs(out, INVALID)
    return out


def right_projection(camera: CameraModel, baseline: float) -> tuple[float, ...]:
    """P of the right camera's CameraInfo: 3x4 row-major.

    P[3] = -f T, so that the optical centre of the right camera lies at x = T in the left one's
    frame, in which both images are rectified: sensor_msgs/CameraInfo.
    """
    return (
        *(camera.fx, 0.0, camera.cx, -camera.fx * baseline),
        *(0.0, camera.fy, camera.cy, 0.0),
        *(0.0, 0.0, 1.0, 0.0),
    )
