"""What becomes of one frame: which topics get it, with what, and what a failure leaves undone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tf_stand_in
from builtin_interfaces.msg import Time
from dds import Peer
from node_rig import OWN_DOMAIN
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.engines import EngineError
from mono_depth_ros.estimator import DepthFrame
from mono_depth_ros.frame_outputs import FrameOutputs, Shot
from mono_depth_ros.messages import depth_to_array
from mono_depth_ros.output_profiles import OUTPUTS, PROFILES, profile_topics
from mono_depth_ros.parameters import PARAMETERS
from mono_depth_ros.tf_frames import TfFrames

CAMERA = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
KINDS = {
    f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}": kind
    for kind in (CameraInfo, DisparityImage, Image, LaserScan, PointCloud2)
}
QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


class Desk:
    """The outputs of a profile on real publishers, and a peer that subscribes to some of them."""

    def __init__(self, peer: Peer, profile: str, **values: Any) -> None:
        self.peer = peer
        self.node = Node("outputs", context=peer.context)
        self.topics = profile_topics(PROFILES[profile])
        self.publishers = {
            topic.name: self.node.create_publisher(KINDS[OUTPUTS[topic.output]], topic.name, QOS)
            for topic in self.topics
        }
        pairs = [(topic, self.publishers[topic.name]) for topic in self.topics]
        self.outputs = FrameOutputs(PROFILES[profile], pairs, TfFrames(self.node), publish_tf=True)
        self.values: dict[str, Any] = {spec.name: spec.default for spec in PARAMETERS}
        self.values |= {name.replace("__", "."): value for name, value in values.items()}
        self._second = 0

    def close(self) -> None:
        self.outputs.close()
        self.node.destroy_node()

    def hear(self, *names: str) -> None:
        """Subscribes to these topics alone."""
        for name in names:
            (topic,) = (topic for topic in self.topics if topic.name == name)
            self.peer.hear(KINDS[OUTPUTS[topic.output]], name, QOS)
            self.peer.wait(self.publishers[name].get_subscription_count, name)

    def wanted(self) -> set[str]:
        return {topic.name for topic, _ in self.outputs.wanted(self.values)}

    def publish(self, depth: npt.NDArray[np.float32]) -> tuple[str, Header]:
        """Publishes a frame; returns what could not be, and the header of the rest."""
        self._second += 1
        header = Header(stamp=Time(sec=self._second), frame_id="eye")
        image = np.zeros((*depth.shape, 3), np.uint8)
        image[..., 0] = 7
        frame = DepthFrame(depth, image, CAMERA, 0.0, 0.0, 0.0, 0, depth.size)
        shot = Shot(image, CAMERA, header, self.values, 0.05)
        wanted = self.outputs.wanted(self.values)
        estimate, missing = self.outputs.publish(wanted, shot, lambda: frame)
        assert estimate is frame
        return missing, header

    def received(self, header: Header, *names: str) -> list[Any]:
        """The messages of these topics with the stamp of a header."""

        def all_of_them() -> list[Any] | None:
            found = [
                next((m for m in self.peer.heard[name] if m.header.stamp == header.stamp), None)
                for name in names
            ]
            return None if None in found else found

        answers: list[Any] = self.peer.wait(all_of_them, f"all of {names}")
        return answers


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []
    with Peer(OWN_DOMAIN) as peer:

        def make(profile: str = "generic", **values: Any) -> Desk:
            desks.append(Desk(peer, profile, **values))
            return desks[-1]

        yield make
        for made in desks:
            made.close()


def wall(metres: float = 2.0) -> npt.NDArray[np.float32]:
    return np.full((48, 64), metres, np.float32)


def test_only_what_somebody_subscribes_to_is_wanted(desk: Callable[..., Desk]) -> None:
    made = desk()
    assert made.wanted() == set()
    made.hear("points", "disparity", "right/camera_info")
    # Without a baseline there is no second camera.
    assert made.wanted() == {"points"}
    made.values["disparity_baseline"] = 0.1
    assert made.wanted() == {"points", "disparity", "right/camera_info"}
    made.peer.ignore("points")
    made.peer.wait(lambda: "points" not in made.wanted(), "its end")


@pytest.mark.parametrize("broken", ["scan", "points/clearing"])
def test_an_output_that_cannot_be_made_keeps_no_other_from_it(
    desk: Callable[..., Desk], broken: str
) -> None:
    """One is made in the caller's thread, the other in the one that takes what takes long."""
    made = desk()
    others = ("depth/image_rect", "image_rect", "points", "depth/image_color", "confidence")
    made.hear(broken, *others)
    for _ in range(3):
        missing, header = made.publish(wall())
        assert missing.startswith(f"/{broken}: ") and "camera_height" in missing
        made.received(header, *others)
    assert made.peer.heard[broken] == []
    made.values["camera_height"] = 0.5
    missing, header = made.publish(wall())
    assert missing == ""
    made.received(header, broken, *others)


@pytest.mark.parametrize(
    ("topic", "values"),
    [
        ("scan", {"scan.min_height": 50.0, "scan.max_height": 60.0}),
        ("points", {"cloud.min_height": 0.1}),
    ],
)
def test_a_band_that_cannot_be_is_named_and_others_go_on(
    desk: Callable[..., Desk], topic: str, values: dict[str, float]
) -> None:
    made = desk(camera_height=0.5 if topic == "scan" else 0.0)
    made.values |= values
    made.hear(topic, "depth/image_rect")
    missing, header = made.publish(wall())
    assert missing.startswith(f"/{topic}: ") and "camera_height" in missing
    made.received(header, "depth/image_rect")


