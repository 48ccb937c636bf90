"""Evaluation protocols: which pixels of a depth map count, and how images are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt
import torch

from training.metrics import METRICS, DistanceBands, PerImageMetrics, PooledMetrics
from training.targets import MAX_DEPTH_M, MIN_DEPTH_M

NYU_SIZE = (480, 640)


@dataclass(frozen=True)
class Protocol:
    """How depth maps at camera resolution are compared.

    Attributes:
        name: as results say it.
        size: height and width that the crop is for; None takes any.
        rows, columns: first, and one past the last, that count; None is the map's edge.
        min_truth, max_truth: metres; truth counts if it lies between them, ends left out.
        min_prediction, max_prediction: metres that the prediction is clipped to.
        mirror: whether the prediction is the mean of that for the image and that for its mirror
            image, mirrored back; who predicts does it.
        pooled: whether metrics are taken over all pixels of all images, rather than averaged over
            images.
    """

    name: str
    size: tuple[int, int] | None
    rows: tuple[int | None, int | None]
    columns: tuple[int | None, int | None]
    min_truth: float
    max_truth: float
    min_prediction: float
    max_prediction: float
    mirror: bool
    pooled: bool

    def evaluation(self) -> Evaluation:
        """A new, empty accumulation of images."""
        return Evaluation(self)


class Evaluation:
    """Metrics of the images added so far, by a protocol."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._per_image = PerImageMetrics()
        self._pooled = PooledMetrics()
        self._bands = DistanceBands()
        self._measured = self._predicted = 0

    def __len__(self) -> int:
        """Number of images that counted."""
        return len(self._per_image.rows)

    def add(
        self, pred: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]
    ) -> dict[str, float] | None:
        """Compares one image.

        Args:
            pred: HxW float32 metres; infinite ones are clipped as others are, NaN is no prediction.
            truth: HxW float32 metres; anything else than finite and positive is no truth.

        Returns:
            METRICS, `scale_bias` and `coverage` (share of the pixels with truth that have a
            prediction) of this image, or None where no pixel counts; the image then has no part in
            the means.

        Raises:
            ValueError: the sizes differ from each other, or from that of the protocol's crop.
        """
        protocol = self.protocol
        if pred.shape != truth.shape or protocol.size not in (None, truth.shape):
            wanted = protocol.size or truth.shape
            raise ValueError(
                f"protocol {protocol.name}: prediction {pred.shape} and truth {truth.shape} must"
                f" be {wanted}; protocol native takes any size"
            )
        window = slice(*protocol.rows), slice(*protocol.columns)
        t = truth[window]
        p = np.clip(pred[window], protocol.min_prediction, protocol.max_prediction)
        measured = np.isfinite(t) & (t > protocol.min_truth) & (t < protocol.max_truth)
        both = measured & ~np.isnan(p)
        count, predicted = int(measured.sum()), int(both.sum())
        self._measured += count
        self._predicted += predicted
        if not predicted:
            return None
        pixels = torch.from_numpy(p), torch.from_numpy(np.where(both, t, np.float32(np.nan)))
        for metric in (self._per_image, self._pooled, self._bands):
            metric.update(*pixels)
        row = zip((*METRICS, "scale_bias"), self._per_image.rows[-1].tolist(), strict=True)
        return dict(row) | {"coverage": predicted / count}

    def compute(self) -> dict[str, float]:
        """Metrics of all images.

        Returns:
            METRICS, over pixels or averaged over images as the protocol has it; `rmse_pooled` and
            `rmse_per_image`, which differ most between the two; `scale_bias` as in
            `PerImageMetrics`, `coverage` of all pixels, and the figures of `DistanceBands` (NaN for
            a band without pixels).

        Raises:
            ValueError: no image counted.
        """
        if not len(self):
            raise ValueError(f"protocol {self.protocol.name}: no image with valid pixels was added")
        per_image, pooled = self._per_image.compute(), self._pooled.compute()
        chosen = pooled if self.protocol.pooled else per_image
        result = {name: chosen[name] for name in METRICS}
        result |= {"rmse_pooled": pooled["rmse"], "rmse_per_image": per_image["rmse"]}
        result |= {"scale_bias": per_image["scale_bias"], **self._bands.compute()}
        coverage = {"coverage": self._predicted / self._measured}
        return {name: float(value) for name, value in result.items()} | coverage


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # The usual one for the 654 test images of NYU-Depth-V2, after Eigen et al., NIPS 2014, and
        # with their crop. Some papers add the mirror average.
        Protocol(
            name="eigen",
            size=NYU_SIZE,
            rows=(45, 471),
            columns=(41, 601),
            min_truth=1e-3,
            max_truth=10.0,
            min_prediction=1e-3,
            max_prediction=10.0,
            mirror=False,
            pooled=False,
        ),
        # The released code of Alhashim & Wonka (arXiv 1812.11941), github.com/ialhashim/DenseDepth,
        # utils.py and the crop in nyu_test.zip. It masks nothing, as its truth is in-painted. Its
        # "rel" divides by the prediction (issue 98: 0.1274 so, 0.1234 as here), and its pooled RMSE
        # is 0.5485, where the paper, by other code, has 0.465 (issue 75).
        Protocol(
            name="densedepth",
            size=NYU_SIZE,
            rows=(20, 460),
            columns=(24, 616),
            min_truth=0.0,
            max_truth=inf,
            min_prediction=0.1,
            max_prediction=10.0,
            mirror=True,
            pooled=True,
        ),
        # Any other data set: whole frames, and the range that networks here are made for.
        Protocol(
            name="native",
            size=None,
            rows=(None, None),
            columns=(None, None),
            min_truth=MIN_DEPTH_M,
            max_truth=MAX_DEPTH_M,
            min_prediction=MIN_DEPTH_M,
            max_prediction=MAX_DEPTH_M,
            mirror=False,
            pooled=False,
        ),
    )
}
