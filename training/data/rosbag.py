"""ROS 2 bags of an RGB-D camera as data sets, without a ROS install.

sqlite3 and MCAP storage, as a folder with metadata.yaml or as a bare file, recorded by Humble or
later. A frame is a colour image and the depth image that was taken with it, by their header
stamps, rectified with the colour camera's CameraInfo.

Nothing is taken from the message definitions in the bag: the types that are read here have been
the same from Humble on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.serde import SerdeError
from tqdm import tqdm

from mono_depth_ros.bag_reader import (
    CAMERA_INFO,
    calibration_of,
    connections_of,
    decode_image,
    decode_registered_depth,
    image_topics,
)
from mono_depth_ros.calibrated_view import View
from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_info import UncalibratedError
from mono_depth_ros.frame_source import SourceError
from mono_depth_ros.image_topic import COMPRESSED_IMAGE, IMAGE, ImageTopic
from mono_depth_ros.stamp_matching import match_stamps, stamp_of
from training.data.frame import DataError, Frame
from training.data.pair import Pair
from training.data.rgbd_topics import TopicError, choose

_SUFFIXES = (".mcap", ".db3")


class Message(NamedTuple):
    """Where a message is in its bag.

    Attributes:
        topic: its topic.
        received: when it was recorded in nanoseconds, which is what a bag is indexed by.
        stamp: of its header, in nanoseconds.
    """

    topic: str
    received: int
    stamp: int


@dataclass(frozen=True)
class RgbdCamera:
    """What turns the messages of a bag into pairs.

    Attributes:
        bag: file or folder.
        image, depth: the topics.
        calibration: of the images.
    """

    bag: Path
    image: ImageTopic
    depth: ImageTopic
    calibration: Calibration

    @property
    def name(self) -> str:
        """The bag's name."""
        return self.bag.stem if self.bag.suffix in _SUFFIXES else self.bag.name

    def decode(self, image: bytes, depth: bytes) -> Pair:
        """Two serialised messages -> the rectified pair.

        Depth of another size but the same shape is resampled to the image's, by its nearest pixel.

        Raises:
            DataError: a message is damaged, of an unknown encoding, or does not fit the others.
        """
        name = f"{self.name}/{stamp_of(image)}"
        try:
            rgb = decode_image(image, self.image)
            height, width = rgb.shape[:2]
            self._check_size(width, height)
            metres = decode_registered_depth(depth, self.depth, self.image, width, height)
            view = _view(self.calibration)
            metres = view.rectify_depth(metres)
        except (ValueError, SerdeError) as error:
            raise DataError(f"{name}: {error}") from None
        if view.rectifier.maps is not None:
            # The border repeats the last pixel, as it does for the node's network.
            maps, border = view.rectifier.maps[:2], cv2.BORDER_REPLICATE
            rgb = np.asarray(cv2.remap(rgb, *maps, cv2.INTER_LINEAR, borderMode=border), np.uint8)
        camera = view.rectifier.camera
        # A view of the message could not be written to.
        return Pair(np.require(rgb, None, ["C", "W"]), metres, camera.fx, camera.fy, name)

    def _check_size(self, width: int, height: int) -> None:
        if (width, height) != self.calibration.image_size:
            raise ValueError(
                f"{self.image.name} is {width}x{height}, its camera_info is for"
                " {}x{} images; make the driver publish a calibration of this size".format(
                    *self.calibration.image_size
                )
            )


@lru_cache(maxsize=8)
def _view(calibration: Calibration) -> View:
    return View(calibration)


@contextmanager
def _reading(bag: Path) -> Iterator[None]:
    """Gives whatever goes wrong in reading a bag the bag's name and a remedy."""
    try:
        yield
    except DataError:
        raise
    except SourceError as error:
        raise DataError(str(error)) from error
    # rosbags lets through what its parsers, SQLite and the decompressors raise on damaged files.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{bag}: cannot be read as a ROS 2 bag ({reason}); repair a recording that was cut off"
            " with `mcap recover` or `ros2 bag reindex`"
        ) from error


