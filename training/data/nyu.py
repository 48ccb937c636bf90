"""The NYU-Depth-V2 labelled set as 8-bit PNG depth (v = floor(25.5 m), 255 = 10 m).

    rgb/NNNN.jpg, depth8/NNNN.png     640x480, by 0-based number in the labelled set
    train795.txt, test654.txt         the official split, a number a line

Silberman, Hoiem, Kohli, Fergus, "Indoor Segmentation and Support Inference from RGBD Images",
ECCV 2012. Intrinsics of the RGB camera: the data set's toolbox.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.frame import DataError, Frame
from training.data.image_file import read_depth_png, read_rgb
from training.data.pair import Pair

FX, FY = 518.858, 519.470
CX, CY = 325.582, 253.736
WIDTH, HEIGHT = 640, 480
# The pictures have a white border of a few pixels; nothing trains on it.
BORDER = 10
SPLITS = ("train", "test", "fit", "validation")
SPLIT_FILES = {"train": "train795.txt", "test": "test654.txt"}
CODES_PER_METRE = 25.5


def room(scene: str) -> str:
    """The room that a scene's name tells: recordings of one room end in a, b, ...

    >>> room("basement_0001a"), room("nyu_office_0")
    ('basement_0001', 'nyu_office_0')
    """
    return re.sub(r"(?<=\d)[a-z]$", "", scene)


def crop_pair(
    image: npt.NDArray[np.uint8], depth: npt.NDArray[np.float32], border: int, name: str
) -> Pair:
    """A frame of the data set without `border` pixels on each side.

    Args:
        image: 480x640x3 uint8 RGB.
        depth: 480x640 float32 metres.
        border: pixels.
        name: of the pair.

    Raises:
        DataError: one has another size, which FX and FY would not be for.
    """
    if image.shape[:2] != (HEIGHT, WIDTH) or depth.shape != (HEIGHT, WIDTH):
        raise DataError(f"{name}: is not {WIDTH}x{HEIGHT}, as its intrinsics are for")
    inside = (slice(border, HEIGHT - border), slice(border, WIDTH - border))
    return Pair(image[inside], depth[inside], FX, FY, name)


def check_split(split: str) -> None:
    """Raises DataError for what is none of `SPLITS`."""
    if split not in SPLITS:
        raise DataError(f"split '{split}' is unknown; known: {', '.join(SPLITS)}")


def split_indices(root: Path, split: str) -> list[int]:
    """0-based frame numbers of `train` (795) or `test` (654), or of a part of the training split.

    The parts are `fit`, which training uses, and `validation`.

    Neighbouring frames show the same room, so validation takes four runs of eight frames, one at
    the end of each quarter, rather than scattered frames.

    Raises:
        DataError: unknown split, or the split file is missing or holds something else.
    """
    check_split(split)
    path = root / SPLIT_FILES["test" if split == "test" else "train"]
    if not path.is_file():
        raise DataError(f"{path}: not found; it lies beside rgb/ and depth8/")
    try:
        indices = [int(line) for line in path.read_text().split()]
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    if split in ("train", "test"):
        return indices
    ends = [len(indices) * quarter // 4 for quarter in (1, 2, 3, 4)]
    held_out = {i for end in ends for i in range(end - 8, end)}
    return [index for i, index in enumerate(indices) if (i in held_out) == (split == "validation")]


def _read_pair(root: Path, index: int, border: int, name: str) -> Pair:
    image = read_rgb(root / "rgb" / f"{index:04d}.jpg")
    depth = read_depth_png(root / "depth8" / f"{index:04d}.png", 1 / CODES_PER_METRE)
    # The code is the floor of the depth, so its centre is half a step further.
    depth += np.float32(0.5 / CODES_PER_METRE)
    return crop_pair(image, depth, border, name)


def read_nyu(root: str | Path, split: str, border: int = BORDER) -> list[Frame]:
    """The frames of one split, without `border` pixels on each side.

    This copy of the data set does not tell which scene a frame is of.

    Raises:
        DataError: as `split_indices`.
    """
    root = Path(root)
    names = {i: f"nyu/{i:04d}" for i in split_indices(root, split)}
    return [Frame(n, "nyu", partial(_read_pair, root, i, border, n)) for i, n in names.items()]
