"""Scenes of the RGB-D Dataset 7-Scenes as they are published.

    seq-NN/frame-NNNNNN.color.png     640x480, Kinect v1
    seq-NN/frame-NNNNNN.depth.png     16 bit millimetres, 65535 (or 0) = none
    TrainSplit.txt, TestSplit.txt     lines `sequenceN`

Shotton, Glocker, Zach, Izadi, Criminisi, Fitzgibbon, "Scene Coordinate Regression Forests for
Camera Relocalization in RGB-D Images", CVPR 2013.

Depth is published as the depth camera saw it, not registered to the colour image, with nominal
intrinsics (585 px, centre 320, 240) and no other calibration. Registration as it is read takes the
colour camera for what a Kinect v1 is by design: 525 px, the same centre, parallel axes, 25 mm to
the side. Checked on 40 frames of redkitchen, where the best fit of depth edges to image edges is
526 px, 25 to 30 mm, and 2 px in height. Left unregistered, the two are up to 30 px apart. The
literature on camera relocalisation adds the rotation of a Kinect that was calibrated elsewhere
(for one, the set-up of ACE, Brachmann, Cavallari, Prisacariu, CVPR 2023): on those frames that
puts depth 7 px to the left.
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

WIDTH, HEIGHT = 640, 480
DEPTH_FOCAL, COLOUR_FOCAL = 585.0, 525.0
CX, CY = 320.0, 240.0
# X of the depth camera in the colour camera's optical frame.
BASELINE_M = -0.025
SPLIT_FILES = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
MILLIMETRE = 1e-3
NO_DEPTH = (0, 65535)


def register_depth(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the colour camera would have measured, from what the depth camera did.

    Each measurement goes to the nearest pixel of the colour image. Where several meet, the nearest
    surface hides the others. What no measurement falls on has no depth.

    Args:
        depth: 480x640 float32 metres with NaN.

    Returns:
        480x640 float32 metres with NaN.
    """
    ratio = COLOUR_FOCAL / DEPTH_FOCAL
    rows = np.rint((np.arange(HEIGHT) - CY) * ratio + CY).astype(np.intp)
    v, u = np.nonzero(depth > 0)
    z = depth[v, u]
    shift = np.float32(COLOUR_FOCAL * BASELINE_M) / z
    columns = np.rint((u - CX) * ratio + CX + shift).astype(np.intp)
    seen = (columns >= 0) & (columns < WIDTH)
    out = np.full(HEIGHT * WIDTH, np.inf, np.float32)
    np.minimum.at(out, (rows[v] * WIDTH + columns)[seen], z[seen])
    out[np.isinf(out)] = np.nan
    return out.reshape(HEIGHT, WIDTH)


def _read_pair(rgb: Path, depth_file: Path, name: str) -> Pair:
    image, depth = read_rgb(rgb), read_depth_png(depth_file, MILLIMETRE, NO_DEPTH)
    if image.shape[:2] != (HEIGHT, WIDTH) or depth.shape != (HEIGHT, WIDTH):
        raise DataError(f"{rgb}: it or its depth is not {WIDTH}x{HEIGHT}, as published")
    return Pair(image, register_depth(depth), COLOUR_FOCAL, COLOUR_FOCAL, name)


def _sequences(folder: Path, split: str) -> list[Path]:
    path = folder / SPLIT_FILES[split]
    try:
        lines = path.read_text().split()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; it is part of the data set") from None
    numbers = [re.fullmatch(r"sequence(\d+)", line) for line in lines]
    if not all(numbers) or not numbers:
        raise DataError(f"{path}: must have lines like sequence1, not '{' '.join(lines)[:80]}'")
    return [folder / f"seq-{int(number[1]):02d}" for number in numbers if number]


def read_seven_scenes(folder: str | Path, split: str) -> list[Frame]:
    """The frames of one scene (chess, fire, ...) of the published split, train or test.

    Both show the same room: the split was made for relocalisation. To measure depth in rooms that
    training has not seen, keep whole scenes apart.

    Raises:
        DataError: unknown split, or a file of the scene is missing.
    """
    folder = Path(folder).resolve()
    if split not in SPLIT_FILES:
        raise DataError(f"split '{split}' is unknown; 7-Scenes has {', '.join(SPLIT_FILES)}")
    frames = []
    for sequence in _sequences(folder, split):
        images = sorted(sequence.glob("frame-*.color.png"))
        if not images:
            raise DataError(
                f"{sequence}: no frame-*.color.png in it; unpack {sequence.name}.zip there"
            )
        for image in images:
            stem = image.name.removesuffix(".color.png")
            name = f"{folder.name}/{sequence.name}/{stem}"
            depth = image.with_name(f"{stem}.depth.png")
            frames.append(Frame(name, folder.name, partial(_read_pair, image, depth, name)))
    return frames
