"""Depth metrics: pure functions of pixels, and accumulators over images.

Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
NIPS 2014, unless a function says otherwise. The functions take the N pixels of an image whose truth
is known, in metres, finite and positive, of any floating type, and compute in float64. The
accumulators (`torchmetrics.Metric`, so they can be reduced over processes) take Nx1xhxw or HxW
metres, and leave out pixels whose truth is not finite and positive. A prediction that is NaN there
counts as wrong in delta, and makes means NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

# Limits of `DistanceBands` in metres.
BAND_LIMITS = (0, 1, 2, 4, 10)


def delta(pred: Tensor, truth: Tensor, power: int = 1) -> Tensor:
    """Share of pixels with max(pred / truth, truth / pred) < 1.25^power.

    >>> float(delta(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])))
    0.5
    """
    p, t = pred.double(), truth.double()
    return (torch.maximum(p / t, t / p) < 1.25**power).double().mean()


def abs_rel(pred: Tensor, truth: Tensor) -> Tensor:
    """Mean of |pred - truth| / truth.

    >>> float(abs_rel(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])))
    0.25
    """
    t = truth.double()
    return ((pred.double() - t).abs() / t).mean()


def sq_rel(pred: Tensor, truth: Tensor) -> Tensor:
    """Mean of (pred - truth)^2 / truth, in metres.

    >>> float(sq_rel(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])))
    0.25
    """
    t = truth.double()
    return ((pred.double() - t).square() / t).mean()


def rmse(pred: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean of (pred - truth)^2, in metres.

    >>> float(rmse(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0])))
    1.0
    """
    return (pred.double() - truth.double()).square().mean().sqrt()


def log_error(pred: Tensor, truth: Tensor) -> Tensor:
    """Natural log of pred / truth of each pixel."""
    return (pred.double() / truth.double()).log()


