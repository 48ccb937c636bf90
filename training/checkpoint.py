"""Checkpoints: one file that training continues from and that evaluation and export read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mono_depth_ros.atomic import replacing
from training.models import UNet, build_unet

FORMAT = 1


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes atomically, so that a run killed while saving leaves the previous file whole."""
    with replacing(path) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint without executing anything that is in it (`weights_only`).

    Raises:
        ValueError: missing, or not one of ours.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for a bad file
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__})"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this package (format {FORMAT})")
    return content


def load_network(path: str | Path) -> tuple[UNet, dict[str, Any]]:
    """The averaged (EMA) network of a checkpoint in evaluation mode, and the checkpoint's content.

    Raises:
        ValueError: missing, or not one of ours.
    """
    content = load_checkpoint(path)
    network = build_unet(content["architecture"])
    network.load_state_dict(content["ema"])
    return network.eval(), content
