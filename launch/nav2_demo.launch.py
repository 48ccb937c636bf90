"""Shows a Nav2 costmap that sees through the depth node, on a simulated robot with a camera.

A virtual camera is driven through a room and publishes its true pose to tf; the depth node makes
the clouds; nav2_costmap_2d makes a local costmap of them; RViz shows it all. Needs the packages
nav2_costmap_2d and nav2_lifecycle_manager.

Takes the arguments of depth.launch.py as well, except: namespace, base_frame and rviz_frame, which
are set here; camera_height, camera_pitch_deg and camera_roll_deg, since tf tells how the camera is
held (mount_height_m and mount_pitch_deg change that); profile and camera_name, since the robot's tf
does not lead to the frames of a driver's profile.

Usage:
    ros2 launch mono_depth_ros nav2_demo.launch.py
    ros2 launch mono_depth_ros nav2_demo.launch.py mark_only:=true
    ros2 launch mono_depth_ros nav2_demo.launch.py rate:=30.0 prerender:=300
"""

from __future__ import annotations

from pathlib import Path

import yaml
from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Arguments that are parameters of the virtual camera.
CAMERA: dict[str, tuple[int | float, str]] = {
    "seed": (0, "which room to drive through"),
    "hfov_deg": (60.0, "the camera's horizontal field of view"),
    "rate": (15.0, "camera images per second"),
    "prerender": (0, "frames rendered beforehand, where rendering is too slow for the rate"),
    "mount_height_m": (0.6, "height of the camera above the floor"),
    "mount_pitch_deg": (10.0, "pitch of the camera; positive looks down"),
}


def _share(folder: str, name: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("mono_depth_ros"), folder, name])


def _arguments() -> list[DeclareLaunchArgument]:
    arguments = {
        # Declared before the include, this default wins over the one there.
        "rviz": ("true", "open RViz"),
        "mark_only": (
            "false",
            "let the camera only mark, and a lidar, here played by the topic scan, mark and clear",
        ),
        "costmap_file": (_share("config", "nav2_costmap.yaml"), "parameters of the costmap"),
    }
    return [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in arguments.items()
    ] + [
        DeclareLaunchArgument(name, default_value=str(default), description=text)
        for name, (default, text) in CAMERA.items()
    ]


def _costmap(context: LaunchContext) -> dict[str, object]:
    """Parameters of the local costmap."""
    path = Path(LaunchConfiguration("costmap_file").perform(context))
    try:
        section = yaml.safe_load(path.read_text())["local_costmap"]["local_costmap"]
        parameters: dict[str, object] = dict(section["ros__parameters"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise RuntimeError(f"{path} has no parameters of a local_costmap ({error!r})") from error
    if IfCondition(LaunchConfiguration("mark_only")).evaluate(context):
        parameters["plugins"] = ["lidar_layer", "inflation_layer"]
    # The room is built first, and the camera has no pose before. Humble waits without a limit.
    parameters["initial_transform_timeout"] = 600.0
    return parameters


def _refuse_profile(context: LaunchContext) -> None:
    """Raises RuntimeError where a driver's profile is asked for."""
    # Only given, not declared yet: the include does that.
    profile = context.launch_configurations.get("profile", "")
    if profile not in ("", "generic"):
        raise RuntimeError(
            f"profile:={profile} has frames that this robot's tf does not lead to; leave it out, or"
            " look at it with demo.launch.py"
        )


def _actions(context: LaunchContext) -> list[Action]:
    _refuse_profile(context)
    depth = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(_share("launch", "depth.launch.py")),
        # The costmap's topics are absolute.
        launch_arguments={
            "namespace": "",
            "base_frame": "base_footprint",
            # Whatever params_file says.
            "profile": "generic",
            "rviz": "false",
        }.items(),
    )
    camera = Node(
        package="mono_depth_ros",
        executable="virtual_camera",
        name="virtual_camera",
        parameters=[
            {
                name: ParameterValue(LaunchConfiguration(name), value_type=type(default))
                for name, (default, _) in CAMERA.items()
            }
        ],
        output="screen",
    )
    # Humble's executable is /costmap/costmap whatever it is told.
    costmap = Node(
        package="nav2_costmap_2d",
        executable="nav2_costmap_2d",
        name="costmap",
        namespace="costmap",
        parameters=[_costmap(context)],
        output="screen",
    )
    manager = Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name="lifecycle_manager",
        # A costmap on its own has no bond that could tell whether it lives.
        parameters=[{"autostart": True, "bond_timeout": 0.0, "node_names": ["costmap/costmap"]}],
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", _share("config", "nav2_demo.rviz")],
    )
    # Read before the include sets it.
    shown = [rviz] if IfCondition(LaunchConfiguration("rviz")).evaluate(context) else []
    # The include comes first: the Fast DDS profile that it sets is everybody's.
    return [depth, camera, costmap, manager, *shown]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription([*_arguments(), OpaqueFunction(function=_actions)])
