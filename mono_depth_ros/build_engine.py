"""Builds the engine of a network for this machine's NVIDIA GPU, checks it, and keeps it.

The node does this by itself when it first starts. Run it beforehand to start fast, to calibrate
int8 on images of your own, or to build for another GPU on a machine that has none. For OpenVINO
there is nothing to build, but to measure which precision is the fastest on this CPU.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from mono_depth_ros.engines import EngineError
from mono_depth_ros.engines.cache import EngineCache, open_cache
from mono_depth_ros.engines.calibrated import calibrate
from mono_depth_ros.engines.openvino_choice import choose_precision
from mono_depth_ros.engines.tensorrt_plans import PRECISIONS, build
from mono_depth_ros.json_file import write_json
from mono_depth_ros.model import default_model, read_model
from mono_depth_ros.parity import parity_images

# Images to check an engine on, and to calibrate with.
CHECKED, CALIBRATED = 8, 64
EXAMPLES = """examples:
  build_engine                                   the network that ships, for the GPU at hand
  build_engine mine.onnx --precision float16
  build_engine models/compact.onnx --target sm86 for an RTX 30, on any machine (TensorRT-RTX)
  build_engine --camera 1280x720                 for a camera of that size
  build_engine mine.onnx --precision int8 --calibrate frames/
  build_engine --engine openvino                 which precision auto shall take on this CPU
  build_engine --list
"""


def bar_report(bar: Any) -> Callable[[float, str], None]:
    """Shows progress as a bar of 100 percent."""

    def report(share: float, phase: str) -> None:
        bar.set_description_str(phase[:40])
        bar.n = round(100 * share)
        bar.refresh()

    return report


def line_report(share: float, phase: str) -> None:
    """Writes progress as a line of JSON, for a program that reads along."""
    print(json.dumps({"share": round(share, 3), "phase": phase}), flush=True)


def table(cache: EngineCache) -> str:
    """What is in the cache, for reading."""
    lines = [f"{'file':72}{'MB':>7}  {'used':20}"]
    lines += [f"{e.path.name:72}{e.bytes / 1e6:7.1f}  {e.used:20}" for e in cache.entries()]
    return "\n".join([str(cache.directory), *lines])


def camera_size(text: str) -> tuple[int, int] | None:
    """Height and width of `WIDTHxHEIGHT`; None of `none`.

    >>> camera_size("640x480")
    (480, 640)

    Raises:
        ValueError: it is neither.
    """
    if text == "none":
        return None
    width, height = map(int, text.split("x"))
    if min(width, height) < 1:
        raise ValueError(text)
    return height, width


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="build_engine",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, nargs="?", help="ONNX file; default: the one that ships"
    )
    parser.add_argument(
        "--engine",
        default="tensorrt",
        choices=("tensorrt", "openvino"),
        help="openvino measures its precisions, and notes the fastest that agrees with float32 for"
        " precision auto (default: tensorrt)",
    )
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", *PRECISIONS),
        help="auto takes the first of int8 (if calibrated), float16 and float32 that agrees with"
        " float32 in ONNX Runtime (default)",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="DIR",
        help=f"folder of images, video or ROS 2 bag to calibrate int8 on; {CALIBRATED} frames of"
        " it, spread evenly, are used. OpenVINO and ONNX Runtime run the result, too",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="check on these images (default: rendered rooms)"
    )
    parser.add_argument(
        "--target",
        metavar="SM",
        help="compute capability of the GPU to build for, as sm86; needs TensorRT-RTX, and no GPU."
        " Copy the cache directory to the machine that has one",
    )
    parser.add_argument(
        "--camera",
        metavar="WIDTHxHEIGHT",
        default="640x480",
        type=camera_size,
        help="size of the camera's images (default: 640x480): the steps around the network run on"
        " the GPU, too, as the node has it. none builds the bare network, as depth_bench and"
        " depth_video have it",
    )
    parser.add_argument(
        "--cache-dir", type=Path, help="where engines are kept (default: ~/.cache/mono_depth_ros)"
    )
    parser.add_argument("--list", action="store_true", help="show what is kept, and end")
    parser.add_argument("--clear", action="store_true", help="delete what is kept, and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file")
    parser.add_argument(
        "--progress", default="bar", choices=("bar", "json"), help="json: a line per step on stdout"
    )
    args = parser.parse_args(argv)
    if args.calibrate and args.precision not in ("auto", "int8"):
        parser.error("--calibrate makes an int8 model; leave out --precision, or give int8")
    if args.engine == "openvino" and (args.target or args.precision != "auto"):
        parser.error(
            "--engine openvino measures all precisions on this CPU; give it neither"
            " --precision nor --target"
        )
    return args


def run(args: argparse.Namespace, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Calibrates if asked to, and builds.

    Returns:
        What was made, for people and --json.

    Raises:
        ModelError, EngineError, SourceError: see what is called.
    """
    model = read_model(args.model or default_model())
    cache = open_cache(args.cache_dir)
    size = (model.metadata.height, model.metadata.width)
    result: dict[str, Any] = {"model": str(model.path), "cache": str(cache.directory)}
    if args.calibrate is not None:
        report(0.0, "calibrating int8")
        _, agreement = calibrate(model, parity_images(args.calibrate, CALIBRATED, size), cache)
        result["int8"] = {"agreement": str(agreement), **asdict(agreement)}
    if args.engine == "openvino":
        images = list(parity_images(args.images, CHECKED, size))
        best, found = choose_precision(model, cache, images, report)
        candidates = {name: asdict(candidate) for name, candidate in found.items()}
        result["openvino"] = {"auto": best, "measured": candidates}
        return {**result, "rejected": cache.rejected}
    images = list(parity_images(args.images, CHECKED, args.camera or size))
    try:
        plan = build(model, args.precision, cache, images, report, args.target, args.camera)
    except EngineError as error:
        # Without a GPU the calibrated model is what was asked for; other engines run it.
        if args.calibrate is None or args.target is not None:
            raise
        result["not_built"] = str(error)
    else:
        result["plan"] = {**asdict(plan), "path": str(plan.path)}
    result["rejected"] = cache.rejected
    return result


