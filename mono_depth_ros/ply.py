"""Coloured point clouds as binary PLY files, for CloudCompare, MeshLab, Open3D and Blender."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mono_depth_ros.atomic import replacing

_VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)
_HEADER = """\
ply
format binary_little_endian 1.0
comment frame: camera optical frame (REP 103): x right, y down, z forward
comment units: metres
element vertex {count}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
end_header
"""


def write_ply(path: Path, cloud: npt.NDArray[np.void]) -> int:
    """Writes the points of a cloud that are finite; the file appears whole or not at all.

    Args:
        path: file to write or replace.
        cloud: array of any shape with the fields of `mono_depth_ros.cloud.DTYPE`: x, y, z in
            metres, rgb as 0x00RRGGBB; points with NaN or infinity are left out.

    Returns:
        Number of points written; 0 makes a valid file without points.

    Raises:
        OSError: the file cannot be written.
    """
    points = cloud[np.isfinite(cloud["x"]) & np.isfinite(cloud["y"]) & np.isfinite(cloud["z"])]
    vertices = np.empty(points.size, _VERTEX)
    for axis in "xyz":
        vertices[axis] = points[axis]
    for colour, shift in (("red", 16), ("green", 8), ("blue", 0)):
        vertices[colour] = points["rgb"] >> shift & 0xFF
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_HEADER.format(count=points.size).encode("ascii"))
        file.write(vertices.tobytes())
    return int(points.size)
