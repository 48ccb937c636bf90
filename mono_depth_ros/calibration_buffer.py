"""The calibrations that a camera sends beside its images, to be found by the stamp of an image."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_info import UncalibratedError
from mono_depth_ros.stamp_matching import stamp_of

KEPT_STAMPS = 30
# Decoded ones: a camera that zooms has many, any other has one.
KEPT_CALIBRATIONS = 8
# Encapsulation (4 bytes), then the stamp that a std_msgs/Header starts with (int32, uint32).
_STAMP_END = 12


class CalibrationBuffer:
    """The last camera_info messages, serialised. Thread-safe.

    They come as often as images and say the same again and again, so they are kept as bytes and
    decoded only when they say something new.

    Args:
        decode: a serialised sensor_msgs/CameraInfo -> `Calibration`; may raise ValueError.
    """

    def __init__(self, decode: Callable[[bytes], Calibration]) -> None:
        self._decode = decode
        self._changed = threading.Condition()
        self._serialised: OrderedDict[int, bytes] = OrderedDict()
        self._decoded: OrderedDict[bytes, Calibration | ValueError] = OrderedDict()
        self._outdated = False
        # Somebody has waited for nothing, and nothing else has come since.
        self._waited_in_vain = False

    @property
    def empty(self) -> bool:
        """Whether nothing has come yet."""
        return not self._serialised

    def pause(self) -> None:
        """Nothing is put for a while: what is there may then be outdated."""
        with self._changed:
            self._outdated, self._waited_in_vain = True, False

    def put(self, serialised: bytes) -> None:
        """Keeps a message; one without a stamp, which somebody has cut short, is ignored."""
        if len(serialised) < _STAMP_END:
            return
        stamp = stamp_of(serialised)
        with self._changed:
            self._serialised[stamp] = serialised
            # One with a stamp of the past is the newest, too, when a recording starts over.
            self._serialised.move_to_end(stamp)
            if len(self._serialised) > KEPT_STAMPS:
                self._serialised.popitem(last=False)
            self._outdated = False
            if serialised[_STAMP_END:] not in self._decoded:
                self._waited_in_vain = False
            self._changed.notify_all()

    def find(self, stamp: int, width: int, height: int, wait_s: float) -> Calibration | None:
        """The calibration of this stamp, else the newest one; None if there is none.

        Where the newest does not fit, or is of before a pause, waits a moment: a calibration is
        sent after its image. Who has waited in vain does so again only when something else has
        come: other cameras may be waiting, too.

        Args:
            stamp: of the image, nanoseconds.
            width, height: of the image, pixels.
            wait_s: how long to wait.

        Raises:
            UncalibratedError, ValueError: as `decode`.
        """

        def fits() -> bool:
            if stamp in self._serialised:
                return True
            if self._outdated:
                return False
            newest = self._calibration(self._newest())
            if isinstance(newest, Calibration):
                return newest.image_size == (width, height)
            # Nobody waits for a calibration that will not get better.
            return isinstance(newest, UncalibratedError)

        with self._changed:
            fitted = self._changed.wait_for(fits, 0.0 if self._waited_in_vain else wait_s)
            self._waited_in_vain = not fitted
            self._outdated = False  # some cameras send theirs only once
            found = self._calibration(self._serialised.get(stamp) or self._newest())
        if isinstance(found, ValueError):
            raise found.with_traceback(None)
        return found

    def _newest(self) -> bytes | None:
        return next(reversed(self._serialised.values()), None)

    def _calibration(self, serialised: bytes | None) -> Calibration | ValueError | None:
        if serialised is None:
            return None
        says = serialised[_STAMP_END:]
        if says in self._decoded:
            self._decoded.move_to_end(says)
            return self._decoded[says]
        found: Calibration | ValueError
        try:
            found = self._decode(serialised)
        except ValueError as error:
            found = error
        self._decoded[says] = found
        if len(self._decoded) > KEPT_CALIBRATIONS:
            self._decoded.popitem(last=False)
        return found
