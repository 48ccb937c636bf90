"""Adapts the shipped network to your camera: a bag or folder of its RGB-D frames in, ONNX file out.

A part of the frames is held out (the end of a single recording, or whole scenes of several); the
table at the end says what the network was worth on it before and after. Run the same command again
to continue after an interruption.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mono_depth_ros.json_file import write_json
from mono_depth_ros.shipped_file import shipped_file
from training.config import read_config
from training.datamodule import DepthData
from training.evaluate import evaluate, open_estimator
from training.export import export
from training.protocols import PROTOCOLS
from training.train import one_line, parse_assignment, train

CONFIG = Path(__file__).parent / "configs" / "finetune.yaml"
ROWS = ("abs_rel", "delta1", "rmse", "log10", "scale_bias")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.finetune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m training.finetune recording.mcap --out runs/my_camera\n"
        "  python -m training.finetune my_pairs/ --out runs/my_camera --set optimiser.lr=1e-4\n"
        "  ros2 launch mono_depth_ros depth.launch.py model:=$PWD/runs/my_camera/model.onnx",
    )
    parser.add_argument(
        "data", type=Path, help="ROS 2 bag, or any other layout of training.data.sources"
    )
    parser.add_argument("--out", required=True, type=Path, help="checkpoints and model.onnx")
    parser.add_argument("--init", type=Path, help="checkpoint to start from (default: shipped)")
    parser.add_argument(
        "--config", type=Path, default=CONFIG, help="schedule (default: %(default)s)"
    )
    parser.add_argument(
        "--set", type=parse_assignment, action="append", default=[], metavar="KEY=VALUE"
    )
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 16))
    parser.add_argument("--json", type=Path, help="write the table to this file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        path = str(args.data.absolute())
        paths = {"data.camera.path": path, "validation.path": path}
        config = read_config(args.config, {**paths, **dict(args.set)})
        data = DepthData(config, Path(), args.workers)
        init = args.init or shipped_file("models/compact.ckpt")
        native = PROTOCOLS["native"]
        before, _ = evaluate(open_estimator(init), data.validation, native, mirror=False)
        train(config, data, args.out, init=init)
        model = args.out / "model.onnx"
        export(args.out / "best.ckpt", model, calibration=data.sources["camera"])
        after, scores = evaluate(open_estimator(model), data.validation, native, mirror=False)
        if args.json:
            write_json(args.json, {"images": len(scores), "before": before, "after": after})
    except (ValueError, OSError, RuntimeError) as error:
        print(f"training.finetune: {one_line(error)}", file=sys.stderr)
        return 1
    print(f"{len(scores)} held-out frames of {args.data}\n{'':12}{'before':>9}{'after':>9}")
    for name in ROWS:
        print(f"{name:12}{before[name]:9.4f}{after[name]:9.4f}")
    print(f"{model}: set the node's parameter `model` to this file")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
