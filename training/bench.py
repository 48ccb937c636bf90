"""Measures training speed: the loader alone, the step alone, and both, in images a second.

The step is measured twice in the same run: plain (eager, float32) and tuned, as the configuration
has it (precision, compilation, channels last). Without data of your own, --made N measures on N
random 640x480 JPEG and PNG files, which decode no faster than photographs do.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.json_file import write_json
from training.config import Config, Source, read_config
from training.data import nyu
from training.data.batches import ResumableLoader
from training.data.folder import write_pair, write_settings
from training.datamodule import DepthData
from training.depth_module import DepthModule
from training.run import checkpoint_info, device_name
from training.train import one_line

AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
WARM_UP_BATCHES = 3


def make_pairs(folder: Path, frames: int) -> None:
    """Writes a folder of smooth random pictures with noise, about as large as photographs."""
    rng = np.random.default_rng(0)
    for i in range(frames):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        image = cv2.resize(coarse, (nyu.WIDTH, nyu.HEIGHT), interpolation=cv2.INTER_CUBIC)
        image = cv2.add(image, rng.integers(0, 12, image.shape, np.uint8))
        depth = cv2.resize(rng.uniform(0.5, 8, (6, 8)).astype(np.float32), (640, 480))
        write_pair(folder, f"{i:05d}", np.asarray(image, np.uint8), np.asarray(depth, np.float32))
    camera = CameraModel(nyu.WIDTH, nyu.HEIGHT, nyu.FX, nyu.FY, nyu.CX, nyu.CY)
    write_settings(folder, 1e-3, camera)


def endless(data: DepthData) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of epoch after epoch."""
    for epoch in count():
        loader: ResumableLoader = data.loader(epoch)
        yield from loader


def images_per_second(
    run: Callable[[], int], seconds: float, device: torch.device, warm_up: int = WARM_UP_BATCHES
) -> float:
    """Rate of `run`, which handles one batch and returns its size, over at least `seconds`."""

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(warm_up):
        run()
    settle()
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += run()
        settle()
    return images / (time.perf_counter() - start)


class Step:
    """Forward, loss, backward and optimiser step of a configuration on one device."""

    def __init__(
        self, config: Config, data: DepthData, device: torch.device, tuned: bool = True
    ) -> None:
        self._device = device
        layout = torch.channels_last if tuned else torch.contiguous_format
        info = checkpoint_info(config, data)
        self._module = DepthModule(config, info, data.total_steps, layout)
        self._module.to(device).train()
        self._optimiser = self._module.configure_optimizers()["optimizer"]
        self._dtype = AUTOCAST[config.precision]
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)

    def __call__(self, batch: tuple[Tensor, Tensor]) -> int:
        """Trains on a batch; returns how many images it had."""
        image, depth = (tensor.to(self._device, non_blocking=True) for tensor in batch)
        cast: AbstractContextManager[object] = nullcontext()
        if self._dtype is not None:
            cast = torch.autocast(self._device.type, self._dtype)
        with cast:
            total = self._module.loss_parts(image, depth)["total"]
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return len(image)


def bench(
    config: Config, data: DepthData, device: torch.device, seconds: float
) -> dict[str, float]:
    """Images a second of each part, and their ratios."""
    batches = endless(data)
    batch = next(batches)
    resident = batch[0].to(device), batch[1].to(device)
    eager = Step(replace(config, precision="32-true", compile=False), data, device, tuned=False)
    result = {"eager_float32_step": images_per_second(partial(eager, resident), seconds, device)}
    del eager  # its memory, on a GPU
    tuned = Step(config, data, device)
    result["tuned_step"] = images_per_second(partial(tuned, resident), seconds, device)
    # Long enough that what the loader had prepared while the steps ran does not count.
    ahead = max(data.workers, 1) * 2 + WARM_UP_BATCHES
    result["loader"] = images_per_second(lambda: len(next(batches)[0]), seconds, device, ahead)
    result["both"] = images_per_second(lambda: tuned(next(batches)), seconds, device)
    result["tuned_over_eager"] = result["tuned_step"] / result["eager_float32_step"]
    result["loader_over_step"] = result["loader"] / result["tuned_step"]
    return {name: round(value, 2) for name, value in result.items()}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n"
        "  python -m training.bench --config training/configs/article.yaml --made 200",
    )
    parser.add_argument("--config", required=True, type=Path, help="as for training.train")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--made", type=int, metavar="N", help="measure on N random pairs instead")
    parser.add_argument("--batch", type=int, help="instead of the configuration's")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 16))
    parser.add_argument("--seconds", type=float, default=20.0, help="per figure")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    device = torch.device(args.device)
    torch.backends.cudnn.benchmark = True
    try:
        config = read_config(args.config, {"batch": args.batch} if args.batch else None)
        with ExitStack() as stack:
            if args.made:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                make_pairs(folder, args.made)
                source = Source(folder, "train")
                config = replace(config, data={"made": source}, validation=source)
            data = DepthData(config, args.data_root, args.workers)
            figures = bench(config, data, device, args.seconds)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"training.bench: {one_line(error)}", file=sys.stderr)
        return 1
    stage = config.stages[-1]
    about = {
        "architecture": config.architecture,
        "size": f"{stage.height}x{stage.width}",
        "batch": config.batch,
        "precision": config.precision,
        "compile": config.compile,
        "workers": args.workers,
        "device": device_name(device),
    }
    print("  ".join(f"{key} {value}" for key, value in about.items()))
    for key, value in figures.items():
        print(f"{key:20} {value:10.2f}{'' if '_over_' in key else ' images/s'}")
    if args.json:
        write_json(args.json, {**about, **figures})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
