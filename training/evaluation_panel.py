"""Pictures of single answers beside the truth, for a look at where a network goes wrong.

`image | measured | estimated | error`. Both depth maps share one colour range, that of this image,
with a bar in metres. The error is estimated / measured - 1, from -50 % (blue, too near) over white
to +50 % (red, too far); beyond that the colour stays. Black is unknown. Pictures are BGR.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.colormap import (
    BAR_HEIGHT,
    WHITE,
    Picture,
    colorbar,
    colorize,
    draw_text,
)
from mono_depth_ros.panel import fit, tile_size

PANEL_TILE, SHEET_TILE = 480, 260
ERROR_PERCENT = 50.0
TITLES = ("image", "measured", "estimated", "error (blue near, red far)")
_GAP, _LINE = 6, 22


def colour_range(
    truth: npt.NDArray[np.float32], depth: npt.NDArray[np.float32]
) -> tuple[float, float]:
    """Ends of the colours in metres: from the lowest 1st to the highest 99th percentile of the
    finite values of either map; 0 to 1 where there is none.
    """
    maps = [m[np.isfinite(m)] for m in (truth, depth)]
    ends = [np.percentile(values, (1, 99)) for values in maps if values.size]
    if not ends:
        return 0.0, 1.0
    low, high = float(np.min(ends)), float(np.max(ends))
    return low, max(high, low + 0.1)


def draw_panel(
    image: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.float32],
    depth: npt.NDArray[np.float32],
    caption: str,
    long_side: int = PANEL_TILE,
) -> Picture:
    """One row of tiles under its titles and figures, and above its colour bars.

    Args:
        image: HxWx3 uint8 RGB.
        truth, depth: HxW float32 metres; NaN is unknown.
        caption: one line of text.
        long_side: of a tile, pixels.

    Returns:
        uint8 BGR on white.
    """
    low, high = colour_range(truth, depth)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(np.isfinite(depth), depth / truth - 1, np.nan) * np.float32(100)
    pictures = (
        np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8),
        colorize(truth, low, high),
        colorize(depth, low, high),
        colorize(error.astype(np.float32), -ERROR_PERCENT, ERROR_PERCENT, "error"),
    )
    width, height = tile_size(image.shape[1], image.shape[0], long_side)
    columns = [_GAP + i * (width + _GAP) for i in range(len(pictures))]
    top = 2 * _LINE
    bottom = top + height + _GAP
    panel = np.full((bottom + BAR_HEIGHT, columns[-1] + width + _GAP, 3), WHITE, np.uint8)
    draw_text(panel, caption, _GAP, _LINE - 6)
    for x, title, picture in zip(columns, TITLES, pictures, strict=True):
        draw_text(panel, title, x + width / 2, top - 6, align="centre")
        panel[top : top + height, x : x + width] = fit(picture, width, height)
    depths = slice(columns[1], columns[2] + width)
    panel[bottom:, depths] = colorbar(2 * width + _GAP, low, high, "plasma")
    errors = slice(columns[3], columns[3] + width)
    panel[bottom:, errors] = colorbar(width, -ERROR_PERCENT, ERROR_PERCENT, "error", "%")
    return panel


def contact_sheet(rows: list[Picture]) -> Picture:
    """Panels below one another, on white.

    Raises:
        ValueError: there is none.
    """
    if not rows:
        raise ValueError("contact_sheet: no panel to show")
    width = max(row.shape[1] for row in rows)
    sheet = [
        cv2.copyMakeBorder(row, 0, _GAP, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=WHITE)
        for row in rows
    ]
    return np.asarray(np.vstack(sheet), np.uint8)
