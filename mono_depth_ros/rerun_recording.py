"""Cameras, depth, clouds and scans as a Rerun recording, and the layout to see them in. No ROS.

Needs the package rerun-sdk, which is not installed with the rest: requirements/view.txt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import rerun as rr
import rerun.blueprint as rrb

from mono_depth_ros.camera import CameraModel

APPLICATION = "mono_depth_ros"
# Timelines: when the image was taken, its number, and for a video seconds since it began.
STAMP, FRAME, VIDEO = "stamp", "frame", "video"
# The camera is drawn this small (metres) so that it does not stand in front of its own cloud.
_IMAGE_PLANE_M = 0.3
_POINT_RADIUS = rr.Radius.ui_points(1.5)
_SCAN_RADIUS = rr.Radius.ui_points(3.0)
_SCAN_COLOUR = 0xFF3030FF
# Numbers with these units are plotted.
_PLOTS = {"_ms": "milliseconds", "_hz": "hertz"}


def thinning(height: int, width: int, max_points: int) -> int:
    """The smallest stride s that leaves at most `max_points` >= 1 of height x width points.

    With it both rows and columns are thinned; a single row has columns only.
    """

    def left(s: int) -> int:
        return math.ceil(height / s) * math.ceil(width / s)

    stride = 1 if height == 0 or width == 0 else math.isqrt(height * width // max_points) or 1
    while left(stride) > max_points:
        stride += 1
    return stride


class CameraRecording:
    """What one camera sees. Entities are below `path`, whose space is the camera's optical frame
    (REP 103: x right, y down, z forward).

    Args:
        stream: where to log.
        path: entity path, such as the camera's namespace.
        max_depth: metres at which the colours of depth end.
    """

    def __init__(self, stream: rr.RecordingStream, path: str, max_depth: float = 10.0) -> None:
        self._stream, self.path, self._max_depth = stream, path, max_depth
        stream.log(path, rr.ViewCoordinates.RDF, static=True)

    def set_time(
        self, frame: int, *, stamp_ns: int | None = None, video_s: float | None = None
    ) -> None:
        """Sets the times of what is logged next; a time that is not known is left out."""
        self._stream.reset_time()
        self._stream.set_time(FRAME, sequence=frame)
        if stamp_ns is not None:
            self._stream.set_time(STAMP, timestamp=np.datetime64(stamp_ns, "ns"))
        if video_s is not None:
            self._stream.set_time(VIDEO, duration=video_s)

    def log_camera(self, camera: CameraModel) -> None:
        """Logs intrinsics of the rectified image."""
        k = camera.matrix()
        # Rerun has the origin at the corner of the first pixel, not at its centre.
        k[:2, 2] += 0.5
        self._stream.log(
            f"{self.path}/camera",
            rr.Pinhole(
                image_from_camera=k,
                resolution=[camera.width, camera.height],
                camera_xyz=rr.ViewCoordinates.RDF,
                image_plane_distance=_IMAGE_PLANE_M,
            ),
        )

    def log_image(self, image: npt.NDArray[np.uint8]) -> None:
        """Logs HxWx3 uint8 RGB."""
        self._stream.log(f"{self.path}/camera/image", rr.Image(image))

    def log_depth(self, depth: npt.NDArray[np.float32]) -> None:
        """Logs HxW float32 metres along Z."""
        self._stream.log(
            f"{self.path}/camera/depth",
            rr.DepthImage(
                depth,
                meter=1.0,
                colormap="plasma",
                depth_range=(0.0, self._max_depth),
            ),
        )

    def log_points(
        self, positions: npt.NDArray[np.float32], rgb: npt.NDArray[np.uint32] | None
    ) -> None:
        """Logs a cloud.

        Args:
            positions: Nx3 float32 metres in the optical frame, finite.
            rgb: N uint32 0x00RRGGBB, or None.
        """
        colours = None if rgb is None else rgb << np.uint32(8) | np.uint32(0xFF)
        self._stream.log(
            f"{self.path}/points", rr.Points3D(positions, colors=colours, radii=_POINT_RADIUS)
        )

    def log_scan(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> None:
        """Logs a laser scan that was taken where the camera is.

        Args:
            x, y: N float32 metres forward and to the left, finite.
        """
        positions = np.stack([-y, np.zeros_like(x), x], axis=-1)
        self._stream.log(
            f"{self.path}/scan", rr.Points3D(positions, colors=_SCAN_COLOUR, radii=_SCAN_RADIUS)
        )

    def log_figures(self, figures: Mapping[str, float]) -> None:
        """Logs numbers for the plots by name; those in units that have no plot are left out."""
        for name, value in figures.items():
            for unit, plot in _PLOTS.items():
                if unit in name and math.isfinite(value):
                    self._stream.log(f"{self.path}/{plot}/{name}", rr.Scalars(value))

    def log_status(self, level: str, text: str) -> None:
        """Logs what the node says of itself; `level` is INFO, WARN or ERROR."""
        self._stream.log(f"{self.path}/status", rr.TextLog(text, level=level))


def layout(paths: Sequence[str], timeline: str, with_points: bool = True) -> rrb.Blueprint:
    """One row per camera: the cloud, and beside it the image over the depth; below, the plots.

    Args:
        paths: of the cameras.
        timeline: that the viewer follows.
        with_points: whether clouds are logged; if not, the viewer makes one of the depth.
    """
    rows = [
        rrb.Horizontal(
            rrb.Spatial3DView(
                origin=path,
                contents=["+ $origin/**", *(["- $origin/camera/depth"] if with_points else [])],
                name=f"{path} in 3D",
                eye_controls=rrb.EyeControls3D(
                    position=(0.8, -0.9, -1.2), look_target=(0, 0.2, 2.0), eye_up=(0, -1, 0)
                ),
            ),
            rrb.Vertical(
                *(
                    rrb.Spatial2DView(
                        origin=f"{path}/camera",
                        contents=f"$origin/{what}",
                        name=f"{path} {what}",
                    )
                    for what in ("image", "depth")
                )
            ),
            column_shares=[2, 1],
        )
        for path in paths
    ]
    plots = [
        rrb.TimeSeriesView(
            origin="/", contents=[f"+ /{path}/{plot}/**" for path in paths], name=plot
        )
        for plot in _PLOTS.values()
    ]
    status = rrb.TextLogView(
        origin="/", contents=[f"+ /{path}/status" for path in paths], name="status"
    )
    return rrb.Blueprint(
        rrb.Vertical(
            *rows,
            rrb.Horizontal(*plots, status),
            row_shares=[*[3] * len(rows), 1],
        ),
        rrb.TimePanel(state="collapsed", timeline=timeline, play_state="following"),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        auto_views=False,
    )
