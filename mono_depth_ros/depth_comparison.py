"""How an estimated depth stream differs from a measured one: by distance, in scale, in obstacles.

Figures are pooled over the pixels of all frames, so that a band means what its rows of the sensor
saw; `accuracy` averages over images instead, as papers do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.nearest_obstacles import nearest_obstacles

#: Bounds in metres of the bands of true depth; a band includes its lower one.
BAND_EDGES = (0.0, 1.0, 2.0, 4.0, 6.0, 10.0, math.inf)
#: Obstacles nearer than this are counted, in metres.
OBSTACLE_RANGE = 2.0
# An obstacle is missed when its estimate is farther by both of these: the one alone would count the
# noise of what is near, the other that of what is far.
_MISSED_RATIO, _MISSED_METRES = 1.25, 0.3
# Medians of a stream come from a histogram of ln(estimate / truth): a thousandth is 0.1 %.
_BIN, _BINS = 1e-3, 8000


@dataclass(frozen=True)
class Errors:
    """Differences over a set of pixels; NaN where it is empty.

    Attributes:
        near, far: bounds of true depth in metres.
        pixels: those with both a measurement and an estimate.
        coverage: their share of those with a measurement.
        abs_rel: mean of |estimate - truth| / truth.
        rmse: root of the mean of (estimate - truth)^2 in metres.
        delta1: share with max(estimate / truth, truth / estimate) < 1.25.
        bias: median of estimate / truth, to 0.1 %; 1.2 means that everything looks 20 % too far.
    """

    near: float
    far: float
    pixels: int
    coverage: float
    abs_rel: float
    rmse: float
    delta1: float
    bias: float


@dataclass(frozen=True)
class ScaleBias:
    """The median of estimate / truth of each frame, over frames.

    Attributes:
        low, median, high: 5th, 50th and 95th percentile of it.
    """

    low: float
    median: float
    high: float

    @property
    def drift(self) -> float:
        """High / low - 1: 0 for an error that one factor would mend."""
        return self.high / self.low - 1


@dataclass(frozen=True)
class Obstacles:
    """Nearest obstacles (see `nearest_obstacles`), over the sectors of all frames.

    Both maps are looked at only where there is a measurement.

    Attributes:
        real: sectors with an obstacle nearer than `OBSTACLE_RANGE`, by measurement.
        estimated: the same by the estimate.
        missed: of the real ones, those that the estimate sees farther by more than 25 % and 0.3 m,
            or not at all.
        false: of the estimated ones, those that are so much farther by measurement.
    """

    real: int
    estimated: int
    missed: int
    false: int


class _Sums:
    """Sums over pixels from which `Errors` are made, for each of some bands."""

    def __init__(self, bands: int) -> None:
        self._bands = bands
        # measured, compared, sum of |error| / truth, of error^2, and number within 1.25
        self.sums = np.zeros((5, bands))
        self.histogram = np.zeros((bands, _BINS), np.int64)

    def add(
        self,
        band: npt.NDArray[np.intp],
        estimate: npt.NDArray[np.float32],
        truth: npt.NDArray[np.float32],
    ) -> None:
        """Adds pixels that have both, N each."""
        ratio = estimate / truth
        values = (
            None,
            np.abs(ratio - 1),
            np.square(estimate - truth),
            np.maximum(ratio, 1 / ratio) < 1.25,
        )
        for row, weights in zip(self.sums[1:], values, strict=True):
            row += np.bincount(band, weights, self._bands)
        step = np.log(ratio) * np.float32(1 / _BIN) + np.float32(_BINS / 2)
        index = band * _BINS + np.clip(step, 0, _BINS - 1).astype(np.intp)
        self.histogram += np.bincount(index, minlength=self.histogram.size).reshape(-1, _BINS)

    def errors(self, bands: slice) -> Errors:
        """Of these bands together."""
        near, far = BAND_EDGES[bands.start], BAND_EDGES[bands.stop]
        measured, compared, *sums = self.sums[:, bands].sum(axis=1).tolist()
        if not compared:
            nan = math.nan
            return Errors(near, far, 0, 0.0 if measured else nan, nan, nan, nan, nan)
        cumulative = self.histogram[bands].sum(axis=0).cumsum()
        median = int(np.searchsorted(cumulative, (compared + 1) / 2))
        return Errors(
            near,
            far,
            int(compared),
            coverage=compared / measured,
            abs_rel=sums[0] / compared,
            rmse=math.sqrt(sums[1] / compared),
            delta1=sums[2] / compared,
            bias=math.exp((median + 0.5 - _BINS / 2) * _BIN),
        )


class DepthComparison:
    """Compares frames one after another; its memory grows by one number a frame."""

    def __init__(self) -> None:
        self._bands = len(BAND_EDGES) - 1
        self._plain, self._scaled = _Sums(self._bands), _Sums(self._bands)
        self._ratios: list[float] = []
        self._obstacles = np.zeros(4, np.int64)

    @property
    def frames(self) -> int:
        """Number of frames that had a pixel in common."""
        return len(self._ratios)

    def add(
        self,
        estimate: npt.NDArray[np.float32],
        truth: npt.NDArray[np.float32],
        camera: CameraModel,
    ) -> None:
        """Compares one frame.

        Args:
            estimate, truth: HxW float32 metres along Z; anything else than finite and positive is
                unknown.
            camera: their intrinsics.

        Raises:
            ValueError: the sizes differ.
        """
        if estimate.shape != truth.shape:
            raise ValueError(f"estimate {estimate.shape} and truth {truth.shape} differ in size")
        measured = np.isfinite(truth) & (truth > 0)
        both = measured & np.isfinite(estimate) & (estimate > 0)
        band = _band(truth)
        counts = np.bincount(band[measured], minlength=self._bands)
        for sums in (self._plain, self._scaled):
            sums.sums[0] += counts
        self._add_obstacles(estimate, truth, measured, camera)
        if not both.any():
            return
        z, true, band = estimate[both], truth[both], band[both]
        ratio = np.median(z / true)
        self._ratios.append(float(ratio))
        self._plain.add(band, z, true)
        self._scaled.add(band, z / ratio, true)

    def _add_obstacles(
        self,
        estimate: npt.NDArray[np.float32],
        truth: npt.NDArray[np.float32],
        measured: npt.NDArray[np.bool_],
        camera: CameraModel,
    ) -> None:
        unknown = np.float32(np.nan)
        real = nearest_obstacles(np.where(measured, truth, unknown), camera)
        seen = nearest_obstacles(np.where(measured, estimate, unknown), camera)
        self._obstacles += [
            np.count_nonzero(real < OBSTACLE_RANGE),
            np.count_nonzero(seen < OBSTACLE_RANGE),
            np.count_nonzero((real < OBSTACLE_RANGE) & _farther(seen, real)),
            np.count_nonzero((seen < OBSTACLE_RANGE) & _farther(real, seen)),
        ]

    def bands(self) -> list[Errors]:
        """The errors in each band of `BAND_EDGES`."""
        return [self._plain.errors(slice(i, i + 1)) for i in range(self._bands)]

    def overall(self) -> Errors:
        """The errors of all pixels."""
        return self._plain.errors(slice(0, self._bands))

    def scaled(self) -> Errors:
        """The errors of all pixels, had each frame been divided by its median ratio.

        What is left is the error in shape, which no scale would mend.
        """
        return self._scaled.errors(slice(0, self._bands))

    def scale(self) -> ScaleBias:
        """The scale of the frames.

        Raises:
            ValueError: no frame had a pixel in common.
        """
        if not self._ratios:
            raise ValueError("no frame with both a measurement and an estimate")
        low, median, high = np.percentile(self._ratios, (5, 50, 95)).tolist()
        return ScaleBias(low, median, high)

    def obstacles(self) -> Obstacles:
        """The obstacles of all frames."""
        return Obstacles(*self._obstacles.tolist())


def _band(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Index of the band of each pixel; any for NaN."""
    # A few comparisons are several times faster than np.searchsorted.
    band = np.zeros(depth.shape, np.intp)
    for edge in BAND_EDGES[1:-1]:
        band += depth >= np.float32(edge)
    return band


def _farther(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where `one` is farther than `other` by more than counts as the same; both may be infinite."""
    with np.errstate(invalid="ignore"):
        return (one > other * _MISSED_RATIO) & (one - other > _MISSED_METRES)
