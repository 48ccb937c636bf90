"""Depth -> colours for people: the same colour is the same distance in every frame.

Pictures are HxWx3 uint8 BGR, what a bgr8 message, `cv2.imwrite` and `cv2.VideoWriter` take.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Colormap = Literal["plasma", "jet", "error"]

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.45
BAR_HEIGHT = 36
_RAMP_HEIGHT = 12
_MAX_TICKS = 5
# Entry 0 of each table is for NaN, so the ramp has 255 levels.
_LAST = 255


def _tables() -> dict[str, Picture]:
    """256x1x3 uint8 BGR tables: black for NaN, then the ramp from the low to the high end."""
    falling = np.linspace(255, 0, _LAST).round().astype(np.uint8)[:, None]
    # ColorBrewer RdBu: blue below, near-white at the middle, red above; BGR.
    stops = np.array([[172, 102, 33], [247, 247, 247], [43, 24, 178]], np.float64)
    at = np.linspace(0, 2, _LAST)
    diverging = np.stack([np.interp(at, range(3), channel) for channel in stops.T], axis=-1)
    ramps = {
        "plasma": cv2.applyColorMap(falling, cv2.COLORMAP_PLASMA),
        "jet": cv2.applyColorMap(falling, cv2.COLORMAP_JET),
        "error": diverging.round()[:, None],
    }
    nan = np.zeros((1, 1, 3), np.uint8)
    return {name: np.vstack((nan, ramp)).astype(np.uint8) for name, ramp in ramps.items()}


_TABLES = _tables()


def colorize(
    depth: npt.NDArray[np.float32],
    min_depth: float,
    max_depth: float,
    colormap: Colormap = "plasma",
    out: Picture | None = None,
) -> Picture:
    """Colours a map over a fixed range.

    Args:
        depth: HxW float32 metres (or any other quantity for `error`).
        min_depth, max_depth: ends of the colour range, in the units of `depth`.
        colormap: `plasma`: near is yellow, far is dark blue; `jet`: near is red, far is blue;
            `error`: the low end is blue, the middle white, the high end red.
        out: HxWx3 uint8, contiguous, to fill; None allocates.

    Returns:
        HxWx3 uint8 BGR. NaN is black; values outside the range, infinities included, take the
        colour of the end they are beyond.

    Raises:
        ValueError: the range is empty, or `out` has another shape or dtype.
    """
    if not min_depth < max_depth:
        raise ValueError(f"colour range {min_depth} to {max_depth} is empty")
    if out is None:
        out = np.empty((*depth.shape, 3), np.uint8)
    elif out.shape != (*depth.shape, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}, not contiguous uint8 {depth.shape} x 3")
    slope = (_LAST - 1) / (max_depth - min_depth)
    # 1.5: the ramp starts at entry 1, and the cast below truncates.
    level = depth * np.float32(slope)
    level += np.float32(1.5 - min_depth * slope)
    np.clip(level, 1, _LAST, out=level)
    np.fmax(level, 0, out=level)  # fmax drops NaN, which clip keeps
    cv2.applyColorMap(level.astype(np.uint8), _TABLES[colormap], dst=out)
    return out


def ticks(low: float, high: float) -> list[float]:
    """At most five round values (steps of 1, 2 or 5 times a power of ten) from low to high.

    >>> ticks(0.1, 10.0)
    [2.0, 4.0, 6.0, 8.0, 10.0]
    >>> ticks(-50, 50)
    [-40.0, -20.0, 0.0, 20.0, 40.0]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / _MAX_TICKS))
    for step in (power, 2 * power, 5 * power, 10 * power):
        first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
        if last - first < _MAX_TICKS:
            break
    return [round(i * step, 9) for i in range(first, last + 1)]


def draw_text(
    picture: Picture,
    text: str,
    x: float,
    baseline: int,
    colour: tuple[int, int, int] = BLACK,
    align: Literal["left", "centre"] = "left",
) -> None:
    """Writes one line into a BGR picture, moved as little as keeps it inside left and right."""
    width = cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0]
    left = x - width / 2 if align == "centre" else x
    left = max(2, min(left, picture.shape[1] - width - 2))
    cv2.putText(picture, text, (round(left), baseline), FONT, FONT_SCALE, colour, 1, cv2.LINE_AA)


def colorbar(width: int, low: float, high: float, colormap: Colormap, unit: str = "m") -> Picture:
    """A horizontal colour bar with values below it, on white.

    Args:
        width: pixels.
        low, high: ends of the colour range, as for `colorize`.
        colormap: as for `colorize`.
        unit: written behind each value.

    Returns:
        `BAR_HEIGHT` x width x 3 uint8 BGR.

    Raises:
        ValueError: the range is empty.
    """
    values = np.linspace(low, high, width, dtype=np.float32)
    bar = np.full((BAR_HEIGHT, width, 3), WHITE, np.uint8)
    bar[:_RAMP_HEIGHT] = colorize(values[None], low, high, colormap)
    for tick in ticks(low, high):
        x = (tick - low) / (high - low) * (width - 1)
        cv2.line(bar, (round(x), _RAMP_HEIGHT), (round(x), _RAMP_HEIGHT + 3), BLACK)
        draw_text(bar, f"{tick:g} {unit}", x, BAR_HEIGHT - 6, align="centre")
    return bar
