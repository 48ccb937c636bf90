"""Calibrations by stamp, against a plain list of what was put."""

from __future__ import annotations

import struct
import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mono_depth_ros.calibration_buffer import KEPT_STAMPS, CalibrationBuffer
from mono_depth_ros.camera import Calibration
from mono_depth_ros.camera_info import UncalibratedError

HEIGHT = 240
# Longer than any test may take: what waits for it has failed.
FOREVER_S = 60.0


def message(stamp: int, width: int, order: str = "<") -> bytes:
    """What the buffer sees of a camera_info: its stamp, and then bytes that say something."""
    head = b"\0\1\0\0" if order == "<" else b"\0\0\0\0"
    return head + struct.pack(f"{order}iI", *divmod(stamp, 10**9)) + struct.pack("<i", width)


def calibration(width: int) -> Calibration:
    return Calibration(width, HEIGHT, (260.0, 0, 160, 0, 260.0, 120, 0, 0, 1))


class Decoder:
    """Counts its calls; widths below 1 are what a broken camera sends, and 0 no calibration."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, serialised: bytes) -> Calibration:
        self.calls += 1
        (width,) = struct.unpack_from("<i", serialised, 12)
        if width == 0:
            raise UncalibratedError("K is zero")
        if width < 0:
            raise ValueError(f"width {width}")
        return calibration(width)


def test_an_empty_buffer_has_none() -> None:
    buffer = CalibrationBuffer(Decoder())
    assert buffer.empty and buffer.find(5, 320, HEIGHT, 0.0) is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_that_of_the_stamp_before_the_newest(order: str) -> None:
    buffer = CalibrationBuffer(Decoder())
    for stamp in (1, 2_000_000_003, 3_000_000_000):
        buffer.put(message(stamp, 300 + stamp % 10, order))
    assert not buffer.empty
    assert buffer.find(2_000_000_003, 320, HEIGHT, 0.0) == calibration(303)
    # None is of this stamp: the newest.
    assert buffer.find(77, 320, HEIGHT, 0.0) == calibration(300)


def test_a_calibration_that_comes_after_its_image_is_waited_for() -> None:
    buffer = CalibrationBuffer(Decoder())
    buffer.put(message(1, 640))
    found: list[Calibration | None] = []
    finder = threading.Thread(
        target=lambda: found.append(buffer.find(2, 320, HEIGHT, FOREVER_S)), daemon=True
    )
    finder.start()
    buffer.put(message(2, 320))
    finder.join(FOREVER_S / 2)
    assert found == [calibration(320)]


def test_nobody_waits_for_a_camera_that_is_not_calibrated_or_one_that_fits() -> None:
    # It would wait forever if it did.
    buffer = CalibrationBuffer(Decoder())
    buffer.put(message(1, 320))
    assert buffer.find(2, 320, HEIGHT, FOREVER_S) == calibration(320)
    buffer.put(message(3, 0))
    with pytest.raises(UncalibratedError):
        buffer.find(4, 320, HEIGHT, FOREVER_S)


def test_the_broken_one_of_a_stamp_is_an_error_and_others_are_not() -> None:
    buffer = CalibrationBuffer(Decoder())
    buffer.put(message(1, 320))
    buffer.put(message(2, -7))
    assert buffer.find(1, 320, HEIGHT, 0.0) == calibration(320)
    with pytest.raises(ValueError, match="width -7"):
        buffer.find(2, 320, HEIGHT, 0.0)
    with pytest.raises(ValueError, match="width -7"):
        buffer.find(3, 320, HEIGHT, 0.0)
    buffer.put(message(4, 320))
    assert buffer.find(5, 320, HEIGHT, 0.0) == calibration(320)


def test_what_says_the_same_is_decoded_once() -> None:
    decoder = Decoder()
    buffer = CalibrationBuffer(decoder)
    for stamp in range(100):
        buffer.put(message(stamp, 320))
        assert buffer.find(stamp, 320, HEIGHT, 0.0) == calibration(320)
    assert decoder.calls == 1
    buffer.put(message(200, 321))
    assert buffer.find(200, 321, HEIGHT, 0.0) == calibration(321)
    assert decoder.calls == 2


@pytest.mark.parametrize("size", range(12))
def test_a_message_without_a_stamp_is_ignored(size: int) -> None:
    buffer = CalibrationBuffer(Decoder())
    buffer.put(message(1, 320)[:size])
    assert buffer.empty


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(-2, 5)), max_size=120))
def test_any_order_of_stamps_gives_that_of_the_stamp_or_the_newest(
    sent: list[tuple[int, int]],
) -> None:
    buffer = CalibrationBuffer(Decoder())
    # The last of each stamp, in the order in which they came.
    kept: list[tuple[int, int]] = []
    for stamp, width in sent:
        buffer.put(message(stamp, width))
        kept = [entry for entry in kept if entry[0] != stamp] + [(stamp, width)]
        kept = kept[-KEPT_STAMPS:]
    for stamp in range(51):
        if not kept:
            assert buffer.find(stamp, 320, HEIGHT, 0.0) is None
        elif (width := dict(kept).get(stamp, kept[-1][1])) <= 0:
            with pytest.raises(ValueError, match=r"width|zero"):
                buffer.find(stamp, 320, HEIGHT, 0.0)
        else:
            assert buffer.find(stamp, 320, HEIGHT, 0.0) == calibration(width)


def test_who_waited_in_vain_waits_again_only_for_something_else() -> None:
    buffer = CalibrationBuffer(Decoder())
    buffer.put(message(1, 640))
    assert buffer.find(2, 320, HEIGHT, 0.01) == calibration(640)
    # These would wait forever if they did: nothing has come, then the same again.
    assert buffer.find(3, 320, HEIGHT, FOREVER_S) == calibration(640)
    buffer.put(message(4, 640))
    assert buffer.find(5, 320, HEIGHT, FOREVER_S) == calibration(640)
    for stamp, change in ((10, partial(buffer.put, message(6, 641))), (20, buffer.pause)):
        change()
        found: list[Calibration | None] = []
        finder = threading.Thread(target=_find, args=(buffer, stamp, found), daemon=True)
        finder.start()
        finder.join(0.2)
        assert finder.is_alive()
        buffer.put(message(stamp, 320))
        finder.join(FOREVER_S / 2)
        assert found == [calibration(320)]
        buffer.put(message(stamp + 1, 640))
        assert buffer.find(stamp + 2, 320, HEIGHT, 0.01) == calibration(640)


def _find(buffer: CalibrationBuffer, stamp: int, found: list[Calibration | None]) -> None:
    found.append(buffer.find(stamp, 320, HEIGHT, FOREVER_S))
