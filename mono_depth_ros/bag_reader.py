"""ROS 2 bags without a ROS install: opening them, their image topics, and decoding messages.

sqlite3 and MCAP storage, as a folder with metadata.yaml or as a bare file. Nothing is taken from
the message definitions in a bag, which would become code: the types that are read here have been
the same from Humble on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_info import calibration_from_info
from mono_depth_ros.frame_source import SourceError
from mono_depth_ros.image_encoding import (
    compressed_depth_to_array,
    compressed_to_rgb,
    depth_to_array,
    image_to_rgb,
)
from mono_depth_ros.image_topic import (
    COMPRESSED_IMAGE,
    DEPTH_ENCODINGS,
    IMAGE,
    REGISTER,
    ImageTopic,
)

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TYPES = get_typestore(Stores.ROS2_HUMBLE)


class UnregisteredError(ValueError):
    """Depth that is not of the image's view."""


@contextmanager
def reading(bag: Path) -> Iterator[None]:
    """Gives whatever goes wrong in reading a bag the bag's name and a remedy.

    Raises:
        SourceError: something went wrong.
    """
    try:
        yield
    except SourceError:
        raise
    # rosbags lets through what its parsers, SQLite and the decompressors raise on damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{bag}: cannot be read as a ROS 2 bag ({reason}); repair a recording that was cut off"
            " with `mcap recover` or `ros2 bag reindex`"
        ) from error


@contextmanager
def open_bag(bag: Path) -> Iterator[Reader]:
    """Opens a bag for the time of a block.

    Raises:
        SourceError: it is not there, or cannot be read.
    """
    if not bag.exists():
        raise SourceError(f"{bag}: not found; name a bag's folder, or its .mcap or .db3 file")
    with reading(bag):
        reader = Reader(bag)
        reader.open()
    try:
        yield reader
    finally:
        reader.close()


def messages(
    reader: Reader, connections: Iterable[Connection]
) -> Iterator[tuple[Connection, int, bytes]]:
    """Connection, time of recording in nanoseconds and serialised message, in that order of time.

    Raises:
        SourceError: the bag is damaged.
    """
    wanted = list(connections)
    with reading(Path(str(reader.path))):
        if wanted:  # to rosbags, none means all
            yield from reader.messages(wanted)


def deserialise(raw: bytes, msgtype: str) -> Any:
    """A serialised message of a known type -> its fields.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return TYPES.deserialize_cdr(raw, msgtype)
    # rosbags lets through what struct, its own checks and the decoding of text raise.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"message of {len(raw)} bytes is damaged ({reason})") from error


def connections_of(reader: Reader, *types: str) -> dict[str, list[Connection]]:
    """By topic, those that have messages of any of these types."""
    topics: dict[str, list[Connection]] = {}
    for connection in reader.connections:
        if connection.msgtype in types and connection.msgcount:
            topics.setdefault(connection.topic, []).append(connection)
    return topics


def image_topics(reader: Reader) -> list[ImageTopic]:
    """The topics with messages of type Image or CompressedImage, by name.

    Raises:
        SourceError, ValueError: the bag is damaged.
    """
    found = []
    for name, connections in sorted(connections_of(reader, IMAGE, COMPRESSED_IMAGE).items()):
        # None where metadata.yaml promises more than there is.
        for connection, _, raw in messages(reader, connections):
            # Either type: sensor_msgs/Image has an encoding, CompressedImage a format.
            message = deserialise(raw, connection.msgtype)
            is_compressed = connection.msgtype == COMPRESSED_IMAGE
            encoding = (
                message.format.partition(";")[0].strip() if is_compressed else message.encoding
            )
            found.append(ImageTopic(name, encoding, message.header.frame_id, is_compressed))
            break
    return found


def choose_camera(bag: Path, topics: list[ImageTopic], wanted: str | None) -> ImageTopic:
    """The topic that is asked for, or that of the only camera, raw if it is there in both forms.

    Raises:
        SourceError: there is no such topic, or several cameras and nobody chose.
    """
    if wanted is not None:
        for topic in topics:
            if topic.name == wanted:
                return topic
        listing = ", ".join(topic.name for topic in topics) or "none"
        raise SourceError(f"{bag}: has no images on {wanted}; it has {listing}")
    cameras: dict[str, ImageTopic] = {}
    for topic in topics:
        if topic.encoding not in DEPTH_ENCODINGS:
            cameras.setdefault(topic.base, topic)
    if len(cameras) != 1:
        if not cameras:
            raise SourceError(f"{bag}: has no images of a camera; record the image topic too")
        listing = ", ".join(topic.name for topic in cameras.values())
        raise SourceError(f"{bag}: {len(cameras)} cameras ({listing}); name one as {bag}:/TOPIC")
    return next(iter(cameras.values()))


def decode_image(raw: bytes, topic: ImageTopic) -> npt.NDArray[np.uint8]:
    """A serialised message -> HxWx3 uint8 RGB.

    Raises:
        ValueError: it is damaged, or of an unknown encoding.
    """
    if topic.is_compressed:
        return compressed_to_rgb(deserialise(raw, COMPRESSED_IMAGE))
    return image_to_rgb(deserialise(raw, IMAGE))


def decode_depth(raw: bytes, topic: ImageTopic) -> npt.NDArray[np.float32]:
    """A serialised depth message -> HxW float32 metres.

    Raises:
        ValueError: it is damaged, or of an unknown encoding.
    """
    if topic.is_compressed:
        return compressed_depth_to_array(deserialise(raw, COMPRESSED_IMAGE))
    return depth_to_array(deserialise(raw, IMAGE))


def decode_registered_depth(
    raw: bytes, depth: ImageTopic, image: ImageTopic, width: int, height: int
) -> npt.NDArray[np.float32]:
    """A serialised depth message -> depth of the pixels of an image of width x height.

    Depth of another size but the same shape is resampled by its nearest pixel.

    Returns:
        HxW float32 metres, NaN where there is none.

    Raises:
        UnregisteredError: it is of another shape.
        ValueError: it is damaged, or of an unknown encoding.
    """
    metres = decode_depth(raw, depth)
    if metres.shape[0] * width != metres.shape[1] * height:
        raise UnregisteredError(
            f"{image.name} is {width}x{height}, {depth.name} {metres.shape[1]}x{metres.shape[0]},"
            f" which is another view; {REGISTER}"
        )
    if metres.shape != (height, width):
        resampled = cv2.resize(metres, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        metres = np.asarray(resampled, np.float32)
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def calibration_of(raw: bytes, image: ImageTopic) -> Calibration:
    """A serialised CameraInfo -> the calibration of the images of a topic.

    Where the topic's name says that images are rectified, camera_info still describes the lens, and
    P is the camera.

    Raises:
        UncalibratedError: K is zero.
        ValueError: it is damaged, or no camera's.
    """
    calibration = calibration_from_info(deserialise(raw, CAMERA_INFO))
    if image.is_rectified and calibration.p[0]:
        p = calibration.p
        calibration = replace(
            calibration, k=p[:3] + p[4:7] + p[8:11], d=(), r=Calibration.r, model=""
        )
    calibration.rectified()
    return calibration
