"""The loss on log depth. Every part takes Nx1xhxw log metres and a mask of the same shape, and
ignores what is not in the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Dynamic range of log depth between 0.3 m and 10 m; SSIM's constants scale with it.
LOG_RANGE = 3.5


def l1(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference over the mask."""
    return ((pred - target).abs() * mask).sum() / mask.sum().clamp(min=1)


def scale_invariant(pred: Tensor, target: Tensor, mask: Tensor, weight: float = 0.5) -> Tensor:
    """sqrt(mean d^2 - weight * (mean d)^2) of each image, averaged; d is the log error.

    Eigen et al., NIPS 2014, eq. 4.

    `weight` 0 is the RMS log error, 1 ignores a common scale.
    """
    d = (pred - target) * mask
    n = mask.sum(dim=(1, 2, 3)).clamp(min=1)
    mean = d.sum(dim=(1, 2, 3)) / n
    square = (d * d).sum(dim=(1, 2, 3)) / n
    return (square - weight * mean * mean).clamp(min=1e-8).sqrt().mean()


def gradient(pred: Tensor, target: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    """Multi-scale gradient matching (Li & Snavely, MegaDepth, CVPR 2018): the absolute gradient of
    the error at strides 1, 2, 4, ..., averaged.
    """
    total = pred.new_zeros(())
    for i in range(scales):
        step = 2**i
        d, m = (pred - target)[..., ::step, ::step], mask[..., ::step, ::step]
        mx, my = m[..., :, 1:] * m[..., :, :-1], m[..., 1:, :] * m[..., :-1, :]
        gx = ((d[..., :, 1:] - d[..., :, :-1]).abs() * mx).sum() / mx.sum().clamp(min=1)
        gy = ((d[..., 1:, :] - d[..., :-1, :]).abs() * my).sum() / my.sum().clamp(min=1)
        total = total + gx + gy
    return total / scales


def ssim(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """(1 - SSIM) / 2 with a 7x7 uniform window (Wang et al., 2004), averaged over the mask.

    Outside the mask the target is taken to equal the prediction.
    """
    target = torch.where(mask > 0, target, pred.detach())
    c1, c2 = (0.01 * LOG_RANGE) ** 2, (0.03 * LOG_RANGE) ** 2
    mu_p, mu_t = (F.avg_pool2d(x, 7, 1, 3, count_include_pad=False) for x in (pred, target))
    moments = (pred * pred, target * target, pred * target)
    pp, tt, pt = (F.avg_pool2d(x, 7, 1, 3, count_include_pad=False) for x in moments)
    var_p, var_t, cov = pp - mu_p**2, tt - mu_t**2, pt - mu_p * mu_t
    luminance = (2 * mu_p * mu_t + c1) / (mu_p**2 + mu_t**2 + c1)
    structure = (2 * cov + c2) / (var_p + var_t + c2)
    dissimilarity = (1 - luminance * structure).clamp(0, 2) / 2
    return (dissimilarity * mask).sum() / mask.sum().clamp(min=1)


def log_depth_loss(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """All parts and `total`: 0.5 l1 + silog + 0.5 gradient + ssim.

    Args:
        pred, target: Nx1xhxw log metres, finite.
        mask: Nx1xhxw, 1 valid, 0 invalid.
    """
    parts = {
        "l1": l1(pred, target, mask),
        "silog": scale_invariant(pred, target, mask),
        "gradient": gradient(pred, target, mask),
        "ssim": ssim(pred, target, mask),
    }
    parts["total"] = 0.5 * parts["l1"] + parts["silog"] + 0.5 * parts["gradient"] + parts["ssim"]
    return parts
