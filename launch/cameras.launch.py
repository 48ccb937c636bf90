"""Starts the depth node for several cameras: one process, one engine, one node a camera.

Each camera's node is `mono_depth` in the camera's namespace: camera `front` gives
`front/depth/image_rect`, `front/points` and so on.

Usage:
    ros2 launch mono_depth_ros cameras.launch.py cameras:=front,rear
    ros2 launch mono_depth_ros cameras.launch.py cameras_file:=my_cameras.yaml namespace:=robot
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import (
    EnvironmentVariable,
    LaunchConfiguration,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

KEYS = {"image_topic", "camera_info_topic", "parameters"}
# A namespace, as ROS allows it.
_NAME = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


def _config(name: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("mono_depth_ros"), "config", name])


def _arguments() -> list[DeclareLaunchArgument]:
    arguments = {
        "cameras": ("", "names of the cameras, as front,rear (empty: all in cameras_file)"),
        "cameras_file": (_config("cameras.yaml"), "topics and parameters by camera name"),
        "namespace": ("", "namespace that the cameras' are in"),
        "params_file": (_config("depth.yaml"), "parameters of all cameras' nodes"),
        "log_level": ("info", "debug, info, warn, error or fatal"),
    }
    return [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in arguments.items()
    ]


def _fast_dds_profile() -> SetEnvironmentVariable:
    """As in depth.launch.py."""
    old, new = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
    shipped = EnvironmentVariable(old, default_value=[_config("fastdds.xml")])
    if os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy"):
        return SetEnvironmentVariable(old, shipped)
    return SetEnvironmentVariable(new, EnvironmentVariable(new, default_value=[shipped]))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The cameras of a file.

    Raises:
        RuntimeError: names the file, the camera, and what is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise RuntimeError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise RuntimeError(f"{path} is no mapping of camera names")
    for name, camera in document.items():
        if camera is not None and not isinstance(camera, dict):
            raise RuntimeError(f"{path}: camera {name} is no mapping of {', '.join(sorted(KEYS))}")
        if unknown := set(camera or {}) - KEYS:
            raise RuntimeError(f"{path}: camera {name} has unknown {', '.join(map(str, unknown))}")
    return {str(name): camera or {} for name, camera in document.items()}


def _remappings(namespace: str, camera: dict[str, Any]) -> list[tuple[str, str]]:
    """Whole names on the left, so that each rule is for one of the nodes in the process."""
    rules = []
    image, info = camera.get("image_topic"), camera.get("camera_info_topic")
    if image:
        # A remapping matches whole names only, so the compressed topic needs its own.
        rules += [("image_raw", image), ("image_raw/compressed", f"{image}/compressed")]
        folder, slash, _ = image.rpartition("/")
        info = info or f"{folder}{slash}camera_info"
    if info:
        rules.append(("camera_info", info))
    return [(f"{namespace}/{topic}", target) for topic, target in rules]


def _node(context: LaunchContext) -> list[Node]:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    file = Path(given("cameras_file"))
    known = _read(file)
    cameras = [name.strip() for name in given("cameras").split(",") if name.strip()] or list(known)
    if not cameras:
        raise RuntimeError(f"there is no camera in {file}; name some, as cameras:=front,rear")
    namespaces = ["/".join(filter(None, [given("namespace").strip("/"), c])) for c in cameras]
    for namespace in namespaces:
        if not _NAME.fullmatch(namespace) or namespaces.count(namespace) > 1:
            raise RuntimeError(f"camera '{namespace}' is no namespace of its own; rename it")

    remappings: list[tuple[str, str]] = []
    parameters: dict[str, Any] = {}
    for name, namespace in zip(cameras, namespaces, strict=True):
        camera = known.get(name, {})
        remappings += _remappings(f"/{namespace}", camera)
        if camera.get("parameters"):
            parameters[f"/{namespace}/mono_depth"] = {"ros__parameters": camera["parameters"]}
    files: list[Any] = [LaunchConfiguration("params_file")]
    if parameters:
        # Left behind, as launch does with parameters of its own: a respawned node reads it again.
        with tempfile.NamedTemporaryFile(
            "w", prefix="launch_cameras_", suffix=".yaml", delete=False
        ) as written:
            yaml.safe_dump(parameters, written)
        files.append(written.name)
    return [
        # Without a name or namespace, which would be those of all nodes in the process.
        Node(
            package="mono_depth_ros",
            executable="depth_node",
            arguments=[word for namespace in namespaces for word in ("--camera", namespace)],
            parameters=files,
            remappings=remappings,
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
            respawn=True,
            respawn_delay=2.0,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*_arguments(), _fast_dds_profile(), OpaqueFunction(function=_node)])
