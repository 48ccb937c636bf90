"""Depth for a camera in a ROS 2 bag: into a copy of the bag, or against depth that was measured."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader
from tqdm import tqdm

from mono_depth_ros.bag_calibrations import OVERRIDE, Calibrations
from mono_depth_ros.bag_compare import BagComparison, choose_depth, match
from mono_depth_ros.bag_reader import (
    CAMERA_INFO,
    choose_camera,
    connections_of,
    decode_image,
    deserialise,
    image_topics,
    messages,
    open_bag,
    reading,
)
from mono_depth_ros.bag_writer import BagWriteError, new_bag, rehearse
from mono_depth_ros.calibrated_view import View, Views
from mono_depth_ros.camera import CameraModel
from mono_depth_ros.depth_cdr import POINT_CLOUD, DepthMessages
from mono_depth_ros.estimator import DepthEstimator, DepthFrame
from mono_depth_ros.frame_source import SourceError, Warn
from mono_depth_ros.image_topic import COMPRESSED_IMAGE, IMAGE
from mono_depth_ros.stamp_matching import stamp_of

__all__ = ["BagDepth", "BagRequest", "BagWriteError"]


@dataclass(frozen=True)
class BagRequest:
    """What is asked for.

    Attributes:
        bag: file or folder to read.
        topic: of the images; None takes the only camera.
        out: file or folder to write; None writes nothing.
        namespace: what the new topics start with; None is that of the image.
        info_topic: of the camera_info; None is the one beside the image.
        compare: a topic of measured depth, or None.
        encoding: of the depth images, `32FC1` or `16UC1`.
        stride: of the points.
        every: takes each n-th image.
    """

    bag: Path
    topic: str | None = None
    out: Path | None = None
    namespace: str | None = None
    info_topic: str | None = None
    compare: str | None = None
    encoding: str = "32FC1"
    stride: int = 1
    every: int = 1


class BagDepth:
    """Finds out what a bag has, and whether what is asked for can be done, before any network runs.

    Reads the bag once for the stamps and calibrations that this takes, unless the camera is known
    and nothing is compared.

    Args:
        known: the camera, if it is not to be that of the bag.
        warn: told of whatever is skipped, in one line.

    Raises:
        SourceError: the bag is damaged, has no such topics, is not calibrated, not registered or
            not synchronous.
        BagWriteError: there is something at `request.out`.
    """

    def __init__(self, request: BagRequest, known: Views | None, warn: Warn) -> None:
        self._request, self._known, self._warn = request, known, warn
        bag = request.bag
        if request.out is not None:
            rehearse(request.out)
        with open_bag(bag) as reader, reading(bag):
            topics = image_topics(reader)
            self.image = choose_camera(bag, topics, request.topic)
            namespace = self.image.namespace if request.namespace is None else request.namespace
            base = f"/{namespace.strip('/')}/".replace("//", "/")
            self.new_topics = {
                f"{base}depth/image_rect": IMAGE,
                f"{base}depth/camera_info": CAMERA_INFO,
                f"{base}points": POINT_CLOUD,
            }
            self._refuse_existing_topics(reader)
            depth = None
            if request.compare is not None:
                depth = choose_depth(bag, topics, request.compare, self.image)
            info = self._info_connections(reader)
            stamps: dict[str, array[int]] = {
                name: array("q") for name in (self.image.name, depth and depth.name) if name
            }
            infos = self._scan(reader, info, stamps if depth else {})
            self._calibrations: Calibrations | None = None
            if info:
                self._calibrations = Calibrations(infos, self.image, f"{bag}: {info[0].topic}")
            else:
                deque(infos, maxlen=0)
        self._comparison: BagComparison | None = None
        if depth is not None:
            matches = match(bag, self.image, depth, stamps)
            self._comparison = BagComparison(self.image, depth, matches, warn)
            self._comparison.warn_of_stamps()

    def _refuse_existing_topics(self, reader: Reader) -> None:
        present = {connection.topic for connection in reader.connections}
        taken = [topic for topic in self.new_topics if topic in present]
        if taken and self._request.out is not None:
            raise SourceError(
                f"{self._request.bag}: has {', '.join(taken)} already; set another --namespace"
            )

    def _info_connections(self, reader: Reader) -> list[Connection]:
        """Those of the camera_info; none if the camera is known.

        Raises:
            SourceError: there is none, and it is not known.
        """
        if self._known is not None:
            return []
        found = connections_of(reader, CAMERA_INFO)
        name = self._request.info_topic or self.image.info
        if name not in found:
            listing = ", ".join(found) or "none"
            raise SourceError(
                f"{self._request.bag}: has no camera_info on {name}; set --camera-info-topic (it"
                f" has: {listing}), or {OVERRIDE}"
            )
        return found[name]

    def _scan(
        self, reader: Reader, info: list[Connection], stamps: dict[str, array[int]]
    ) -> Iterator[bytes]:
        """Gives the camera_infos, and notes the stamps of the topics in `stamps` on the way."""
        wanted = [*info, *(c for c in reader.connections if c.topic in stamps)]
        total = sum(connection.msgcount for connection in wanted)
        for connection, _, raw in tqdm(
            messages(reader, wanted), total=total, desc="stamps", leave=False, disable=None
        ):
            if connection.topic in stamps:
                stamps[connection.topic].append(stamp_of(raw))
            else:
                yield raw

    def _view(self, stamp: int, width: int, height: int) -> View:
        if self._known is not None:
            return self._known.at(width, height)
        assert self._calibrations is not None, "a bag without camera_info is refused"
        return self._calibrations.view(stamp, width, height)

    def _wanted(self, reader: Reader) -> list[Connection]:
        """Connections to read: all for a copy, else what is looked at."""
        if self._request.out is not None:
            return list(reader.connections)
        looked_at = {self.image.name, self._comparison and self._comparison.depth.name}
        return [connection for connection in reader.connections if connection.topic in looked_at]

    def _estimate(
        self, raw: bytes, index: int, estimator: DepthEstimator
    ) -> tuple[DepthFrame, View] | None:
        """Depth of a serialised image, None if it cannot be decoded."""
        try:
            image = decode_image(raw, self.image)
        except ValueError as error:
            self._warn(f"{self._request.bag}: {self.image.name} {index}: {error}; skipped")
            return None
        view = self._view(stamp_of(raw), image.shape[1], image.shape[0])
        rectifier = view.rectifier
        return estimator.estimate(rectifier(image), rectifier.camera, rectifier.outside), view

    def _header(self, raw: bytes) -> Any:
        kind = COMPRESSED_IMAGE if self.image.is_compressed else IMAGE
        return deserialise(raw, kind).header

    def run(self, estimator: DepthEstimator) -> dict[str, Any]:
        """Does the work, in one pass and constant memory.

        The copy holds every message of the bag as it is, whether its type is known or not, with its
        time of recording and QoS; rosbags does not tell the time of sending and the sequence number
        that MCAP also has. Depth follows its image, with the stamp, frame and time of recording of
        that.

        Returns:
            The figures.

        Raises:
            SourceError: the bag is damaged or not what it was.
            BagWriteError: the copy cannot be written; there is none then.
            CameraError, EngineError: the camera or the network cannot be used.
        """
        request, comparison = self._request, self._comparison
        read = images = skipped = 0
        engine_ms: list[float] = []
        camera: CameraModel | None = None
        started = time.perf_counter()
        with ExitStack() as stack:
            reader = stack.enter_context(open_bag(request.bag))
            copy = _Copy(stack, reader, request, self.new_topics) if request.out else None
            wanted = self._wanted(reader)
            total = sum(connection.msgcount for connection in wanted)
            bar = stack.enter_context(tqdm(total=total, unit="message", disable=None))
            for connection, received, raw in messages(reader, wanted):
                bar.update()
                read += 1
                if copy is not None:
                    copy.writer.copy(connection, received, raw)
                if comparison is not None and connection.topic == comparison.depth.name:
                    comparison.add_measured(stamp_of(raw), raw)
                if connection.topic != self.image.name:
                    continue
                found = None
                if images % request.every == 0:
                    found = self._estimate(raw, images, estimator)
                    skipped += found is None
                images += 1
                if comparison is not None:
                    comparison.add_estimate(stamp_of(raw), found)
                if found is None:
                    continue
                frame, _ = found
                engine_ms.append(frame.engine_ms)
                camera = frame.camera
                if copy is not None:
                    copy.add(frame, self._header(raw), received)
            if read != total:
                raise SourceError(
                    f"{request.bag}: has {read} of the {total} messages that its index promises;"
                    " write the index anew with `ros2 bag reindex`"
                )
            if camera is None:
                raise SourceError(
                    f"{request.bag}: none of the images on {self.image.name} can be decoded"
                )
        seconds = time.perf_counter() - started
        return {
            "bag": str(request.bag),
            "out": None if request.out is None else str(request.out),
            "image_topic": self.image.name,
            "new_topics": list(self.new_topics) if request.out else [],
            "messages": total,
            "frames": len(engine_ms),
            "skipped": skipped,
            "calibrations": len(self._calibrations) if self._calibrations else 0,
            "camera": asdict(camera),
            "seconds": round(seconds, 3),
            "frames_per_second": round(len(engine_ms) / seconds, 2),
            "network_share": round(sum(engine_ms) / 1e3 / seconds, 3),
            "engine_ms": engine_ms,
            "comparison": comparison.figures() if comparison else None,
        }


class _Copy:
    """The bag that is written: all that is in the other one, and depth.

    Args:
        stack: ends the copy; unless an exception passes, it appears then.
    """

    def __init__(
        self, stack: ExitStack, reader: Reader, request: BagRequest, topics: dict[str, str]
    ) -> None:
        assert request.out is not None, "asked for by the caller"
        self.writer = stack.enter_context(new_bag(request.out, _storage(reader)))
        for connection in reader.connections:
            self.writer.copy_topic(connection)
        self._topics = [self.writer.add_topic(name, kind) for name, kind in topics.items()]
        self._messages = DepthMessages(request.encoding, request.stride)

    def add(self, frame: DepthFrame, header: Any, received: int) -> None:
        """Writes the messages of a frame."""
        serialised = self._messages.serialise(frame, header)
        for topic, message in zip(self._topics, serialised, strict=True):
            self.writer.write(topic, received, message)


def _storage(reader: Reader) -> StoragePlugin:
    storage = reader.storage
    files = storage.storages if isinstance(storage, DirectoryReader) else [storage]
    is_mcap = any(isinstance(file, McapReader) for file in files)
    return StoragePlugin.MCAP if is_mcap else StoragePlugin.SQLITE3
