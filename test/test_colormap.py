"""Colours: what each distance looks like, in every frame the same."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from mono_depth_ros.colormap import BAR_HEIGHT, Colormap, colorbar, colorize, ticks

NAN, INF = float("nan"), float("inf")


def row(*values: float) -> npt.NDArray[np.float32]:
    return np.array([values], np.float32)


def colours(*values: float, colormap: Colormap = "plasma") -> list[tuple[int, ...]]:
    picture = colorize(row(*values), 1.0, 5.0, colormap)
    return [tuple(int(channel) for channel in pixel) for pixel in picture[0]]


def test_plasma_is_bgr_from_yellow_near_to_blue_far() -> None:
    # The ends of plasma are #f0f921 and #0d0887: https://bids.github.io/colormap/
    assert colours(1.0, 5.0) == [(0x21, 0xF9, 0xF0), (0x87, 0x08, 0x0D)]


def test_jet_is_red_near_and_blue_far() -> None:
    (blue, _, red), (far_blue, _, far_red) = colours(1.2, 4.8, colormap="jet")
    assert red > 100 > far_red == 0
    assert far_blue > 100 > blue == 0


def test_error_is_blue_below_white_at_the_middle_and_red_above() -> None:
    low, middle, high = colours(1.0, 3.0, 5.0, colormap="error")
    assert low == (172, 102, 33)
    assert middle == (247, 247, 247)
    assert high == (43, 24, 178)


# NaN must not reach the cast to integers: what that gives depends on the processor.
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("colormap", ["plasma", "jet", "error"])
def test_nan_is_black_and_nothing_else_is(colormap: Colormap) -> None:
    values = np.linspace(-1, 9, 1001, dtype=np.float32)
    assert colours(NAN, colormap=colormap) == [(0, 0, 0)]
    assert (0, 0, 0) not in colours(*values, INF, -INF, colormap=colormap)


@pytest.mark.parametrize("colormap", ["plasma", "jet", "error"])
def test_out_of_range_takes_the_colour_of_the_end(colormap: Colormap) -> None:
    near, far = colours(1.0, 5.0, colormap=colormap)
    assert colours(-INF, -3.0, 0.0, 0.999, colormap=colormap) == [near] * 4
    assert colours(5.001, 7.0, 1e30, INF, colormap=colormap) == [far] * 4


def test_a_colour_means_the_same_whatever_else_is_in_the_frame() -> None:
    assert colours(2.5)[0] == colours(2.5, 1.0, 40.0, NAN)[0] == colours(INF, 2.5)[1]


def test_levels_are_the_255_entries_of_the_ramp_in_order() -> None:
    # By plain Python: entry i of the ramp is OpenCV's colour for the gray level it came from.
    falling = [round(255 - i * 255 / 254) for i in range(255)]
    gray = np.array(falling, np.uint8)[:, None]
    expected = cv2.applyColorMap(gray, cv2.COLORMAP_PLASMA)[:, 0]
    for off in (-0.45, 0.0, 0.45):  # levels are rounded to, not cut off
        depth = np.array([[1.0 + 4.0 * (i + off) / 254 for i in range(255)]], np.float32)
        assert (colorize(depth, 1.0, 5.0)[0] == expected).all()


def test_out_is_filled_and_returned_and_the_depth_is_left_alone() -> None:
    depth = row(1.0, 2.0, NAN, INF)
    before = depth.copy()
    out = np.full((1, 4, 3), 77, np.uint8)
    assert colorize(depth, 1.0, 5.0, out=out) is out
    assert (out == colorize(depth, 1.0, 5.0)).all()
    np.testing.assert_array_equal(depth, before)


def test_wrong_out_and_empty_range_are_refused() -> None:
    depth = row(1.0, 2.0)
    for out in (
        np.empty((1, 3, 3), np.uint8),
        np.empty((1, 2, 3), np.int8),
        np.empty((1, 4, 3), np.uint8)[:, ::2],
    ):
        with pytest.raises(ValueError, match="out is"):
            colorize(depth, 1.0, 5.0, out=out)  # type: ignore[arg-type]
    for low, high in ((2.0, 2.0), (3.0, 2.0), (NAN, 2.0)):
        with pytest.raises(ValueError, match="range"):
            colorize(depth, low, high)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 10.0, [2, 4, 6, 8, 10]),
        (0.0, 4.0, [0, 1, 2, 3, 4]),
        (0.3, 0.9, [0.4, 0.6, 0.8]),
        (-50, 50, [-40, -20, 0, 20, 40]),
        (0.5, 80.0, [20, 40, 60, 80]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_colorbar_shows_the_colours_of_its_positions() -> None:
    bar = colorbar(201, 0.0, 4.0, "plasma")
    assert bar.shape == (BAR_HEIGHT, 201, 3)
    for x, depth in ((0, 0.0), (50, 1.0), (200, 4.0)):
        assert (bar[2, x] == colorize(row(depth), 0.0, 4.0)[0, 0]).all()
    # A tick below the ramp at each whole metre, black on white, and digits under it.
    dark = np.flatnonzero((bar[14] < 128).all(axis=-1))
    assert dark.tolist() == [0, 50, 100, 150, 200]
    assert (bar[20:, 40:60] < 128).any()
