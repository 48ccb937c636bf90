"""Pictures for people: side-by-side video frames, and a grid of frames of a clip.

Images come in as RGB; pictures go out as BGR, what `cv2.imwrite` and `cv2.VideoWriter` take.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.accuracy import Accuracy
from mono_depth_ros.colormap import (
    BAR_HEIGHT,
    BLACK,
    WHITE,
    Picture,
    colorbar,
    colorize,
    draw_text,
)

VIDEO_TILE, PANEL_TILE = 640, 320
ROWS = 4
_GAP, _TITLE_HEIGHT, _LABEL_HEIGHT = 6, 22, 18
# A tile never gets so narrow that its colour bar cannot be read.
_MIN_SIDE = 160
# Rows kept while a clip runs. Eight times what is shown, so that the choice at the end is even.
_KEPT = 8 * ROWS
_ERROR_PERCENT = 50.0


def tile_size(width: int, height: int, long_side: int) -> tuple[int, int]:
    """Width and height of a tile for images of a size: even, as video encoders want them."""
    scale = long_side / max(width, height)
    sides = (max(round(side * scale / 2) * 2, _MIN_SIDE) for side in (width, height))
    return next(sides), next(sides)


def fit(picture: Picture, width: int, height: int) -> Picture:
    """Scales an HxWx3 uint8 picture to width x height; black borders where the shape differs."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    w, h = (max(round(side * scale), 1) for side in (picture.shape[1], picture.shape[0]))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(picture, (w, h), interpolation=method), np.uint8)
    if (w, h) == (width, height):
        return scaled
    tile = np.zeros((height, width, 3), np.uint8)
    top, left = (height - h) // 2, (width - w) // 2
    tile[top : top + h, left : left + w] = scaled
    return tile


def _bgr(image: npt.NDArray[np.uint8]) -> Picture:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)


class SideBySide:
    """Video frames `camera | plasma | jet` above the colour bars.

    Args:
        width, height: image size in pixels that sets the tile's shape (its long side becomes
            `VIDEO_TILE`); images of other sizes are fitted into it.
        min_depth, max_depth: ends of the colours in metres.

    Attributes:
        size: width and height of the frames, both even.
    """

    def __init__(self, width: int, height: int, min_depth: float, max_depth: float) -> None:
        self._range = (min_depth, max_depth)
        self._tile = w, h = tile_size(width, height, VIDEO_TILE)
        self.size = (3 * w, h + BAR_HEIGHT)
        self._frame = np.full((h + BAR_HEIGHT, 3 * w, 3), WHITE, np.uint8)
        footer = self._frame[h:]
        draw_text(footer, "camera", w / 2, 22, align="centre")
        footer[:, w : 2 * w] = colorbar(w, min_depth, max_depth, "plasma")
        footer[:, 2 * w :] = colorbar(w, min_depth, max_depth, "jet")

    def draw(self, image: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32]) -> Picture:
        """Draws one frame.

        Args:
            image: HxWx3 uint8 RGB.
            depth: HxW float32 metres; NaN is black.

        Returns:
            uint8 BGR of `size`, overwritten by the next call.
        """
        w, h = self._tile
        tiles = (_bgr(image), colorize(depth, *self._range), colorize(depth, *self._range, "jet"))
        for column, tile in enumerate(tiles):
            self._frame[:h, column * w : (column + 1) * w] = fit(tile, w, h)
        return self._frame


