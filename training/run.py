"""What is written down of a training run, and whether a later one goes on with it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from pathlib import Path

import lightning
import numpy as np
import torch
import yaml

from training.checkpoint import CheckpointInfo, load_checkpoint, read_info
from training.commit import commit_hash
from training.config import Config
from training.data import nyu
from training.datamodule import DepthData


def world_size() -> tuple[int, int]:
    """Processes on this machine and in all, as torchrun says; one without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))


def checkpoint_info(config: Config, data: DepthData) -> CheckpointInfo:
    """What checkpoints of a run say of their network."""
    stage = config.stages[-1]
    scale = stage.width / nyu.WIDTH
    return CheckpointInfo(
        architecture=config.architecture,
        target=config.target,
        height=stage.height,
        width=stage.width,
        fx=nyu.FX * scale,
        fy=nyu.FY * scale,
        data=[f"{name} ({len(frames)} frames)" for name, frames in data.sources.items()],
        training={
            "config": config.document(),
            "commit": commit_hash(),
            "seed": config.seed,
            "data_list_sha256": data.list_hash(),
        },
    )


def check_continues(path: Path, info: CheckpointInfo) -> None:
    """Refuses to go on with a run of another configuration or other data.

    Raises:
        ValueError: says what differs, and the remedy.
    """
    before = read_info(load_checkpoint(path), path).training
    old, new = before.get("config", {}), info.training["config"]
    changed = [key for key in new if old.get(key) != new[key]]
    if before.get("data_list_sha256") != info.training["data_list_sha256"]:
        changed.append("the list of images")
    if changed:
        raise ValueError(
            f"{path}: is of a run with other {', '.join(changed)}; choose another --out,"
            " or delete it"
        )


def device_name(device: torch.device) -> str:
    """The GPU's name, or what the system says of its processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def write_run(out: Path, info: CheckpointInfo) -> None:
    """Writes `run.yaml`: what would repeat the run."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    document = {
        "command": shlex.join(["python", "-m", "training.train", *sys.argv[1:]]),
        "data": info.data,
        **info.training,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "lightning": lightning.__version__,
            "numpy": np.__version__,
        },
        "device": device_name(device),
        "processes": world_size()[1],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
