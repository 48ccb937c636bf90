"""Measures a network on frames with known depth, the way a robot runs it: through `DepthEstimator`,
at camera resolution, scaled by the focal length.

A checkpoint runs in PyTorch, an ONNX file in any engine. The protocol says which pixels count and
how (see `training.protocols`); `auto` is `eigen` for NYU-Depth-V2 and `native` for anything else.
Nothing is scaled by the truth.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.engines import ENGINES, PRECISIONS
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.json_file import write_json
from training.data.frame import Frame
from training.data.pair import Pair
from training.data.sources import open_frames
from training.evaluation_panel import SHEET_TILE, contact_sheet, draw_panel
from training.metrics import BAND_LIMITS
from training.protocols import PROTOCOLS, Protocol
from training.spread import spread
from training.torch_engine import TorchEngine

CHECKPOINTS = (".ckpt", ".pt")
PER_IMAGE = ("abs_rel", "delta1", "rmse", "scale_bias")
COLUMNS = (
    "model",
    "architecture",
    "megabytes",
    "data",
    "protocol",
    "split",
    "images",
    "engine",
    "delta1",
    "delta2",
    "delta3",
    "abs_rel",
    "sq_rel",
    "rmse",
    "rmse_log",
    "log10",
    "silog",
    "scale_bias",
    "rmse_pooled",
    "command",
)
BAND_FIGURES = ("share", "abs_rel", "delta1")
PANELS = 10


@dataclass(frozen=True)
class ImageScore:
    """Figures of one image.

    Attributes:
        frame: the image.
        metrics: as the protocol gives them.
    """

    frame: Frame
    metrics: dict[str, float]


def default_protocol(frames: Sequence[Frame]) -> str:
    """`eigen` for NYU-Depth-V2, in whatever layout; `native` for anything else."""
    return "eigen" if all(frame.name.startswith("nyu/") for frame in frames) else "native"


def open_estimator(model: Path, engine: str = "auto", precision: str = "auto") -> DepthEstimator:
    """A checkpoint or an exported ONNX file, without limits of depth.

    Raises:
        ValueError: the file cannot be used, or an engine is asked for that a checkpoint has not.
        EngineError: no runtime loads it.
    """
    if model.suffix in CHECKPOINTS:
        if engine != "auto" or precision not in ("auto", "float32"):
            raise ValueError(
                f"{model}: checkpoints run in PyTorch float32; export it to use --engine"
                " or --precision"
            )
        estimator = DepthEstimator(TorchEngine(model))
    else:
        estimator = DepthEstimator.open(model, engine, precision)
    estimator.set_range(0.0, float("inf"))
    return estimator


def predict(estimator: DepthEstimator, pair: Pair, mirror: bool) -> npt.NDArray[np.float32]:
    """Depth of a frame, HxW float32 metres, NaN invalid.

    Args:
        mirror: average with the answer to the mirror image, mirrored back.
    """
    height, width = pair.depth.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    camera = CameraModel(width, height, pair.fx, pair.fy, *centre)
    depth = estimator.estimate(np.ascontiguousarray(pair.image), camera).depth.copy()
    if mirror:
        flipped = np.ascontiguousarray(pair.image[:, ::-1])
        depth += estimator.estimate(flipped, camera).depth[:, ::-1]
        depth /= 2
    return depth


def evaluate(
    estimator: DepthEstimator, frames: Sequence[Frame], protocol: Protocol, mirror: bool
) -> tuple[dict[str, float], list[ImageScore]]:
    """Metrics over `frames`, and those of each image that has depth to compare with.

    Args:
        mirror: average with the mirror image; `Protocol.mirror` tells what a protocol asks for.

    Raises:
        ValueError: a frame cannot be read, or none has depth.
        EngineError: the runtime failed.
    """
    evaluation = protocol.evaluation()
    scores = []
    for frame in tqdm(frames, desc="evaluate", unit="image"):
        pair = frame.read()
        metrics = evaluation.add(predict(estimator, pair, mirror), pair.depth)
        if metrics is not None:
            scores.append(ImageScore(frame, metrics))
    return evaluation.compute(), scores


def write_panels(
    folder: Path, estimator: DepthEstimator, scores: Sequence[ImageScore], mirror: bool
) -> None:
    """Writes what people look at.

    `worst-01.png` ... and `typical-01.png` ...: the `PANELS` images of the largest abs_rel, and as
    many spread evenly over the ranking, which starts with the largest; `worst.png`: the former on
    one sheet; `metrics.csv`: a row an image, in the order of the ranking. Predictions are made
    again for those images, rather than kept for all.

    Raises:
        ValueError: a frame cannot be read.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An earlier run may have written more of them.
    for old in (*folder.glob("worst-[0-9][0-9].png"), *folder.glob("typical-[0-9][0-9].png")):
        old.unlink()
    ranking = sorted(scores, key=lambda score: score.metrics["abs_rel"], reverse=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", *PER_IMAGE))
        for score in ranking:
            figures = (f"{score.metrics[name]:.4f}" for name in PER_IMAGE)
            writer.writerow((score.frame.name, *figures))
    ranks = range(len(ranking))
    chosen = {"worst": list(ranks[:PANELS]), "typical": spread(ranks, PANELS)}
    sheet = []
    bar = tqdm(total=sum(map(len, chosen.values())), desc="panels", unit="image")
    for kind, places in chosen.items():
        for number, place in enumerate(places, 1):
            score = ranking[place]
            m = score.metrics
            caption = (
                f"{place + 1} of {len(ranking)}: {score.frame.name}   AbsRel {m['abs_rel']:.3f}"
                f"  delta1 {m['delta1']:.3f}  RMSE {m['rmse']:.2f} m  scale {m['scale_bias']:.3f}"
            )
            pair = score.frame.read()
            content = (pair.image, pair.depth, predict(estimator, pair, mirror), caption)
            write_png(folder / f"{kind}-{number:02d}.png", draw_panel(*content))
            if kind == "worst":
                sheet.append(draw_panel(*content, long_side=SHEET_TILE))
            bar.update()
    bar.close()
    write_png(folder / "worst.png", contact_sheet(sheet))


def write_png(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Writes HxWx3 uint8 BGR.

    Raises:
        OSError: the file cannot be written.
    """
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def check_table(path: Path) -> None:
    """Makes sure that `append_row` can add to a CSV file, before the time for a row is spent.

    Raises:
        ValueError: the file has other columns.
    """
    if not path.exists():
        return
    with path.open(newline="") as file:
        header = next(csv.reader(file), [])
    if header != list(COLUMNS):
        raise ValueError(
            f"{path}: has the columns {','.join(header)}, not {','.join(COLUMNS)};"
            " name another file, or add what is missing to its header and rows"
        )


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Adds a row of `COLUMNS` to a CSV file, which gets a header if it is new; others stay empty.

    Raises:
        ValueError: the file has other columns.
    """
    check_table(path)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def table(scores: Mapping[str, float]) -> str:
    """The figures of `Evaluation.compute` for reading: metrics, then bands of distance."""
    bands = [f"{near}_{far}m" for near, far in pairwise(BAND_LIMITS)]
    of_bands = {f"{name}_{band}" for name in BAND_FIGURES for band in bands}
    lines = [f"  {name:14}{value:9.4f}" for name, value in scores.items() if name not in of_bands]
    lines += ["", f"  {'truth':9}{''.join(f'{name:>9}' for name in BAND_FIGURES)}"]
    for band in bands:
        figures = "".join(f"{scores[f'{name}_{band}']:9.4f}" for name in BAND_FIGURES)
        lines.append(f"  {band.replace('_', '-'):9}{figures}")
    return "\n".join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m training.evaluate models/compact.onnx --data data/nyu \\\n"
        "    --csv models/results.csv\n"
        "  python -m training.evaluate runs/compact/last.ckpt --data bags/desk --panels panels",
    )
    parser.add_argument("model", type=Path, help="checkpoint (.ckpt, .pt) or exported ONNX file")
    parser.add_argument(
        "--data", required=True, type=Path, help="a data set in any layout of training.data.sources"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("validation", "test"),
        help="a data set without splits is its own test set (default: test)",
    )
    parser.add_argument("--protocol", default="auto", choices=("auto", *PROTOCOLS))
    parser.add_argument(
        "--mirror", action="store_true", help="average with the answer to the mirror image"
    )
    parser.add_argument("--engine", default="auto", choices=ENGINES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N images only, spread evenly over the split"
    )
    parser.add_argument("--csv", type=Path, help="append a row to this file")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument(
        "--panels",
        type=Path,
        metavar="DIR",
        help=f"write pictures of the {PANELS} worst and {PANELS} typical images, and metrics.csv",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        if args.csv:
            check_table(args.csv)
        frames = spread(open_frames(args.data, args.split), args.limit)
        name = args.protocol if args.protocol != "auto" else default_protocol(frames)
        protocol = PROTOCOLS[name]
        mirror = args.mirror or protocol.mirror
        # A table must tell rows of one protocol apart.
        label = name if mirror == protocol.mirror else f"{name}+mirror"
        if args.model.suffix not in CHECKPOINTS:
            # PyTorch computes the metrics only, and on a busy machine its threads then wait for
            # each other twenty times as long as one of them takes.
            torch.set_num_threads(1)
        estimator = open_estimator(args.model, args.engine, args.precision)
        result, scores = evaluate(estimator, frames, protocol, mirror)
        rounded = {metric: round(value, 4) for metric, value in result.items()}
        about = {
            "model": args.model.name,
            "architecture": estimator.engine.metadata.architecture,
            "megabytes": round(args.model.stat().st_size / 1e6, 1),
            "data": args.data.name,
            "protocol": label,
            "split": args.split,
            "images": len(scores),
            "engine": estimator.engine.describe(),
            "command": shlex.join(["python", "-m", "training.evaluate", *(argv or sys.argv[1:])]),
        }
        if args.csv:
            append_row(args.csv, about | rounded)
        if args.json:
            images = [{"name": score.frame.name, **score.metrics} for score in scores]
            extra = {"mirror": mirror, "metrics": {label: rounded}, "per_image": images}
            write_json(args.json, about | extra)
        if args.panels:
            write_panels(args.panels, estimator, scores, mirror)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"training.evaluate: {error}", file=sys.stderr)
        return 1
    print(f"{args.model}, {about['engine']}: {args.data} {args.split}, {len(scores)} images")
    print(f"protocol {name}{', mirror average' if mirror else ''}\n{table(rounded)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