@pytest.mark.parametrize("broken", ["depth/image_rect", "points"])
def test_what_is_unexpected_reaches_the_caller_from_either_thread(
    desk: Callable[..., Desk], broken: str
) -> None:
    made = desk()
    made.hear("depth/image_rect", "points")
    wanted = made.outputs.wanted(made.values)
    made.node.destroy_publisher(made.publishers[broken])
    frame = DepthFrame(wall(), np.zeros((48, 64, 3), np.uint8), CAMERA, 0, 0, 0, 0, 48 * 64)
    shot = Shot(frame.image, CAMERA, Header(), made.values, 0.0)
    with pytest.raises(Exception, match="destruction"):
        made.outputs.publish(wanted, shot, lambda: frame)


def test_without_an_estimate_only_what_needs_none_is_published(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.hear("image_rect", "depth/image_rect", "points")
    header = Header(stamp=Time(sec=77), frame_id="eye")
    shot = Shot(np.zeros((48, 64, 3), np.uint8), CAMERA, header, made.values, 0.0)

    def refuse() -> DepthFrame:
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        made.outputs.publish(made.outputs.wanted(made.values), shot, refuse)
    made.received(header, "image_rect")
    missing, header = made.publish(wall())
    assert missing == ""
    made.received(header, "image_rect", "depth/image_rect", "points")
    assert 77 not in {m.header.stamp.sec for m in made.peer.heard["depth/image_rect"]}


def test_what_a_driver_publishes_twice_is_the_same_in_two_frames(
    desk: Callable[..., Desk],
) -> None:
    made = desk("realsense")
    names = (
        "camera/camera/depth/image_rect_raw",
        "camera/camera/aligned_depth_to_color/image_raw",
    )
    made.hear(*names)
    for metres in (1.25, 2.5):
        missing, header = made.publish(wall(metres))
        assert missing == ""
        deep, aligned = made.received(header, *names)
        assert deep.header.frame_id == "camera_depth_optical_frame"
        assert aligned.header.frame_id == "camera_color_optical_frame"
        assert deep.data == aligned.data
        np.testing.assert_allclose(depth_to_array(aligned), metres)


def test_a_scan_has_the_time_between_frames(desk: Callable[..., Desk]) -> None:
    made = desk(camera_height=0.5)
    made.hear("scan")
    _, header = made.publish(wall())
    (scan,) = made.received(header, "scan")
    assert scan.scan_time == pytest.approx(0.05)


# tf


def _half(degrees: float) -> tuple[float, float]:
    return math.sin(math.radians(degrees) / 2), math.cos(math.radians(degrees) / 2)


def pitched(degrees: float) -> Sequence[float]:
    """x, y, z, w in the base of an optical frame that looks down by some degrees."""
    s, c = _half(degrees)
    # About y, then from a body frame to an optical one, (-0.5, 0.5, -0.5, 0.5).
    return (-(s + c) / 2, (s + c) / 2, (s - c) / 2, (c - s) / 2)


@pytest.mark.parametrize(
    ("profile", "points", "optical"),
    [
        ("generic", "points", "eye"),
        ("zed", "zed/zed_node/point_cloud/cloud_registered", "zed_left_camera_frame_optical"),
        ("realsense", "camera/camera/depth/color/points", "camera_depth_optical_frame"),
    ],
)
def test_heights_come_from_the_optical_frame_whatever_frame_the_cloud_is_in(
    desk: Callable[..., Desk],
    monkeypatch: pytest.MonkeyPatch,
    profile: str,
    points: str,
    optical: str,
) -> None:
    tf_stand_in.install(monkeypatch)
    tf_stand_in.know("base_link", optical, (0.2, 0.0, 0.8), pitched(20.0))
    made = desk(profile, base_frame="base_link", cloud__min_height=0.3)
    # Not of real messages, so they cannot be published.
    made.outputs = FrameOutputs(
        PROFILES[profile],
        [(topic, made.publishers[topic.name]) for topic in made.topics],
        TfFrames(made.node),
        publish_tf=False,
    )
    made.hear(points, "scan")
    missing, header = made.publish(wall())
    assert missing == ""
    cloud, scan = made.received(header, points, "scan")
    floats = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    found = int(np.isfinite(floats[:, 2]).sum())
    # Height of a pixel's point on the wall: 0.8 - Z sin - Y cos.
    y = (np.arange(48) - CAMERA.cy) / CAMERA.fy * 2.0
    height = 0.8 - 2.0 * math.sin(math.radians(20)) - y * math.cos(math.radians(20))
    rows = int((height > 0.3).sum())
    assert 0 < rows < 40 and found == rows * 64
    assert scan.header.frame_id.endswith("_level_frame")


def test_without_tf_the_heights_are_missing_with_the_remedy(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    tf_stand_in.install(monkeypatch)
    made = desk(base_frame="base_link")
    made.hear("scan", "depth/image_rect")
    missing, header = made.publish(wall())
    assert missing.startswith("/scan: ") and "base_link" in missing and "eye" in missing
    made.received(header, "depth/image_rect")
