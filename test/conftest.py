"""The environment that every ROS process of the tests, this one included, must share."""

from __future__ import annotations

import os
from pathlib import Path

# Read when a participant is made, so it must stand before the first test.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(
    Path(__file__).parent.parent / "config" / "fastdds.xml"
)