class Panel:
    """A grid of frames spread evenly over a clip, one row each, whatever the clip's length.

    Columns: camera, depth in plasma and in jet, and, if there is truth, the truth in plasma and the
    signed relative error.

    Args:
        width, height: image size in pixels that sets the tile's shape; images of other sizes are
            fitted into it.
        min_depth, max_depth: ends of the depth colours in metres.
        with_truth: whether to make columns for truth and error.
    """

    def __init__(
        self, width: int, height: int, min_depth: float, max_depth: float, with_truth: bool = False
    ) -> None:
        self._range = (min_depth, max_depth)
        self._tile = tile_size(width, height, PANEL_TILE)
        self._with_truth = with_truth
        self._rows: list[Picture] = []
        self._seen, self._stride = 0, 1

    def add(
        self,
        label: str,
        image: npt.NDArray[np.uint8],
        depth: npt.NDArray[np.float32],
        truth: npt.NDArray[np.float32] | None = None,
        accuracy: Accuracy | None = None,
    ) -> None:
        """Offers the next frame of the clip; only those that may end up in the grid are drawn.

        Args:
            label: written on the image.
            image: HxWx3 uint8 RGB.
            depth, truth: HxW float32 metres; NaN is black.
            accuracy: written on the error.
        """
        turn, self._seen = self._seen, self._seen + 1
        if turn % self._stride:
            return
        self._rows.append(self._row(label, image, depth, truth, accuracy))
        if len(self._rows) == _KEPT:
            del self._rows[1::2]
            self._stride *= 2

    def _row(
        self,
        label: str,
        image: npt.NDArray[np.uint8],
        depth: npt.NDArray[np.float32],
        truth: npt.NDArray[np.float32] | None,
        accuracy: Accuracy | None,
    ) -> Picture:
        pictures = [
            _bgr(image),
            colorize(depth, *self._range),
            colorize(depth, *self._range, "jet"),
        ]
        if self._with_truth:
            if truth is None:
                truth = np.full_like(depth, np.nan)
            with np.errstate(divide="ignore", invalid="ignore"):
                error = np.where(np.isfinite(depth), depth / truth - 1, np.nan) * np.float32(100)
            pictures += [
                colorize(truth, *self._range),
                colorize(error, -_ERROR_PERCENT, _ERROR_PERCENT, "error"),
            ]
        tiles = [fit(picture, *self._tile) for picture in pictures]
        _write_label(tiles[0], label)
        if self._with_truth and accuracy is not None:
            _write_label(tiles[-1], f"AbsRel {accuracy.abs_rel:.3f}  d1 {accuracy.delta1:.3f}")
        return _beside(tiles)

    def draw(self) -> Picture:
        """The grid: titles, up to `ROWS` rows, colour bars in metres, on white; uint8 BGR.

        Raises:
            ValueError: no frame was added.
        """
        if not self._rows:
            raise ValueError("Panel.draw: no frame was added")
        width = self._tile[0]
        titles = ["camera", "depth (plasma)", "depth (jet)"]
        bars = [
            np.full((BAR_HEIGHT, width, 3), WHITE, np.uint8),
            colorbar(width, *self._range, "plasma"),
            colorbar(width, *self._range, "jet"),
        ]
        if self._with_truth:
            titles += ["measured depth", "error (blue: too near, red: too far)"]
            bars += [
                colorbar(width, *self._range, "plasma"),
                colorbar(width, -_ERROR_PERCENT, _ERROR_PERCENT, "error", "%"),
            ]
        heads = []
        for title in titles:
            head = np.full((_TITLE_HEIGHT, width, 3), WHITE, np.uint8)
            draw_text(head, title, width / 2, _TITLE_HEIGHT - 7, align="centre")
            heads.append(head)
        last = len(self._rows) - 1
        at = np.linspace(0, last, min(ROWS, last + 1)).round().astype(int)
        strips = [_beside(heads), *(self._rows[i] for i in at), _beside(bars)]
        gap = np.full((_GAP, strips[0].shape[1], 3), WHITE, np.uint8)
        return np.vstack([part for strip in strips for part in (strip, gap)])


def _beside(tiles: list[Picture]) -> Picture:
    """Tiles of one height in a row, on white, with gaps between them and at both ends."""
    gap = np.full((tiles[0].shape[0], _GAP, 3), WHITE, np.uint8)
    return np.hstack([gap, *(part for tile in tiles for part in (tile, gap))])


def _write_label(tile: Picture, text: str) -> None:
    """White on a black strip along the bottom, legible on any picture."""
    tile[-_LABEL_HEIGHT:] = BLACK
    draw_text(tile, text, 6, tile.shape[0] - 5, WHITE)
