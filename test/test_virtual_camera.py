"""The virtual camera as a process, over DDS."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from dds import Peer
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.messages import stamp_ns
from mono_depth_ros.ros_process import process_environment

DOMAIN = 87
DEADLINE_S = 90.0  # a busy machine takes its time to build a room

pytestmark = pytest.mark.slow


def start(*parameters: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mono_depth_ros.virtual_camera", "--ros-args"]
    for parameter in parameters:
        command += ["-p", parameter]
    return subprocess.Popen(
        command,
        env=process_environment(DOMAIN),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Listener:
    """Subscribes to all three topics and keeps what it hears."""

    def __init__(self, reliability: ReliabilityPolicy) -> None:
        self.peer = Peer(DOMAIN)
        self.heard: dict[str, dict[int, Any]] = {}
        qos = QoSProfile(depth=10, reliability=reliability)
        if reliability == ReliabilityPolicy.BEST_EFFORT:
            qos = qos_profile_sensor_data
        topics = {"image_raw": Image, "camera_info": CameraInfo, "depth/ground_truth": Image}
        for topic, kind in topics.items():
            self.heard[topic] = {}
            self.peer.node.create_subscription(kind, topic, self._keep(topic), qos)

    def _keep(self, topic: str) -> Any:
        def callback(message: Any) -> None:
            self.heard[topic][stamp_ns(message.header)] = message

        return callback

    def complete(self) -> list[int]:
        """Stamps for which every topic was heard."""
        stamps = [set(messages) for messages in self.heard.values()]
        return sorted(set.intersection(*stamps))

    def listen(self, count: int, process: subprocess.Popen[str]) -> None:
        """Spins until `count` complete frames were heard."""
        end = time.monotonic() + DEADLINE_S
        while len(self.complete()) < count:
            self.peer.spin(0.1)
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, {k: len(v) for k, v in self.heard.items()}


@pytest.fixture(params=[ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT])
def listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    made = Listener(request.param)
    with made.peer:
        yield made


def finish(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Signals the process and holds it to a clean end."""
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in err, err


def test_wall_messages(listener: Listener) -> None:
    process = start("scene:=wall", "wall_distance_m:=2.0", "width:=320", "height:=200",
                    "hfov_deg:=70.0", "rate:=10.0", "frame_id:=eye")  # fmt: skip
    try:
        listener.listen(15, process)
    finally:
        finish(process, signal.SIGINT)
    camera = CameraModel.from_hfov(320, 200, 70)
    for stamp in listener.complete():
        image, info, depth = (messages[stamp] for messages in listener.heard.values())
        assert {m.header.frame_id for m in (image, info, depth)} == {"eye"}
        assert (image.encoding, image.width, image.height, image.step) == ("rgb8", 320, 200, 960)
        assert (depth.encoding, depth.width, depth.height, depth.step) == ("32FC1", 320, 200, 1280)
        metres = np.frombuffer(depth.data, np.float32)
        np.testing.assert_allclose(metres, 2.0, atol=0.002)
        assert np.frombuffer(image.data, np.uint8).std() > 10
    assert (info.width, info.height, info.distortion_model) == (320, 200, "plumb_bob")
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), camera.matrix())
    np.testing.assert_allclose(np.reshape(info.p, (3, 4))[:, :3], camera.matrix())
    np.testing.assert_allclose(np.reshape(info.r, (3, 3)), np.eye(3))
    assert not any(info.d)
    # Loose: other work may share the processor. A burst or a free run would be far faster.
    stamps = np.diff(listener.complete()) * 1e-9
    assert 0.08 < np.median(stamps) < 0.3


@pytest.mark.parametrize("listener", [ReliabilityPolicy.RELIABLE], indirect=True)
def test_room_moves_and_stops_on_sigterm(listener: Listener) -> None:
    process = start("width:=160", "height:=120", "fx:=150.0", "fy:=140.0", "seed:=4", "rate:=5.0")
    try:
        listener.listen(6, process)
    finally:
        finish(process, signal.SIGTERM)
    stamps = listener.complete()
    first, last = (listener.heard["depth/ground_truth"][stamps[i]] for i in (0, -1))
    a, b = (np.frombuffer(message.data, np.float32) for message in (first, last))
    assert np.isfinite(a).all() and a.min() > 0.3 and a.max() < 9
    assert np.abs(a - b).mean() > 0.01
    info = listener.heard["camera_info"][stamps[0]]
    assert (info.k[0], info.k[4], info.k[2], info.k[5]) == (150.0, 140.0, 79.5, 59.5)


