"""What is taken from tf, and what is given to it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import pytest
import tf_stand_in
from builtin_interfaces.msg import Time
from node_rig import OWN_DOMAIN, Rig, flat
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import LaserScan

from mono_depth_ros.mounting import Mounting
from mono_depth_ros.output_profiles import StaticFrame
from mono_depth_ros.tf_frames import TfFrames, level_frame


class Publisher:
    def __init__(self, topic: str, qos: QoSProfile) -> None:
        self.topic, self.qos = topic, qos
        self.sent: list[Any] = []

    def publish(self, message: Any) -> None:
        self.sent.append(message)


class Clock:
    def now(self) -> Clock:
        return self

    def to_msg(self) -> Time:
        return Time(sec=7)


class Node:
    """What `TfFrames` needs of one; a real publisher needs the real message."""

    def __init__(self) -> None:
        self.publishers: list[Publisher] = []

    def create_publisher(self, kind: type, topic: str, qos: QoSProfile) -> Publisher:
        self.publishers.append(Publisher(topic, qos))
        return self.publishers[-1]

    def get_clock(self) -> Clock:
        return Clock()


@pytest.fixture
def tf(monkeypatch: pytest.MonkeyPatch) -> None:
    tf_stand_in.install(monkeypatch)


def turned(quaternion: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """3x3 rotation of x, y, z, w: columns are q e q*, term by term."""
    x, y, z, w = quaternion
    columns = []
    for e in np.eye(3):
        t = 2 * np.cross((x, y, z), e)
        columns.append(e + w * t + np.cross((x, y, z), t))
    return np.stack(columns, axis=1)


def product(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, ...]:
    """Quaternions x, y, z, w: first b, then a."""
    v = a[3] * np.array(b[:3]) + b[3] * np.array(a[:3]) + np.cross(a[:3], b[:3])
    return (*v, a[3] * b[3] - float(np.dot(a[:3], b[:3])))


def optical(yaw_deg: float, pitch_deg: float) -> tuple[float, ...]:
    """x, y, z, w of an optical frame in a base frame: yawed, pitched down, and turned as REP 103
    turns a body frame.
    """
    yaw, pitch = math.radians(yaw_deg) / 2, math.radians(pitch_deg) / 2
    about_z = (0.0, 0.0, math.sin(yaw), math.cos(yaw))
    about_y = (0.0, math.sin(pitch), 0.0, math.cos(pitch))
    return product(product(about_z, about_y), (-0.5, 0.5, -0.5, 0.5))


# The level frame


@pytest.mark.parametrize(
    ("camera", "level"),
    [
        ("front_camera_optical_frame", "front_camera_level_frame"),
        ("zed_left_camera_frame_optical", "zed_left_camera_level_frame"),
        ("eye", "eye_level_frame"),
    ],
)
def test_the_level_frame_is_called_after_the_camera(camera: str, level: str) -> None:
    frame = level_frame(camera, Mounting.from_angles(0.5))
    assert (frame.parent, frame.child) == (camera, level)
    assert frame.translation == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("pitch", [-30.0, 0.0, 12.0, 80.0])
def test_the_level_frame_looks_ahead_and_up(pitch: float) -> None:
    rotation = turned(level_frame("eye", Mounting.from_angles(0.5, pitch)).rotation)
    c, s = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    # Seen in the optical frame (x right, y down, z forward) of a camera that looks down by pitch.
    ahead, left, up = (0, -s, c), (-1, 0, 0), (0, -c, -s)
    np.testing.assert_allclose(rotation, np.transpose([ahead, left, up]), atol=1e-9)


# Taken from tf


@pytest.mark.parametrize("yaw", [0.0, 35.0, 180.0, -90.0])
@pytest.mark.parametrize("pitch", [-20.0, 0.0, 15.0])
def test_a_mounting_is_what_tf_says_whatever_the_heading(
    tf: None, yaw: float, pitch: float
) -> None:
    tf_stand_in.know("base_link", "eye", (0.3, -0.2, 0.7), optical(yaw, pitch))
    mounting = TfFrames(Node()).mounting("base_link", "eye")
    assert mounting.height == 0.7
    expected = Mounting.from_angles(0.7, pitch).matrix()
    np.testing.assert_allclose(mounting.matrix(), expected, atol=1e-9)


def test_a_mounting_that_hardly_changes_is_the_same_object(tf: None) -> None:
    frames = TfFrames(Node())
    tf_stand_in.know("base_link", "eye", (0, 0, 0.7), optical(0, 10))
    first = frames.mounting("base_link", "eye")
    tf_stand_in.know("base_link", "eye", (0.1, 0.1, 0.702), optical(40, 10.1))
    assert frames.mounting("base_link", "eye") is first
    tf_stand_in.know("base_link", "eye", (0, 0, 0.7), optical(0, 11))
    pitched = frames.mounting("base_link", "eye")
    assert pitched is not first
    tf_stand_in.know("base_link", "eye", (0, 0, 0.72), optical(0, 11))
    assert frames.mounting("base_link", "eye").height == 0.72


def test_a_slow_change_is_not_missed_for_coming_in_small_steps(tf: None) -> None:
    frames = TfFrames(Node())
    for pitch in np.arange(0, 5, 0.1):
        tf_stand_in.know("base_link", "eye", (0, 0, 0.7), optical(0, pitch))
        matrix = frames.mounting("base_link", "eye").matrix()
        expected = Mounting.from_angles(0.7, pitch).matrix()
        assert np.abs(matrix - expected).max() < math.radians(0.3)


def test_cameras_have_mountings_of_their_own(tf: None) -> None:
    frames = TfFrames(Node())
    tf_stand_in.know("base_link", "eye", (0, 0, 0.7), optical(0, 10))
    tf_stand_in.know("base_link", "nose", (0, 0, 0.3), optical(0, 0))
    heights = [frames.mounting("base_link", name).height for name in ("eye", "nose", "eye")]
    assert heights == [0.7, 0.3, 0.7]


def test_frames_that_tf_does_not_connect_are_named_with_the_remedy(tf: None) -> None:
    with pytest.raises(ValueError, match=r"base_link.*eye.*camera_height") as error:
        TfFrames(Node()).mounting("base_link", "eye")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (math.nan, 0, 0, 1)])
def test_a_transform_that_is_none_is_an_error(tf: None, quaternion: tuple[float, ...]) -> None:
    tf_stand_in.know("base_link", "eye", (0, 0, 0.7), quaternion)
    with pytest.raises(ValueError, match="quaternion"):
        TfFrames(Node()).mounting("base_link", "eye")


def test_without_tf2_ros_the_parameters_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tf_stand_in.uninstall(monkeypatch)
    with pytest.raises(ValueError, match=r"tf2_ros.*camera_height.*camera_pitch_deg"):
        TfFrames(Node()).mounting("base_link", "eye")


def test_two_threads_that_ask_have_one_listener(tf: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tf_stand_in.know("base_link", "eye", (0, 0, 0.7), optical(0, 10))
    # Long enough for the second to come while the first still makes it.
    monkeypatch.setattr(tf_stand_in.Buffer, "__init__", lambda _: time.sleep(0.05))
    frames = TfFrames(Node())
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(frames.mounting, "base_link", "eye") for _ in range(2)]
        assert [future.result().height for future in asked] == [0.7, 0.7]
    assert len(tf_stand_in.TransformListener.made) == 1


def test_who_is_asked_no_more_listens_no_more(tf: None) -> None:
    tf_stand_in.know("base_link", "eye", (0, 0, 0.7), optical(0, 10))
    frames = TfFrames(Node())
    frames.stop_listening()  # which nobody does yet
    for _ in range(2):
        assert frames.mounting("base_link", "eye").height == 0.7
        assert tf_stand_in.TransformListener.made[-1].listens
        frames.stop_listening()
        assert not tf_stand_in.TransformListener.made[-1].listens
    assert len(tf_stand_in.TransformListener.made) == 2


# Given to tf

LINK = StaticFrame("camera_link", "camera_depth_frame")
DEEP = StaticFrame(
    "camera_depth_frame", "camera_depth_optical_frame", (0, 0, 0.1), (-0.5, 0.5, -0.5, 0.5)
)


def test_frames_are_sent_once_as_they_are(tf: None) -> None:
    node = Node()
    frames = TfFrames(node)
    frames.broadcast([LINK, DEEP])
    frames.broadcast([DEEP])
    (publisher,) = node.publishers
    (message,) = publisher.sent
    assert [(t.header.frame_id, t.child_frame_id) for t in message.transforms] == [
        (LINK.parent, LINK.child),
        (DEEP.parent, DEEP.child),
    ]
    deep = message.transforms[1]
    to, turn = deep.transform.translation, deep.transform.rotation
    assert (to.x, to.y, to.z) == DEEP.translation
    assert (turn.x, turn.y, turn.z, turn.w) == DEEP.rotation
    assert deep.header.stamp.sec == 7


def test_who_joins_late_gets_all_frames_as_they_are_by_then(tf: None) -> None:
    """A subscriber to /tf_static is sent the last message of each publisher."""
    node = Node()
    frames = TfFrames(node)
    frames.broadcast([LINK, DEEP])
    for pitch in (10.0, 20.0):
        frames.broadcast([level_frame("eye", Mounting.from_angles(0.5, pitch))])
    (publisher,) = node.publishers
    assert publisher.topic == "/tf_static" and len(publisher.sent) == 3
    assert publisher.qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert publisher.qos.reliability == ReliabilityPolicy.RELIABLE
    last = {t.child_frame_id: t.transform.rotation for t in publisher.sent[-1].transforms}
    assert set(last) == {LINK.child, DEEP.child, "eye_level_frame"}
    turn = last["eye_level_frame"]
    expected = level_frame("eye", Mounting.from_angles(0.5, 20.0)).rotation
    assert (turn.x, turn.y, turn.z, turn.w) == pytest.approx(expected)


def test_without_tf2_msgs_nothing_is_sent_and_nothing_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tf_stand_in.uninstall(monkeypatch)
    node = Node()
    TfFrames(node).broadcast([LINK])
    assert node.publishers == []


# With the real one


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    pytest.importorskip("tf2_ros", reason="tf2_ros is not installed")
    model = networks.red_channel(tmp_path / "red.onnx")
    made = Rig(
        tmp_path / "log.txt", OWN_DOMAIN, model=model, base_frame="base_link", max_depth=20.0
    )
    made.active()
    yield made
    made.close()


def test_over_dds_a_scan_follows_the_transform_and_its_frame_is_in_tf(rig: Rig) -> None:
    import tf2_ros
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    static = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig.peer.hear(TFMessage, "/tf_static", static)
    transform = TransformStamped(child_frame_id="eye")
    transform.header.frame_id = "base_link"
    transform.transform.translation.z = 0.6
    turn = transform.transform.rotation
    turn.x, turn.y, turn.z, turn.w = optical(0, 10)
    tf2_ros.StaticTransformBroadcaster(rig.peer.node).sendTransform(transform)
    rig.hear(LaserScan, "scan")
    scan = rig.see(flat(50), "scan")
    assert scan.header.frame_id == "eye_level_frame"
    z, pitch = (
        50 * networks.RED_SCALE * 260 * networks.WIDTH / 320 / networks.FOCAL,
        math.radians(10),
    )
    middle = round(-scan.angle_min / scan.angle_increment)
    ahead = (z + (0.1 - 0.6) * math.sin(pitch)) / math.cos(pitch)
    assert scan.ranges[middle] == pytest.approx(ahead, abs=0.01)
    rig.peer.wait(
        lambda: any(
            t.child_frame_id == "eye_level_frame"
            for message in rig.peer.heard["/tf_static"]
            for t in message.transforms
        ),
        "the level frame",
        rig.process,
    )
