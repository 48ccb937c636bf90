"""ROS 2 bags of a camera, written by rosbags, whose depth a test network answers exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_HUMBLE)
WIDTH, HEIGHT = networks.WIDTH, networks.HEIGHT
START, PERIOD = 1_700_000_000_000_000_000, 100_000_000
FRAME = "camera_optical_frame"
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    *(QosTime(9223372036, 854775807),) * 2,
    QosLiveliness.AUTOMATIC,
    QosTime(9223372036, 854775807),
    False,
)
#: Topic, message or serialised message, time of recording.
Item = tuple[str, Any, int]


def make(kind: str, *values: Any) -> Any:
    return TYPES.types[kind](*values)


def stamp(number: int) -> int:
    return START + number * PERIOD


def header(at: int, frame_id: str = FRAME) -> Any:
    time = make("builtin_interfaces/msg/Time", at // 10**9, at % 10**9)
    return make("std_msgs/msg/Header", time, frame_id)


def picture(
    at: int, pixels: npt.NDArray[Any], encoding: str = "rgb8", frame_id: str = FRAME
) -> Any:
    data = np.frombuffer(pixels.tobytes(), np.uint8)
    height, width = pixels.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        header(at, frame_id), height, width, encoding, 0, len(data) // height, data,
    )  # fmt: skip


def compressed(at: int, pixels: npt.NDArray[Any], form: str = "rgb8; png") -> Any:
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    data = cv2.imencode(".png", bgr)[1].ravel()
    if "compressedDepth" in form:
        data = np.concatenate([np.zeros(12, np.uint8), data])
    return make("sensor_msgs/msg/CompressedImage", header(at), form, data)


def info(
    at: int = START,
    focal: float = networks.FOCAL,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    d: Sequence[float] = (),
    binning: tuple[int, int] = (0, 0),
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Any:
    """`roi` is x, y, width, height; the principal point is the middle of `size`."""
    width, height = size
    cx, cy = (width - 1) / 2, (height - 1) / 2
    x, y, w, h = roi
    return make(
        "sensor_msgs/msg/CameraInfo",
        header(at), height, width, "plumb_bob", np.array(d, np.float64),
        np.array([focal, 0, cx, 0, focal, cy, 0, 0, 1 if focal else 0], np.float64),
        np.eye(3).ravel(), np.zeros(12), *binning,
        make("sensor_msgs/msg/RegionOfInterest", x, y, h, w, False),
    )  # fmt: skip


def red(level: int, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    """An image that `networks.red_channel` sees at level * RED_SCALE metres at its focal length."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = level, 7
    return pixels


def level(number: int) -> int:
    """Red of the frame of this number: 1 m and more, each of 20 frames another."""
    return 25 + 10 * (number % 20)


def recording(count: int = 3, image: str = "/camera/image_raw") -> list[Item]:
    """`count` images of `red(level(i))`, each followed by its camera_info."""
    items: list[Item] = []
    for i in range(count):
        pixels = red(level(i))
        message = (compressed if image.endswith("/compressed") else picture)(stamp(i), pixels)
        items.append((image, message, stamp(i) + 3))
        items.append(("/camera/camera_info", info(stamp(i)), stamp(i) + 4))
    return items


def write(path: Path, items: Iterable[Item], storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """A bag; a message given as (type, definition, bytes) is of a type of its own."""
    connections: dict[str, Connection] = {}
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for topic, message, received in items:
            if isinstance(message, tuple):
                kind, definition, data = message
                options: dict[str, Any] = {"msgdef": definition, "rihs01": "RIHS01_" + "ab" * 32}
            else:
                kind = message.__msgtype__
                data = TYPES.serialize_cdr(message, kind)
                options = {"typestore": TYPES}
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, kind, offered_qos_profiles=[LATCHED], **options
                )
            writer.write(connections[topic], received, data)
    return path


def read(path: Path) -> tuple[dict[str, Connection], list[tuple[str, int, bytes]]]:
    """Connections by topic, and (topic, time of recording, bytes) in order."""
    with Reader(path) as reader:
        connections = {connection.topic: connection for connection in reader.connections}
        found = [(c.topic, received, bytes(raw)) for c, received, raw in reader.messages()]
    return connections, found


def qos(connection: Connection) -> list[Qos]:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    return connection.ext.offered_qos_profiles
