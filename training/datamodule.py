"""The data of a run: what is trained on, what is watched, and the loaders for each stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from training.config import Config, ConfigError, Source
from training.data.batches import (
    AugmentedFrames,
    EpochSampler,
    ResumableLoader,
    WholeFrames,
    epoch_order,
)
from training.data.frame import Frame, data_list_hash, in_memory
from training.data.sources import open_frames
from training.depth_module import training_focal


def open_source(source: Source, root: Path) -> list[Frame]:
    """The frames of a source; its path is relative to `root` unless it is absolute.

    Raises:
        DataError: it cannot be read.
    """
    frames = open_frames(root / source.path, source.split)
    return in_memory(frames) if source.in_memory else frames


def shares_of(config: Config, sizes: Mapping[str, int]) -> list[float]:
    """Share of an epoch that each source has; those without one divide the rest by size."""
    given = [source.share for source in config.data.values()]
    rest = 1.0 - sum(share for share in given if share is not None)
    free = sum(sizes[name] for name, source in config.data.items() if source.share is None)
    return [
        rest * sizes[name] / free if source.share is None else source.share
        for name, source in config.data.items()
    ]


class DepthData(LightningDataModule):
    """Loaders of a configuration's data.

    Args:
        config: of the run.
        root: folder that relative paths start from.
        workers: loader processes of each training process.
        world: training processes.

    Raises:
        DataError: a source cannot be read.
        ConfigError: there is less than one batch.
    """

    def __init__(self, config: Config, root: Path, workers: int, world: int = 1) -> None:
        super().__init__()
        self.config, self.workers, self.world = config, workers, world
        self.sources = {name: open_source(s, root) for name, s in config.data.items()}
        self.validation = open_source(config.validation, root)
        self.frames = [frame for source in self.sources.values() for frame in source]
        sizes = {name: len(source) for name, source in self.sources.items()}
        images = config.epoch_images or next(iter(sizes.values()))
        self.steps = images // config.batch
        if config.batch % world:
            raise ConfigError(f"batch {config.batch} cannot be divided among {world} processes")
        if not self.steps:
            raise ConfigError(
                f"an epoch of {images} images has less than one batch of {config.batch}"
            )
        if not self.validation:
            raise ConfigError(f"{config.validation.path}: no frame to validate on")
        self._sizes, self._shares = list(sizes.values()), shares_of(config, sizes)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps * self.config.epochs

    def list_hash(self) -> str:
        """Hash of the names of all frames that are trained on and watched."""
        return data_list_hash([*self.frames, *self.validation])

    def order(self, epoch: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Indices into `frames`, whole batches only, of one epoch."""
        images = self.steps * self.config.batch
        return epoch_order(self._sizes, self._shares, images, epoch, self.config.seed)

    def loader(self, epoch: int, rank: int = 0) -> ResumableLoader:
        """The training batches of one process in one epoch."""
        stage, config = self.config.stage_of(epoch), self.config
        dataset = AugmentedFrames(
            self.frames,
            (stage.height, stage.width),
            training_focal(stage.width),
            config.augmentation,
            config.seed,
        )
        return ResumableLoader(
            dataset,
            EpochSampler(self.order(epoch), epoch, rank, self.world),
            batch_size=config.batch // self.world,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> ResumableLoader:
        if self.trainer is None:
            return self.loader(0)
        return self.loader(self.trainer.current_epoch, self.trainer.global_rank)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        epoch = self.trainer.current_epoch if self.trainer else 0
        stage = self.config.stage_of(epoch)
        dataset = WholeFrames(
            self.validation, (stage.height, stage.width), training_focal(stage.width)
        )
        rank = self.trainer.global_rank if self.trainer else 0
        # Without padding: a frame that is counted twice would shift the mean.
        mine = range(rank, len(self.validation), self.world)
        return DataLoader(
            dataset,
            sampler=list(mine),
            batch_size=max(self.config.batch // self.world, 1),
            num_workers=self.workers,
        )
