"""What the node publishes, where and how, in the words of each depth camera's ROS 2 driver.

A profile is data: topic names, encodings, QoS, cloud layouts and frames, so that whatever was set
up for a driver takes this node instead. Each row names the line of the driver that it was read
from. `python -m mono_depth_ros.output_profiles docs/profiles.md` brings that page up to date.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mono_depth_ros import markdown_table

# What the node can publish, and as which ROS interface. An output that a driver calls by several
# names has a topic for each.
OUTPUTS: dict[str, str] = {
    "depth": "sensor_msgs/msg/Image",
    "depth_info": "sensor_msgs/msg/CameraInfo",
    "points": "sensor_msgs/msg/PointCloud2",
    "depth_color": "sensor_msgs/msg/Image",
    "image": "sensor_msgs/msg/Image",
    "image_info": "sensor_msgs/msg/CameraInfo",
    "disparity": "stereo_msgs/msg/DisparityImage",
    "right_info": "sensor_msgs/msg/CameraInfo",
    "scan": "sensor_msgs/msg/LaserScan",
    "confidence": "sensor_msgs/msg/Image",
    "obstacles": "sensor_msgs/msg/PointCloud2",
    "clearing": "sensor_msgs/msg/PointCloud2",
}


@dataclass(frozen=True)
class Qos:
    """QoS of a publisher: rclpy's names of the policies, in lower case.

    `system_default` leaves a policy to the middleware, as the driver does. With Fast DDS that makes
    a reliable publisher that keeps its last message for late subscribers.
    """

    depth: int
    reliability: Literal["reliable", "best_effort", "system_default"] = "reliable"
    durability: Literal["volatile", "system_default"] = "volatile"
    history: Literal["keep_last", "system_default"] = "keep_last"


# Reliable so that RViz, rosbag and depth_image_proc match.
OWN_QOS = Qos(2)
# rmw_qos_profile_default, rmw_qos_profile_system_default and rmw_qos_profile_sensor_data.
DEFAULT_QOS = Qos(10)
SYSTEM_DEFAULT_QOS = Qos(0, "system_default", "system_default", "system_default")
SENSOR_DATA_QOS = Qos(5, "best_effort")


@dataclass(frozen=True)
class CloudLayout:
    """How a PointCloud2 holds its points.

    The fields are always x, y and z, float32 at 0, 4 and 8, and rgb, 0x00RRGGBB in a float32.

    Attributes:
        point_step: bytes a point.
        rgb_offset: byte of the field rgb.
        organised: rows and columns of the image, NaN where nothing is known, is_dense false.
            Otherwise one row of the points that are known, is_dense true.
        forward: the axis that looks into the scene. z: an optical frame, x right and y down; x: a
            body frame, y left and z up (REP 103).
    """

    point_step: int = 16
    rgb_offset: int = 12
    organised: bool = True
    forward: Literal["z", "x"] = "z"


@dataclass(frozen=True)
class Topic:
    """One publisher.

    Attributes:
        output: a key of `OUTPUTS`.
        name: relative to the node's namespace; `{camera}` stands for the camera's name.
        encoding: of an Image; empty leaves it to the parameter `depth_encoding`.
        frame: frame_id, with `{camera}`. Empty is the profile's `optical_frame`. `scan` is in the
            node's level frame, whatever stands here.
        qos: of the publisher.
        cloud: layout of `points`.
        source: file and line in the driver, relative to the profile's `source`, or a whole URL.
            Empty: the driver has no such output, and this one has the name of the generic profile.
    """

    output: str
    name: str
    encoding: str = ""
    frame: str = ""
    qos: Qos = OWN_QOS
    cloud: CloudLayout = CloudLayout()
    source: str = ""


@dataclass(frozen=True)
class StaticFrame:
    """A transform for /tf_static: the pose of `child` in `parent`, with `{camera}` in both.

    Attributes:
        translation: x, y, z in metres. Ours are 0: there is one lens, and it is where the driver's
            root frame is.
        rotation: quaternion x, y, z, w.
    """

    parent: str
    child: str
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Profile:
    """The outputs of one driver, as its own launch file makes them.

    Attributes:
        name: value of the parameter `profile`.
        camera_name: the driver's default; empty where no name has `{camera}` in it.
        topics: at least one an output.
        frames: root first, each parent before its children.
        optical_frame: of everything that does not name another; empty is the input image's.
        distortion_model, coefficients: of every CameraInfo. The coefficients are 0, since what is
            published is rectified.
        confidence: published values for our confidences 0 and 1; linear in between.
        source: where the driver's files are, at the version that was read.
    """

    name: str
    camera_name: str
    topics: tuple[Topic, ...]
    frames: tuple[StaticFrame, ...] = ()
    optical_frame: str = ""
    distortion_model: Literal["plumb_bob", "rational_polynomial"] = "plumb_bob"
    coefficients: int = 5
    confidence: tuple[float, float] = (0.0, 1.0)
    source: str = ""


_GENERIC = (
    Topic("depth", "depth/image_rect"),
    Topic("depth_info", "depth/camera_info"),
    Topic("points", "points"),
    Topic("depth_color", "depth/image_color", "bgr8"),
    Topic("image", "image_rect", "rgb8"),
    # Not camera_info beside it: that is what the node listens to.
    Topic("image_info", "image_rect/camera_info"),
    Topic("disparity", "disparity"),
    Topic("right_info", "right/camera_info"),
    Topic("scan", "scan"),
    Topic("confidence", "confidence", "32FC1"),
    Topic("obstacles", "points/obstacles"),
    Topic("clearing", "points/clearing"),
)


def _complete(*topics: Topic) -> tuple[Topic, ...]:
    """A driver's topics, and the generic ones of every output that it lacks."""
    outputs = {topic.output for topic in topics}
    return (*topics, *(topic for topic in _GENERIC if topic.output not in outputs))


