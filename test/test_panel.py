"""Panels and side-by-side frames: the right frames, in the right tiles, in the right colours."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from mono_depth_ros.accuracy import Accuracy
from mono_depth_ros.colormap import colorize
from mono_depth_ros.panel import ROWS, Panel, SideBySide, fit, tile_size

TILE, GAP, TITLE = (320, 240), 6, 22


def tile_centre(panel: npt.NDArray[np.uint8], row: int, column: int) -> tuple[int, ...]:
    """Colour at the middle of a tile of a 4:3 panel."""
    x = GAP + column * (TILE[0] + GAP) + TILE[0] // 2
    y = TITLE + GAP + row * (TILE[1] + GAP) + TILE[1] // 2
    return tuple(int(channel) for channel in panel[y, x])


def flat(value: float) -> npt.NDArray[np.float32]:
    return np.full((48, 64), value, np.float32)


def colour(value: float, colormap: str = "plasma", low: float = 0.5, high: float = 4.0) -> object:
    pixel = colorize(flat(value), low, high, colormap)[0, 0]  # type: ignore[arg-type]
    return tuple(int(channel) for channel in pixel)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 31, 32, 33, 64, 91, 1000])
def test_rows_are_spread_evenly_over_a_clip_of_any_length(count: int) -> None:
    panel = Panel(64, 48, 0.5, 4.0)
    for i in range(count):
        image = np.zeros((48, 64, 3), np.uint8)
        image[...] = (i % 256, i // 256, 7)  # RGB
        panel.add(f"frame {i}", image, flat(1))
    picture = panel.draw()
    rows = min(count, ROWS)
    assert picture.shape[0] == TITLE + rows * TILE[1] + 36 + (rows + 2) * GAP
    shown = []
    for row in range(rows):
        blue, green, red = tile_centre(picture, row, 0)
        assert blue == 7
        shown.append(red + 256 * green)
    ideal = np.linspace(0, count - 1, rows)
    np.testing.assert_allclose(shown, ideal, atol=max(0.51, count / 10))


def test_columns_with_truth() -> None:
    panel = Panel(64, 48, 0.5, 4.0, with_truth=True)
    image = np.full((48, 64, 3), (200, 100, 50), np.uint8)
    figures = Accuracy(0.25, 0.0, 1.25, 1.0)
    panel.add("far", image, flat(2.5), flat(2.0), figures)
    panel.add("near", image, flat(1.0), flat(2.0), figures)
    panel.add("no truth", image, flat(1.0))
    panel.add("no depth", image, flat(np.nan), flat(2.0))
    picture = panel.draw()
    rows = [[tile_centre(picture, row, column) for column in range(5)] for row in range(4)]
    black = (0, 0, 0)
    assert [row[0] for row in rows] == [(50, 100, 200)] * 4
    assert [row[1] for row in rows] == [colour(2.5), colour(1.0), colour(1.0), black]
    assert [row[2] for row in rows[:2]] == [colour(2.5, "jet"), colour(1.0, "jet")]
    assert [row[3] for row in rows] == [colour(2.0), colour(2.0), black, colour(2.0)]
    percent = [colour(value, "error", -50, 50) for value in (25, -50)]
    assert [row[4] for row in rows] == [*percent, black, black]


def test_panel_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="no frame"):
        Panel(64, 48, 0.5, 4.0).draw()


def test_side_by_side_has_three_tiles_and_bars() -> None:
    frames = SideBySide(64, 48, 0.5, 4.0)
    assert frames.size == (1920, 516)
    picture = frames.draw(np.full((48, 64, 3), (200, 100, 50), np.uint8), flat(1.5))
    assert picture.shape == (516, 1920, 3)
    assert tuple(picture[240, 320]) == (50, 100, 200)
    assert tuple(picture[240, 960]) == colour(1.5)
    assert tuple(picture[240, 1600]) == colour(1.5, "jet")
    for x, depth in ((640, 0.5), (1279, 4.0)):
        assert tuple(picture[482, x]) == colour(depth)


def test_another_shape_is_fitted_without_stretching() -> None:
    frames = SideBySide(64, 48, 0.5, 4.0)
    portrait = np.full((64, 24, 3), 255, np.uint8)
    picture = frames.draw(portrait, np.full((64, 24), 1.0, np.float32))
    white = np.flatnonzero(picture[240, :640, 0] == 255)
    assert (white[0], white[-1]) == (230, 409)  # 480 * 24 / 64 = 180 wide, in the middle


def test_fit_and_tile_size() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert (fit(picture, 30, 20) == picture).all()
    double = cv2.resize(picture, (60, 40), interpolation=cv2.INTER_LINEAR)
    assert (fit(picture, 60, 40) == double).all()
    assert tile_size(640, 480, 320) == (320, 240)
    assert tile_size(480, 640, 320) == (240, 320)
    assert tile_size(641, 7, 320) == (320, 160)
    assert tile_size(333, 250, 320) == (320, 240)
