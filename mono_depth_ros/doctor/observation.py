"""What `depth_doctor` has seen of a running system; `findings` judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mono_depth_ros.camera_info import CameraInfo
from mono_depth_ros.doctor.host import Host, Process
from mono_depth_ros.health import Level

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscription.

    Attributes:
        node: fully qualified name of its node.
        kind: type, as `sensor_msgs/msg/Image`.
        reliable, latched: QoS: reliable, transient local.
        process: that it belongs to; None if not known.
        elsewhere: on another machine.
    """

    node: str
    kind: str
    reliable: bool = True
    latched: bool = False
    process: Process | None = None
    elsewhere: bool = False


@dataclass(frozen=True)
class Topic:
    """A topic of the node, and who is on it.

    Attributes:
        name: resolved.
        publishers: of an input, everybody's; of an output, the node's.
        subscriptions: of an input, the node's; of an output, everybody's.
    """

    name: str
    publishers: tuple[Endpoint, ...] = ()
    subscriptions: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Stream:
    """An input of the node, and the messages that came on it meanwhile.

    Attributes:
        topic: the input; without subscriptions while the node needs no images.
        kind: type that the node takes.
        stamps_ns: of the headers, in the order of arrival.
        wall_ns: system time of each arrival.
        clock_ns: newest time on /clock at each arrival; 0 while there was none.
        frame_id: of the last message.
    """

    topic: Topic
    kind: str = IMAGE
    stamps_ns: tuple[int, ...] = ()
    wall_ns: tuple[int, ...] = ()
    clock_ns: tuple[int, ...] = ()
    frame_id: str = ""


@dataclass(frozen=True)
class Picture:
    """The last image.

    Attributes:
        width, height: in pixels; 0 if it cannot be read.
        message_bytes: of the message.
        problem: why it cannot be read; empty if it can.
    """

    width: int
    height: int
    message_bytes: int
    problem: str = ""


@dataclass(frozen=True)
class Status:
    """What the node says of itself on /diagnostics.

    Attributes:
        level, message, values: as published.
        image_topic: its hardware_id: the image that it takes, resolved.
    """

    level: Level
    message: str
    values: Mapping[str, str] = field(default_factory=dict)
    image_topic: str = ""

    def number(self, key: str) -> float | None:
        """A value that is a number; None where it is missing or none."""
        try:
            return float(self.values[key])
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class DepthNode:
    """One depth node.

    Attributes:
        name: fully qualified.
        namesakes: other nodes of this name.
        state: of its lifecycle; empty if it did not answer.
        parameters: those that were asked for; empty if it did not answer.
        image, info: its inputs; None if they are not known.
        picture, calibration: their last messages; None if there was none.
        outputs: what it publishes.
        status: its last; None if there was none.
    """

    name: str
    namesakes: int = 0
    state: str = "active"
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    image: Stream | None = None
    info: Stream | None = None
    picture: Picture | None = None
    calibration: CameraInfo | None = None
    outputs: tuple[Topic, ...] = ()
    status: Status | None = None

    @property
    def namespace(self) -> str:
        """Without the node's own name; empty for the root."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True)
class Observation:
    """A system over some seconds.

    Attributes:
        nodes: depth nodes that were looked at.
        other_nodes: names of the rest, without this process.
        wanted: name of the node that was asked for; empty for any.
        camera_topics: type by name of the images and calibrations that others publish.
        clock_publishers: on /clock.
        clock_ns: what came on /clock.
        transforms: parent frame and rotation (quaternion x, y, z, w) by child frame, of /tf_static.
        host: this machine.
        rmw: as `rmw_fastrtps_cpp`.
        profile: the Fast DDS profile that ships.
        profile_variable: the environment variable that points Fast DDS at one.
    """

    nodes: tuple[DepthNode, ...] = ()
    other_nodes: tuple[str, ...] = ()
    wanted: str = ""
    camera_topics: Mapping[str, str] = field(default_factory=dict)
    clock_publishers: int = 0
    clock_ns: tuple[int, ...] = ()
    transforms: Mapping[str, tuple[str, tuple[float, float, float, float]]] = field(
        default_factory=dict
    )
    host: Host = field(default_factory=Host)
    rmw: str = "rmw_fastrtps_cpp"
    profile: str = "config/fastdds.xml"
    profile_variable: str = "FASTDDS_DEFAULT_PROFILES_FILE"