@pytest.mark.parametrize("listener", [ReliabilityPolicy.RELIABLE], indirect=True)
def test_prerendered_frames_play_to_and_fro_with_stamps_of_their_own(listener: Listener) -> None:
    process = start("width:=64", "height:=48", "rate:=10.0", "prerender:=3", "mount_height_m:=0.5")
    try:
        listener.listen(12, process)
    finally:
        finish(process, signal.SIGINT)
    stamps = listener.complete()
    assert len(set(stamps)) == len(stamps) >= 12
    rendered = {
        topic: {bytes(message.data) for message in listener.heard[topic].values()}
        for topic in ("image_raw", "depth/ground_truth")
    }
    assert {topic: len(payloads) for topic, payloads in rendered.items()} == {
        "image_raw": 3,
        "depth/ground_truth": 3,
    }
    # The two that belong together stay together.
    pairs = {
        (
            bytes(listener.heard["image_raw"][s].data),
            bytes(listener.heard["depth/ground_truth"][s].data),
        )
        for s in stamps
    }
    assert len(pairs) == 3


@pytest.mark.parametrize("listener", [ReliabilityPolicy.RELIABLE], indirect=True)
def test_mounted_camera_sees_the_floor_at_its_height(listener: Listener) -> None:
    """Looking down steeply, the bottom row sees the floor, whose depth geometry tells."""
    height, pitch = 0.5, 60.0
    process = start("width:=64", "height:=48", "hfov_deg:=60.0", "rate:=5.0", "seed:=4",
                    f"mount_height_m:={height}", f"mount_pitch_deg:={pitch}")  # fmt: skip
    try:
        listener.listen(2, process)
    finally:
        finish(process, signal.SIGINT)
    camera = CameraModel.from_hfov(64, 48, 60)
    below = np.arctan((47 - camera.cy) / camera.fy)
    ray = height / np.sin(np.deg2rad(pitch) + below)
    for message in listener.heard["depth/ground_truth"].values():
        bottom = np.frombuffer(message.data, np.float32).reshape(48, 64)[-1, 31]
        # A rug lies 1 cm above the floor.
        assert bottom == pytest.approx(ray * np.cos(below), abs=0.012)


@pytest.mark.parametrize("listener", [ReliabilityPolicy.RELIABLE], indirect=True)
def test_tf_leads_from_odom_to_the_camera_at_each_image(listener: Listener) -> None:
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not installed")
    listener.peer.hear(tf2_msgs.TFMessage, "/tf", 100)
    process = start("scene:=wall", "width:=64", "height:=48", "rate:=10.0", "frame_id:=eye")
    try:
        listener.listen(5, process)
    finally:
        finish(process, signal.SIGINT)
    heard = {stamp_ns(m.transforms[0].header): m for m in listener.peer.heard["/tf"]}
    assert len(set(listener.complete()) & set(heard)) >= 3
    for message in heard.values():
        chain = [(t.header.frame_id, t.child_frame_id) for t in message.transforms]
        assert chain == [("odom", "base_footprint"), ("base_footprint", "eye")]


def test_without_tf2_msgs_it_says_so_and_goes_on() -> None:
    if importlib.util.find_spec("tf2_msgs"):
        pytest.skip("tf2_msgs is installed")
    said = {}
    for value in ("true", "false"):
        process = start(
            "scene:=wall", "width:=32", "height:=24", "frames:=1", f"publish_tf:={value}"
        )
        out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, (out, err)
        said[value] = "tf2_msgs is not installed" in out + err
    assert said == {"true": True, "false": False}


def test_frames_ends_the_process() -> None:
    process = start("scene:=wall", "width:=32", "height:=24", "frames:=3", "rate:=50.0")
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, (out, err)


@pytest.mark.parametrize(
    ("parameter", "mentions"),
    [
        ("width:=0", "width"),
        ("width:=wide", "width"),
        ("hfov_deg:=180.0", "hfov_deg"),
        ("rate:=-1.0", "rate"),
        ("scene:=garden", "garden"),
        ("fy:=300.0", "fx"),
        ("wall_distance_m:=0.0", "wall_distance_m"),
        ("prerender:=500", "only 499 frames of 640x480 fit in 1024 MB"),
        ("mount_pitch_deg:=90.0", "mount_pitch_deg"),
    ],
)
def test_bad_parameter(parameter: str, mentions: str) -> None:
    process = start("scene:=wall", "frames:=1", parameter)
    _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode not in (0, None)
    lines = [line for line in err.splitlines() if line.strip() and "[INFO]" not in line]
    assert len(lines) == 1 and mentions in lines[0], err


def test_help_shows_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mono_depth_ros.virtual_camera", "--help"],
        env=process_environment(DOMAIN),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0 and "examples:" in done.stdout
