"""The environment that every ROS process of the tests, this one included, must share."""

from __future__ import annotations

import os

from mono_depth_ros.ros_process import dds_environment

# Read when a participant is made, so it must stand before the first test.
os.environ.update(dds_environment())
