"""Depth metrics: pure functions of one image pair, and a per-image accumulator.

Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
NIPS 2014. Every metric is computed over an image's valid pixels, then averaged over images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

METRICS = ("delta1", "delta2", "delta3", "abs_rel", "rmse", "log10")


def depth_metrics(
    pred: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Metrics of one image over its valid pixels.

    Args:
        pred, truth: N float metres, all finite and positive.

    Returns:
        delta1..3: share with max(pred/truth, truth/pred) < 1.25**i; abs_rel: mean of
        |pred - truth| / truth; rmse in metres; log10: mean |log10 pred - log10 truth|.

    Raises:
        ValueError: no pixel.

    >>> m = depth_metrics(np.array([1.0, 3.0], np.float32), np.array([1.0, 2.0], np.float32))
    >>> m["delta1"], m["delta2"], m["abs_rel"], round(m["rmse"], 4), round(m["log10"], 4)
    (0.5, 1.0, 0.25, 0.7071, 0.088)
    """
    if pred.size == 0:
        raise ValueError("depth_metrics: no valid pixel to compare")
    p, t = pred.astype(np.float64), truth.astype(np.float64)
    ratio = np.maximum(p / t, t / p)
    return {
        "delta1": float((ratio < 1.25).mean()),
        "delta2": float((ratio < 1.25**2).mean()),
        "delta3": float((ratio < 1.25**3).mean()),
        "abs_rel": float((np.abs(p - t) / t).mean()),
        "rmse": float(np.sqrt(((p - t) ** 2).mean())),
        "log10": float(np.abs(np.log10(p / t)).mean()),
    }


class MetricMean:
    """Averages `depth_metrics` per image (not pooled over pixels)."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def add(self, pred: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> None:
        """Adds one image; pixels not finite and positive in both are ignored, an image with none
        of them is skipped.
        """
        valid = np.isfinite(pred) & np.isfinite(truth)
        valid &= (np.nan_to_num(pred) > 0) & (np.nan_to_num(truth) > 0)
        if valid.any():
            self._rows.append(depth_metrics(pred[valid], truth[valid]))

    def __len__(self) -> int:
        return len(self._rows)

    def compute(self) -> dict[str, float]:
        """Mean of each metric over the images.

        Raises:
            ValueError: no image was added.
        """
        if not self._rows:
            raise ValueError("MetricMean: no image with valid pixels was added")
        return {name: float(np.mean([row[name] for row in self._rows])) for name in METRICS}
