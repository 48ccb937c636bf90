"""Depth at camera resolution from the network's coarse map, with edges where the image has them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

# Neighbours in the coarse map belong to two surfaces if they differ by more than this ratio, ...
EDGE_RATIO = 1.15
# ... and if inverse depth bends nearby by more than this share of the difference. It is linear in
# the pixel coordinates of a plane, so the floor before a low camera, however steep, does not bend.
EDGE_BEND = 0.3
_NEAR, _WIDE = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
_SECOND_DIFFERENCE = np.array([[1, -2, 1]], np.float32)


def _steps(
    inverse: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Where a map of inverse depth steps, and its 3x3 minimum and maximum."""
    low, high = cv2.erode(inverse, _NEAR), cv2.dilate(inverse, _NEAR)
    bend = np.maximum(
        np.abs(cv2.filter2D(inverse, -1, _SECOND_DIFFERENCE)),
        np.abs(cv2.filter2D(inverse, -1, _SECOND_DIFFERENCE.T)),
    )
    # Beyond the border there is nothing to take a difference with.
    bend[[0, -1]] = 0
    bend[:, [0, -1]] = 0
    step = (high > low * EDGE_RATIO) & (cv2.dilate(bend, _WIDE) > EDGE_BEND * (high - low))
    return step, np.asarray(low, np.float32), np.asarray(high, np.float32)


def coarse_neighbours(
    coarse: tuple[int, int], fine: tuple[int, int]
) -> tuple[
    npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32], npt.NDArray[np.float32]
]:
    """The four coarse pixels around each fine one of a map that is enlarged.

    Returns:
        2xH coarse rows, above and below each fine row, and 2xW coarse columns, left and right of
        each fine column; then how far they are, 2xH and 2xW, in quarters of a coarse pixel, so
        that a sum of both is less than one grey level.
    """
    (h, w), (height, width) = coarse, fine
    y = (np.arange(height, dtype=np.float32) + 0.5) * h / height - 0.5
    x = (np.arange(width, dtype=np.float32) + 0.5) * w / width - 0.5
    rows, columns = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    return (
        np.stack((np.clip(rows, 0, h - 1), np.clip(rows + 1, 0, h - 1))),
        np.stack((np.clip(columns, 0, w - 1), np.clip(columns + 1, 0, w - 1))),
        np.asarray(np.stack((y - rows, rows + 1 - y)) / 4, np.float32),
        np.asarray(np.stack((x - columns, columns + 1 - x)) / 4, np.float32),
    )


class EdgeAwareUpsampler:
    """Up-samples depth without inventing points between a foreground and its background.

    1. A network blurs a depth edge over a few pixels. Where the 3x3 range is that of a step and not
       of a slanted plane (`EDGE_RATIO`, `EDGE_BEND`), each pixel snaps to the nearer of the local
       minimum and maximum (Kramer & Bruckner's sharpening operator, 1975), twice, so that a ramp
       becomes a step.
    2. Where all is smooth, inverse depth is interpolated linearly: exact for planes, since 1/Z is
       linear in the pixel coordinates.
    3. Beside a step, each fine pixel takes one of its four coarse neighbours whole: the one whose
       colour it resembles most; the nearest of equal ones.

    Buffers are kept between calls; results are overwritten by the next call.

    Args:
        coarse: (height, width) of the network's output.
        fine: (height, width) of the camera image.
    """

    def __init__(self, coarse: tuple[int, int], fine: tuple[int, int]) -> None:
        self.coarse, self.fine = coarse, fine
        self._inverse = np.empty(coarse, np.float32)
        self._fine_inverse = np.empty(fine, np.float32)
        self._depth = np.empty(fine, np.float32)
        self._edge_fine = np.empty(fine, np.uint8)
        self._rows, self._columns, self._row_distance, self._column_distance = coarse_neighbours(
            coarse, fine
        )

    def __call__(
        self, depth: npt.NDArray[np.float32], image: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float32]:
        """Up-samples `depth` guided by `image`.

        Args:
            depth: hxw float32 metres of size `coarse`; not finite or not positive means invalid.
            image: HxWx3 uint8 of size `fine`.

        Returns:
            HxW float32 metres, NaN where invalid.
        """
        height, width = self.fine
        inverse = self._inverse
        with np.errstate(divide="ignore", invalid="ignore"):
            np.divide(np.float32(1), depth, out=inverse)
        invalid = ~(np.isfinite(inverse) & (inverse > 0))
        any_invalid = bool(invalid.any())
        if invalid.all():
            self._depth.fill(np.nan)
            return self._depth
        if any_invalid:
            # Holes take the nearest valid value, so that what surrounds them stays as it is.
            _, nearest = cv2.distanceTransformWithLabels(
                invalid.view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
            )
            values = np.empty(inverse.size + 1, np.float32)
            values[nearest[~invalid]] = inverse[~invalid]
            np.take(values, np.asarray(nearest, np.int32), out=inverse)
        # Sharpening leaves steps only; the edges are where steps then are.
        for _ in range(2):
            step, low, high = _steps(inverse)
            snapped = np.where(high - inverse < inverse - low, high, low)
            np.copyto(inverse, snapped, where=step)
        edge, _, _ = _steps(inverse)
        cv2.resize(inverse, (width, height), dst=self._fine_inverse, interpolation=cv2.INTER_LINEAR)
        cv2.resize(
            edge.view(np.uint8),
            (width, height),
            dst=self._edge_fine,
            interpolation=cv2.INTER_NEAREST_EXACT,
        )
        self._choose_neighbours(inverse, image)
        np.divide(np.float32(1), self._fine_inverse, out=self._depth)
        if any_invalid:
            holes = cv2.resize(
                invalid.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
            )
            self._depth[holes.view(bool)] = np.nan
        return self._depth

    def _choose_neighbours(
        self, inverse: npt.NDArray[np.float32], image: npt.NDArray[np.uint8]
    ) -> None:
        """Replaces interpolated values beside steps by the best matching coarse neighbour."""
        h, w = self.coarse
        at = np.flatnonzero(self._edge_fine.view(bool))
        if at.size == 0:
            return
        guide = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
        y, x = np.divmod(at, self.fine[1])
        rows, columns = self._rows[:, y], self._columns[:, x]
        # 4xN coarse indices: upper left, upper right, lower left, lower right.
        near = (rows[:, None] * w + columns[None]).reshape(4, -1)
        colour = np.take(image.reshape(-1, 3), at, axis=0).astype(np.int16)
        around = np.take(guide.reshape(-1, 3), near.ravel(), axis=0).reshape(4, -1, 3)
        distance = np.abs(around.astype(np.int16) - colour).sum(axis=2)
        nearness = self._row_distance[:, None, y] + self._column_distance[None, :, x]
        best = (distance + nearness.reshape(4, -1)).argmin(axis=0)
        chosen = near[best, np.arange(at.size)]
        self._fine_inverse.reshape(-1)[at] = inverse.reshape(-1)[chosen]