def _open_reader(bag: Path) -> Reader:
    if not bag.exists():
        raise DataError(f"{bag}: not found; name a bag's folder, or its .mcap or .db3 file")
    if bag.is_dir() and not (bag / "metadata.yaml").exists():
        raise DataError(
            f"{bag}: has no metadata.yaml; write it with `ros2 bag reindex`, or name the .mcap or"
            " .db3 file in it"
        )
    if bag.is_file() and bag.suffix not in _SUFFIXES:
        raise DataError(
            f"{bag}: is no .mcap or .db3 file; decompress it first, and convert a bag of ROS 1 with"
            " rosbags-convert"
        )
    with _reading(bag):
        reader = Reader(bag)
        reader.open()
    return reader


class _OpenBag:
    """A bag that messages are fetched from, by several threads."""

    def __init__(self, bag: Path) -> None:
        self._bag = bag
        self._reader = _open_reader(bag)
        self._connections = _connections(self._reader)
        self._lock = threading.Lock()

    def fetch(self, message: Message) -> bytes:
        """The serialised message.

        Raises:
            DataError: the bag is damaged there, or has changed.
        """
        with self._lock, _reading(self._bag):
            for _, _, raw in self._reader.messages(
                self._connections[message.topic], message.received, message.received + 1
            ):
                if stamp_of(raw) == message.stamp:
                    return raw
        raise DataError(f"{self._bag}: changed since it was opened; start again")


@cache
def _open_bag(bag: Path, process: int) -> _OpenBag:
    """One for each process: file positions and SQLite connections do not survive a fork."""
    return _OpenBag(bag)


def _read(camera: RgbdCamera, image: Message, depth: Message) -> Pair:
    bag = _open_bag(camera.bag, os.getpid())
    return camera.decode(bag.fetch(image), bag.fetch(depth))


def _connections(reader: Reader) -> dict[str, list[Connection]]:
    """Those with messages of the types that are read here, by topic."""
    return connections_of(reader, IMAGE, COMPRESSED_IMAGE, CAMERA_INFO)


def _calibration(
    reader: Reader, topics: dict[str, list[Connection]], image: ImageTopic
) -> Calibration:
    infos = [name for name, found in topics.items() if found[0].msgtype == CAMERA_INFO]
    raw = None
    if image.info in infos:
        raw = next((raw for _, _, raw in reader.messages(topics[image.info])), None)
    if raw is None:
        raise DataError(
            f"{reader.path}: has no camera_info on {image.info}, beside {image.name}; record it"
            f" too; camera_info it has: {', '.join(infos) or 'none'}"
        )
    try:
        return calibration_of(raw, image)
    except UncalibratedError as error:
        raise DataError(f"{reader.path}: {image.info}: {error}, and record again") from None
    except ValueError as error:
        raise DataError(f"{reader.path}: {image.info}: {error}") from None


def _read_stamps(
    reader: Reader, topics: dict[str, list[Connection]], wanted: tuple[str, str]
) -> list[list[Message]]:
    """The messages of each wanted topic by stamp; of several with one stamp the first received."""
    connections = [connection for topic in wanted for connection in topics[topic]]
    found: dict[str, dict[int, Message]] = {topic: {} for topic in wanted}
    progress = tqdm(
        reader.messages(connections),
        total=sum(connection.msgcount for connection in connections),
        desc="stamps",
        leave=False,
        disable=None,
    )
    for connection, received, raw in progress:
        message = Message(connection.topic, received, stamp_of(raw))
        found[connection.topic].setdefault(message.stamp, message)
    return [[messages[stamp] for stamp in sorted(messages)] for messages in found.values()]


def _is_sequential(reader: Reader) -> bool:
    """Whether fetching one message reads the whole bag."""
    storage = reader.storage
    files = storage.storages if isinstance(storage, DirectoryReader) else [storage]
    return reader.compression_mode == "file" or any(
        isinstance(file, McapReader) and file.metadata.message_count and not file.chunks
        for file in files
    )


