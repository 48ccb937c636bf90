"""Camera images of another shape than the network's input: what of them the network sees.

`stretch` squeezes the whole image into the network's input; apparent size then changes by another
factor across than down. `letterbox` keeps the shape and fills what is left over with bars; depth
there is dropped. `crop` keeps the shape and takes the largest centred window; there is no depth
beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ASPECTS = ("stretch", "letterbox", "crop")
# ImageNet's mean colour, which networks subtract, so that bars are nothing to them. Of a room at
# 640x360 and 70 degrees the compact network then gets .86 of the pixels within 25 %; with bars that
# mirror the image .51, and with bars that repeat its edge .35, since it takes them for near things.
BAR_RGB = (124, 116, 104)


@dataclass(frozen=True)
class Window:
    """A window in the pixels of a camera image, which may reach beyond it.

    Attributes:
        x, y: of its top-left pixel.
        width, height: in pixels.
    """

    x: int
    y: int
    width: int
    height: int


def window(camera_size: tuple[int, int], input_size: tuple[int, int], aspect: str) -> Window:
    """The window that is resized to the network's input.

    Its shape is the input's to within half a pixel, and it is centred to within half a pixel.

    Args:
        camera_size: height and width of the camera's images.
        input_size: height and width of the network's input.
        aspect: one of `ASPECTS`.

    Raises:
        ValueError: another aspect.

    >>> window((720, 1280), (240, 320), "letterbox")
    Window(x=0, y=-120, width=1280, height=960)
    >>> window((720, 1280), (240, 320), "crop")
    Window(x=160, y=0, width=960, height=720)
    """
    if aspect not in ASPECTS:
        raise ValueError(f"aspect '{aspect}' is not one of {', '.join(ASPECTS)}")
    (height, width), (rows, columns) = camera_size, input_size
    # Cross-multiplied, since a quotient of whole numbers would not be exact.
    wide = width * rows > height * columns
    if aspect == "stretch" or width * rows == height * columns:
        return Window(0, 0, width, height)
    if wide == (aspect == "letterbox"):
        fitted = Window(0, 0, width, max(round(width * rows / columns), 1))
    else:
        fitted = Window(0, 0, max(round(height * columns / rows), 1), height)
    return Window(
        (width - fitted.width) // 2, (height - fitted.height) // 2, fitted.width, fitted.height
    )


def window_size(
    camera_size: tuple[int, int], input_size: tuple[int, int], aspect: str
) -> tuple[int, int]:
    """Height and width of `window`: of the images that an engine for camera images is to take.

    Raises:
        ValueError: another aspect.
    """
    seen = window(camera_size, input_size, aspect)
    return seen.height, seen.width


class Framing:
    """Cuts a window out of images of one size, and puts depth of the window back in its place.

    Args:
        camera_size: height and width of the images.
        seen: the window.

    Attributes:
        camera_size, window: as given.
        depth: HxW float32 of the camera's size, NaN but where `inner` is.
        inner: the part of `depth` that the window covers, a view.
    """

    def __init__(self, camera_size: tuple[int, int], seen: Window) -> None:
        self.camera_size, self.window = camera_size, seen
        height, width = camera_size
        rows = slice(max(seen.y, 0), min(seen.y + seen.height, height))
        columns = slice(max(seen.x, 0), min(seen.x + seen.width, width))
        self._camera = rows, columns
        self._seen = (
            slice(rows.start - seen.y, rows.stop - seen.y),
            slice(columns.start - seen.x, columns.stop - seen.x),
        )
        self._image = np.empty((seen.height, seen.width, 3), np.uint8)
        self._image[...] = BAR_RGB
        self.depth = np.full(camera_size, np.nan, np.float32)
        self.inner = self.depth[self._camera]

    def cut(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The window of an HxWx3 image, contiguous; overwritten by the next call."""
        self._image[self._seen] = image[self._camera]
        return self._image

    def covered(self, depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The part of the window's depth that lies within the image: what belongs in `inner`."""
        return depth[self._seen]
