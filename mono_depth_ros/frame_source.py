"""Where frames come from: videos, webcams, folders of images; and folders of measured depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# Some containers store no frame count and OpenCV then computes duration x rate, a little off.
_MISSING_SHARE, _MISSING_FRAMES = 0.05, 2

Warn = Callable[[str], None]


class SourceError(ValueError):
    """Input that cannot be read; the message names the file and the remedy."""


class TruncatedError(SourceError):
    """A source that ended early; the frames that came before are good."""


@dataclass(frozen=True)
class Frame:
    """One image.

    Attributes:
        index: its number in the source, from 0, skipped frames counted.
        name: what to call it in messages and pictures.
        image: HxWx3 uint8 RGB, contiguous.
    """

    index: int
    name: str
    image: npt.NDArray[np.uint8]


class FrameSource(Protocol):
    """Something that gives frames, once.

    Attributes:
        length: number of frames, or None if that is not known.
        fps: frames a second, or None if it has no rate.
        live: whether frames come for as long as somebody reads.
        stems: file names without suffix, in order; empty for a video.
    """

    length: int | None
    fps: float | None
    live: bool
    stems: list[str]

    def frames(self, every: int) -> Iterator[Frame]:
        """Each `every`-th frame.

        Raises:
            TruncatedError: after the last frame, if there should have been more.
            SourceError: there is no frame.
        """
        ...


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that reads numbers as numbers.

    >>> sorted(["f10.png", "f9.png", "f1.png"], key=natural_key)
    ['f1.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"(\d+)", name.lower())
    # Text and number parts alternate, so like is compared with like.
    return [(int(part), part) if i % 2 else (0, part) for i, part in enumerate(parts)]


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    visible = (path for path in files if not path.name.startswith(".") and path.is_file())
    return sorted(visible, key=lambda path: natural_key(path.name))


class ImageFolder:
    """The images of a folder in natural order; gray ones become RGB, alpha is dropped.

    Args:
        path: folder, or a single image.
        warn: told of each file that is skipped because it cannot be read.

    Raises:
        SourceError: there is no image file in it.
    """

    fps: float | None = None
    live = False

    def __init__(self, path: Path, warn: Warn) -> None:
        self._path, self._warn = path, warn
        self._files = _files(path, IMAGE_SUFFIXES) if path.is_dir() else [path]
        if not self._files:
            raise SourceError(
                f"{path}: no image in this folder ({', '.join(IMAGE_SUFFIXES)}); give the folder"
                " that holds the images themselves"
            )
        self.length: int | None = len(self._files)
        self.stems = [file.stem for file in self._files]

    def frames(self, every: int) -> Iterator[Frame]:
        """Each `every`-th image; see `FrameSource`."""
        found = False
        for index in range(0, len(self._files), every):
            file = self._files[index]
            bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if bgr is None:
                self._warn(f"{file}: not a readable image; skipped")
                continue
            found = True
            yield Frame(index, file.name, _rgb(bgr))
        if not found:
            raise SourceError(
                f"{self._path}: none of its {len(self._files)} image files can be read;"
                " are they images?"
            )


class Video:
    """A video file, or a webcam by its number.

    Args:
        source: file, or index of the webcam.

    Raises:
        SourceError: it cannot be opened.
    """

    def __init__(self, source: Path | int) -> None:
        self.live = isinstance(source, int)
        self._name = f"webcam {source}" if self.live else str(source)
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            remedy = (
                f"cannot be opened; check that /dev/video{source} exists and that no other program"
                " uses it"
                if self.live
                else "not a readable video (cut off, or a codec that OpenCV lacks); try"
                " ffmpeg -i IN -c:v libx264 OUT.mp4"
            )
            raise SourceError(f"{self._name}: {remedy}")
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.length: int | None = count if count > 0 and not self.live else None
        self.fps: float | None = fps if 0 < fps < 1000 else None
        self.stems: list[str] = []

    def frames(self, every: int) -> Iterator[Frame]:
        """Each `every`-th frame; see `FrameSource`."""
        index, found = 0, False
        try:
            while self._capture.grab():
                if index % every == 0:
                    ok, bgr = self._capture.retrieve()
                    if ok:
                        found = True
                        yield Frame(index, f"frame {index}", _rgb(bgr))
                index += 1
        finally:
            self._capture.release()
        if not found:
            remedy = "is it in use, or covered?" if self.live else "is the file cut off?"
            raise SourceError(f"{self._name}: no frame could be read; {remedy}")
        if self.live:
            raise TruncatedError(f"{self._name}: stopped after {index} frames; was it unplugged?")
        missing = (self.length or 0) - index
        if missing > max(_MISSING_FRAMES, _MISSING_SHARE * index):
            raise TruncatedError(
                f"{self._name}: cut off after {index} of {self.length} frames; the results cover"
                " those; copy or record it again for the rest"
            )


def open_source(source: str, warn: Warn) -> FrameSource:
    """Opens a folder of images, a video file, a ROS 2 bag (`BAG`, or `BAG:/TOPIC` where it has
    several cameras), or a webcam (a number that is not a file's name).

    Args:
        source: what the user typed.
        warn: told of each image that is skipped.

    Raises:
        SourceError: there is no such thing, or it cannot be read.
    """
    from mono_depth_ros.bag_images import BagImages, is_bag, split_topic

    path = Path(source).expanduser()
    bag, topic = split_topic(source)
    if is_bag(bag):
        return BagImages(bag, topic, warn)
    # OpenCV would read 0001.png as a video: that image and all with higher numbers.
    if path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES):
        return ImageFolder(path, warn)
    if path.exists():
        return Video(path)
    if source.isdecimal():
        return Video(int(source))
    raise SourceError(
        f"{source}: no such file or folder; give a video, a folder of images, a bag, or a webcam's"
        " number"
    )


class TruthFolder:
    """A folder of 16-bit depth PNGs that belong to the frames of a source.

    A file belongs to the image of the same name, if any name matches; otherwise files belong to
    frames in natural order, and there must be as many.

    Args:
        path: folder.
        scale: metres per unit; 0 in a PNG means not measured.
        source: whose frames the files belong to.

    Raises:
        SourceError: no such folder, no PNG in it, or no way to match them.
    """

    def __init__(self, path: Path, scale: float, source: FrameSource) -> None:
        if not path.is_dir():
            raise SourceError(f"{path}: no such folder; set --truth to a folder of 16-bit PNGs")
        files = _files(path, (".png",))
        if not files:
            raise SourceError(f"{path}: no PNG in this folder; --truth takes 16-bit depth PNGs")
        by_stem = {file.stem: file for file in files}
        matched = {i: by_stem[stem] for i, stem in enumerate(source.stems) if stem in by_stem}
        if not matched:
            if source.length is not None and source.length != len(files):
                raise SourceError(
                    f"{path}: {len(files)} depth PNGs for {source.length} frames, and no names"
                    " match; give one PNG per frame, or the same names"
                )
            matched = dict(enumerate(files))
        self._matched, self._scale = matched, scale

    def depth(self, frame: Frame) -> npt.NDArray[np.float32] | None:
        """Measured depth of a frame.

        Returns:
            HxW float32 metres of the image's size, NaN where not measured; None if there is no
            file for this frame.

        Raises:
            SourceError: the file is not a 16-bit single-channel PNG of the image's size.
        """
        path = self._matched.get(frame.index)
        if path is None:
            return None
        units = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if units is None or units.dtype != np.uint16 or units.ndim != 2:
            raise SourceError(f"{path}: not a 16-bit single-channel PNG; --truth takes those only")
        if units.shape != frame.image.shape[:2]:
            raise SourceError(
                f"{path}: {units.shape[1]}x{units.shape[0]}, but the image is"
                f" {frame.image.shape[1]}x{frame.image.shape[0]}; --truth takes depth registered to"
                " the image, at its size"
            )
        depth = units.astype(np.float32) * np.float32(self._scale)
        depth[units == 0] = np.nan
        return depth


def _rgb(bgr: npt.NDArray[np.integer[Any] | np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """HxWx3 uint8 RGB of what OpenCV decoded; some raw videos decode to gray."""
    gray = bgr.ndim == 2 or bgr.shape[2] == 1
    code = cv2.COLOR_GRAY2RGB if gray else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(bgr, code), np.uint8)
