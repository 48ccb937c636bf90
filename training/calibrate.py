"""One factor that takes out a network's mean bias in scale, from whole training frames.

Training sees mostly crops, and a crop that is enlarged is a nearer scene; whole frames then come
out a few percent too near.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from training.bytes_to_metres import BytesToMetres
from training.data.augment import resize_pair
from training.data.frame import Frame
from training.spread import spread

# The median of ratios that scatter by 20 % is known to 1 % after 600 frames.
MAX_FRAMES = 1000


def scale_correction(
    module: BytesToMetres, frames: Sequence[Frame], size: tuple[int, int], focal: float
) -> float:
    """Factor for the network's depth.

    Args:
        module: on the CPU, in evaluation mode.
        frames: whole frames of the training split; at most `MAX_FRAMES`, spread evenly, are read.
        size: input height and width.
        focal: geometric-mean training focal length in pixels at that size.

    Returns:
        The median over frames of each frame's median truth / prediction.

    Raises:
        ValueError: a frame cannot be read, or none has depth.
    """
    ratios = []
    for frame in tqdm(spread(frames, MAX_FRAMES), desc="calibrate", unit="frame"):
        image, truth = resize_pair(frame.read(), size, focal)
        with torch.inference_mode():
            depth = module(torch.from_numpy(image)[None])[0].numpy()
        ratio = truth / depth
        if np.isfinite(ratio).any():
            ratios.append(float(np.nanmedian(ratio)))
    if not ratios:
        raise ValueError("no frame to calibrate on has depth")
    return float(np.median(ratios))
