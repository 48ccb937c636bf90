"""The Lightning module: one training step, validation, optimiser and schedule."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from mono_depth_ros.colormap import colorize
from training.bytes_to_metres import BytesToMetres
from training.checkpoint import KEY, CheckpointInfo, describe
from training.config import Config
from training.data import nyu
from training.losses import LOSSES
from training.metrics import PerImageMetrics
from training.models import build_unet, freeze_encoder
from training.targets import TARGETS

PANEL_ROWS = 4
PANEL_RANGE_M = (0.3, 8.0)


def training_focal(width: int) -> float:
    """Focal length in pixels at an input `width` that networks are trained for: NYU's RGB camera,
    geometric mean of fx and fy; input height follows at 4:3.
    """
    return math.sqrt(nyu.FX * nyu.FY) * width / nyu.WIDTH


def rate(progress: float, warmup: float, power: float) -> float:
    """Share of the peak learning rate: linear warm-up, then (1 - t)^power.

    >>> rate(0.015, 0.03, 0.9), rate(0.03, 0.03, 0.9), rate(1.0, 0.03, 0.9)
    (0.5, 1.0, 0.0)
    """
    if progress < warmup:
        return progress / warmup
    return float(max(1 - (progress - warmup) / (1 - warmup), 0.0) ** power)


class DepthModule(LightningModule):
    """A depth network in training.

    Args:
        config: of the run.
        info: what its checkpoints say of the network.
        total_steps: optimiser steps of the whole run, over which the rate decays.
        memory_format: of weights and images; channels last is what tensor cores and oneDNN like.
        teacher: a trained network, for the same focal length, that this one learns from too.

    Batches: uint8 Nx3xHxW images, float32 Nx1xhxw metres with NaN.
    """

    def __init__(
        self,
        config: Config,
        info: CheckpointInfo,
        total_steps: int,
        memory_format: torch.memory_format = torch.channels_last,
        teacher: BytesToMetres | None = None,
    ) -> None:
        super().__init__()
        # In a tuple, so that it is no part of this module: neither trained, averaged nor saved.
        self._teacher = (teacher,)
        self.memory_format = memory_format
        self.config, self.info, self.total_steps = config, info, total_steps
        self.loss = LOSSES[config.loss]
        self.target = TARGETS[self.loss.target]
        self.network = build_unet(config.architecture, self.target.initial)
        self.network.to(memory_format=memory_format)  # type: ignore[call-overload]
        if config.freeze_encoder:
            freeze_encoder(self.network)
        if config.compile:
            self.network.compile()
        self.validation = PerImageMetrics()
        self.train()  # Lightning leaves every module in the mode that it finds it in

    def train(self, mode: bool = True) -> DepthModule:
        super().train(mode)
        if self.config.freeze_norms:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """What the network predicts, in the space of its target, for uint8 Nx3xHxW RGB."""
        scaled = image.to(torch.float32, memory_format=self.memory_format) / 255
        out: Tensor = self.network(scaled)
        return out.float()

    def loss_parts(self, image: Tensor, depth: Tensor) -> dict[str, Tensor]:
        """The loss of a batch: its parts, and their weighted sum `total`."""
        valid = torch.isfinite(depth) & (depth > 0)
        target = self.target.encode(torch.where(valid, depth, 1.0))
        pred = self(image)
        parts = self.loss(pred, target, valid.float())
        (teacher,) = self._teacher
        if teacher is not None:
            with torch.inference_mode():
                answer = teacher(image.permute(0, 2, 3, 1))[:, None].float()
            taught = self.loss(pred, self.target.encode(answer.clone()), torch.ones_like(depth))
            share = self.config.teacher_weight
            parts["teacher"] = taught["total"]
            parts["total"] = (1 - share) * parts["total"] + share * taught["total"]
        return parts

    def on_fit_start(self) -> None:
        (teacher,) = self._teacher
        if teacher is not None:
            teacher.to(self.device).eval()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        parts = self.loss_parts(*batch)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in parts.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch[0]),
        )
        self.log("loss", parts["total"].detach(), prog_bar=True)
        return parts["total"]

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        image, depth = batch
        pred = self.target.decode(self(image))
        self.validation.update(pred, depth)
        if index == 0 and isinstance(self.logger, TensorBoardLogger) and self.global_rank == 0:
            panel = validation_panel(image, depth, pred)
            self.logger.experiment.add_image(
                "validation/panel", panel, self.global_step, dataformats="HWC"
            )

    def on_validation_epoch_end(self) -> None:
        scores = self.validation.compute()
        self.validation.reset()
        # Already the same on every process.
        self.log_dict({f"validation/{name}": value for name, value in scores.items()})
        self.log("delta1", scores["delta1"], prog_bar=True, logger=False)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.config.optimiser
        encoder = [p for p in self.network.encoder.parameters() if p.requires_grad]
        in_encoder = {id(p) for p in self.network.encoder.parameters()}
        decoder = [p for p in self.network.parameters() if id(p) not in in_encoder]
        groups: list[dict[str, Any]] = [{"params": decoder}]
        if encoder:
            groups.append({"params": encoder, "lr": settings.lr * settings.encoder_lr_scale})
        kind = torch.optim.AdamW if settings.decoupled else torch.optim.Adam
        optimiser = kind(
            groups,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )
        schedule = LambdaLR(
            optimiser,
            lambda step: rate(step / self.total_steps, settings.warmup, settings.power),
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = describe(self.info)


def validation_panel(image: Tensor, depth: Tensor, pred: Tensor) -> npt.NDArray[np.uint8]:
    """Up to `PANEL_ROWS` rows of image, truth and prediction in plasma, HxWx3 uint8 RGB.

    Args:
        image: Nx3xHxW uint8; depth, pred: Nx1xhxw metres.
    """
    rows = []
    for i in range(min(PANEL_ROWS, len(image))):
        colour = np.ascontiguousarray(image[i].permute(1, 2, 0).cpu().numpy())
        maps = [
            colorize(np.ascontiguousarray(m[i, 0].float().cpu().numpy()), *PANEL_RANGE_M)[..., ::-1]
            for m in (depth, pred)
        ]
        size = maps[0].shape[1], maps[0].shape[0]
        rows.append(np.hstack([cv2.resize(colour, size, interpolation=cv2.INTER_AREA), *maps]))
    return np.vstack(rows).astype(np.uint8)
