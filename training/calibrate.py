"""One factor that takes out a network's mean bias in scale, from whole training frames.

Training sees mostly crops, and a crop that is enlarged is a nearer scene; whole frames then come
out a few percent too near.
"""

from __future__ import annotations

import numpy as np

from training.data.augment import resize_pair
from training.data.pair import Pair
from training.models import UNet
from training.train import predict, training_focal


def scale_correction(network: UNet, pairs: list[Pair], size: tuple[int, int]) -> float:
    """Factor for the network's depth.

    Args:
        network: in evaluation mode.
        pairs: whole frames of the training split.
        size: input height and width.

    Returns:
        The median over frames of each frame's median truth / prediction.

    Raises:
        ValueError: no frame has depth.
    """
    device = next(network.parameters()).device
    ratios = []
    for pair in pairs:
        image, truth = resize_pair(pair, size, training_focal(size[1]))
        ratio = truth / predict(network, image, device)
        if np.isfinite(ratio).any():
            ratios.append(float(np.nanmedian(ratio)))
    if not ratios:
        raise ValueError("scale_correction: no frame has depth")
    return float(np.median(ratios))
