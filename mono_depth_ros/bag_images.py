"""The images of one camera in a ROS 2 bag, without a ROS install; needs the package rosbags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mono_depth_ros.frame_source import Frame, SourceError, TruncatedError, Warn

BAG_SUFFIXES = (".mcap", ".db3")


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: its folder with metadata.yaml, or its .mcap or .db3 file."""
    return path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").is_file()


def split_topic(source: str) -> tuple[Path, str | None]:
    """`BAG` or `BAG:/TOPIC` -> the bag, and the topic if there is one.

    >>> split_topic("run.mcap:/left/image_raw")
    (PosixPath('run.mcap'), '/left/image_raw')
    """
    bag, colon, topic = source.partition(":/")
    return Path(bag).expanduser(), f"/{topic}" if colon else None


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
            from mono_depth_ros import bag_reader
        except ImportError as error:
            raise SourceError(
                f"{bag}: rosbags is not installed ({error}); pip install rosbags"
            ) from None
        self._bag, self._warn, self._rosbag = bag, warn, bag_reader
        with bag_reader.open_bag(bag) as reader, bag_reader.reading(bag):
            self._topic = bag_reader.choose_camera(bag, bag_reader.image_topics(reader), topic)
            counts = [c.msgcount for c in reader.connections if c.topic == self._topic.name]
        self.length: int | None = sum(counts)
        self.stems: list[str] = []

    def frames(self, every: int) -> Iterator[Frame]:
        """Each `every`-th image; see `FrameSource`."""
        found = False
        try:
            with self._rosbag.open_bag(self._bag) as reader:
                wanted = [c for c in reader.connections if c.topic == self._topic.name]
                for index, (_, _, raw) in enumerate(self._rosbag.messages(reader, wanted)):
                    if index % every:
                        continue
                    name = f"{self._topic.name} {index}"
                    try:
                        image = self._rosbag.decode_image(raw, self._topic)
                    except ValueError as error:
                        self._warn(f"{self._bag}: {name}: {error}; skipped")
                        continue
                    found = True
                    yield Frame(index, name, image)
        except SourceError as error:
            if found:
                raise TruncatedError(str(error)) from error
            raise
        if not found:
            raise SourceError(
                f"{self._bag}: none of the images on {self._topic.name} can be decoded"
            )
