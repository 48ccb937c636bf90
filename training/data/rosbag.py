"""ROS 2 bags of an RGB-D camera as data sets, without a ROS install.

sqlite3 and MCAP storage, as a folder with metadata.yaml or as a bare file, recorded by Humble or
later. A frame is a colour image and the depth image that was taken with it, by their header
stamps, rectified with the colour camera's CameraInfo.

Nothing is taken from the message definitions in the bag: the types that are read here have been
the same from Humble on.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from tqdm import tqdm

from mono_depth_ros.calibrated_view import View
from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_info import CameraInfo, UncalibratedError, calibration_from_info
from mono_depth_ros.image_encoding import (
    EncodedImage,
    RawImage,
    compressed_depth_to_array,
    compressed_to_rgb,
    depth_to_array,
    image_to_rgb,
)
from training.data.frame import DataError, Frame
from training.data.pair import Pair
from training.data.rgbd_topics import (
    COMPRESSED_IMAGE,
    IMAGE,
    REGISTER,
    ImageTopic,
    TopicError,
    choose,
)

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_SUFFIXES = (".mcap", ".db3")
_TYPES = get_typestore(Stores.ROS2_HUMBLE)


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
        name = f"{self.name}/{_stamp(image)}"
        try:
            rgb, metres = _decode_image(image, self.image), _decode_depth(depth, self.depth)
            self._check_sizes(rgb.shape[:2], metres.shape)
            height, width = rgb.shape[:2]
            if metres.shape != (height, width):
                resampled = cv2.resize(
                    metres, (width, height), interpolation=cv2.INTER_NEAREST_EXACT
                )
                metres = np.asarray(resampled, np.float32)
            metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
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

    def _check_sizes(self, image: tuple[int, ...], depth: tuple[int, ...]) -> None:
        size = f"{self.image.name} is {image[1]}x{image[0]}"
        width, height = self.calibration.image_size
        if image != (height, width):
            raise ValueError(
                f"{size}, its camera_info is for {width}x{height} images; make the driver publish"
                " a calibration of this size"
            )
        if depth[0] * width != depth[1] * height:
            raise ValueError(
                f"{size}, {self.depth.name} {depth[1]}x{depth[0]}, which is another view;"
                f" {REGISTER}"
            )


@lru_cache(maxsize=8)
def _view(calibration: Calibration) -> View:
    return View(calibration)


def _stamp(raw: bytes) -> int:
    """The stamp of a serialised message that starts with a header, in nanoseconds.

    CDR: four bytes, the second of which tells the byte order, then sec and nanosec.
    """
    sec, nanosec = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def _decode_image(raw: bytes, topic: ImageTopic) -> npt.NDArray[np.uint8]:
    if topic.is_compressed:
        return compressed_to_rgb(cast(EncodedImage, _TYPES.deserialize_cdr(raw, COMPRESSED_IMAGE)))
    return image_to_rgb(cast(RawImage, _TYPES.deserialize_cdr(raw, IMAGE)))


def _decode_depth(raw: bytes, topic: ImageTopic) -> npt.NDArray[np.float32]:
    if topic.is_compressed:
        message = cast(EncodedImage, _TYPES.deserialize_cdr(raw, COMPRESSED_IMAGE))
        return compressed_depth_to_array(message)
    return depth_to_array(cast(RawImage, _TYPES.deserialize_cdr(raw, IMAGE)))


@contextmanager
def _reading(bag: Path) -> Iterator[None]:
    """Gives whatever goes wrong in reading a bag the bag's name and a remedy."""
    try:
        yield
    except DataError:
        raise
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
                if _stamp(raw) == message.stamp:
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
    topics: dict[str, list[Connection]] = {}
    for connection in reader.connections:
        if connection.msgtype in (IMAGE, COMPRESSED_IMAGE, CAMERA_INFO) and connection.msgcount:
            topics.setdefault(connection.topic, []).append(connection)
    return topics


def _first(reader: Reader, connections: list[Connection]) -> object:
    """The first message, or None where metadata.yaml promises more than there is."""
    for connection, _, raw in reader.messages(connections):
        return _TYPES.deserialize_cdr(raw, connection.msgtype)
    return None


def _image_topics(reader: Reader, topics: dict[str, list[Connection]]) -> list[ImageTopic]:
    found = []
    for name, connections in topics.items():
        if connections[0].msgtype == CAMERA_INFO:
            continue
        # Either type: sensor_msgs/Image has an encoding, CompressedImage a format.
        message = cast(Any, _first(reader, connections))
        if message is not None:
            is_compressed = connections[0].msgtype == COMPRESSED_IMAGE
            encoding = (
                message.format.partition(";")[0].strip() if is_compressed else message.encoding
            )
            found.append(ImageTopic(name, encoding, message.header.frame_id, is_compressed))
    return found


def _calibration(
    reader: Reader, topics: dict[str, list[Connection]], image: ImageTopic
) -> Calibration:
    infos = [name for name, found in topics.items() if found[0].msgtype == CAMERA_INFO]
    info = _first(reader, topics[image.info]) if image.info in infos else None
    if info is None:
        raise DataError(
            f"{reader.path}: has no camera_info on {image.info}, beside {image.name}; record it"
            f" too; camera_info it has: {', '.join(infos) or 'none'}"
        )
    try:
        calibration = calibration_from_info(cast(CameraInfo, info))
        if image.is_rectified and calibration.p[0]:
            p = calibration.p
            calibration = replace(
                calibration, k=p[:3] + p[4:7] + p[8:11], d=(), r=Calibration.r, model=""
            )
        calibration.rectified()
    except UncalibratedError as error:
        raise DataError(f"{reader.path}: {image.info}: {error}, and record again") from None
    except ValueError as error:
        raise DataError(f"{reader.path}: {image.info}: {error}") from None
    return calibration


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
        message = Message(connection.topic, received, _stamp(raw))
        found[connection.topic].setdefault(message.stamp, message)
    return [[messages[stamp] for stamp in sorted(messages)] for messages in found.values()]


def _nearest(
    stamps: npt.NDArray[np.int64], among: npt.NDArray[np.int64], earlier: bool
) -> npt.NDArray[np.intp]:
    """Index of the nearest of `among`, sorted, to each stamp; `earlier` wins a tie or loses it."""
    after = np.searchsorted(among, stamps).clip(max=len(among) - 1)
    before = (after - 1).clip(min=0)
    lead = (stamps - among[before]) - (among[after] - stamps)
    return np.where(lead <= 0 if earlier else lead < 0, before, after)


def match_stamps(
    images: npt.NDArray[np.int64], depths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], float]:
    """Pairs that are each other's nearest, within half of the shorter median period.

    Args:
        images, depths: N and M stamps, ascending and distinct, at least one each.

    Returns:
        Indices into `images`, as many into `depths`, none twice; and the widest gap allowed.
    """
    periods = [np.median(np.diff(stamps)) for stamps in (images, depths) if len(stamps) > 1]
    tolerance = float(min(periods, default=0)) / 2
    # Were ties to go the same way, a stream half a period off would lose every pair.
    depth_of = _nearest(images, depths, earlier=True)
    image_of = _nearest(depths, images, earlier=False)
    index = np.arange(len(images))
    good = (image_of[depth_of] == index) & (np.abs(depths[depth_of] - images) <= tolerance)
    return index[good], depth_of[good], tolerance


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
                message = Message(connection.topic, received, _stamp(raw))
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
            image, depth = choose(_image_topics(reader, topics), image_topic, depth_topic)
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