# Roll -90 and yaw -90 degrees: from x forward, z up to z forward, y down (REP 103).
_OPTICAL = (-0.5, 0.5, -0.5, 0.5)

_RS_NODE = "realsense2_camera/src/rs_node_setup.cpp"
_RS_COLOR = "{camera}_color_optical_frame"

# rs_launch.py puts node `camera_name` into namespace `camera_namespace`, both "camera". Its depth
# image has the depth sensor's view; here that is the colour camera's, so depth, aligned depth and
# colour are the same picture in two frames that coincide.
_REALSENSE = Profile(
    name="realsense",
    camera_name="camera",
    topics=_complete(
        Topic(
            "depth",
            "camera/{camera}/depth/image_rect_raw",
            "16UC1",
            qos=SYSTEM_DEFAULT_QOS,
            source=f"{_RS_NODE}#L279",
        ),
        Topic(
            "depth_info",
            "camera/{camera}/depth/camera_info",
            qos=DEFAULT_QOS,
            source=f"{_RS_NODE}#L280",
        ),
        Topic(
            "depth",
            "camera/{camera}/aligned_depth_to_color/image_raw",
            "16UC1",
            _RS_COLOR,
            SYSTEM_DEFAULT_QOS,
            source=f"{_RS_NODE}#L313",
        ),
        Topic(
            "depth_info",
            "camera/{camera}/aligned_depth_to_color/camera_info",
            frame=_RS_COLOR,
            qos=DEFAULT_QOS,
            source=f"{_RS_NODE}#L314",
        ),
        Topic(
            "image",
            "camera/{camera}/color/image_raw",
            "rgb8",
            _RS_COLOR,
            SYSTEM_DEFAULT_QOS,
            source=f"{_RS_NODE}#L279",
        ),
        Topic(
            "image_info",
            "camera/{camera}/color/camera_info",
            frame=_RS_COLOR,
            qos=DEFAULT_QOS,
            source=f"{_RS_NODE}#L280",
        ),
        # setPointCloud2FieldsByString pads x, y, z to 16 bytes; rgb comes behind. Points without
        # depth are left out unless pointcloud.ordered_pc is set.
        Topic(
            "points",
            "camera/{camera}/depth/color/points",
            qos=DEFAULT_QOS,
            cloud=CloudLayout(point_step=20, rgb_offset=16, organised=False),
            source="realsense2_camera/src/pointcloud_filter.cpp#L72",
        ),
    ),
    frames=(
        StaticFrame("{camera}_link", "{camera}_depth_frame"),
        StaticFrame("{camera}_depth_frame", "{camera}_depth_optical_frame", rotation=_OPTICAL),
        StaticFrame("{camera}_link", "{camera}_color_frame"),
        StaticFrame("{camera}_color_frame", _RS_COLOR, rotation=_OPTICAL),
    ),
    optical_frame="{camera}_depth_optical_frame",
    source="https://github.com/realsenseai/realsense-ros/blob/4.58.2/",
)

_ZED_VIDEO = "zed_components/src/zed_camera/src/zed_camera_component_video_depth.cpp"
_ZED_NODE = "{camera}/zed_node"
_ZED_RIGHT = "{camera}_right_camera_frame_optical"


def _zed(
    output: str,
    name: str,
    line: int,
    encoding: str = "",
    frame: str = "",
    cloud: CloudLayout | None = None,
) -> Topic:
    source = f"{_ZED_VIDEO}#L{line}"
    layout = cloud or CloudLayout()
    return Topic(output, f"{_ZED_NODE}/{name}", encoding, frame, DEFAULT_QOS, layout, source)


