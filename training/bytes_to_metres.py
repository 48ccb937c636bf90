"""A network as robots run it: camera bytes in, metres out, and the document that describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mono_depth_ros.model import SCHEMA
from training.checkpoint import CheckpointInfo, load_network
from training.commit import commit_hash
from training.models import UNet
from training.targets import TARGETS, Target


class BytesToMetres(nn.Module):
    """uint8 NxHxWx3 RGB -> float32 Nxhxw metres at the training focal length.

    Args:
        network: in evaluation mode; its output is in the space of `target`.
        target: the transform of depth that it was trained for.
        scale: factor on the depth (see `training.calibrate`).
    """

    def __init__(self, network: UNet, target: Target, scale: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.target = target
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 255
        depth = self.target.decode(self.network(x))[:, 0]
        if self.scale != 1.0:
            depth = (depth * self.scale).clamp(self.target.min_depth, self.target.max_depth)
        return depth


def load_bytes_to_metres(path: Path) -> tuple[BytesToMetres, CheckpointInfo]:
    """The network of a checkpoint with its target's inverse, on the CPU.

    Raises:
        ValueError: the checkpoint is missing or not one of ours.
    """
    network, info = load_network(path)
    return BytesToMetres(network, TARGETS[info.target], info.scale_correction).eval(), info


def focal_at(info: CheckpointInfo, width: int) -> tuple[float, float]:
    """Training focal lengths fx, fy in pixels at an input `width`; height follows at 4:3."""
    return info.fx * width / info.width, info.fy * width / info.width


def document(
    info: CheckpointInfo,
    size: tuple[int, int],
    precision: str = "float32",
    metrics: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What a network says of itself: the JSON object that `mono_depth_ros.model` reads.

    Args:
        size: input height and width.
        precision: of its weights.
        metrics: {protocol: {metric: value}}.
    """
    target = TARGETS[info.target]
    fx, fy = focal_at(info, size[1])
    return {
        "schema": SCHEMA,
        "architecture": info.architecture,
        "input": {"height": size[0], "width": size[1]},
        "training_focal_px": {"fx": fx, "fy": fy},
        "depth_m": {"min": target.min_depth, "max": target.max_depth},
        "target": target.name,
        "precision": precision,
        "scale_correction": info.scale_correction,
        "data": info.data,
        "metrics": metrics or {},
        "licence": "Apache-2.0",
        "commit": commit_hash(),
    }