def rmse_log(pred: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean of ln(pred / truth)^2.

    >>> round(float(rmse_log(torch.tensor([2.0]), torch.tensor([1.0]))), 4)
    0.6931
    """
    return log_error(pred, truth).square().mean().sqrt()


def log10(pred: Tensor, truth: Tensor) -> Tensor:
    """Mean of |log10(pred / truth)|.

    Saxena, Sun, Ng, "Make3D: Learning 3D Scene Structure from a Single Still Image", PAMI 2009.

    >>> float(log10(torch.tensor([1.0, 10.0]), torch.tensor([1.0, 1.0])))
    0.5
    """
    return (pred.double() / truth.double()).log10().abs().mean()


def silog(pred: Tensor, truth: Tensor) -> Tensor:
    """100 sqrt(mean d^2 - (mean d)^2), d = ln(pred / truth).

    It is the standard deviation of the log error times 100, as in KITTI's depth benchmark (Uhrig et
    al., "Sparsity Invariant CNNs", 3DV 2017), so a common scale does not count. As a loss, Eigen et
    al. take half of the second term, and no root.

    >>> float(silog(torch.tensor([3.0, 6.0]), torch.tensor([1.0, 2.0])))
    0.0
    """
    return 100 * log_error(pred, truth).std(correction=0)


def scale_bias(pred: Tensor, truth: Tensor) -> Tensor:
    """Median of pred / truth; 1.2 means that everything looks 20 % too far.

    >>> round(float(scale_bias(torch.tensor([1.2, 2.4, 9.0]), torch.tensor([1.0, 2.0, 3.0]))), 4)
    1.2
    """
    return _median(pred.double() / truth.double())


def _median(values: Tensor) -> Tensor:
    """With the mean of the middle two of an even number, as NumPy has it, and torch has not."""
    low, high = (len(values) + 1) // 2, len(values) // 2 + 1
    return (values.kthvalue(low).values + values.kthvalue(high).values) / 2


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "delta1": delta,
    "delta2": partial(delta, power=2),
    "delta3": partial(delta, power=3),
    "abs_rel": abs_rel,
    "sq_rel": sq_rel,
    "rmse": rmse,
    "rmse_log": rmse_log,
    "log10": log10,
    "silog": silog,
}


def depth_metrics(pred: Tensor, truth: Tensor) -> dict[str, float]:
    """METRICS and `scale_bias` of one image.

    Args:
        pred, truth: N metres, finite and positive.

    Raises:
        ValueError: no pixel.

    >>> m = depth_metrics(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    >>> m["delta1"], m["delta2"], m["abs_rel"], round(m["rmse"], 4), m["scale_bias"]
    (0.5, 1.0, 0.25, 0.7071, 1.25)
    """
    if truth.numel() == 0:
        raise ValueError("depth_metrics: no valid pixel to compare")
    p, t = pred.double(), truth.double()
    metrics = {name: float(metric(p, t)) for name, metric in METRICS.items()}
    return metrics | {"scale_bias": float(scale_bias(p, t))}


def _valid(pred: Tensor, truth: Tensor) -> Tensor:
    """Where the truth is finite and positive.

    Raises:
        ValueError: the shapes differ.
    """
    if pred.shape != truth.shape:
        raise ValueError(
            f"prediction {tuple(pred.shape)} and truth {tuple(truth.shape)} differ in size"
        )
    return torch.isfinite(truth) & (truth > 0)


class PerImageMetrics(Metric):
    """METRICS averaged over images, and `scale_bias`, the median of the images' scale biases.

    An image without valid pixels does not count.

    Attributes:
        rows: `depth_metrics` of each image, in order.

    >>> metric = PerImageMetrics()
    >>> metric.update(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]]))
    >>> metric.update(torch.tensor([[3.0, 3.0]]), torch.tensor([[torch.nan, 2.0]]))
    >>> {name: round(float(value), 4) for name, value in metric.compute().items()}["abs_rel"]
    0.375
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        # A process without images adds an empty vector of the accumulator's own type.
        self.set_dtype(torch.float64)

    def update(self, pred: Tensor, truth: Tensor) -> None:
        maps = (pred, truth, _valid(pred, truth))
        for p, t, valid in zip(*(m.reshape(-1, *m.shape[-2:]) for m in maps), strict=True):
            if valid.any():
                row = list(depth_metrics(p[valid], t[valid]).values())
                self.rows.append(torch.tensor(row, dtype=torch.float64, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """METRICS and `scale_bias`, float64 scalars.

        Raises:
            ValueError: no image with valid pixels.
        """
        if not len(self.rows):
            raise ValueError("no image with valid pixels to measure")
        # One vector after a reduction over processes.
        table = dim_zero_cat(self.rows).reshape(-1, len(METRICS) + 1)
        means = dict(zip(METRICS, table[:, :-1].mean(dim=0), strict=True))
        return means | {"scale_bias": _median(table[:, -1])}


class PooledMetrics(Metric):
    """METRICS over the pixels of all images as if they were one, so that large images weigh more.

    >>> metric = PooledMetrics()
    >>> metric.update(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]]))
    >>> metric.update(torch.tensor([[3.0, 3.0]]), torch.tensor([[torch.nan, 2.0]]))
    >>> {name: round(float(value), 4) for name, value in metric.compute().items()}["abs_rel"]
    0.3333
    """

    full_state_update = False
    sums: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(len(METRICS)), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros(()), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, pred: Tensor, truth: Tensor) -> None:
        valid = _valid(pred, truth)
        if not valid.any():
            return
        p, t = pred[valid].double(), truth[valid].double()
        # Roots add up as squares, and a variance as mean square and mean.
        means = {name: metric(p, t) for name, metric in METRICS.items()}
        means |= {name: means[name].square() for name in ("rmse", "rmse_log")}
        means["silog"] = log_error(p, t).mean()
        self.sums = self.sums + len(t) * torch.stack(list(means.values()))
        self.pixels = self.pixels + len(t)

    def compute(self) -> dict[str, Tensor]:
        """METRICS, float64 scalars.

        Raises:
            ValueError: no valid pixel.
        """
        if not self.pixels:
            raise ValueError("no image with valid pixels to measure")
        means = dict(zip(METRICS, self.sums / self.pixels, strict=True))
        variance = means["rmse_log"] - means["silog"].square()
        roots = {name: means[name].sqrt() for name in ("rmse", "rmse_log")}
        return means | roots | {"silog": 100 * variance.clamp(min=0).sqrt()}


class DistanceBands(Metric):
    """AbsRel and delta1 by distance of the truth, and how many pixels lie at it, over all images.

    Bands are 0-1, 1-2, 2-4 and 4-10 m, each without its far end.

    >>> metric = DistanceBands()
    >>> metric.update(torch.tensor([[0.6, 1.8, 9.0]]), torch.tensor([[0.5, 1.5, 12.0]]))
    >>> {name: round(float(value), 4) for name, value in metric.compute().items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'abs_rel_0_1m': 0.2, 'delta1_0_1m': 1.0, 'share_0_1m': 0.3333,
     'abs_rel_1_2m': 0.2, 'delta1_1_2m': 1.0, 'share_1_2m': 0.3333,
     'abs_rel_2_4m': nan, 'delta1_2_4m': nan, 'share_2_4m': 0.0,
     'abs_rel_4_10m': nan, 'delta1_4_10m': nan, 'share_4_10m': 0.0}
    """

    full_state_update = False
    sums: Tensor
    pixels: Tensor

    def __init__(self) -> None:
        super().__init__()
        bands = len(BAND_LIMITS) - 1
        self.add_state("sums", torch.zeros(bands, 3), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros(()), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, pred: Tensor, truth: Tensor) -> None:
        valid = _valid(pred, truth)
        sums = torch.zeros_like(self.sums)
        for i, (near, far) in enumerate(pairwise(BAND_LIMITS)):
            inside = valid & (truth >= near) & (truth < far)
            p, t = pred[inside], truth[inside]
            if len(t):
                sums[i] = len(t) * torch.stack(
                    (abs_rel(p, t), delta(p, t), t.new_ones(()).double())
                )
        self.sums = self.sums + sums
        self.pixels = self.pixels + valid.sum()

    def compute(self) -> dict[str, Tensor]:
        """`abs_rel_A_Bm` and `delta1_A_Bm`, NaN for a band without pixels, and `share_A_Bm` of all
        valid pixels, float64 scalars.

        Raises:
            ValueError: no valid pixel.
        """
        if not self.pixels:
            raise ValueError("no image with valid pixels to measure")
        result = {}
        for (near, far), sums in zip(pairwise(BAND_LIMITS), self.sums, strict=True):
            name = f"{near}_{far}m"
            result[f"abs_rel_{name}"], result[f"delta1_{name}"] = sums[:2] / sums[2]
            result[f"share_{name}"] = sums[2] / self.pixels
        return result
