"""The calibration of a camera in a bag, as it changes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from mono_depth_ros.bag_reader import calibration_of
from mono_depth_ros.calibrated_view import View
from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_info import UncalibratedError
from mono_depth_ros.frame_source import SourceError
from mono_depth_ros.image_topic import ImageTopic
from mono_depth_ros.stamp_matching import stamp_of

OVERRIDE = "give --camera-info FILE, or --hfov DEG for a guess"


class Calibrations:
    """Which calibration an image has: of the last camera_info stamped no later, else of the first.

    That is right for a camera_info with each image, wherever the bag has it, and for one that is
    sent once.

    Args:
        messages: serialised CameraInfos in any order; only changes are kept.
        image: topic of the images.
        origin: what to call their topic in messages.

    Raises:
        SourceError: none of them is usable.
    """

    def __init__(self, messages: Iterable[bytes], image: ImageTopic, origin: str) -> None:
        self._origin, self._image = origin, image
        changes: list[tuple[int, Calibration]] = []
        fault: Exception | None = None
        # All but the header, which tells apart what may be told apart without parsing.
        last: bytes | None = None
        for raw in messages:
            if raw[12:] == last:
                continue
            last = raw[12:]
            try:
                calibration = calibration_of(raw, image)
            except UncalibratedError:
                fault = fault or SourceError(
                    f"{origin}: K[0] = 0, so the camera is not calibrated; {OVERRIDE}"
                )
                continue
            except ValueError as error:
                fault = fault or SourceError(f"{origin}: {error}; {OVERRIDE}")
                continue
            if not changes or changes[-1][1] != calibration:
                changes.append((stamp_of(raw), calibration))
        if not changes:
            raise fault or SourceError(f"{origin}: has no message; {OVERRIDE}")
        changes.sort(key=lambda change: change[0])
        self._stamps = [stamp for stamp, _ in changes]
        self._calibrations = [calibration for _, calibration in changes]
        self._current: tuple[int, View] | None = None

    def __len__(self) -> int:
        return len(self._stamps)

    def view(self, stamp: int, width: int, height: int) -> View:
        """The view of an image.

        Raises:
            SourceError: the calibration is for images of another size, or not usable.
        """
        index = max(bisect_right(self._stamps, stamp) - 1, 0)
        if self._current is None or self._current[0] != index:
            try:
                self._current = index, View(self._calibrations[index])
            except ValueError as error:
                raise SourceError(f"{self._origin}: {error}") from None
        size = self._calibrations[index].image_size
        if size != (width, height):
            raise SourceError(
                f"{self._origin}: is for images of {size[0]}x{size[1]}, those on"
                f" {self._image.name} are {width}x{height}; {OVERRIDE}"
            )
        return self._current[1]
