"""How far an estimated depth map is from a measured one.

Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
NIPS 2014. Each figure is taken over an image's valid pixels, then averaged over images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Accuracy:
    """Figures of one image, or their mean over images.

    Attributes:
        abs_rel: mean of |depth - truth| / truth.
        delta1: share of pixels with max(depth / truth, truth / depth) < 1.25.
        scale: median of depth / truth; 1.2 means that everything looks 20 % too far.
        coverage: share of the measured pixels for which there is an estimate.
    """

    abs_rel: float
    delta1: float
    scale: float
    coverage: float


def measure(depth: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> Accuracy | None:
    """Compares two depth maps where both are finite and positive.

    Args:
        depth, truth: HxW float32 metres; anything else than finite and positive is invalid.

    Returns:
        The figures, or None where the maps have no valid pixel in common.

    Raises:
        ValueError: the shapes differ.

    >>> measure(np.array([1.0, 3.0, np.nan], np.float32), np.array([1.0, 2.0, 2.0], np.float32))
    Accuracy(abs_rel=0.25, delta1=0.5, scale=1.25, coverage=0.6666666666666666)
    """
    if depth.shape != truth.shape:
        raise ValueError(f"depth {depth.shape} and truth {truth.shape} differ in size")
    measured = np.isfinite(truth) & (truth > 0)
    both = measured & np.isfinite(depth) & (depth > 0)
    if not both.any():
        return None
    ratio = depth[both].astype(np.float64) / truth[both]
    return Accuracy(
        abs_rel=float(np.abs(ratio - 1).mean()),
        delta1=float((np.maximum(ratio, 1 / ratio) < 1.25).mean()),
        scale=float(np.median(ratio)),
        coverage=float(both.sum() / measured.sum()),
    )


def mean(images: list[Accuracy]) -> Accuracy:
    """Mean of each figure over images.

    Raises:
        ValueError: the list is empty.
    """
    if not images:
        raise ValueError("accuracy.mean: no image with valid pixels")
    rows = np.array([(a.abs_rel, a.delta1, a.scale, a.coverage) for a in images])
    return Accuracy(*(float(value) for value in rows.mean(axis=0)))
