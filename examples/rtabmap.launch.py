"""RTAB-Map on the depth node's topics: a map, and visual odometry if the robot has none.

Needs rtabmap_slam and rtabmap_odom. The depth node runs beside it:
    ros2 launch mono_depth_ros depth.launch.py image_topic:=/camera/image_raw ...
    ros2 launch examples/rtabmap.launch.py visual_odometry:=false odom_frame_id:=odom
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

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
    # Exact synchronisation takes in a topic of odometry, and a robot's own has other stamps than
    # the images; tf has it for any stamp.
    odom_frame = ParameterValue(LaunchConfiguration("odom_frame_id"), value_type=str)
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "frame_id", default_value="base_footprint", description="tf frame of the robot"
            ),
            DeclareLaunchArgument(
                "visual_odometry",
                default_value="true",
                description="false if the robot has odometry; then set odom_frame_id, too",
            ),
            DeclareLaunchArgument(
                "odom_frame_id",
                default_value="",
                description="tf frame of the robot's own odometry (empty: that of visual odometry)",
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
                parameters=[*parameters, {"odom_frame_id": odom_frame}],
                remappings=REMAPPINGS,
                # Starts a new map each time.
                arguments=["-d"],
                output="screen",
            ),
        ]
    )
