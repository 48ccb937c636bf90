"""Structural similarity with a Gaussian window, of maps that have holes.

Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE Transactions on Image Processing 13 (4), 2004.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def _smooth(maps: Tensor) -> Tensor:
    """Sums over the window of NxCxhxw maps, only where it lies within the map.

    As sums of shifted maps: a convolution may be done in TF32 on a GPU, and variances, which are
    small differences of large sums, would be noise.
    """
    weights = [math.exp(-((i - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for i in range(WINDOW)]
    for dim in (-2, -1):
        length = maps.shape[dim] - WINDOW + 1
        shifted = (maps.narrow(dim, i, length) for i in range(WINDOW))
        total = torch.zeros_like(maps.narrow(dim, 0, length))
        for weight, x in zip(weights, shifted, strict=True):
            total = total.add(x, alpha=weight / sum(weights))
        maps = total
    return maps


def dissimilarity(pred: Tensor, target: Tensor, mask: Tensor, dynamic_range: float) -> Tensor:
    """(1 - SSIM) / 2, between 0 and 1, averaged over the windows whose centre is in the mask.

    SSIM = (2 mu_p mu_t + c1) (2 s_pt + c2) / ((mu_p^2 + mu_t^2 + c1) (s_p^2 + s_t^2 + c2)), with
    c = (K * dynamic_range)^2. As in `tf.image.ssim`, windows are 11x11 Gaussians of sigma 1.5 that
    lie within the map. A window's moments are those of its pixels in the mask, so that pixels
    outside it have no influence, and where every pixel is in the mask SSIM is the usual one.

    Args:
        pred, target: Nx1xhxw, finite.
        mask: Nx1xhxw, 1 valid, 0 invalid.
        dynamic_range: largest difference that the maps can have.

    Raises:
        ValueError: the maps are smaller than the window.
    """
    if min(pred.shape[-2:]) < WINDOW:
        size = "x".join(str(n) for n in pred.shape[-2:])
        raise ValueError(f"SSIM needs {WINDOW}x{WINDOW} pixels, not {size}: train on larger images")
    p, t = pred * mask, target * mask
    # Apart, because what does not depend on the prediction needs no gradient.
    fixed = _smooth(torch.cat((mask, t), dim=1))
    moving = _smooth(torch.cat((p, p * p + t * t, p * t), dim=1))
    # A window that counts has at least its centre, which weighs 0.07.
    weight = fixed[:, :1].clamp(min=1e-3)
    mu_t = fixed[:, 1:] / weight
    mu_p, squares, product = (moving[:, i, None] / weight for i in range(3))
    c1, c2 = (K1 * dynamic_range) ** 2, (K2 * dynamic_range) ** 2
    means = mu_p**2 + mu_t**2
    luminance = (2 * mu_p * mu_t + c1) / (means + c1)
    structure = (2 * (product - mu_p * mu_t) + c2) / (squares - means + c2)
    edge = WINDOW // 2
    centres = mask[..., edge:-edge, edge:-edge]
    loss = ((1 - luminance * structure) / 2).clamp(0, 1) * centres
    return loss.sum() / centres.sum().clamp(min=1)
