"""Trains a depth U-Net on NYU-Depth-V2 and, if given, further RGB-D folders.

Progressive resizing: each stage names an input size and a number of epochs; small images first,
the final size last. The learning rate warms up, then decays polynomially over all stages.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from tqdm import tqdm

from training.checkpoint import load_checkpoint, save_checkpoint
from training.data import nyu
from training.data.augment import augment, resize_pair
from training.data.folder import read_folders
from training.data.pair import Pair
from training.losses import depth_loss
from training.metrics import MetricMean
from training.models import UNet, build_unet

EMA_DECAY = 0.998


def training_focal(width: int) -> float:
    """Focal length in pixels at an input `width` that networks are trained for: NYU's RGB camera,
    geometric mean of fx and fy; input height follows at 4:3.
    """
    return math.sqrt(nyu.FX * nyu.FY) * width / nyu.WIDTH


@dataclass(frozen=True)
class Stage:
    """`epochs` passes at input `height` x `width`."""

    height: int
    width: int
    epochs: int

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Reads HEIGHTxWIDTHxEPOCHS.

        >>> Stage.parse("192x256x40")
        Stage(height=192, width=256, epochs=40)
        """
        try:
            height, width, epochs = (int(part) for part in text.split("x"))
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not HEIGHTxWIDTHxEPOCHS") from None
        return cls(height, width, epochs)


class AugmentedPairs(Dataset[tuple[Tensor, Tensor]]):
    """Random views of pairs: uint8 3xHxW images and float32 1x(H/2)x(W/2) depth."""

    def __init__(self, pairs: list[Pair], size: tuple[int, int], seed: int) -> None:
        self.pairs, self.size, self.seed = pairs, size, seed
        self.focal = training_focal(size[1])
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        # Torch seeds each worker differently each epoch; fold that in, so views never repeat.
        rng = np.random.default_rng((self.seed, index, int(torch.randint(2**31, ()))))
        image, depth = augment(self.pairs[index], rng, self.size, self.focal)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(depth)[None]


