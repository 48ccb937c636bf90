"""MP4 videos that any player opens, written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from mono_depth_ros.atomic import replacing
from mono_depth_ros.colormap import Picture


class VideoWriteError(ValueError):
    """A video that cannot be written; the message names the file and the remedy."""


@contextmanager
def mp4_writer(
    path: Path, fps: float, size: tuple[int, int]
) -> Iterator[Callable[[Picture], None]]:
    """Gives a function that appends a frame; the file takes its place when the block succeeds.

    Args:
        path: file to write or replace.
        fps: frames a second.
        size: width and height of the frames in pixels, even; they are uint8 BGR.

    Raises:
        VideoWriteError: OpenCV cannot encode, or the file does not hold all frames at the end.
        OSError: the folder cannot be written to.
    """
    count = 0
    with replacing(path) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not writer.isOpened():
            raise VideoWriteError(
                f"{path}: this OpenCV has no MPEG-4 encoder (mp4v); pip install"
                " opencv-python-headless, or apt install python3-opencv"
            )

        def write(frame: Picture) -> None:
            nonlocal count
            # OpenCV drops frames of another size without a word.
            if frame.shape != (size[1], size[0], 3):
                raise ValueError(f"frame {frame.shape} is not {size[0]}x{size[1]} BGR")
            writer.write(frame)
            count += 1

        try:
            yield write
        finally:
            writer.release()
        # Neither does it report a full disk.
        reader = cv2.VideoCapture(str(temporary))
        written = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        reader.release()
        if written != count:
            raise VideoWriteError(f"{path}: {written} of {count} frames written; is the disk full?")
