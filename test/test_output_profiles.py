"""The profiles against what the drivers' own documents and sources say, written out by hand."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mono_depth_ros.output_profiles import (
    OUTPUTS,
    PROFILES,
    Profile,
    Qos,
    Topic,
    markdown,
    profile_frames,
    profile_topics,
    with_tables,
)

DOCS = Path(__file__).parents[1] / "docs"
DRIVERS = ("realsense", "zed", "oak")

# https://design.ros2.org/articles/topic_and_service_names.html, for a relative name.
ROS_NAME = re.compile(r"(?!.*__)[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*")

# As users see them: the README of https://github.com/realsenseai/realsense-ros, "Published Topics";
# the changelog of https://github.com/stereolabs/zed-ros2-wrapper, v5.1.0; the launch files of
# https://github.com/luxonis/depthai-ros, camera.launch.py and, for rgbd, version 3's
# driver.launch.py.
DRIVER_TOPICS = {
    "realsense": {
        "/camera/camera/color/camera_info": "CameraInfo",
        "/camera/camera/color/image_raw": "Image rgb8",
        "/camera/camera/depth/camera_info": "CameraInfo",
        "/camera/camera/depth/image_rect_raw": "Image 16UC1",
        "/camera/camera/aligned_depth_to_color/camera_info": "CameraInfo",
        "/camera/camera/aligned_depth_to_color/image_raw": "Image 16UC1",
        "/camera/camera/depth/color/points": "PointCloud2",
    },
    "zed": {
        "/zed/zed_node/rgb/color/rect/image": "Image bgra8",
        "/zed/zed_node/rgb/color/rect/camera_info": "CameraInfo",
        "/zed/zed_node/rgb/color/rect/image/camera_info": "CameraInfo",
        "/zed/zed_node/left/color/rect/image": "Image bgra8",
        "/zed/zed_node/left/color/rect/camera_info": "CameraInfo",
        "/zed/zed_node/left/color/rect/image/camera_info": "CameraInfo",
        "/zed/zed_node/right/color/rect/camera_info": "CameraInfo",
        "/zed/zed_node/right/color/rect/image/camera_info": "CameraInfo",
        "/zed/zed_node/depth/depth_registered": "Image 32FC1",
        "/zed/zed_node/depth/camera_info": "CameraInfo",
        "/zed/zed_node/depth/depth_registered/camera_info": "CameraInfo",
        "/zed/zed_node/point_cloud/cloud_registered": "PointCloud2",
        "/zed/zed_node/disparity/disparity_image": "DisparityImage",
        "/zed/zed_node/disparity/map": "DisparityImage",
        "/zed/zed_node/confidence/confidence_map": "Image 32FC1",
    },
    "oak": {
        "/oak/rgb/image_raw": "Image bgr8",
        "/oak/rgb/image_rect": "Image bgr8",
        "/oak/rgb/camera_info": "CameraInfo",
        "/oak/stereo/image_raw": "Image 16UC1",
        "/oak/stereo/camera_info": "CameraInfo",
        "/oak/points": "PointCloud2",
        "/oak/rgbd/points": "PointCloud2",
    },
}

GENERIC_TOPICS = {
    "depth/image_rect": "Image ",
    "depth/camera_info": "CameraInfo",
    "points": "PointCloud2",
    "depth/image_color": "Image bgr8",
    "image_rect": "Image rgb8",
    "image_rect/camera_info": "CameraInfo",
    "disparity": "DisparityImage",
    "right/camera_info": "CameraInfo",
    "scan": "LaserScan",
    "confidence": "Image 32FC1",
    "points/obstacles": "PointCloud2",
    "points/clearing": "PointCloud2",
}

profiles = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())


def described(topic: Topic) -> str:
    kind = OUTPUTS[topic.output].rsplit("/", 1)[-1]
    return f"{kind} {topic.encoding}" if kind == "Image" else kind


def find(name: str, topic: str) -> Topic:
    (found,) = (t for t in profile_topics(PROFILES[name]) if t.name == topic)
    return found


@pytest.mark.parametrize("name", DRIVERS)
def test_a_driver_s_topics_have_its_full_names_and_types(name: str) -> None:
    topics = [t for t in profile_topics(PROFILES[name]) if t.source]
    assert {f"/{t.name}": described(t) for t in topics} == DRIVER_TOPICS[name]


def test_the_generic_profile_has_our_own_names_types_and_qos() -> None:
    topics = profile_topics(PROFILES["generic"])
    assert {t.name: described(t) for t in topics} == GENERIC_TOPICS
    assert {t.qos for t in topics} == {Qos(2, "reliable", "volatile", "keep_last")}


@pytest.mark.parametrize("name", DRIVERS)
def test_what_a_driver_lacks_keeps_its_generic_name_but_gets_the_driver_s_frame(name: str) -> None:
    profile = PROFILES[name]
    optical = find(name, next(t.name for t in profile_topics(profile) if t.output == "depth")).frame
    ours = [t for t in profile_topics(profile) if not t.source]
    generic = {t.name: t for t in PROFILES["generic"].topics}
    assert ours
    assert all(t == replace(generic[t.name], frame=optical) for t in ours)


@profiles
def test_every_output_has_a_topic_and_no_name_has_two(profile: Profile) -> None:
    topics = profile_topics(profile)
    assert {t.output for t in topics} == set(OUTPUTS)
    assert max(Counter(t.name for t in topics).values()) == 1


@profiles
def test_every_output_has_a_topic_that_a_reliable_subscriber_hears(profile: Profile) -> None:
    heard = {t.output for t in profile.topics if t.qos.reliability != "best_effort"}
    assert heard == set(OUTPUTS)


@profiles
@pytest.mark.parametrize("camera", ["", "front", "Cam_2"])
def test_names_are_valid_in_ros_with_any_camera_name(profile: Profile, camera: str) -> None:
    assert all(ROS_NAME.fullmatch(t.name) for t in profile_topics(profile, camera))


@profiles
@pytest.mark.parametrize("camera", ["front-left", "2nd", "a/b", "{camera}", " x", "cam\n"])
def test_a_camera_name_that_ros_would_refuse_is_refused(profile: Profile, camera: str) -> None:
    with pytest.raises(ValueError, match="camera_name"):
        profile_topics(profile, camera)
    with pytest.raises(ValueError, match="camera_name"):
        profile_frames(profile, camera)


def test_a_camera_name_goes_where_the_driver_puts_it() -> None:
    realsense = {t.name: t.frame for t in profile_topics(PROFILES["realsense"], "d435")}
    assert realsense["camera/d435/color/image_raw"] == "d435_color_optical_frame"
    assert realsense["camera/d435/depth/image_rect_raw"] == "d435_depth_optical_frame"
    zed = {t.name: t.frame for t in profile_topics(PROFILES["zed"], "front")}
    assert zed["front/zed_node/depth/depth_registered"] == "front_left_camera_frame_optical"
    oak = profile_frames(PROFILES["oak"], "rear")
    assert [(f.parent, f.child) for f in oak] == [
        ("rear", "rear_rgb_camera_frame"),
        ("rear_rgb_camera_frame", "rear_rgb_camera_optical_frame"),
    ]


@pytest.mark.parametrize(
    ("name", "default", "roots", "count"),
    [
        ("realsense", "camera", ("camera_link", "front_link"), (4, 4)),
        ("zed", "zed", ("zed_camera_link", "front_camera_link"), (3, 3)),
        # One row less: `oak-d-base-frame` belongs to the camera of the driver's default name.
        ("oak", "oak", ("oak-d-base-frame", "front"), (3, 2)),
    ],
)
def test_two_cameras_of_a_profile_share_no_frame(
    name: str, default: str, roots: tuple[str, str], count: tuple[int, int]
) -> None:
    trees = [profile_frames(PROFILES[name], camera) for camera in ("", "front")]
    assert trees[0] == profile_frames(PROFILES[name], default)
    assert tuple(tree[0].parent for tree in trees) == roots
    assert tuple(len(tree) for tree in trees) == count
    first, second = ({f.parent for f in tree} | {f.child for f in tree} for tree in trees)
    assert not first & second
    # Without its root it is a tree yet, which leads to all that is published.
    known = {trees[1][0].parent}
    for frame in trees[1]:
        assert frame.parent in known
        known.add(frame.child)
    used = {t.frame for t in profile_topics(PROFILES[name], "front") if t.output != "right_info"}
    assert used <= known


@profiles
def test_nothing_is_left_to_be_put_in(profile: Profile) -> None:
    texts = [text for t in profile_topics(profile) for text in (t.name, t.frame)]
    texts += [text for f in profile_frames(profile) for text in (f.parent, f.child)]
    assert not [text for text in texts if "{" in text]


def test_frames_are_those_of_the_drivers() -> None:
    assert find("realsense", "camera/camera/depth/color/points").frame == (
        "camera_depth_optical_frame"
    )
    assert find("realsense", "camera/camera/aligned_depth_to_color/image_raw").frame == (
        "camera_color_optical_frame"
    )
    assert find("zed", "zed/zed_node/point_cloud/cloud_registered").frame == "zed_left_camera_frame"
    assert find("zed", "zed/zed_node/right/color/rect/camera_info").frame == (
        "zed_right_camera_frame_optical"
    )
    assert find("oak", "oak/stereo/image_raw").frame == "oak_rgb_camera_optical_frame"
    roots = {name: profile_frames(PROFILES[name])[0].parent for name in DRIVERS}
    assert roots == {
        "realsense": "camera_link",
        "zed": "zed_camera_link",
        "oak": "oak-d-base-frame",
    }


def rotation_matrix(quaternion: tuple[float, float, float, float]) -> npt.NDArray[np.float64]:
    """Of a unit quaternion x, y, z, w: v + 2 w (q x v) + 2 q x (q x v), column by column."""
    q, w = np.array(quaternion[:3]), quaternion[3]
    columns = [v + 2 * w * np.cross(q, v) + 2 * np.cross(q, np.cross(q, v)) for v in np.eye(3)]
    return np.stack(columns, axis=1)


@profiles
def test_rotations_are_none_or_that_of_rep_103_into_the_optical_frame(profile: Profile) -> None:
    # The optical frame's x (right), y (down), z (ahead) in a body frame of x ahead, y left, z up.
    to_optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    for frame in profile_frames(profile):
        assert np.linalg.norm(frame.rotation) == pytest.approx(1.0, abs=1e-12)
        is_optical = "optical" in frame.child
        expected = to_optical if is_optical else np.eye(3)
        np.testing.assert_allclose(rotation_matrix(frame.rotation), expected, atol=1e-12)


@profiles
def test_frames_make_one_tree_that_holds_every_topic_s_frame(profile: Profile) -> None:
    frames = profile_frames(profile)
    children = [f.child for f in frames]
    assert len(set(children)) == len(children), "tf allows one parent a frame"
    known = {f.parent for f in frames[:1]}
    for frame in frames:
        assert frame.parent in known
        known.add(frame.child)
    # There is no second lens to put into tf; the right camera_info names the ZED's all the same.
    used = {t.frame for t in profile_topics(profile) if t.output != "right_info"}
    assert used <= (known or {""})


@pytest.mark.parametrize("name", DRIVERS)
def test_clouds_look_along_the_axis_of_their_frame(name: str) -> None:
    for topic in profile_topics(PROFILES[name]):
        if topic.output == "points":
            assert (topic.cloud.forward == "z") == ("optical" in topic.frame)


@profiles
def test_the_fields_of_a_point_neither_overlap_nor_overflow(profile: Profile) -> None:
    for topic in profile.topics:
        assert 12 <= topic.cloud.rgb_offset <= topic.cloud.point_step - 4


def test_cloud_layouts_are_those_of_the_drivers() -> None:
    layouts = {
        topic.name: (topic.cloud.point_step, topic.cloud.rgb_offset, topic.cloud.organised)
        for name in PROFILES
        for topic in profile_topics(PROFILES[name])
        if topic.output == "points"
    }
    assert layouts == {
        "points": (16, 12, True),
        "camera/camera/depth/color/points": (20, 16, False),
        "zed/zed_node/point_cloud/cloud_registered": (16, 12, True),
        "oak/points": (32, 16, True),
        "oak/rgbd/points": (16, 12, True),
    }


def test_qos_is_that_of_the_drivers() -> None:
    realsense = {t.name: t.qos for t in profile_topics(PROFILES["realsense"]) if t.source}
    images = {name: qos for name, qos in realsense.items() if "image" in name}
    assert len(images) == 3
    assert {qos.reliability for qos in images.values()} == {"system_default"}
    assert {qos for name, qos in realsense.items() if name not in images} == {Qos(10)}
    assert {t.qos for t in PROFILES["zed"].topics if t.source} == {Qos(10)}
    assert find("oak", "oak/points").qos == Qos(5, "best_effort")
    assert find("oak", "oak/stereo/image_raw").qos == Qos(10)


def test_camera_info_and_confidence_conventions_are_those_of_the_drivers() -> None:
    models = {p.name: (p.distortion_model, p.coefficients) for p in PROFILES.values()}
    assert models == {
        "generic": ("plumb_bob", 5),
        "realsense": ("plumb_bob", 5),
        "zed": ("rational_polynomial", 8),
        "oak": ("rational_polynomial", 8),
    }
    # 0 is certain and 100 is not, for a ZED.
    assert {p.name: p.confidence for p in PROFILES.values() if p.confidence != (0.0, 1.0)} == {
        "zed": (100.0, 0.0)
    }


@profiles
def test_encodings_are_given_for_images_alone(profile: Profile) -> None:
    allowed = {
        "depth": {"", "16UC1", "32FC1"},
        "depth_color": {"bgr8"},
        "image": {"rgb8", "bgr8", "bgra8"},
        "confidence": {"32FC1"},
    }
    assert all(t.encoding in allowed.get(t.output, {""}) for t in profile.topics)


def test_the_types_exist() -> None:
    pytest.importorskip("sensor_msgs.msg")
    for interface in OUTPUTS.values():
        package, _, name = interface.split("/")
        assert hasattr(importlib.import_module(f"{package}.msg"), name)


@profiles
def test_rclpy_has_every_qos_policy(profile: Profile) -> None:
    qos = pytest.importorskip("rclpy.qos")
    for topic in profile.topics:
        made = qos.QoSProfile(
            depth=topic.qos.depth,
            history=qos.HistoryPolicy[topic.qos.history.upper()],
            reliability=qos.ReliabilityPolicy[topic.qos.reliability.upper()],
            durability=qos.DurabilityPolicy[topic.qos.durability.upper()],
        )
        if topic.qos.reliability == "system_default":
            assert made == qos.qos_profile_system_default
        elif topic.qos.depth == 5 and topic.qos.reliability == "best_effort":
            assert made == qos.qos_profile_sensor_data
        else:
            assert made == qos.QoSProfile(depth=topic.qos.depth)


@pytest.mark.parametrize("name", DRIVERS)
def test_every_source_is_a_line_of_a_pinned_version(name: str) -> None:
    profile = PROFILES[name]
    for topic in profile.topics:
        if topic.source:
            url = topic.source if "://" in topic.source else profile.source + topic.source
            assert re.fullmatch(
                r"https://github\.com/[\w-]+/[\w-]+/blob/"
                r"(v?\d+\.\d+\.\d+[\w-]*|[0-9a-f]{40})/[\w./]+\.(cpp|py)#L\d+",
                url,
            )


@profiles
def test_the_documented_tables_are_up_to_date(profile: Profile) -> None:
    page = (DOCS / "profiles.md").read_text(encoding="utf-8")
    marked = f"<!-- profile {profile.name} -->\n{markdown(profile)}\n<!-- end -->"
    assert marked in page, "run python -m mono_depth_ros.output_profiles docs/profiles.md"
    assert with_tables(page) == page


def test_stale_tables_are_replaced_and_nothing_else_is() -> None:
    page = "a\n<!-- profile oak -->\nold\n<!-- end -->\nb\n<!-- profile zed --><!-- end -->\n"
    made = with_tables(page)
    assert made == (
        f"a\n<!-- profile oak -->\n{markdown(PROFILES['oak'])}\n<!-- end -->\nb\n"
        f"<!-- profile zed -->\n{markdown(PROFILES['zed'])}\n<!-- end -->\n"
    )


def test_tables_have_a_row_for_each_topic_and_as_many_cells_as_columns() -> None:
    for profile in PROFILES.values():
        topics, *frames = markdown(profile).split("\n\n")
        rows = topics.splitlines()
        assert len(rows) == 2 + len(profile.topics)
        assert {row.count("|") for row in rows} == {8}
        for table in frames:
            assert len(table.splitlines()) == 2 + len(profile.frames)
