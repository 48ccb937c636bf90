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
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from mono_depth_ros.demo import Recording, stamp_of, summarise

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


def test_stamp_is_read_from_the_serialised_message() -> None:
    message = Image(encoding="mono8")
    message.header.stamp.sec, message.header.stamp.nanosec = 1234567890, 987654321
    assert stamp_of(serialize_message(message)) == 1234567890987654321


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
