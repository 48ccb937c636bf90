"""The NYU-Depth-V2 labelled set as 8-bit PNG depth (v = floor(25.5 m), 255 = 10 m).

Silberman, Hoiem, Kohli, Fergus, "Indoor Segmentation and Support Inference from RGBD Images",
ECCV 2012. Intrinsics of the RGB camera: the data set's toolbox.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from training.data.pair import Pair, read_all, read_depth_png, read_rgb

FX, FY = 518.858, 519.470
WIDTH, HEIGHT = 640, 480
# The pictures have a white border of a few pixels; nothing trains on it.
BORDER = 10
SPLIT_FILES = {"train": "train795.txt", "test": "test654.txt"}


def split_indices(root: Path, split: str) -> list[int]:
    """0-based frame numbers of `train` (795) or `test` (654), or of a part of the training split.

    The parts are `fit`, which training uses, and `validation`.

    Neighbouring frames show the same room, so validation takes four runs of eight frames, one at
    the end of each quarter, rather than scattered frames.

    Raises:
        ValueError: unknown split, or the split file is missing.
    """
    path = root / SPLIT_FILES["test" if split == "test" else "train"]
    if split not in ("train", "test", "fit", "validation"):
        raise ValueError(f"split '{split}' is unknown; known: train, test, fit, validation")
    if not path.is_file():
        raise ValueError(f"{path}: not found; --nyu must name the folder with rgb/ and depth8/")
    try:
        indices = [int(line) for line in path.read_text().split()]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if split in ("train", "test"):
        return indices
    ends = [len(indices) * quarter // 4 for quarter in (1, 2, 3, 4)]
    held_out = {i for end in ends for i in range(end - 8, end)}
    return [index for i, index in enumerate(indices) if (i in held_out) == (split == "validation")]


def _read_pair(root: Path, index: int, border: int) -> Pair:
    image = read_rgb(root / "rgb" / f"{index:04d}.jpg")
    depth = read_depth_png(root / "depth8" / f"{index:04d}.png", 1 / 25.5)
    if image.shape[:2] != (HEIGHT, WIDTH) or depth.shape != (HEIGHT, WIDTH):
        raise ValueError(f"{root}: frame {index:04d} is not {WIDTH}x{HEIGHT}, as FX and FY are for")
    # The code is the floor of the depth, so its centre is half a step further.
    depth += np.float32(0.5 / 25.5)
    inside = (slice(border, HEIGHT - border), slice(border, WIDTH - border))
    return Pair(image[inside], depth[inside], FX, FY, f"nyu/{index:04d}")


def read_nyu(root: str | Path, split: str, border: int = BORDER) -> list[Pair]:
    """Reads one split into memory (1 MB a frame), without `border` pixels on each side.

    Raises:
        ValueError: a file is missing or unreadable.
    """
    root = Path(root)
    return read_all([partial(_read_pair, root, i, border) for i in split_indices(root, split)])
