"""With each driver's profile, the graph and the messages are those that the driver would give.

Names, types and conventions are written down here from the drivers' documentation, not read from
`output_profiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import pytest
from node_rig import CAMERA, HEIGHT, OWN_DOMAIN, SCALE, SHARED_DOMAIN, WIDTH, Rig, flat
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros.confidence import ConfidenceEstimator
from mono_depth_ros.messages import camera_info_message, image_message

IMAGE, INFO, CLOUD = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/PointCloud2",
)
DISPARITY, SCAN = "stereo_msgs/msg/DisparityImage", "sensor_msgs/msg/LaserScan"
TYPES = {
    IMAGE: Image,
    INFO: CameraInfo,
    CLOUD: PointCloud2,
    DISPARITY: DisparityImage,
    SCAN: LaserScan,
}
# What every node has, and what the test's own peer does.
COMMON = ("/parameter_events", "/rosout", "/diagnostics", "/image_raw", "/camera_info", "/tf")
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT


@dataclass(frozen=True)
class Expected:
    """One topic: type, frame_id, encoding (of images) and reliability of its publisher."""

    kind: str
    frame: str
    encoding: str = ""
    reliability: ReliabilityPolicy = RELIABLE


RS = "/camera/camera"
RS_DEPTH, RS_COLOR = "camera_depth_optical_frame", "camera_color_optical_frame"
Z = "/zed/zed_node"
Z_LEFT, Z_RIGHT = "zed_left_camera_frame_optical", "zed_right_camera_frame_optical"
OAK = "oak_rgb_camera_optical_frame"


def ours(frame: str, level: str, *without: str) -> dict[str, Expected]:
    """The topics that no driver has."""
    topics = {
        "/depth/image_color": Expected(IMAGE, frame, "bgr8"),
        "/disparity": Expected(DISPARITY, frame),
        "/right/camera_info": Expected(INFO, frame),
        "/scan": Expected(SCAN, level),
        "/confidence": Expected(IMAGE, frame, "32FC1"),
        "/points/obstacles": Expected(CLOUD, frame),
        "/points/clearing": Expected(CLOUD, frame),
    }
    return {name: topic for name, topic in topics.items() if name not in without}


GRAPHS: dict[str, dict[str, Expected]] = {
    "generic": {
        "/depth/image_rect": Expected(IMAGE, "eye", "32FC1"),
        "/depth/camera_info": Expected(INFO, "eye"),
        "/points": Expected(CLOUD, "eye"),
        "/image_rect": Expected(IMAGE, "eye", "rgb8"),
        "/image_rect/camera_info": Expected(INFO, "eye"),
        **ours("eye", "eye_level_frame"),
    },
    "realsense": {
        f"{RS}/depth/image_rect_raw": Expected(IMAGE, RS_DEPTH, "16UC1"),
        f"{RS}/depth/camera_info": Expected(INFO, RS_DEPTH),
        f"{RS}/aligned_depth_to_color/image_raw": Expected(IMAGE, RS_COLOR, "16UC1"),
        f"{RS}/aligned_depth_to_color/camera_info": Expected(INFO, RS_COLOR),
        f"{RS}/color/image_raw": Expected(IMAGE, RS_COLOR, "rgb8"),
        f"{RS}/color/camera_info": Expected(INFO, RS_COLOR),
        f"{RS}/depth/color/points": Expected(CLOUD, RS_DEPTH),
        **ours(RS_DEPTH, "camera_depth_level_frame"),
    },
    "zed": {
        f"{Z}/depth/depth_registered": Expected(IMAGE, Z_LEFT, "32FC1"),
        f"{Z}/depth/camera_info": Expected(INFO, Z_LEFT),
        f"{Z}/depth/depth_registered/camera_info": Expected(INFO, Z_LEFT),
        f"{Z}/rgb/color/rect/image": Expected(IMAGE, Z_LEFT, "bgra8"),
        f"{Z}/rgb/color/rect/camera_info": Expected(INFO, Z_LEFT),
        f"{Z}/rgb/color/rect/image/camera_info": Expected(INFO, Z_LEFT),
        f"{Z}/left/color/rect/image": Expected(IMAGE, Z_LEFT, "bgra8"),
        f"{Z}/left/color/rect/camera_info": Expected(INFO, Z_LEFT),
        f"{Z}/left/color/rect/image/camera_info": Expected(INFO, Z_LEFT),
        f"{Z}/right/color/rect/camera_info": Expected(INFO, Z_RIGHT),
        f"{Z}/right/color/rect/image/camera_info": Expected(INFO, Z_RIGHT),
        f"{Z}/point_cloud/cloud_registered": Expected(CLOUD, "zed_left_camera_frame"),
        f"{Z}/disparity/disparity_image": Expected(DISPARITY, Z_LEFT),
        f"{Z}/disparity/map": Expected(DISPARITY, Z_LEFT),
        f"{Z}/confidence/confidence_map": Expected(IMAGE, Z_LEFT, "32FC1"),
        **ours(
            Z_LEFT,
            "zed_left_camera_level_frame",
            "/disparity",
            "/right/camera_info",
            "/confidence",
        ),
    },
    "oak": {
        "/oak/stereo/image_raw": Expected(IMAGE, OAK, "16UC1"),
        "/oak/stereo/camera_info": Expected(INFO, OAK),
        "/oak/rgb/image_raw": Expected(IMAGE, OAK, "bgr8"),
        "/oak/rgb/image_rect": Expected(IMAGE, OAK, "bgr8"),
        "/oak/rgb/camera_info": Expected(INFO, OAK),
        "/oak/points": Expected(CLOUD, OAK, reliability=BEST_EFFORT),
        "/oak/rgbd/points": Expected(CLOUD, OAK),
        **ours(OAK, "oak_rgb_camera_level_frame"),
    },
}
# What the depth of the red-channel network is called.
DEPTH = {
    "generic": "/depth/image_rect",
    "realsense": f"{RS}/depth/image_rect_raw",
    "zed": f"{Z}/depth/depth_registered",
    "oak": "/oak/stereo/image_raw",
}
COEFFICIENTS = {
    "generic": ("plumb_bob", 5),
    "realsense": ("plumb_bob", 5),
    "zed": ("rational_polynomial", 8),
    "oak": ("rational_polynomial", 8),
}
BASELINE = 0.12
# The three walls are 2 and 4 m away, and beyond the range.
SHADES = (50, 100, 250)


def pixels() -> npt.NDArray[np.uint8]:
    image = flat(0)
    image[..., 1] = np.arange(WIDTH) % 256
    image[..., 0] = np.repeat(SHADES, (100, 120, 100))
    return image


@dataclass(frozen=True)
class Run:
    """A node with a profile, and what it published of one image."""

    profile: str
    rig: Rig
    answers: dict[str, Any]

    def of(self, kind: str) -> dict[str, Any]:
        graph = GRAPHS[self.profile]
        return {name: self.answers[name] for name in graph if graph[name].kind == kind}

    def depth(self) -> npt.NDArray[np.float64]:
        message = self.answers[DEPTH[self.profile]]
        if message.encoding == "32FC1":
            return np.frombuffer(message.data, np.float32).reshape(HEIGHT, WIDTH).astype(float)
        code = np.frombuffer(message.data, np.uint16).reshape(HEIGHT, WIDTH)
        return np.where(code > 0, code / 1000, np.inf)


@pytest.fixture(scope="module", params=GRAPHS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("profile")
    rig = Rig(
        folder / "log.txt",
        SHARED_DOMAIN,
        model=networks.red_channel(folder / "red.onnx"),
        profile=request.param,
        max_depth=8.0,
        camera_height=0.6,
        disparity_baseline=BASELINE,
    )
    rig.active()
    for name, expected in GRAPHS[request.param].items():
        qos = QoSProfile(depth=5, reliability=expected.reliability)
        rig.hear(TYPES[expected.kind], name, qos)

    def send(header: Header) -> None:
        rig.send(image_message(pixels(), "rgb8", header), camera_info_message(CAMERA, header))

    names = tuple(GRAPHS[request.param])
    yield Run(request.param, rig, dict(zip(names, rig.answer(send, *names), strict=True)))
    rig.close()


def test_the_topics_on_the_graph_are_exactly_these(run: Run) -> None:
    node = run.rig.peer.node
    published = {
        name: kinds
        for name, kinds in node.get_publisher_names_and_types_by_node("mono_depth", "/")
        if name not in COMMON and not name.startswith("/mono_depth/")
    }
    expected = {name: [topic.kind] for name, topic in GRAPHS[run.profile].items()}
    published.pop("/tf_static", None)
    assert published == expected


def test_publishers_offer_what_the_driver_offers(run: Run) -> None:
    for name, expected in GRAPHS[run.profile].items():
        (info,) = run.rig.peer.node.get_publishers_info_by_topic(name)
        assert info.qos_profile.reliability == expected.reliability, name
        # RealSense leaves its images' durability to the middleware.
        if not (run.profile == "realsense" and name.startswith(RS) and expected.kind == IMAGE):
            assert info.qos_profile.durability == DurabilityPolicy.VOLATILE, name


def test_frames_and_encodings_are_the_drivers(run: Run) -> None:
    for name, expected in GRAPHS[run.profile].items():
        message = run.answers[name]
        assert message.header.frame_id == expected.frame, name
        assert message.header.stamp.nanosec == 123456789
        assert getattr(message, "encoding", "") == expected.encoding, name


def test_depth_has_the_same_numbers_in_every_profile(run: Run) -> None:
    metres = np.repeat(SHADES, (100, 120, 100)) * networks.RED_SCALE * SCALE
    truth = np.tile(np.where(metres > 8, np.inf, metres), (HEIGHT, 1))
    np.testing.assert_allclose(run.depth(), truth, rtol=1e-4, atol=0.0005)


def test_colour_images_hold_the_pixels_in_their_order(run: Run) -> None:
    orders = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "bgra8": [2, 1, 0]}
    images = {
        name: message
        for name, message in run.of(IMAGE).items()
        if message.encoding in orders and name != "/depth/image_color"
    }
    assert images
    for name, message in images.items():
        channels = 4 if message.encoding == "bgra8" else 3
        received = np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, channels)
        np.testing.assert_array_equal(
            received[..., :3], pixels()[..., orders[message.encoding]], err_msg=name
        )
        assert channels == 3 or (received[..., 3] == 255).all()


def test_camera_infos_have_the_drivers_coefficients_and_our_intrinsics(run: Run) -> None:
    model, count = COEFFICIENTS[run.profile]
    for name, info in run.of(INFO).items():
        assert (info.distortion_model, list(info.d)) == (model, [0.0] * count), name
        assert list(info.k) == [260, 0, 159.5, 0, 260, 119.5, 0, 0, 1]
        assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
        tx = -260 * BASELINE if "/right/" in name else 0
        assert list(info.p) == pytest.approx([260, 0, 159.5, tx, 0, 260, 119.5, 0, 0, 0, 1, 0])
        assert (info.width, info.height) == (WIDTH, HEIGHT)


LAYOUTS = {
    "/points": ([0, 4, 8, 12], 16, True, "z"),
    f"{RS}/depth/color/points": ([0, 4, 8, 16], 20, False, "z"),
    f"{Z}/point_cloud/cloud_registered": ([0, 4, 8, 12], 16, True, "x"),
    "/oak/points": ([0, 4, 8, 16], 32, True, "z"),
    "/oak/rgbd/points": ([0, 4, 8, 12], 16, True, "z"),
}


def test_clouds_have_the_drivers_layout_and_the_points_of_the_depth(run: Run) -> None:
    clouds = {name: cloud for name, cloud in run.of(CLOUD).items() if name in LAYOUTS}
    assert clouds
    for name, cloud in clouds.items():
        offsets, step, organised, forward = LAYOUTS[name]
        assert [(field.name, field.offset) for field in cloud.fields] == list(
            zip(["x", "y", "z", "rgb"], offsets, strict=True)
        )
        assert cloud.point_step == step and cloud.row_step == step * cloud.width
        data = np.frombuffer(cloud.data, np.uint8).reshape(-1, step)
        xyz = np.ascontiguousarray(data[:, :12]).view(np.float32)
        bgr = data[:, offsets[3] : offsets[3] + 3]
        v, u = np.mgrid[:HEIGHT, :WIDTH]
        z = run.depth()
        z[np.isinf(z)] = np.nan
        right, down = (u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z
        planes = (right, down, z) if forward == "z" else (z, -right, -down)
        expected, colours = np.stack(planes, -1).reshape(-1, 3), pixels().reshape(-1, 3)
        if organised:
            assert (cloud.width, cloud.height, cloud.is_dense) == (WIDTH, HEIGHT, False)
        else:
            known = np.isfinite(expected[:, 2])
            expected, colours = expected[known], colours[known]
            assert (cloud.width, cloud.height, cloud.is_dense) == (220 * HEIGHT, 1, True)
        # Millimetres are rounded.
        np.testing.assert_allclose(xyz, expected, atol=0.001, err_msg=name)
        np.testing.assert_array_equal(bgr[:, ::-1], colours, err_msg=name)


def test_confidence_counts_as_the_driver_counts(run: Run) -> None:
    ((_, message),) = [item for item in run.of(IMAGE).items() if "confidence" in item[0]]
    values = np.frombuffer(message.data, np.float32).reshape(HEIGHT, WIDTH)
    depth = run.depth().astype(np.float32)
    ours = ConfidenceEstimator(CAMERA)(depth, pixels())
    # ZED: 0 is sure, 100 is a guess.
    expected = 100 - 100 * ours if run.profile == "zed" else ours
    np.testing.assert_allclose(values, expected, atol=0.2 if run.profile == "zed" else 2e-3)
    assert np.isnan(values[:, -90:]).all() and np.isfinite(values[:, :90]).all()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**settings: Any) -> Rig:
        model = networks.red_channel(tmp_path / "red.onnx")
        rigs.append(Rig(tmp_path / "log.txt", OWN_DOMAIN, model=model, **settings))
        rigs[-1].active()
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


def test_a_camera_name_goes_into_topics_and_frames(start: Callable[..., Rig]) -> None:
    rig = start(profile="realsense", camera_name="front")
    rig.hear(Image, "camera/front/color/image_raw")
    message = rig.see(flat(100), "camera/front/color/image_raw")
    assert message.header.frame_id == "front_color_optical_frame"


def test_nothing_is_published_where_nobody_listens(start: Callable[..., Rig]) -> None:
    """A RealSense's images are kept for late subscribers, so one would find what was published."""
    rig = start(profile="realsense")
    rig.hear(Image, f"{RS}/depth/image_rect_raw")
    for _ in range(3):
        rig.see(flat(100), f"{RS}/depth/image_rect_raw")
    rig.peer.spin(0.5)
    before = {message.header.stamp.sec for message in rig.heard(f"{RS}/depth/image_rect_raw")}
    late = QoSProfile(depth=1, reliability=RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    silent = (f"{RS}/color/image_raw", f"{RS}/aligned_depth_to_color/image_raw")
    for name in silent:
        rig.hear(Image, name, late)
    rig.peer.spin(1.0)
    for name in silent:
        assert before.isdisjoint(message.header.stamp.sec for message in rig.heard(name))
    # They are not deaf: the last one that was published does come late.
    rig.see(flat(100), f"{RS}/color/image_raw")
    rig.peer.ignore(f"{RS}/color/image_raw")
    rig.hear(Image, f"{RS}/color/image_raw", late)
    rig.peer.wait(lambda: rig.heard(f"{RS}/color/image_raw"), "the kept image", rig.process)


def test_a_name_that_topics_cannot_have_is_refused_with_the_reason(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "refused.txt", OWN_DOMAIN, profile="zed", camera_name="9 lives")
    try:
        rig.peer.wait(
            lambda: any(
                "camera_name '9 lives'" in array.status[0].message
                for array in rig.peer.heard["/diagnostics"]
            ),
            "reason",
            rig.process,
        )
    finally:
        rig.close()
