"""PLY files, taken apart byte by byte."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.cloud import DTYPE, CloudBuilder
from mono_depth_ros.ply import write_ply

NAN, INF = float("nan"), float("inf")


def parse(data: bytes) -> tuple[list[str], list[tuple[float, float, float, int, int, int]]]:
    """Header lines and vertices of a binary little-endian PLY with nothing but them in it."""
    head, mark, body = data.partition(b"end_header\n")
    assert mark
    lines = head.decode("ascii").splitlines()
    (count,) = [int(line.split()[2]) for line in lines if line.startswith("element vertex ")]
    size = struct.calcsize("<fffBBB")
    assert len(body) == count * size
    return lines, [struct.unpack_from("<fffBBB", body, i * size) for i in range(count)]


def test_header_names_format_frame_units_and_layout(tmp_path: Path) -> None:
    write_ply(tmp_path / "cloud.ply", np.zeros(2, DTYPE))
    lines, _ = parse((tmp_path / "cloud.ply").read_bytes())
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    comments = " ".join(line for line in lines if line.startswith("comment "))
    assert "metres" in comments
    assert "optical frame" in comments
    assert [line for line in lines if line.startswith("property")] == [
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
    ]


def test_finite_points_are_written_in_order_with_their_colours(tmp_path: Path) -> None:
    cloud = np.array(
        [
            [(1.5, -2.25, 3.0, 0x00FF8001), (NAN, 0, 1, 0x00FFFFFF)],
            [(0, 0, INF, 0x00FFFFFF), (-0.5, 0.125, 0.75, 0x00102030)],
        ],
        DTYPE,
    )
    assert write_ply(tmp_path / "cloud.ply", cloud) == 2
    _, vertices = parse((tmp_path / "cloud.ply").read_bytes())
    assert vertices == [(1.5, -2.25, 3.0, 255, 128, 1), (-0.5, 0.125, 0.75, 16, 32, 48)]


def test_a_built_cloud_back_projects_to_the_right_place(tmp_path: Path) -> None:
    camera = CameraModel(4, 3, fx=2.0, fy=4.0, cx=1.0, cy=1.0)
    depth = np.full((3, 4), np.nan, np.float32)
    depth[2, 3], depth[0, 0] = 8.0, -np.inf
    image = np.zeros((3, 4, 3), np.uint8)
    image[2, 3] = (10, 20, 30)
    write_ply(tmp_path / "cloud.ply", CloudBuilder(camera).build(depth, image))
    _, vertices = parse((tmp_path / "cloud.ply").read_bytes())
    # x = (3 - 1) * 8 / 2, y = (2 - 1) * 8 / 4
    assert vertices == [(8.0, 2.0, 8.0, 10, 20, 30)]


def test_a_cloud_without_points_is_still_a_ply(tmp_path: Path) -> None:
    cloud = np.array([(NAN, NAN, NAN, 0)] * 3, DTYPE)
    assert write_ply(tmp_path / "cloud.ply", cloud) == 0
    assert parse((tmp_path / "cloud.ply").read_bytes())[1] == []


def test_replaces_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    path.write_bytes(b"old")
    write_ply(path, np.zeros(1, DTYPE))
    assert [entry.name for entry in tmp_path.iterdir()] == ["cloud.ply"]
    assert len(parse(path.read_bytes())[1]) == 1
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(OSError, match=r"cloud\.ply"):
        write_ply(path, np.zeros(1, DTYPE))
    assert [entry.name for entry in tmp_path.iterdir()] == ["cloud.ply"]
    with pytest.raises(FileNotFoundError):
        write_ply(tmp_path / "nowhere" / "cloud.ply", np.zeros(1, DTYPE))
