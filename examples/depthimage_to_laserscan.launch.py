"""A laser scan from the depth image by depthimage_to_laserscan, for those who use it already.

It takes the rows around the image's centre for a level plane, so the camera must not be pitched.
The depth node's own topic `scan` allows for pitch, and looks at a band of heights.

Needs depthimage_to_laserscan. The depth node runs beside it:
    ros2 launch mono_depth_ros depth.launch.py image_topic:=/camera/image_raw ...
    ros2 launch examples/depthimage_to_laserscan.launch.py output_frame:=camera_link
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "output_frame",
                default_value="camera_link",
                description="tf frame of the scan: at the lens, x forward, z up; not the optical",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="namespace of the depth node"
            ),
            Node(
                package="depthimage_to_laserscan",
                executable="depthimage_to_laserscan_node",
                name="depthimage_to_laserscan",
                namespace=LaunchConfiguration("namespace"),
                remappings=[
                    # 32FC1 and 16UC1 are both taken.
                    ("depth", "depth/image_rect"),
                    ("depth_camera_info", "depth/camera_info"),
                    # Not `scan`, which is the depth node's own.
                    ("scan", "depth/scan"),
                ],
                parameters=[
                    {
                        "output_frame": LaunchConfiguration("output_frame"),
                        # Rows; the nearest of each column counts.
                        "scan_height": 10,
                        # Those of the depth node's min_depth and max_depth.
                        "range_min": 0.1,
                        "range_max": 10.0,
                    }
                ],
                output="screen",
            ),
        ]
    )
