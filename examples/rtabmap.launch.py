"""RTAB-Map on the depth node's topics: a map, and visual odometry if the robot has none.

Needs rtabmap_slam and rtabmap_odom. The depth node runs beside it:
    ros2 launch mono_depth_ros depth.launch.py image_topic:=/camera/image_raw ...
    ros2 launch examples/rtabmap.launch.py frame_id:=base_link visual_odometry:=false
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

# rgb/image is the rectified image, of which depth/camera_info is the calibration: the pixels that
# depth belongs to.
REMAPPINGS = [
    ("rgb/image", "image_rect"),
    ("rgb/camera_info", "depth/camera_info"),
    ("depth/image", "depth/image_rect"),
]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    parameters = [
        {
            "frame_id": LaunchConfiguration("frame_id"),
            "subscribe_depth": True,
            # All three carry the stamp of the camera's image.
            "approx_sync": False,
        }
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "frame_id", default_value="base_footprint", description="tf frame of the robot"
            ),
            DeclareLaunchArgument(
                "visual_odometry",
                default_value="true",
                description="false if the robot publishes odom and its tf itself",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="namespace of the depth node"
            ),
            Node(
                package="rtabmap_odom",
                executable="rgbd_odometry",
                namespace=LaunchConfiguration("namespace"),
                parameters=parameters,
                remappings=REMAPPINGS,
                condition=IfCondition(LaunchConfiguration("visual_odometry")),
                output="screen",
            ),
            Node(
                package="rtabmap_slam",
                executable="rtabmap",
                namespace=LaunchConfiguration("namespace"),
                parameters=parameters,
                remappings=REMAPPINGS,
                # Starts a new map each time.
                arguments=["-d"],
                output="screen",
            ),
        ]
    )