def summary(result: dict[str, Any], seconds: float) -> str:
    """What was made, for reading."""
    lines = [f"removed from the cache: {reason}" for reason in result["rejected"]]
    if "int8" in result:
        lines.append(f"int8 in ONNX Runtime: {result['int8']['agreement']}")
    if "openvino" in result:
        for name, candidate in result["openvino"]["measured"].items():
            note = f"; refused: {candidate['refused']}" if candidate["refused"] else ""
            lines.append(f"openvino {name}: {candidate['ms']} ms, {candidate['agreement']}{note}")
        lines.append(f"auto takes {result['openvino']['auto']} from now on")
    if "not_built" in result:
        lines.append(f"no TensorRT engine: {result['not_built']}")
        lines.append("openvino and onnx run the calibrated model: set precision to int8")
    if "plan" in result:
        plan = result["plan"]
        lines += [f"{name} was not taken: {reason}" for name, reason in plan["refused"].items()]
        what = f"built in {seconds:.1f} s" if plan["built"] else "was there already"
        lines.append(f"{plan['path']}: {what}, {plan['library']}, {plan['device']}")
        lines.append(f"{plan['precision']}: {plan['agreement']}")
    return "\n".join(lines)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    # A build that is no longer wanted ends at its next step.
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    try:
        if args.list or args.clear:
            cache = open_cache(args.cache_dir)
            if args.clear:
                print(f"{cache.directory}: {cache.clear()} files deleted")
            if args.list:
                print(table(cache))
            return 0
        if args.progress == "json":
            result = run(args, line_report)
            print(json.dumps(result), flush=True)
        else:
            form = "{desc:40} {bar} {n}%"
            with tqdm(total=100, bar_format=form, leave=False, disable=None) as bar:
                result = run(args, bar_report(bar))
            print(summary(result, time.monotonic() - started))
        if args.json is not None:
            write_json(args.json, result)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"build_engine: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("build_engine: stopped; what is in the cache is unharmed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