@dataclass(frozen=True)
class Recording:
    """The frames of a bag.

    Attributes:
        camera: decodes them.
        matches: image and depth of each, by the image's stamp.
        is_sequential: whether fetching one of them reads the whole bag.
    """

    camera: RgbdCamera
    matches: list[tuple[Message, Message]]
    is_sequential: bool

    def pairs(self, every: int = 1) -> Iterator[Pair]:
        """Every n-th frame, in one pass over the bag, in the order of recording.

        Raises:
            DataError: a message is damaged.
        """
        partner: dict[Message, Message] = {}
        for image, depth in self.matches[::every]:
            partner[image], partner[depth] = depth, image
        waiting: dict[Message, bytes] = {}
        bag = self.camera.bag
        with closing(_open_reader(bag)) as reader, _reading(bag):
            topics = _connections(reader)
            connections = topics[self.camera.image.name] + topics[self.camera.depth.name]
            for connection, received, raw in reader.messages(connections):
                message = Message(connection.topic, received, stamp_of(raw))
                other = partner.pop(message, None)
                if other is None:
                    continue
                if other not in waiting:
                    waiting[message] = raw
                elif message.topic == self.camera.image.name:
                    yield self.camera.decode(raw, waiting.pop(other))
                else:
                    yield self.camera.decode(waiting.pop(other), raw)


def open_recording(
    path: str | Path, image_topic: str | None = None, depth_topic: str | None = None
) -> Recording:
    """Finds the cameras of a bag and the stamps of their images, in one pass over the bag.

    Args:
        path: a bag's folder, or its .mcap or .db3 file.
        image_topic, depth_topic: Image or CompressedImage; None searches.

    Raises:
        DataError: as `read_bag`.
    """
    bag = Path(path).resolve()
    with closing(_open_reader(bag)) as reader, _reading(bag):
        topics = _connections(reader)
        try:
            image, depth = choose(image_topics(reader), image_topic, depth_topic)
        except TopicError as error:
            raise DataError(f"{bag}: {error}") from None
        camera = RgbdCamera(bag, image, depth, _calibration(reader, topics, image))
        images, depths = _read_stamps(reader, topics, (image.name, depth.name))
        is_sequential = _is_sequential(reader)
    stamps = [np.array([message.stamp for message in found]) for found in (images, depths)]
    i, j, tolerance = match_stamps(*stamps)
    if not i.size:
        raise DataError(
            f"{bag}: no image on {image.name} has depth on {depth.name} stamped within"
            f" {tolerance * 1e-6:.1f} ms of it; let the driver synchronise them (RealSense:"
            " enable_sync:=true)"
        )
    matches = [(images[a], depths[b]) for a, b in zip(i.tolist(), j.tolist(), strict=True)]
    return Recording(camera, matches, is_sequential)


def read_bag(
    path: str | Path, image_topic: str | None = None, depth_topic: str | None = None
) -> list[Frame]:
    """The frames of a bag of a colour camera and depth registered to it; one scene.

    Topics that are not given are found by type, encoding, frame and name: a colour image, raw or
    compressed; depth, 16UC1 millimetres, 32FC1 metres or compressedDepth PNG; and camera_info
    beside the image. Image and depth belong together if their header stamps are each other's
    nearest, within half of the shorter median period. Reading a frame rectifies both with the
    calibration in camera_info, unless the topic's name says that they are.

    Args:
        path: a bag's folder, or its .mcap or .db3 file.
        image_topic, depth_topic: Image or CompressedImage; None searches.

    Returns:
        Frames `BAG/STAMP_NS` by stamp. Each is fetched from the bag when it is read.

    Raises:
        DataError: the bag is damaged or is none, the cameras in it are not clear, not registered,
            not calibrated or not synchronous, or only the whole of it can be read.
    """
    recording = open_recording(path, image_topic, depth_topic)
    camera = recording.camera
    if recording.is_sequential:
        raise DataError(
            f"{camera.bag}: has no index, or is compressed as a whole, so that every frame would"
            " take a pass over it; convert it: python -m training.import_bag"
            f" {camera.bag.name} --out FOLDER"
        )
    frames = [
        Frame(f"{camera.name}/{image.stamp}", camera.name, partial(_read, camera, image, depth))
        for image, depth in recording.matches
    ]
    # What is wrong with every frame is better said now than by a loader process.
    frames[0].read()
    return frames
