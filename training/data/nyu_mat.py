"""The NYU-Depth-V2 labelled set as it is published: a MATLAB file of 1449 frames.

    nyu_depth_v2_labeled.mat     images Nx3x640x480 uint8, depths Nx640x480 float32 metres
                                 (in-painted), scenes: N names. MATLAB 7.3, that is HDF5, in which
                                 dimensions are in reverse order: images are stored on their side
    splits.mat                   beside it: trainNdxs, testNdxs, 1-based. MATLAB 5

Frames are named as in `training.data.nyu`, which has the same ones with coarser depth.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from training.data import nyu
from training.data.frame import DataError, Frame, split_frames
from training.data.pair import Pair

SPLITS_FILE = "splits.mat"
VALIDATION_SHARE = 0.1
NEEDED = ("images", "depths", "scenes")


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a file does to its reader into a DataError."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: not found; both files of the data set lie together") from None
    # Neither h5py nor SciPy limits what it raises on damaged files.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: {what} ({reason}); download it again") from None


def _open(path: Path) -> Any:
    with _reading(path, "not a complete MATLAB 7.3 file"):
        file = h5py.File(path, "r")
        missing = [name for name in NEEDED if name not in file]
        if missing:
            raise DataError(f"{path}: has no {', '.join(missing)}; is it nyu_depth_v2_labeled.mat?")
    return file


@lru_cache(maxsize=4)
def _opened(path: Path, process: int) -> Any:
    """The file for reading frames; HDF5 handles must not cross a fork, so each process has one."""
    return _open(path)


def _read_pair(path: Path, index: int, border: int, name: str) -> Pair:
    with _reading(path, f"frame {index} is damaged"):
        file = _opened(path, os.getpid())
        image = np.ascontiguousarray(file["images"][index].T, np.uint8)
        depth = np.ascontiguousarray(file["depths"][index].T, np.float32)
    depth[~((depth > 0) & np.isfinite(depth))] = np.nan
    return nyu.crop_pair(image, depth, border, name)


def _indices(path: Path, split: str, count: int) -> list[int]:
    """0-based frames of `train` or `test`."""
    key = "testNdxs" if split == "test" else "trainNdxs"
    with _reading(path, f"cannot be read for {key}"), path.open("rb") as file:
        numbers = np.ravel(scipy.io.loadmat(file, variable_names=[key])[key])
    if not set(numbers.tolist()) <= set(range(1, count + 1)) or len(set(numbers)) != len(numbers):
        raise DataError(f"{path}: {key} are not frames of 1 to {count}; download it again")
    return [int(number) - 1 for number in numbers]


def read_nyu_mat(path: str | Path, split: str, border: int = nyu.BORDER) -> list[Frame]:
    """The frames of one split, without `border` pixels on each side.

    `fit` and `validation` are parts of the training split that share no room.

    Args:
        path: nyu_depth_v2_labeled.mat.
        split: train, test, fit or validation.
        border: pixels.

    Raises:
        DataError: unknown split, or one of the files is missing or damaged.
    """
    path = Path(path)
    nyu.check_split(split)
    # Closed again: a loader process that is forked later must not inherit it.
    with _open(path) as file, _reading(path, "the names of scenes are damaged"):
        indices = _indices(path.with_name(SPLITS_FILE), split, len(file["images"]))
        references = np.ravel(file["scenes"])
        scenes = ["".join(map(chr, np.ravel(file[references[i]]))) for i in indices]
    frames = []
    for index, scene in zip(indices, scenes, strict=True):
        name = f"nyu/{index:04d}"
        frames.append(Frame(name, nyu.room(scene), partial(_read_pair, path, index, border, name)))
    if split in ("train", "test"):
        return frames
    return split_frames(frames, VALIDATION_SHARE, seed=0)[split == "validation"]
