"""Frames of a data set that are read when they are needed: a data set is a list of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np

from training.data.pair import Pair


class DataError(ValueError):
    """A data set that cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Frame:
    """One RGB-D frame that has not been read yet.

    Attributes:
        name: unique within its data set, for messages, CSV rows and the data list's hash.
        scene: the place it was taken in; splits keep scenes whole.
        read: reads it; raises DataError. Can be pickled, so that loader processes can have it.
    """

    name: str
    scene: str
    read: Callable[[], Pair]


def load(frames: Sequence[Frame], threads: int = 4) -> list[Pair]:
    """Reads all frames, in order, on a few threads (decoding releases the GIL).

    Raises:
        DataError: a frame cannot be read.
    """
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda frame: frame.read(), frames))


def _give(pair: Pair) -> Pair:
    return pair


def in_memory(frames: Sequence[Frame]) -> list[Frame]:
    """The same frames, read now (1 to 3 MB each); for sets that are small and read often.

    Raises:
        DataError: a frame cannot be read.
    """
    pairs = load(frames)
    return [replace(f, read=partial(_give, p)) for f, p in zip(frames, pairs, strict=True)]


def split_frames(
    frames: Sequence[Frame], validation_share: float, seed: int
) -> tuple[list[Frame], list[Frame]]:
    """Parts for fitting and for validation that share no scene.

    Scenes are shuffled by `seed`, and taken for validation until the share is reached. A set of one
    scene is cut in time instead: validation is its end, because neighbouring frames are alike.

    Raises:
        DataError: too few frames for two parts.
    """
    if len(frames) < 2 or not 0 < validation_share < 1:
        raise DataError(f"{len(frames)} frames cannot be split at {validation_share}")
    wanted = max(1, round(len(frames) * validation_share))
    counts = {scene: len(list(group)) for scene, group in groupby(sorted(f.scene for f in frames))}
    if len(counts) == 1:
        return list(frames[:-wanted]), list(frames[-wanted:])
    held_out: set[str] = set()
    taken = 0
    for scene in np.random.default_rng(seed).permutation(sorted(counts)):
        # A scene that would overshoot by more than it helps is left in.
        if len(held_out) + 1 < len(counts) and abs(taken + counts[scene] - wanted) < abs(
            taken - wanted
        ):
            held_out.add(str(scene))
            taken += counts[scene]
    if not held_out:
        held_out.add(min(counts, key=lambda scene: (counts[scene], scene)))
    fit = [f for f in frames if f.scene not in held_out]
    return fit, [f for f in frames if f.scene in held_out]


def data_list_hash(frames: Sequence[Frame]) -> str:
    """SHA-256 of the frames' names in order: two runs with the same one saw the same list."""
    return hashlib.sha256("\n".join(f.name for f in frames).encode()).hexdigest()
