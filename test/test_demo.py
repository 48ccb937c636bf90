"""The demo and the benchmark as commands: two ROS processes over DDS, files and figures out."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField

from mono_depth_ros.demo import Offer, Recording, optical_points, summarise, topics_table
from mono_depth_ros.output_profiles import CloudLayout

ROOT = Path(__file__).parent.parent


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_summary_figures() -> None:
    """Ten frames a second, latencies of 10, 20, ... 100 ms."""
    stamps = [i * 100_000_000 for i in range(10)]
    arrivals = [(s, s + (i + 1) * 10_000_000) for i, s in enumerate(stamps)]
    summary = summarise(Recording([-5, *stamps, 10**9, 11**9], arrivals, engine="e"), [])
    assert summary["rate_hz"] == pytest.approx(9 / 0.99, abs=0.01)
    assert summary["latency_ms_p50"] == 55.0 and summary["latency_ms_p95"] == 95.5
    assert summary["latency_ms_p50_first_quarter"] == 15.0
    assert summary["latency_ms_p50_last_quarter"] == 95.0
    assert (summary["frames_in"], summary["frames_out"]) == (12, 10)
    assert summary["abs_rel"] is None


def cloud(step: int, rgb_offset: int, points: list[tuple[float, float, float, int]]) -> PointCloud2:
    """One row of points of `step` bytes, with rubbish between the fields."""
    message = PointCloud2(height=1, width=len(points), point_step=step)
    for name, offset in (("x", 0), ("y", 4), ("z", 8), ("rgb", rgb_offset)):
        message.fields.append(PointField(name=name, offset=offset, datatype=7, count=1))
    data = bytearray(b"\x7f" * step * len(points))
    for i, (x, y, z, rgb) in enumerate(points):
        struct.pack_into("<fff", data, i * step, x, y, z)
        struct.pack_into("<I", data, i * step + rgb_offset, rgb)
    message.data = bytes(data)
    return message


@pytest.mark.parametrize(("step", "rgb_offset"), [(16, 12), (20, 16), (32, 16)])
def test_clouds_of_every_layout_are_read(step: int, rgb_offset: int) -> None:
    given = [(1.0, -2.0, 3.0, 0x102030), (0.5, 0.25, 8.0, 0xFF00AA)]
    points = optical_points(cloud(step, rgb_offset, given), CloudLayout(step, rgb_offset))
    assert points.shape == (1, 2)
    assert [tuple(point) for point in points[0]] == given


def test_a_cloud_in_a_body_frame_is_turned_into_the_optical_one() -> None:
    """3 m ahead, 1 m to the left, 2 m up."""
    points = optical_points(cloud(16, 12, [(3.0, 1.0, 2.0, 7)]), CloudLayout(forward="x"))
    assert [tuple(point) for point in points[0]] == [(-1.0, -2.0, 3.0, 7)]


def test_topics_table_leaves_out_what_was_not_heard() -> None:
    table = topics_table(
        [
            Offer("/depth", "sensor_msgs/msg/Image", "reliable", "4x3 16UC1", "eye", 9.96),
            Offer("/scan", "sensor_msgs/msg/LaserScan", "best_effort"),
        ]
    )
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
    assert cells[0] == ["topic", "type", "reliability", "format", "frame", "Hz"]
    assert cells[2] == ["/depth", "sensor_msgs/msg/Image", "reliable", "4x3 16UC1", "eye", "10.0"]
    assert cells[3] == ["/scan", "sensor_msgs/msg/LaserScan", "best_effort", "", "", ""]


# As its driver has them: https://github.com/realsenseai/realsense-ros, "Published Topics".
REALSENSE = {
    "/camera/camera/depth/image_rect_raw": "sensor_msgs/msg/Image",
    "/camera/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/camera/aligned_depth_to_color/image_raw": "sensor_msgs/msg/Image",
    "/camera/camera/aligned_depth_to_color/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/camera/color/image_raw": "sensor_msgs/msg/Image",
    "/camera/camera/color/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/camera/depth/color/points": "sensor_msgs/msg/PointCloud2",
}


@pytest.mark.slow
def test_demo_shows_the_topics_of_a_realsense(tmp_path: Path) -> None:
    done = run(
        "mono_depth_ros.demo", "--profile", "realsense", "--seconds", "3", "--rate", "8",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, kind in REALSENSE.items():
        assert any(name in line and kind in line for line in done.stdout.splitlines()), name
    summary = json.loads((tmp_path / "summary.json").read_text())
    topics = {topic["name"]: topic for topic in summary["topics"]}
    assert {name: topics[name]["type"] for name in REALSENSE} == REALSENSE
    assert "/depth/image_rect" not in topics and "/points" not in topics
    assert all(topics[name]["reliability"] == "reliable" for name in REALSENSE)
    depth = topics["/camera/camera/depth/image_rect_raw"]
    assert (depth["format"], depth["frame"]) == ("640x480 16UC1", "camera_depth_optical_frame")
    aligned = topics["/camera/camera/aligned_depth_to_color/image_raw"]
    assert (aligned["format"], aligned["frame"]) == ("640x480 16UC1", "camera_color_optical_frame")
    info = topics["/camera/camera/depth/camera_info"]
    assert info["format"] == "640x480 plumb_bob" and info["rate_hz"] > 0
    points = topics["/camera/camera/depth/color/points"]
    assert points["format"].endswith("x1 x y z rgb, 20 bytes") and points["rate_hz"] > 0
    assert topics["/camera/camera/color/image_raw"]["rate_hz"] is None
    assert 0 < summary["abs_rel"] < 0.5
    header, _, body = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    assert count > 100_000 and len(body) == count * 15


@pytest.mark.slow
def test_demo_shows_depth_near_the_simulators(tmp_path: Path) -> None:
    done = run("mono_depth_ros.demo", "--seconds", "5", "--rate", "8", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames_out"] > 5 and summary["clouds_out"] > 5
    assert summary["frames_in"] >= summary["frames_out"]
    assert summary["engine"].startswith("openvino")
    assert 0 < summary["latency_ms_p50"] <= summary["latency_ms_p95"]
    # A constant guess of 2.5 m is worse than this; broken scale or geometry is far worse.
    assert 0 < summary["abs_rel"] < 0.5 and summary["images_compared"] >= 2
    video = cv2.VideoCapture(str(tmp_path / "side_by_side.mp4"))
    ok, frame = video.read()
    assert ok and frame.shape[1] == 3 * 640
    panel = cv2.imread(str(tmp_path / "panel.png"))
    assert panel is not None and panel.std() > 20
    header, _, body = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    assert count > 100_000 and len(body) == count * 15
    z = np.array([struct.unpack_from("<fff", body, i * 15)[2] for i in range(0, count, 997)])
    assert (z > 0.1).all() and (z < 10).all()
    offered = {topic["name"]: topic for topic in summary["topics"]}
    assert offered["/depth/image_rect"]["format"] == "640x480 32FC1"
    assert offered["/points"]["format"] == "640x480 x y z rgb, 16 bytes"
    assert offered["/scan"]["type"] == "sensor_msgs/msg/LaserScan"


@pytest.mark.slow
def test_demo_without_depth_fails_and_says_why(tmp_path: Path) -> None:
    done = run("mono_depth_ros.demo", "--model", "nowhere.onnx", "--out", str(tmp_path))
    assert done.returncode != 0
    assert "no depth" in done.stderr and "nowhere.onnx: no such model file" in done.stderr


@pytest.mark.slow
def test_bench_writes_every_row_and_stage(tmp_path: Path) -> None:
    path = tmp_path / "out" / "bench.json"
    done = run(
        "mono_depth_ros.depth_bench", "--engine", "openvino", "onnx", "--precision", "float32",
        "--repeat", "50", "--stages", "--node", "--json", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert [row["engine"] for row in result["rows"]] == ["openvino", "onnx"]
    assert all(0 < row["ms_p50"] <= row["ms_p95"] <= row["ms_p99"] for row in result["rows"])
    stages = " ".join(stage["stage"] for stage in result["stages"])
    for word in ("resize", "up-sampling", "cloud", "stamp to last publish"):
        assert word in stages
