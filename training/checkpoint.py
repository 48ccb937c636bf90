"""Checkpoints: Lightning's file, with a description of the network that evaluation and export read.

Nothing that is stored in a checkpoint is ever executed: everything is loaded with `weights_only`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mono_depth_ros.atomic import replacing
from training.models import UNet, build_unet
from training.targets import TARGETS

KEY = "mono_depth"
FORMAT = 2


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of its network.

    Attributes:
        architecture: of `training.models`.
        target: of `training.targets`; what the network's output means.
        height, width: input size of the last training stage, pixels.
        fx, fy: training focal lengths at that size, pixels.
        data: names of the data sets that it was trained on.
        training: configuration, commit, seed and hash of the list of images.
        scale_correction: factor on the network's depth (see `training.calibrate`).
    """

    architecture: str
    target: str
    height: int
    width: int
    fx: float
    fy: float
    data: list[str]
    training: dict[str, Any]
    scale_correction: float = 1.0


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames: a full disk or a kill leaves the last good one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as temporary:
                torch.save(checkpoint, temporary)
        # PyTorch's zip writer reports a full disk as a RuntimeError.
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise OSError(
                f"{path}: cannot be saved ({reason}); the previous checkpoint is unharmed:"
                " free some space and run the same command again"
            ) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint without executing anything that is in it.

    Raises:
        ValueError: missing, or not one of ours.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises a dozen types for a bad file
        raise ValueError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}); it is damaged, or"
            " holds more than weights"
        ) from None
    info = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(info, dict) or info.get("format") != FORMAT or "state_dict" not in content:
        raise ValueError(f"{path}: not a checkpoint of this package (format {FORMAT})")
    return content


def describe(info: CheckpointInfo) -> dict[str, Any]:
    """What a checkpoint holds under `KEY`."""
    return {"format": FORMAT, **asdict(info)}


def read_info(content: dict[str, Any], path: str | Path) -> CheckpointInfo:
    """The description in a checkpoint's content.

    Raises:
        ValueError: it is incomplete, of wrong types, or names an unknown target.
    """
    fields = {name: value for name, value in content[KEY].items() if name != "format"}
    try:
        info = TypeAdapter(CheckpointInfo).validate_python(fields)
    except ValidationError as error:
        wrong = ", ".join(".".join(str(part) for part in e["loc"]) for e in error.errors())
        raise ValueError(f"{path}: its description is wrong or incomplete ({wrong})") from None
    if info.target not in TARGETS:
        raise ValueError(f"{path}: predicts '{info.target}', known: {', '.join(TARGETS)}")
    return info


def network_state(content: dict[str, Any]) -> dict[str, Tensor]:
    """The network's part of a checkpoint's state: the averaged weights where there are such."""
    prefix = "network."
    return {
        name.removeprefix(prefix): value
        for name, value in content["state_dict"].items()
        if name.startswith(prefix)
    }


def _take_weights(
    network: UNet, content: dict[str, Any], info: CheckpointInfo, path: str | Path
) -> None:
    try:
        network.load_state_dict(network_state(content))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: its weights do not fit a {info.architecture} ({reason})"
        ) from None


def load_weights(network: UNet, path: str | Path, architecture: str) -> None:
    """Takes the weights of a checkpoint of the same architecture.

    Raises:
        ValueError: missing, not one of ours, or of another architecture.
    """
    content = load_checkpoint(path)
    info = read_info(content, path)
    if info.architecture != architecture:
        raise ValueError(
            f"{path}: is a {info.architecture}, not a {architecture}; name a checkpoint of that"
            " architecture, or set `architecture` to match"
        )
    _take_weights(network, content, info, path)


def load_network(path: str | Path) -> tuple[UNet, CheckpointInfo]:
    """The network of a checkpoint in evaluation mode, with averaged weights if there are such.

    Raises:
        ValueError: missing, or not one of ours.
    """
    content = load_checkpoint(path)
    info = read_info(content, path)
    network = build_unet(info.architecture)
    _take_weights(network, content, info, path)
    return network.eval(), info


def save_weights(network: UNet, info: CheckpointInfo, out: Path) -> None:
    """Writes a checkpoint of weights alone, without the optimiser: to ship, or to fine-tune from.

    Raises:
        OSError: it cannot be written.
    """
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    content = {"state_dict": state, KEY: describe(info)}
    AtomicCheckpointIO().save_checkpoint(content, out)
