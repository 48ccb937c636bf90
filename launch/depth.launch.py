"""Starts the depth node: one camera in, a depth camera out.

Usage:
    ros2 launch mono_depth_ros depth.launch.py image_topic:=/camera/image_raw \
        camera_info_topic:=/camera/camera_info
    ros2 launch mono_depth_ros depth.launch.py image_transport:=compressed camera_height:=0.3
    ros2 launch mono_depth_ros depth.launch.py rviz:=true rviz_frame:=default_cam
    ros2 launch mono_depth_ros depth.launch.py rviz:=true profile:=realsense
"""

from __future__ import annotations

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    PathJoinSubstitution,
    TextSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from mono_depth_ros.output_profiles import PROFILES, profile_topics

# Arguments that are parameters of the node. One left empty changes nothing, so what the parameter
# file says holds unless the command line says otherwise.
OVERRIDES: dict[str, tuple[type, str]] = {
    "model": (str, "ONNX model file"),
    "engine": (str, "inference runtime: auto, tensorrt, openvino or onnx"),
    "precision": (str, "auto, float32, float16, bfloat16 or int8"),
    "cache_dir": (str, "folder for built engines"),
    "image_transport": (str, "raw or compressed"),
    "profile": (str, "topics and frames as of a driver: generic, realsense, zed or oak"),
    "camera_name": (str, "the name in a driver's topics and frames"),
    "rectify": (str, "undistort images: auto, on or off"),
    "aspect": (str, "images of another shape than the network's: stretch, letterbox or crop"),
    "base_frame": (str, "tf frame on the ground that tells how the camera is held"),
    "camera_height": (float, "metres of the lens above the ground, where base_frame is not set"),
    "camera_pitch_deg": (float, "how far the camera looks down, where base_frame is not set"),
    "camera_roll_deg": (
        float,
        "how far it leans to the right, where base_frame is not set",
    ),
    "fallback_hfov_deg": (float, "horizontal field of view to assume without a calibration"),
    "publish_tf": (bool, "publish the static frames of the profile, and the level frame of scan"),
    "autostart": (bool, "false waits for a lifecycle manager to configure and activate the node"),
    "use_sim_time": (bool, "take the time from /clock"),
}


def _config(name: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("mono_depth_ros"), "config", name])


def _arguments() -> list[DeclareLaunchArgument]:
    arguments = {
        "image_topic": (
            "image_raw",
            "camera image; compressed images are at <image_topic>/compressed",
        ),
        "camera_info_topic": ("camera_info", "calibration of that camera"),
        "namespace": ("", "namespace of the node and of its relative topics"),
        "params_file": (_config("depth.yaml"), "parameters of the node"),
        "rviz": ("false", "open RViz on the results"),
        "rviz_frame": (
            "",
            "RViz's fixed frame: the frame_id of the camera's images (empty: the optical frame of"
            " a profile that is given here, else camera_optical_frame)",
        ),
        "log_level": ("info", "debug, info, warn, error or fatal"),
    }
    return [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in arguments.items()
    ] + [
        DeclareLaunchArgument(
            name, default_value="", description=f"{text} (empty: as in params_file)"
        )
        for name, (_, text) in OVERRIDES.items()
    ]


def _fast_dds_profile() -> SetEnvironmentVariable:
    """Points Fast DDS at the shipped profile, unless the user has chosen one.

    Images do not fit its default shared memory. Fast DDS 2, up to Jazzy, reads only the old
    variable; Fast DDS 3 reads both, but warns of the old one.
    """
    old, new = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
    shipped = EnvironmentVariable(old, default_value=[_config("fastdds.xml")])
    if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy"):
        return SetEnvironmentVariable(old, shipped)
    return SetEnvironmentVariable(new, EnvironmentVariable(new, default_value=[shipped]))


def _profile_in_rviz(profile: str, camera_name: str) -> tuple[list[tuple[str, str]], str]:
    """How a configuration for the generic topics shows those of a profile.

    Returns:
        Remappings, and the optical frame: empty where that is the input's.

    Raises:
        RuntimeError: there is no such profile.
        ValueError: the camera's name cannot be part of a topic.
    """
    if profile not in PROFILES:
        raise RuntimeError(f"there is no profile '{profile}'; use {', '.join(PROFILES)}")
    topics = profile_topics(PROFILES[profile], camera_name)
    remappings = []
    for generic in PROFILES["generic"].topics:
        # The displays are reliable, and get nothing from a best-effort publisher.
        name = next(
            topic.name
            for topic in topics
            if topic.output == generic.output and topic.qos.reliability != "best_effort"
        )
        if name != generic.name:
            remappings.append((generic.name, name))
    return remappings, next(topic.frame for topic in topics if topic.output == "depth")


def _nodes(context: LaunchContext) -> list[Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name in OVERRIDES}
    overrides = {
        name: ParameterValue(TextSubstitution(text=text), value_type=OVERRIDES[name][0])
        for name, text in given.items()
        if text
    }
    image = LaunchConfiguration("image_topic")
    remappings = [
        ("image_raw", image),
        # A remapping matches whole names only, so the compressed topic needs its own.
        ("image_raw/compressed", [image, "/compressed"]),
        ("camera_info", LaunchConfiguration("camera_info_topic")),
    ]
    depth = Node(
        package="mono_depth_ros",
        executable="depth_node",
        name="mono_depth",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), *([overrides] if overrides else [])],
        remappings=remappings,
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        output="screen",
        respawn=True,
        respawn_delay=2.0,
    )
    renamed, optical_frame = _profile_in_rviz(given["profile"] or "generic", given["camera_name"])
    frame = LaunchConfiguration("rviz_frame").perform(context) or optical_frame
    clock = {name: value for name, value in overrides.items() if name == "use_sim_time"}
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", _config("mono_depth.rviz"), *(["-f", frame] if frame else [])],
        parameters=[clock] if clock else [],
        remappings=[*remappings, *renamed],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [depth, rviz]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*_arguments(), _fast_dds_profile(), OpaqueFunction(function=_nodes)])
