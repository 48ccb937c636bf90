"""Sequences of the TUM RGB-D benchmark as they are published.

    rgb.txt, depth.txt     lines `STAMP PATH`, comments start with #
    rgb/STAMP.png          640x480
    depth/STAMP.png        16 bit, 5000 = 1 m, 0 = none, registered to the colour image
    dataset.yaml           only for recordings of other cameras: fx, fy and the other keys of
                           `training.data.folder`; depth_scale is 1/5000 if it is not given

Sturm, Engelhard, Endres, Burgard, Cremers, "A Benchmark for the Evaluation of RGB-D SLAM Systems",
IROS 2012. The intrinsics are those of the colour cameras in the benchmark's "File Formats",
section "Intrinsic Camera Calibration of the Kinect"; freiburg3 was rectified before publication.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.folder import FOLDER_SETTINGS, load_settings, parse, read_pair, settings_file
from training.data.frame import DataError, Frame
from training.data.lens import LENS, Lens

DEPTH_SCALE = 1 / 5000
# What the benchmark's own association tool allows.
MAX_STAMP_DIFFERENCE_S = 0.02
LENSES = {
    "1": Lens(517.3, 516.5, 318.6, 255.3, (0.2624, -0.9531, -0.0054, 0.0026, 1.1633), 640, 480),
    "2": Lens(520.9, 521.0, 325.1, 249.7, (0.2312, -0.7849, -0.0033, -0.0001, 0.9172), 640, 480),
    "3": Lens(535.4, 539.2, 320.1, 247.6, (), 640, 480),
}
_CAMERA = re.compile(r"(?:freiburg|fr)([123])(?![0-9])")


def _read_list(path: Path) -> tuple[npt.NDArray[np.float64], list[Path]]:
    """Stamps in seconds, ascending, and the files of that time."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        rows = sorted((float(line[0]), line[1]) for line in lines if line and line[0][0] != "#")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (ValueError, IndexError):
        raise DataError(f"{path}: has a line that is neither STAMP PATH nor a # comment") from None
    return np.array([row[0] for row in rows]), [path.parent / row[1] for row in rows]


def associate(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], tolerance: float
) -> list[tuple[int, int]]:
    """Indices of stamps that belong together: the nearest first, each used once.

    Args:
        first, second: ascending stamps in seconds.
        tolerance: largest difference in seconds.

    Returns:
        Pairs in the order of `first`.
    """
    low = np.searchsorted(second, first - tolerance, "left")
    high = np.searchsorted(second, first + tolerance, "right")
    near = [(i, j) for i in range(len(first)) for j in range(low[i], high[i])]
    near.sort(key=lambda pair: abs(first[pair[0]] - second[pair[1]]))
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in near:
        if i not in partner and j not in taken:
            partner[i] = j
            taken.add(j)
    return sorted(partner.items())


def read_tum(folder: str | Path) -> list[Frame]:
    """The frames of a sequence; its scene is the sequence, or the `scene` of dataset.yaml.

    Raises:
        DataError: the lists are missing or malformed, no stamps agree, or the camera is unknown.
    """
    folder = Path(folder).resolve()
    settings_path = settings_file(folder)
    if settings_path:
        document = {"depth_scale": DEPTH_SCALE, **load_settings(settings_path)}
        settings = parse(FOLDER_SETTINGS, document, str(settings_path))
        lens = parse(LENS, document, str(settings_path))
        scale, scene = settings.depth_scale, settings.scene or folder.name
    elif camera := _CAMERA.search(folder.name):
        lens, scale, scene = LENSES[camera[1]], DEPTH_SCALE, folder.name
    else:
        raise DataError(
            f"{folder}: is not named after freiburg1, 2 or 3, whose intrinsics are known; put a"
            " dataset.yaml with fx, fy (and cx, cy, distortion) into it"
        )
    rgb_stamps, rgb_files = _read_list(folder / "rgb.txt")
    depth_stamps, depth_files = _read_list(folder / "depth.txt")
    pairs = associate(rgb_stamps, depth_stamps, MAX_STAMP_DIFFERENCE_S)
    if not pairs:
        raise DataError(
            f"{folder}: no stamps of rgb.txt and depth.txt are within {MAX_STAMP_DIFFERENCE_S} s"
        )
    frames = []
    for i, j in pairs:
        name = f"{folder.name}/{rgb_files[i].stem}"
        frames.append(
            Frame(name, scene, partial(read_pair, rgb_files[i], depth_files[j], scale, lens, name))
        )
    return frames
