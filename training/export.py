"""Exports a checkpoint to one self-contained ONNX file: camera bytes in, metres out.

Colour scaling, normalisation, layout and the exponential that undoes the log target are in the
graph; what a robot must know (training focal length, range, data, accuracy) is in the metadata.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from mono_depth_ros.atomic import replacing
from mono_depth_ros.model import METADATA_KEY, SCHEMA
from training.calibrate import scale_correction
from training.checkpoint import load_network
from training.data.nyu import read_nyu
from training.data.pair import Pair
from training.models import UNet

OPSET = 18
MIN_DEPTH, MAX_DEPTH = 0.1, 20.0
TOLERANCE = 1e-3


class BytesToMetres(nn.Module):
    """uint8 1xHxWx3 RGB -> float32 1xhxw metres at the training focal length.

    Args:
        scale: factor on the network's depth (see `training.calibrate`).
    """

    def __init__(self, network: UNet, scale: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.log_scale = math.log(scale)

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 255
        depth: Tensor = (self.network(x) + self.log_scale).exp().clamp(MIN_DEPTH, MAX_DEPTH)[:, 0]
        return depth


def commit_hash() -> str:
    """The repository's commit, or `unknown` outside one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def metadata(
    checkpoint: dict[str, Any],
    height: int,
    width: int,
    correction: float,
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """The `mono_depth` document of a checkpoint exported at `height` x `width`."""
    scale = width / checkpoint["size"][1]
    return {
        "schema": SCHEMA,
        "architecture": checkpoint["architecture"],
        "input": {"height": height, "width": width},
        "training_focal_px": {
            "fx": checkpoint["focal_px"][0] * scale,
            "fy": checkpoint["focal_px"][1] * scale,
        },
        "depth_m": {"min": MIN_DEPTH, "max": MAX_DEPTH},
        "scale_correction": correction,
        "data": checkpoint["data"],
        "metrics": metrics,
        "licence": "Apache-2.0",
        "commit": commit_hash(),
    }


def max_relative_difference(path: Path, module: BytesToMetres, seed: int = 0) -> float:
    """Largest relative difference between PyTorch and ONNX Runtime, both float32, over a smooth and
    a noisy image.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 255, math.prod(shape)).reshape(shape).astype(np.uint8)
    worst = 0.0
    for image in (ramp, rng.integers(0, 256, shape, np.uint8)):
        (exported,) = session.run(None, {"image": image})
        with torch.inference_mode():
            reference = module(torch.from_numpy(image)).numpy()
        worst = max(worst, float(np.max(np.abs(exported - reference) / reference)))
    return worst


def export(
    checkpoint: Path,
    out: Path,
    size: tuple[int, int] | None,
    metrics: dict[str, Any],
    calibration: list[Pair] | None = None,
) -> float:
    """Writes `out` atomically and checks it against PyTorch.

    Args:
        size: input height and width; None takes the size of the last training stage.
        metrics: {protocol: {metric: value}} for the metadata.
        calibration: whole training frames to correct the scale with; None leaves it.

    Returns:
        The largest relative difference to PyTorch.

    Raises:
        ValueError: the checkpoint cannot be read, or the difference exceeds `TOLERANCE`.
    """
    network, content = load_network(checkpoint)
    height, width = size or content["size"]
    correction = scale_correction(network, calibration, (height, width)) if calibration else 1.0
    module = BytesToMetres(network, correction).eval()
    with replacing(out) as temporary:
        torch.onnx.export(
            module,
            (torch.zeros(1, height, width, 3, dtype=torch.uint8),),
            temporary,
            input_names=["image"],
            output_names=["depth"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        proto = onnx.load(temporary)
        document = metadata(content, height, width, correction, metrics)
        onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(document)})
        proto.doc_string = "Metric depth from one RGB image; see metadata_props"
        # The exporter records where in its own source every node came from; nobody needs that.
        for node in proto.graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, temporary)
        difference = max_relative_difference(temporary, module)
        if difference > TOLERANCE:
            raise ValueError(
                f"{checkpoint}: ONNX differs from PyTorch by {difference:.2e} (> {TOLERANCE})"
            )
    return difference


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m training.export runs/compact/last.pt --out compact.onnx",
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument(
        "--metrics", type=Path, help="JSON that training.evaluate wrote, to carry in the metadata"
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="NYU",
        help="correct the mean scale on the training split of this NYU folder",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        metrics = json.loads(args.metrics.read_text())["metrics"] if args.metrics else {}
        size = tuple(args.size) if args.size else None
        calibration = read_nyu(args.calibrate, "train", border=0) if args.calibrate else None
        difference = export(args.checkpoint, args.out, size, metrics, calibration)
    except (ValueError, KeyError, OSError) as error:
        print(f"training.export: {error}")
        return 1
    megabytes = args.out.stat().st_size / 1e6
    print(f"{args.out}: {megabytes:.1f} MB, max relative difference to PyTorch {difference:.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