def make_loader(
    main: list[Pair], extra: list[Pair], extra_share: float, stage: Stage, args: argparse.Namespace
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches in which a share `extra_share` of images comes from `extra`; an epoch is as long as
    `main`.
    """
    weights = [1.0 / len(main)] * len(main)
    if extra:
        weights = [w * (1 - extra_share) for w in weights] + [extra_share / len(extra)] * len(extra)
    dataset = AugmentedPairs(main + extra, (stage.height, stage.width), args.seed)
    sampler = WeightedRandomSampler(weights, len(main), replacement=bool(extra))
    return DataLoader(
        dataset, args.batch, sampler=sampler, num_workers=args.workers, drop_last=True
    )


def learning_rate(progress: float, peak: float, warmup: float = 0.03, power: float = 0.9) -> float:
    """Linear warm-up, then peak * (1 - t)^power.

    >>> learning_rate(0.015, 1.0), learning_rate(0.03, 1.0), learning_rate(1.0, 1.0)
    (0.5, 1.0, 0.0)
    """
    if progress < warmup:
        return peak * progress / warmup
    return float(peak * (1 - (progress - warmup) / (1 - warmup)) ** power)


@torch.no_grad()
def update_ema(ema: nn.Module, network: nn.Module, step: int) -> None:
    """Exponential moving average of all weights and batch-norm statistics, faster at the start."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    current = network.state_dict()
    for name, value in ema.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def predict(network: UNet, image: np.ndarray, device: torch.device) -> np.ndarray:
    """Depth of one hxwx3 uint8 image: (h/2)x(w/2) float32 metres at the training focal length."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].to(device).float() / 255
    with torch.inference_mode():
        depth: np.ndarray = network(tensor).exp()[0, 0].float().cpu().numpy()
    return depth


def validate(
    network: UNet, pairs: list[Pair], stage: Stage, device: torch.device
) -> dict[str, float]:
    """Metrics of whole frames at the network's output size."""
    network.eval()
    mean = MetricMean()
    for pair in pairs:
        image, depth = resize_pair(pair, (stage.height, stage.width), training_focal(stage.width))
        mean.add(predict(network, image, device), depth)
    return mean.compute()


def batches(
    loader: DataLoader[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images Nx3xHxW float32 in [0, 1] and depth Nx1xhxw float32 metres, on `device`."""
    for image, depth in loader:
        scaled = image.to(device).to(torch.float32, memory_format=torch.channels_last) / 255
        yield scaled, depth.to(device)


def train(args: argparse.Namespace) -> None:
    """Runs or continues a training; writes `last.pt`, `log.jsonl` to `args.out`."""
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    print(f"reading {args.nyu}")
    pairs = nyu.read_nyu(args.nyu, "fit")
    validation = nyu.read_nyu(args.nyu, "validation")
    extra = read_folders(args.extra) if args.extra else []
    if len(pairs) < args.batch:
        raise ValueError(f"{args.nyu}: {len(pairs)} training pairs are less than --batch")
    print(f"{len(pairs)} training pairs, {len(validation)} for validation, {len(extra)} extra")

    network = build_unet(args.architecture, args.encoder_weights)
    ema = build_unet(args.architecture)
    ema.load_state_dict(network.state_dict())
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    encoder = {id(p) for p in network.encoder.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if id(p) not in encoder], "peak": args.lr},
        {"params": list(network.encoder.parameters()), "peak": args.lr * args.encoder_lr_scale},
    ]
    optimiser = torch.optim.AdamW(groups, lr=0.0, weight_decay=args.weight_decay)
    names = ["nyu_depth_v2_labeled_train795", *([f"extra_rgbd_{len(extra)}"] if extra else [])]

    epochs = [stage for stage in args.stages for _ in range(stage.epochs)]
    per_epoch = len(pairs) // args.batch
    first = 0
    last = out / "last.pt"
    if last.exists():
        state = load_checkpoint(last)
        if state["architecture"] != args.architecture:
            raise ValueError(
                f"{last}: is a {state['architecture']}, not a {args.architecture};"
                " choose another --out"
            )
        network.load_state_dict(state["network"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        for group, fresh in zip(optimiser.param_groups, groups, strict=True):
            group["peak"] = fresh["peak"]
        first = state["epoch"]
        torch.manual_seed(args.seed + first)
        print(f"continuing {last} after epoch {first}")

    loader: DataLoader[tuple[Tensor, Tensor]] | None = None
    for epoch in range(first, len(epochs)):
        stage = epochs[epoch]
        if loader is None or stage is not epochs[epoch - 1]:
            loader = make_loader(pairs, extra, args.extra_share, stage, args)
        network.train()
        started, sums, count = time.monotonic(), dict[str, float](), 0
        bar = tqdm(
            batches(loader, device),
            total=per_epoch,
            desc=f"epoch {epoch + 1}/{len(epochs)} {stage.height}x{stage.width}",
            mininterval=5,
        )
        for i, (image, depth) in enumerate(bar):
            step = epoch * per_epoch + i
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step / (len(epochs) * per_epoch), group["peak"])
            with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
                pred = network(image)
            losses = depth_loss(pred.float(), depth)
            optimiser.zero_grad(set_to_none=True)
            losses["total"].backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            update_ema(ema, network, step)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss.detach())
            count += 1
            bar.set_postfix(loss=f"{sums['total'] / count:.3f}", refresh=False)
        row: dict[str, Any] = {"epoch": epoch + 1, "size": [stage.height, stage.width]}
        row |= {name: round(value / count, 4) for name, value in sums.items()}
        if (epoch + 1) % args.validate_every == 0 or epoch + 1 == len(epochs):
            scores = validate(ema, validation, stage, device)
            row["validation"] = {name: round(value, 4) for name, value in scores.items()}
        row["seconds"] = round(time.monotonic() - started, 1)
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        save_checkpoint(
            last,
            {
                "architecture": args.architecture,
                "size": [stage.height, stage.width],
                "focal_px": [nyu.FX * stage.width / nyu.WIDTH, nyu.FY * stage.width / nyu.WIDTH],
                "data": names,
                "epoch": epoch + 1,
                "network": network.state_dict(),
                "ema": ema.state_dict(),
                "optimiser": optimiser.state_dict(),
            },
        )
        print(json.dumps(row), flush=True)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m training.train --nyu data/nyu --extra data/extra \\\n"
        "    --encoder-weights mobilenetv2.npz --out runs/compact\n"
        "Run the same command again to continue after an interruption.",
    )
    parser.add_argument("--nyu", required=True, type=Path, help="folder with rgb/, depth8/, splits")
    parser.add_argument("--extra", type=Path, help="folder of RGB-D folders, each with meta.json")
    parser.add_argument("--extra-share", type=float, default=0.15, help="their share of a batch")
    parser.add_argument("--architecture", default="mobilenetv2-unet")
    parser.add_argument("--encoder-weights", type=Path, help="ImageNet weights (.npz)")
    parser.add_argument("--out", required=True, type=Path, help="checkpoint and log go here")
    parser.add_argument(
        "--stages",
        type=Stage.parse,
        nargs="+",
        default=[Stage(192, 256, 70), Stage(240, 320, 30)],
        metavar="HxWxEPOCHS",
        help="input sizes and epochs, in order (default: 192x256x70 240x320x30)",
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak rate of the decoder")
    parser.add_argument("--encoder-lr-scale", type=float, default=0.4)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=1, help="data loading processes")
    parser.add_argument("--validate-every", type=int, default=5, metavar="EPOCHS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        train(args)
    except ValueError as error:
        print(f"training.train: {error}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
