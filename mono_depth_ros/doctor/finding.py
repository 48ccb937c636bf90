"""What `depth_doctor` can find, by code; `docs/troubleshooting.md` has a section for each."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from mono_depth_ros.health import Level


class Code(str, enum.Enum):
    """Names of the findings; sections of `docs/troubleshooting.md`."""

    NO_NODE = "no_node"
    TWO_NODES = "two_nodes"
    NODE_SILENT = "node_silent"
    NOT_ACTIVE = "not_active"
    IMAGE_NO_PUBLISHER = "image_no_publisher"
    IMAGE_TRANSPORT = "image_transport"
    WRONG_TYPE = "wrong_type"
    QOS_MISMATCH = "qos_mismatch"
    TWO_CAMERAS = "two_cameras"
    IMAGE_SILENT = "image_silent"
    IMAGES_LOST = "images_lost"
    IMAGE_UNREADABLE = "image_unreadable"
    INFO_NO_PUBLISHER = "info_no_publisher"
    INFO_SILENT = "info_silent"
    INFO_ZERO = "info_zero"
    INFO_WRONG_SIZE = "info_wrong_size"
    INFO_BROKEN = "info_broken"
    INFO_IMPLAUSIBLE = "info_implausible"
    INFO_UNSYNCHRONISED = "info_unsynchronised"
    FRAME_EMPTY = "frame_empty"
    FRAME_NOT_OPTICAL = "frame_not_optical"
    FRAMES_DIFFER = "frames_differ"
    STAMPS_ZERO = "stamps_zero"
    STAMPS_OLD = "stamps_old"
    STAMPS_FUTURE = "stamps_future"
    STAMPS_BACKWARDS = "stamps_backwards"
    NO_CLOCK = "no_clock"
    CLOCK_STOPPED = "clock_stopped"
    CLOCK_IGNORED = "clock_ignored"
    DDS_PROFILE = "dds_profile"
    SHM_SMALL = "shm_small"
    SHM_STALE = "shm_stale"
    RMEM_SMALL = "rmem_small"
    ENGINE_FALLBACK = "engine_fallback"
    ENGINE_BUILDING = "engine_building"
    TOO_SLOW = "too_slow"
    MOSTLY_INVALID = "mostly_invalid"
    NO_SUBSCRIBER = "no_subscriber"
    NODE_ERROR = "node_error"
    NODE_WARNING = "node_warning"


# A finding without the node that it is about: code, level, what, fix.
Claim: TypeAlias = "tuple[Code, Level, str, str]"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth to know.

    Attributes:
        code: see `Code`.
        level: ERROR keeps depth away or makes it wrong; WARN makes it worse; OK is a remark.
        node: depth node that it is about; empty for the machine.
        what: is wrong.
        fix: what to do: a command where there is one.
    """

    code: Code
    level: Level
    node: str
    what: str
    fix: str
