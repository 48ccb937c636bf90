"""The loss of "High Quality Monocular Depth Estimation via Transfer Learning" (Alhashim & Wonka,
arXiv 1812.11941, eq. 1-4) on reciprocal depth y = 10 m / d, as its released code computes it.
"""

from __future__ import annotations

from torch import Tensor

from training.losses.ssim import dissimilarity

# Eq. 1: the weight of the difference itself (lambda); the other parts weigh 1.
L1_WEIGHT = 0.1
# What the released code gives to tf.image.ssim as the range of y: 10 m / 0.1 m.
RECIPROCAL_RANGE = 100.0


def l1(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Eq. 2: mean of |y - y_hat| over the mask."""
    return ((pred - target).abs() * mask).sum() / mask.sum().clamp(min=1)


def gradient(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Eq. 3: sum of |g_x| + |g_y| of the error over the number of pixels in the mask.

    The gradients are differences to the next pixel; as in `tf.image.image_gradients`, they are 0 in
    the last column and row, and here also where one of the two pixels is not in the mask.
    """
    error = pred - target
    across = (error[..., :, 1:] - error[..., :, :-1]).abs() * mask[..., :, 1:] * mask[..., :, :-1]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * mask[..., 1:, :] * mask[..., :-1, :]
    return (across.sum() + down.sum()) / mask.sum().clamp(min=1)


def paper_loss(pred: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """All parts and `total`: 0.1 l1 + gradient + ssim, where ssim is (1 - SSIM) / 2 (eq. 4).

    Args:
        pred, target: Nx1xhxw reciprocal depth, finite; h and w at least 11.
        mask: Nx1xhxw, 1 valid, 0 invalid. The paper has none: its training depth is in-painted.
    """
    parts = {
        "l1": l1(pred, target, mask),
        "gradient": gradient(pred, target, mask),
        "ssim": dissimilarity(pred, target, mask, RECIPROCAL_RANGE),
    }
    parts["total"] = L1_WEIGHT * parts["l1"] + parts["gradient"] + parts["ssim"]
    return parts