# zed_camera.launch.py puts node zed_node into a namespace with the camera's name. Each camera_info
# is published twice: beside its image, and below the image's name.
_ZED = Profile(
    name="zed",
    camera_name="zed",
    topics=_complete(
        _zed("depth", "depth/depth_registered", 81, "32FC1"),
        _zed("depth_info", "depth/camera_info", 420),
        _zed("depth_info", "depth/depth_registered/camera_info", 421),
        _zed("image", "rgb/color/rect/image", 66, "bgra8"),
        _zed("image_info", "rgb/color/rect/camera_info", 376),
        _zed("image_info", "rgb/color/rect/image/camera_info", 377),
        _zed("image", "left/color/rect/image", 62, "bgra8"),
        _zed("image_info", "left/color/rect/camera_info", 392),
        _zed("image_info", "left/color/rect/image/camera_info", 393),
        _zed("right_info", "right/color/rect/camera_info", 394, frame=_ZED_RIGHT),
        _zed("right_info", "right/color/rect/image/camera_info", 395, frame=_ZED_RIGHT),
        _zed(
            "points",
            "point_cloud/cloud_registered",
            84,
            frame="{camera}_left_camera_frame",
            cloud=CloudLayout(forward="x"),
        ),
        _zed("disparity", "disparity/disparity_image", 78),
        _zed("disparity", "disparity/map", 79),
        _zed("confidence", "confidence/confidence_map", 83, "32FC1"),
    ),
    frames=(
        StaticFrame("{camera}_camera_link", "{camera}_camera_center"),
        StaticFrame("{camera}_camera_center", "{camera}_left_camera_frame"),
        StaticFrame(
            "{camera}_left_camera_frame", "{camera}_left_camera_frame_optical", rotation=_OPTICAL
        ),
    ),
    optical_frame="{camera}_left_camera_frame_optical",
    distortion_model="rational_polynomial",
    coefficients=8,
    # The SDK's confidence is 0 where it is sure of the depth, and 100 where it is not.
    confidence=(100.0, 0.0),
    source="https://github.com/stereolabs/zed-ros2-wrapper/blob/v5.4.1/",
)

_OAK_REPOSITORY = "https://github.com/luxonis/depthai-ros/blob"
_OAK_SENSORS = "depthai_ros_driver/src/dai_nodes/sensors"
_OAK_LAUNCH = "depthai_ros_driver/launch/camera.launch.py"

# camera.launch.py aligns depth to the colour camera. image_rect and points are image_proc's and
# depth_image_proc's, which it starts beside the driver. The driver's version 3 makes its own cloud.
_OAK = Profile(
    name="oak",
    camera_name="oak",
    topics=_complete(
        Topic(
            "depth",
            "{camera}/stereo/image_raw",
            "16UC1",
            qos=DEFAULT_QOS,
            source=f"{_OAK_SENSORS}/stereo.cpp#L199",
        ),
        Topic(
            "depth_info",
            "{camera}/stereo/camera_info",
            qos=DEFAULT_QOS,
            source=f"{_OAK_SENSORS}/img_pub.cpp#L79",
        ),
        Topic(
            "image",
            "{camera}/rgb/image_raw",
            "bgr8",
            qos=DEFAULT_QOS,
            source=f"{_OAK_SENSORS}/rgb.cpp#L82",
        ),
        Topic(
            "image",
            "{camera}/rgb/image_rect",
            "bgr8",
            qos=Qos(5),
            source=f"{_OAK_LAUNCH}#L238",
        ),
        Topic(
            "image_info",
            "{camera}/rgb/camera_info",
            qos=DEFAULT_QOS,
            source=f"{_OAK_SENSORS}/img_pub.cpp#L79",
        ),
        Topic(
            "points",
            "{camera}/points",
            qos=SENSOR_DATA_QOS,
            cloud=CloudLayout(point_step=32, rgb_offset=16),
            source=f"{_OAK_LAUNCH}#L76",
        ),
        Topic(
            "points",
            "{camera}/rgbd/points",
            qos=DEFAULT_QOS,
            source=f"{_OAK_REPOSITORY}/11597ad30071f67debfa67773e68c55e7e37a88a/{_OAK_SENSORS}"
            "/rgbd.cpp#L74",
        ),
    ),
    frames=(
        StaticFrame("oak-d-base-frame", "{camera}"),
        StaticFrame("{camera}", "{camera}_rgb_camera_frame"),
        StaticFrame(
            "{camera}_rgb_camera_frame", "{camera}_rgb_camera_optical_frame", rotation=_OPTICAL
        ),
    ),
    optical_frame="{camera}_rgb_camera_optical_frame",
    distortion_model="rational_polynomial",
    coefficients=8,
    source=f"{_OAK_REPOSITORY}/v2.10.3-jazzy/",
)

