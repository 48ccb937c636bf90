"""The messages of a frame: made for those topics that somebody subscribes to, and published."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, TypeAlias, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from mono_depth_ros import messages
from mono_depth_ros.camera import CameraModel
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.colormap import colorize
from mono_depth_ros.confidence import ConfidenceEstimator
from mono_depth_ros.depth_encoding import millimetres
from mono_depth_ros.disparity import disparity
from mono_depth_ros.estimator import DepthFrame
from mono_depth_ros.mounting import Mounting
from mono_depth_ros.obstacle_clouds import ObstacleClouds
from mono_depth_ros.output_profiles import Profile, Topic
from mono_depth_ros.scan import ScanBuilder
from mono_depth_ros.tf_frames import TfFrames, level_frame

T = TypeVar("T")
Points = npt.NDArray[np.float32]

_FROM_RGB = {"bgr8": cv2.COLOR_RGB2BGR, "bgra8": cv2.COLOR_RGB2BGRA}
# At these the cloud's limits limit nothing, and how the camera is held need not be known.
_NO_RANGES, _NO_HEIGHTS = (0.0, 1000.0), (-100.0, 100.0)
_ALL = (-math.inf, math.inf)
_NO_DEPTH = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Shot:
    """An image, and what its messages are made with.

    Attributes:
        image: HxWx3 uint8 RGB, rectified.
        camera: intrinsics of it.
        header: of the image.
        values: all parameters.
        period: seconds between frames; 0 where not known.
        depth: HxW float32, as in `DepthFrame`; empty before the estimate.
    """

    image: npt.NDArray[np.uint8]
    camera: CameraModel
    header: Header
    values: Mapping[str, Any]
    period: float
    depth: npt.NDArray[np.float32] = field(default_factory=lambda: _NO_DEPTH)


# These need no depth, and go out while the network runs.
_WITHOUT_DEPTH = ("depth_info", "image_info", "right_info", "image")
# The others: those of a line share their work. What takes longest is begun first.
_WITH_DEPTH = (
    ("depth",),
    ("points",),
    ("confidence",),
    ("scan",),
    ("depth_color",),
    ("obstacles", "clearing"),
    ("disparity",),
)
_PLACE = {output: place for place, outputs in enumerate(_WITH_DEPTH) for output in outputs}

# As text: Publisher takes no type argument before Kilted.
Wanted: TypeAlias = "list[tuple[Topic, Publisher[Any]]]"


class FrameOutputs:
    """Publishes frames on the topics of a profile.

    Two threads fill the messages: NumPy and OpenCV work without Python's lock. rclpy publishes with
    it, so that two threads would gain nothing there, and whoever computes would wait.

    Args:
        profile: says what is in the messages.
        topics: of that profile, each with its publisher.
        tf: says how the camera is held, and hears of the level frame.
        publish_tf: whether it hears.
    """

    def __init__(
        self,
        profile: Profile,
        topics: Sequence[tuple[Topic, Publisher[Any]]],
        tf: TfFrames,
        publish_tf: bool,
    ) -> None:
        self._profile, self._topics, self._tf, self._publish_tf = profile, topics, tf, publish_tf
        # Not that of points, which some drivers have in a body frame.
        self._optical_frame = next(topic.frame for topic, _ in topics if topic.output == "depth")
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="outputs")
        self._kept: dict[str, tuple[Hashable, Any]] = {}
        self._clouds_of: tuple[Shot, tuple[Points, Points]] | None = None
        # Of the frame at hand: topics with the same content share it.
        self._made: dict[Hashable, Callable[[Header], Any]] = {}
        self._makers: dict[str, Callable[[Shot, Topic], Callable[[Header], Any]]] = {
            "depth": self._depth,
            "depth_info": self._info,
            "image_info": self._info,
            "points": self._points,
            "depth_color": self._depth_color,
            "image": self._image,
            "disparity": self._disparity,
            "right_info": self._right_info,
            "scan": self._scan,
            "confidence": self._confidence,
            "obstacles": self._obstacles,
            "clearing": self._clearing,
        }

    def close(self) -> None:
        """Ends the other thread."""
        self._helper.shutdown()

    def wanted(self, values: Mapping[str, Any]) -> Wanted:
        """The topics that somebody subscribes to and that the parameters do not switch off."""
        switched_off = () if values["disparity_baseline"] > 0 else ("disparity", "right_info")
        return [
            (topic, publisher)
            for topic, publisher in self._topics
            if publisher.get_subscription_count() > 0 and topic.output not in switched_off
        ]

    def publish(
        self, wanted: Wanted, shot: Shot, estimate: Callable[[], DepthFrame]
    ) -> tuple[DepthFrame, str]:
        """Publishes a frame.

        Args:
            wanted: of `wanted`.
            shot: without depth.
            estimate: gives it; called once, and what it raises is raised.

        Returns:
            The estimate; and why some of the frame could not be published, empty if all was.
        """
        self._made.clear()
        missing: list[str] = []
        early = [entry for entry in wanted if entry[0].output in _WITHOUT_DEPTH]
        other = self._helper.submit(self._publish, early, shot, missing)
        try:
            frame = estimate()
        finally:
            other.result()
        shot = replace(shot, depth=frame.depth)
        places: dict[int, Wanted] = {}
        for entry in wanted:
            if entry[0].output in _PLACE:
                places.setdefault(_PLACE[entry[0].output], []).append(entry)
        # What others make something of need not wait for the pictures.
        self._publish(places.pop(_PLACE["depth"], []), shot, missing)
        groups = deque(places[place] for place in sorted(places))
        late = list(chain.from_iterable(groups))
        if len(groups) > 1:
            other = self._helper.submit(self._fill, groups, shot)
            try:
                self._fill(groups, shot)
            finally:
                other.result()
        self._publish(late, shot, missing)
        return frame, missing[0] if missing else ""

    def _fill(self, groups: deque[Wanted], shot: Shot) -> None:
        """Fills messages until none are left, which other threads do, too."""
        with suppress(IndexError):
            while True:
                for topic, _ in groups.popleft():
                    with suppress(ValueError):  # it comes again when it is to be published
                        self._content(topic, shot)

    def _publish(self, topics: Wanted, shot: Shot, missing: list[str]) -> None:
        """Publishes on topics, and notes what cannot be made as things are."""
        for topic, publisher in topics:
            header = shot.header
            if topic.frame and topic.frame != header.frame_id:
                header = Header(stamp=header.stamp, frame_id=topic.frame)
            try:
                publisher.publish(self._content(topic, shot)(header))
            except ValueError as error:
                missing.append(f"{publisher.topic_name}: {error}")

    def _content(self, topic: Topic, shot: Shot) -> Callable[[Header], Any]:
        """A message but for its header, filled once a frame for all topics with the same content.

        Raises:
            ValueError: it cannot be made as things are; names the remedy.
        """
        content = topic.output, topic.encoding, topic.cloud
        if content not in self._made:
            self._made[content] = self._makers[topic.output](shot, topic)
        return self._made[content]

    def _keep(self, name: str, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` makes, made again only when `key` has changed.

        Raises:
            ValueError: as `make`, which is not tried again with the same key.
        """
        if name not in self._kept or self._kept[name][0] != key:
            try:
                self._kept[name] = (key, make())
            except ValueError as error:
                self._kept[name] = (key, error)
        kept = self._kept[name][1]
        if isinstance(kept, ValueError):
            raise kept.with_traceback(None)
        return cast(T, kept)

    def _image_message(self, name: str, shot: Shot, encoding: str) -> messages.ImageMessage:
        height, width = shot.camera.height, shot.camera.width
        return self._keep(
            f"{name} {encoding}",
            (height, width),
            lambda: messages.ImageMessage(height, width, encoding),
        )

    def _camera_frame(self, shot: Shot) -> str:
        """The optical frame of the depth."""
        return self._optical_frame or shot.header.frame_id

    def _mounting(self, shot: Shot) -> Mounting:
        """How the camera is held.

        Raises:
            ValueError: nobody knows.
        """
        values = shot.values
        if values["base_frame"]:
            return self._tf.mounting(values["base_frame"], self._camera_frame(shot))
        height = values["camera_height"]
        if height <= 0:
            raise ValueError(
                "needs to know how the camera is held; set camera_height (and camera_pitch_deg),"
                " or base_frame"
            )
        angles = values["camera_pitch_deg"], values["camera_roll_deg"]
        return self._keep(
            "mounting", (height, *angles), lambda: Mounting.from_angles(height, *angles)
        )

    # One method an output: fills a message that is kept, and returns what gives it a header.

    def _depth(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        encoding = topic.encoding or shot.values["depth_encoding"]
        message = self._image_message("depth", shot, encoding)
        if encoding == "32FC1":
            np.copyto(message.pixels, shot.depth)
        else:
            np.copyto(message.pixels, millimetres(shot.depth))
        return message.message

    def _info(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        return self._camera_info(shot, 0.0)

    def _right_info(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        return self._camera_info(shot, shot.values["disparity_baseline"])

    def _camera_info(self, shot: Shot, baseline: float) -> Callable[[Header], Any]:
        camera, profile = shot.camera, self._profile
        return lambda header: messages.camera_info_message(
            camera, header, baseline, profile.distortion_model, profile.coefficients
        )

    def _points(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        values, camera = shot.values, shot.camera
        ranges = values["cloud.min_range"], values["cloud.max_range"]
        heights = values["cloud.min_height"], values["cloud.max_height"]
        mounting = None if heights == _NO_HEIGHTS else self._mounting(shot)
        ranges = _ALL if ranges == _NO_RANGES else ranges
        heights = _ALL if heights == _NO_HEIGHTS else heights
        key = (camera, values["cloud.stride"], ranges, heights, mounting)

        def make() -> tuple[CloudBuilder, messages.CloudMessage]:
            builder = CloudBuilder(
                camera,
                values["cloud.stride"],
                min_range=ranges[0],
                max_range=ranges[1],
                mounting=mounting,
                min_height=heights[0],
                max_height=heights[1],
            )
            return builder, messages.CloudMessage(builder.height, builder.width, topic.cloud)

        builder, message = self._keep(f"points {topic.cloud}", key, make)
        builder.build(shot.depth, shot.image, out=message.points)
        return message.message

    def _depth_color(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        message = self._image_message("depth_color", shot, "bgr8")
        low, high = shot.values["min_depth"], shot.values["max_depth"]
        colorize(shot.depth, low, high, out=message.pixels)
        return message.message

    def _image(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        message = self._image_message("image", shot, topic.encoding)
        if topic.encoding == "rgb8":
            np.copyto(message.pixels, shot.image)
        else:
            cv2.cvtColor(shot.image, _FROM_RGB[topic.encoding], dst=message.pixels)
        return message.message

    def _disparity(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        camera, baseline = shot.camera, shot.values["disparity_baseline"]
        limits = (shot.values["min_depth"], shot.values["max_depth"])
        message = self._keep(
            "disparity",
            (camera, baseline, limits),
            lambda: messages.DisparityMessage(camera, baseline, limits),
        )
        disparity(shot.depth, camera.fx, baseline, out=message.pixels)
        return message.message

    def _confidence(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        camera = shot.camera
        confidence = self._keep("confidence", camera, lambda: ConfidenceEstimator(camera))
        message = self._image_message("confidence", shot, "32FC1")
        confidence(shot.depth, shot.image, out=message.pixels)
        unsure, sure = self._profile.confidence
        if (unsure, sure) != (0.0, 1.0):
            np.multiply(message.pixels, np.float32(sure - unsure), out=message.pixels)
            np.add(message.pixels, np.float32(unsure), out=message.pixels)
        return message.message

    def _scan(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        values, camera, mounting = shot.values, shot.camera, self._mounting(shot)
        heights = values["scan.min_height"], values["scan.max_height"]
        limits = values["min_depth"], values["max_depth"]
        builder = self._keep(
            "scan",
            (camera, mounting, heights, limits),
            lambda: ScanBuilder(camera, mounting, *heights, *limits),
        )
        ranges = builder.build(shot.depth)
        angles = builder.angle_min, builder.angle_max, builder.angle_increment
        frame = level_frame(self._camera_frame(shot), mounting)
        if self._publish_tf:
            self._tf.broadcast([frame])

        def message(header: Header) -> Any:
            header = Header(stamp=header.stamp, frame_id=frame.child)
            return messages.scan_message(ranges, angles, limits, shot.period, header)

        return message

    def _obstacles(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        points = self._clouds(shot)[0]
        return lambda header: messages.xyz_cloud_message(points, header)

    def _clearing(self, shot: Shot, topic: Topic) -> Callable[[Header], Any]:
        points = self._clouds(shot)[1]
        return lambda header: messages.xyz_cloud_message(points, header)

    def _clouds(self, shot: Shot) -> tuple[Points, Points]:
        """Both obstacle clouds, made once a frame."""
        if self._clouds_of is None or self._clouds_of[0] is not shot:
            values, camera, mounting = shot.values, shot.camera, self._mounting(shot)
            heights = values["obstacles.min_height"], values["obstacles.max_height"]
            reach, stride = values["obstacles.max_range"], values["obstacles.stride"]
            builder = self._keep(
                "obstacles",
                (camera, mounting, heights, reach, stride),
                lambda: ObstacleClouds(camera, mounting, *heights, reach, stride),
            )
            self._clouds_of = (shot, builder.build(shot.depth))
        return self._clouds_of[1]
