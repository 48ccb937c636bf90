"""The images of one camera in a ROS 2 bag, without a ROS install; needs the package rosbags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mono_depth_ros.frame_source import Frame, SourceError, TruncatedError, Warn
from mono_depth_ros.image_encoding import (
    EncodedImage,
    RawImage,
    compressed_to_rgb,
    image_to_rgb,
)

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

BAG_SUFFIXES = (".mcap", ".db3")
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_DEPTH = ("16UC1", "32FC1")


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: its folder with metadata.yaml, or its .mcap or .db3 file."""
    return path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file()


class BagImages:
    """The images of one topic, Image or CompressedImage, in the order of recording.

    Args:
        bag: folder or file.
        topic: None takes the only camera of the bag.
        warn: told of each image that is skipped because it cannot be decoded.

    Raises:
        SourceError: it cannot be read as a bag, has no such topic, or several cameras.
    """

    fps: float | None = None
    live = False

    def __init__(self, bag: Path, topic: str | None, warn: Warn) -> None:
        try:
            from rosbags.rosbag2 import Reader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise SourceError(
                f"{bag}: rosbags is not installed ({error}); pip install rosbags"
            ) from None
        self._bag, self._warn, self._reader = bag, warn, Reader
        # The definitions in a bag would become code; these types have been the same since Humble.
        self._types = get_typestore(Stores.ROS2_HUMBLE)
        try:
            with Reader(bag) as reader:
                topics: dict[str, list[Connection]] = {}
                for connection in reader.connections:
                    if connection.msgtype in (IMAGE, COMPRESSED) and connection.msgcount:
                        topics.setdefault(connection.topic, []).append(connection)
                self._topic = topic or self._camera(reader, topics)
                if self._topic not in topics:
                    raise SourceError(
                        f"{bag}: has no images on {topic}; it has {', '.join(topics) or 'none'}"
                    )
        except SourceError:
            raise
        except Exception as error:  # rosbags lets through what its parsers and SQLite raise
            raise self._unreadable(error) from error
        self.length: int | None = sum(connection.msgcount for connection in topics[self._topic])
        self.stems: list[str] = []

    def _unreadable(self, error: Exception) -> SourceError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return SourceError(
            f"{self._bag}: cannot be read as a ROS 2 bag ({reason}); repair a recording that was"
            " cut off with `mcap recover` or `ros2 bag reindex`"
        )

    def _camera(self, reader: Any, topics: dict[str, list[Connection]]) -> str:
        """The topic of the only camera, without compression if it is there in both forms."""
        cameras: dict[str, str] = {}
        for name, connections in sorted(topics.items()):
            _, _, raw = next(reader.messages(connections))
            message = self._types.deserialize_cdr(raw, connections[0].msgtype)
            encoding = getattr(message, "encoding", "") or getattr(message, "format", "")
            if not encoding.startswith(_DEPTH):
                cameras.setdefault(name.removesuffix("/compressed"), name)
        if len(cameras) != 1:
            found = ", ".join(cameras.values()) or "none"
            raise SourceError(
                f"{self._bag}: {len(cameras)} cameras ({found}); name one as {self._bag}:/TOPIC"
            )
        return next(iter(cameras.values()))

    def frames(self, every: int) -> Iterator[Frame]:
        """Each `every`-th image; see `FrameSource`."""
        found = False
        try:
            with self._reader(self._bag) as reader:
                wanted = [c for c in reader.connections if c.topic == self._topic]
                for index, (connection, _, raw) in enumerate(reader.messages(wanted)):
                    if index % every:
                        continue
                    name = f"{self._topic} {index}"
                    try:
                        message = self._types.deserialize_cdr(raw, connection.msgtype)
                        if connection.msgtype == COMPRESSED:
                            image = compressed_to_rgb(cast(EncodedImage, message))
                        else:
                            image = image_to_rgb(cast(RawImage, message))
                    except ValueError as error:
                        self._warn(f"{self._bag}: {name}: {error}; skipped")
                        continue
                    found = True
                    yield Frame(index, name, image)
        except GeneratorExit:
            raise
        except Exception as error:
            if found:
                raise TruncatedError(str(self._unreadable(error))) from error
            raise self._unreadable(error) from error
        if not found:
            raise SourceError(f"{self._bag}: none of the images on {self._topic} can be decoded")