PROFILES: dict[str, Profile] = {
    profile.name: profile for profile in (Profile("generic", "", _GENERIC), _REALSENSE, _ZED, _OAK)
}

# A name goes into topics, where each level starts with a letter, and into frames.
_CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def _camera_name(profile: Profile, given: str) -> str:
    name = given or profile.camera_name
    if name and not _CAMERA_NAME.fullmatch(name):
        raise ValueError(
            f"camera_name '{name}': use letters, digits and underscores, and begin with a letter"
        )
    return name


def profile_topics(profile: Profile, camera_name: str = "") -> tuple[Topic, ...]:
    """The topics of a profile with the camera's name put in, and `frame` never left to the profile.

    Args:
        camera_name: empty takes the driver's default.

    Returns:
        Topics whose empty `frame`, which only `generic` has, means the input image's.

    Raises:
        ValueError: the name cannot be part of a topic.
    """
    name = _camera_name(profile, camera_name)
    return tuple(
        replace(
            topic,
            name=topic.name.replace("{camera}", name),
            frame=(topic.frame or profile.optical_frame).replace("{camera}", name),
        )
        for topic in profile.topics
    )


def profile_frames(profile: Profile, camera_name: str = "") -> tuple[StaticFrame, ...]:
    """The static frames of a profile with the camera's name put in.

    With another name than the driver's default, a root that does not have the name in it, as
    `oak-d-base-frame`, is left out: two cameras below one root would be in one place.

    Args:
        camera_name: empty takes the driver's default.

    Raises:
        ValueError: the name cannot be part of a topic.
    """
    name = _camera_name(profile, camera_name)
    return tuple(
        replace(
            frame,
            parent=frame.parent.replace("{camera}", name),
            child=frame.child.replace("{camera}", name),
        )
        for frame in profile.frames
        if name == profile.camera_name or "{camera}" in frame.parent
    )


# Tables for the documentation


def _format(topic: Topic) -> str:
    if topic.output == "points":
        cloud = topic.cloud
        points = "organised" if cloud.organised else "valid points only"
        return (
            f"{points}, {cloud.point_step} bytes, rgb at {cloud.rgb_offset}, {cloud.forward} ahead"
        )
    return topic.encoding or ("`depth_encoding`" if topic.output == "depth" else "")


def _qos(qos: Qos) -> str:
    if qos == SYSTEM_DEFAULT_QOS:
        return "system default"
    return f"{qos.reliability.replace('_', ' ')}, last {qos.depth}"


def _frame(topic: Topic) -> str:
    if topic.output == "scan":
        return "level"
    return f"`{topic.frame}`" if topic.frame else "the input's"


def _source(profile: Profile, topic: Topic) -> str:
    if not topic.source:
        return "ours"
    url = topic.source if "://" in topic.source else profile.source + topic.source
    return f"[{url.rsplit('/', 1)[-1].replace('#L', ':')}]({url})"


def markdown(profile: Profile) -> str:
    """Markdown tables of the topics and of the static frames, with the default camera name."""
    topics = markdown_table.page_table(
        ("topic", "output", "type", "format", "QoS", "frame", "source"),
        [
            (
                f"`{topic.name}`",
                topic.output,
                OUTPUTS[topic.output].rsplit("/", 1)[-1],
                _format(topic),
                _qos(topic.qos),
                _frame(topic),
                _source(profile, topic),
            )
            for topic in profile_topics(profile)
        ],
    )
    if not profile.frames:
        return topics
    frames = markdown_table.page_table(
        ("parent", "child", "rotation x y z w"),
        [
            (f"`{frame.parent}`", f"`{frame.child}`", " ".join(f"{q:g}" for q in frame.rotation))
            for frame in profile_frames(profile)
        ],
    )
    return f"{topics}\n\n{frames}"


def with_tables(page: str) -> str:
    """A page whose tables, each between `<!-- profile NAME -->` and `<!-- end -->`, are made anew.

    Raises:
        KeyError: there is no profile of that name.
    """
    return markdown_table.with_tables(page, "profile", lambda name: markdown(PROFILES[name]))


def main() -> None:
    """Rewrites the tables of a page."""
    parser = argparse.ArgumentParser(description="Brings the tables of a page up to date.")
    parser.add_argument("page", type=Path, help="docs/profiles.md")
    page = parser.parse_args().page
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
