"""The environment of all tests and of the processes that they start."""

from __future__ import annotations

import os
import tempfile

from mono_depth_ros.ros_process import dds_environment

# Read when a participant is made, so it must stand before the first test.
os.environ.update(dds_environment())
# What the user has built or calibrated must not serve here, and nothing of ours is left there.
_CACHE = tempfile.TemporaryDirectory(prefix="mono_depth_ros-")
os.environ["XDG_CACHE_HOME"] = _CACHE.name
