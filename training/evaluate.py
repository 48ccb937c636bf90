"""Measures an exported model on NYU-Depth-V2 with the Eigen protocol, the way a robot runs it:
through `DepthEstimator`, at camera resolution.

Protocol: 640x480 frames, truth between 1 mm and 10 m, rows 45:471 and columns 41:601, prediction
clipped to the same range, no median scaling, no mirror average; each metric is averaged over an
image's pixels, then over images.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.engines import ENGINES, PRECISIONS
from mono_depth_ros.estimator import DepthEstimator
from training.data import nyu
from training.metrics import METRICS, MetricMean

PROTOCOL = "nyu_eigen_crop_per_image"
EIGEN_ROWS, EIGEN_COLUMNS = slice(45, 471), slice(41, 601)
MIN_TRUTH, MAX_TRUTH = 1e-3, 10.0
CX, CY = 325.582, 253.736


def evaluate(estimator: DepthEstimator, root: Path, split: str) -> tuple[dict[str, float], int]:
    """Metrics of `estimator` on a split, and the number of images.

    Raises:
        ValueError: the data cannot be read.
    """
    estimator.set_range(0.0, float("inf"))
    camera = CameraModel(nyu.WIDTH, nyu.HEIGHT, nyu.FX, nyu.FY, CX, CY)
    mean = MetricMean()
    for pair in tqdm(nyu.read_nyu(root, split, border=0), desc=f"{split} images"):
        depth = estimator.estimate(pair.image, camera).depth[EIGEN_ROWS, EIGEN_COLUMNS]
        truth = pair.depth[EIGEN_ROWS, EIGEN_COLUMNS]
        truth = np.where((truth > MIN_TRUTH) & (truth < MAX_TRUTH), truth, np.nan)
        mean.add(np.clip(depth, MIN_TRUTH, MAX_TRUTH), truth)
    return mean.compute(), len(mean)


def append_row(path: Path, row: dict[str, str | int | float]) -> None:
    """Adds `row` to a CSV file, which gets a header if it is new.

    Raises:
        ValueError: the file has other columns.
    """
    is_new = not path.exists()
    if not is_new:
        header = path.read_text().splitlines()[0].split(",")
        if header != list(row):
            raise ValueError(f"{path}: has columns {header}, the row has {list(row)}")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python -m training.evaluate models/compact.onnx --nyu data/nyu \\\n"
        "    --csv models/results.csv",
    )
    parser.add_argument("model", type=Path, help="exported ONNX file")
    parser.add_argument("--nyu", required=True, type=Path, help="folder with rgb/, depth8/, splits")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--engine", default="auto", choices=ENGINES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--csv", type=Path, help="append a row to this file")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        estimator = DepthEstimator.open(args.model, args.engine, args.precision)
        scores, images = evaluate(estimator, args.nyu, args.split)
        rounded = {name: round(scores[name], 4) for name in METRICS}
        engine = estimator.engine.describe()
        command = shlex.join(["python", "-m", "training.evaluate", *(argv or sys.argv[1:])])
        if args.csv:
            row = {
                "model": args.model.name,
                "architecture": estimator.engine.metadata.architecture,
                "megabytes": round(args.model.stat().st_size / 1e6, 1),
                "protocol": PROTOCOL,
                "split": args.split,
                "images": images,
                "engine": engine,
                **rounded,
                "command": command,
            }
            append_row(args.csv, row)
        if args.json:
            result = {
                "model": str(args.model),
                "engine": engine,
                "split": args.split,
                "images": images,
                "metrics": {PROTOCOL: rounded},
                "command": command,
            }
            args.json.write_text(json.dumps(result, indent=2) + "\n")
    except (ValueError, RuntimeError, OSError) as error:
        print(f"training.evaluate: {error}")
        return 1
    print("  ".join(f"{name} {value:.4f}" for name, value in rounded.items()), f"({images} images)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
