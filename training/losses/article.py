"""The loss of the article that this project is named after, on depth normalised to [0, 1].

The article compares depth maps rendered to grey by SSIM, their Sobel edges, thresholded at 0.5, by
F1, and the maps as vectors by cosine distance. A threshold has no gradient, so edges are soft here.
The parts are brought to [0, 1], 0 for equal maps, and weigh the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses.ssim import dissimilarity

# Of the magnitude of the unscaled Sobel kernels, which is 4 at a step from 0 to 1: edges are steps
# of more than 1/8 of the range.
EDGE_THRESHOLD = 0.5
# An edge goes from 10 % to 90 % over 4.4 / 20 = 0.22 of magnitude.
EDGE_STEEPNESS = 20.0
# Root mean square of what both vectors have besides their pixels: 10 cm of depth.
COSINE_FLOOR = 1e-2


def soft_edges(x: Tensor) -> Tensor:
    """How much of an edge each pixel is: sigmoid(20 (|Sobel| - 0.5)), Nx1x(h-2)x(w-2)."""
    across, down = x[..., :, 2:] - x[..., :, :-2], x[..., 2:, :] - x[..., :-2, :]
    gx = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    gy = down[..., :, :-2] + 2 * down[..., :, 1:-1] + down[..., :, 2:]
    # The root has no gradient at 0.
    magnitude = (gx.square() + gy.square() + 1e-8).sqrt()
    return torch.sigmoid(EDGE_STEEPNESS * (magnitude - EDGE_THRESHOLD))


def edge_f1_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - F1 of each image's edges, averaged over images.

    With edges p and t, precision is sum pt / sum p^2, recall sum pt / sum t^2, and
    F1 = (2 sum pt + 1) / (sum p^2 + sum t^2 + 1), over the pixels whose 3x3 neighbourhood is in the
    mask. For edges of 0 and 1 that is the usual F1, and for soft ones it still is 1 where p = t;
    the ones make it 1 where there is no edge (the Dice loss of Milletari, Navab, Ahmadi, "V-Net",
    3DV 2016, smoothed).
    """
    whole = 1 - F.max_pool2d(1 - mask, 3, stride=1)
    p, t = soft_edges(pred) * whole, soft_edges(target) * whole
    hits, predicted, actual = ((a * b).sum(dim=(1, 2, 3)) for a, b in ((p, t), (p, p), (t, t)))
    return (1 - (2 * hits + 1) / (predicted + actual + 1)).mean()


def cosine_distance(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - p.t / (|p| |t|) of each image's pixels in the mask, averaged over images.

    Both vectors have a further small component, so that the distance is smooth at 0, and 0 for an
    image without valid pixels.
    """
    n = mask.sum(dim=(1, 2, 3)).clamp(min=1)
    pt, pp, tt = (
        (a * b * mask).sum(dim=(1, 2, 3)) / n + COSINE_FLOOR**2
        for a, b in ((pred, target), (pred, pred), (target, target))
    )
    return (1 - pt / (pp.sqrt() * tt.sqrt())).mean()


def article_loss(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """All parts and `total`: ssim + edges + cosine, where ssim is (1 - SSIM) / 2.

    Args:
        pred, target: Nx1xhxw normalised depth, finite; h and w at least 11.
        mask: Nx1xhxw, 1 valid, 0 invalid.
    """
    parts = {
        "ssim": dissimilarity(pred, target, mask, dynamic_range=1.0),
        "edges": edge_f1_loss(pred, target, mask),
        "cosine": cosine_distance(pred, target, mask),
    }
    parts["total"] = parts["ssim"] + parts["edges"] + parts["cosine"]
    return parts
