"""Batches from a mixture of data sets, in an order that depends on nothing but the seed.

Every image of a run has an address (epoch, position). Which frame it shows, and how it is
augmented, follow from the seed and that address alone: not from the number of loader processes or
GPUs, and not from whether the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.augment import Augmentation, augment, resize_pair
from training.data.frame import Frame

# Streams of random numbers that must not repeat each other.
_ORDER, _SHUFFLE, _VIEW = 0, 1, 2


class Draw(NamedTuple):
    """Address and content of one image: `frame` indexes the concatenated sources."""

    epoch: int
    position: int
    frame: int


def apportion(images: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to `shares` that add up to `images` (largest remainder).

    >>> apportion(10, [0.55, 0.3, 0.15])
    [6, 3, 1]
    """
    exact = np.asarray(shares, np.float64) / np.sum(shares) * images
    counts = np.floor(exact).astype(int)
    # Stable, so that equal remainders go to earlier sources on every machine.
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: images - counts.sum()]] += 1
    return [int(count) for count in counts]


def epoch_order(
    sizes: Sequence[int], shares: Sequence[float], images: int, epoch: int, seed: int
) -> npt.NDArray[np.int64]:
    """Frames of one epoch: (images,) indices into the concatenated sources.

    Each source is an endless row of its permutations, from which every epoch takes the next part:
    no frame comes again before all others of its source have been seen.
    """
    chosen, offset = [], 0
    for k, (size, count) in enumerate(zip(sizes, apportion(images, shares), strict=True)):
        first, last = epoch * count, (epoch + 1) * count
        passes = range(first // size, -(-last // size))
        row = [np.random.default_rng((seed, _ORDER, k, p)).permutation(size) for p in passes]
        if row:
            start = first - passes.start * size
            chosen.append(np.concatenate(row)[start : start + count] + offset)
        offset += size
    order = np.concatenate(chosen)
    np.random.default_rng((seed, _SHUFFLE, epoch)).shuffle(order)
    return order.astype(np.int64)


class EpochSampler(Sampler[Draw]):
    """What one of `world` processes draws in one epoch: positions rank, rank + world, ...

    Together, the k-th batches of all processes are the k-th batch of a single one.
    """

    def __init__(
        self, order: npt.NDArray[np.int64], epoch: int, rank: int = 0, world: int = 1
    ) -> None:
        self.order, self.epoch, self.rank, self.world = order, epoch, rank, world
        self.start = 0  # images of this process that were drawn before an interruption

    def __len__(self) -> int:
        return len(range(self.rank, len(self.order), self.world))

    def __iter__(self) -> Iterator[Draw]:
        for position in range(self.rank, len(self.order), self.world)[self.start :]:
            yield Draw(self.epoch, position, int(self.order[position]))


class AugmentedFrames(Dataset[tuple[Tensor, Tensor]]):
    """Random views of frames: uint8 3xHxW images, and float32 1x(H/2)x(W/2) metres at the training
    focal length, NaN where there is none. Indexed by `Draw`.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        size: tuple[int, int],
        focal: float,
        settings: Augmentation,
        seed: int,
    ) -> None:
        self.frames, self.size, self.focal = frames, size, focal
        self.settings, self.seed = settings, seed

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, _VIEW, draw.epoch, draw.position))
        pair = self.frames[draw.frame].read()
        image, depth = augment(pair, rng, self.size, self.focal, self.settings)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(depth)[None]


class WholeFrames(Dataset[tuple[Tensor, Tensor]]):
    """Frames as they are, resized; otherwise as `AugmentedFrames`. Indexed by number."""

    def __init__(self, frames: Sequence[Frame], size: tuple[int, int], focal: float) -> None:
        self.frames, self.size, self.focal = frames, size, focal

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, depth = resize_pair(self.frames[index].read(), self.size, self.focal)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(depth)[None]


class ResumableLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A loader of one epoch that goes on behind the last batch that was trained on.

    Lightning saves and restores `state_dict` with its checkpoints.
    """

    def __init__(self, dataset: AugmentedFrames, sampler: EpochSampler, **options: Any) -> None:
        super().__init__(dataset, sampler=sampler, drop_last=True, **options)
        self._draws = sampler
        self._given = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        self._given = self._draws.start // (self.batch_size or 1)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch, and batches given so far."""
        return {"epoch": self._draws.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on after `state`, if it is of this epoch and inside it."""
        if state["epoch"] == self._draws.epoch and state["batches"] < len(self):
            self._draws.start = state["batches"] * (self.batch_size or 1)
