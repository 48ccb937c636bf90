"""Shows the depth node at work without a camera: a simulated one, the node, and RViz.

Takes every argument of depth.launch.py as well.

Usage:
    ros2 launch mono_depth_ros demo.launch.py
    ros2 launch mono_depth_ros demo.launch.py seed:=3 hfov_deg:=90 rviz:=false
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    depth = PathJoinSubstitution([FindPackageShare("mono_depth_ros"), "launch", "depth.launch.py"])
    return LaunchDescription(
        [
            # Declared before the include, this default wins over the one there.
            DeclareLaunchArgument("rviz", default_value="true", description="open RViz"),
            DeclareLaunchArgument(
                "seed", default_value="0", description="which room to walk through"
            ),
            DeclareLaunchArgument(
                "hfov_deg",
                default_value="60.0",
                description="the camera's horizontal field of view",
            ),
            # Included before the camera starts: the namespace and the Fast DDS profile that it sets
            # are the camera's too.
            IncludeLaunchDescription(PythonLaunchDescriptionSource(depth)),
            Node(
                package="mono_depth_ros",
                executable="virtual_camera",
                name="virtual_camera",
                namespace=LaunchConfiguration("namespace"),
                parameters=[
                    {
                        "seed": ParameterValue(LaunchConfiguration("seed"), value_type=int),
                        "hfov_deg": ParameterValue(
                            LaunchConfiguration("hfov_deg"), value_type=float
                        ),
                    }
                ],
                output="screen",
            ),
        ]
    )
