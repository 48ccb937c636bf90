"""Checks that an engine computes what the network is: its answers against ONNX Runtime in float32.

Run it on the machine that will run the network, after an export to another precision or for a new
runtime. The exit status is 1 where the answers are further apart than allowed, or not finite.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mono_depth_ros.engines import ENGINES, PRECISIONS, open_engine
from mono_depth_ros.frame_source import IMAGE_SUFFIXES, natural_key
from mono_depth_ros.json_file import write_json
from mono_depth_ros.parity import TOLERANCES, Image, parity
from training.data.frame import DataError, Frame
from training.data.image_file import read_rgb
from training.data.sources import open_frames
from training.spread import spread

IMAGES = 20


def read_images(path: Path, count: int) -> Iterator[Image]:
    """HxWx3 uint8 RGB of up to `count` images, spread evenly over a data set or a folder of images,
    with a progress bar.

    Of a data set with splits these are training images.

    Raises:
        ValueError: there is no image; or, later, one cannot be read.
    """
    try:
        readers = [partial(_image_of, frame) for frame in spread(open_frames(path), count)]
    except DataError:
        files = [p for p in path.glob("[!.]*") if p.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise
        files.sort(key=lambda file: natural_key(file.name))
        readers = [partial(read_rgb, file) for file in spread(files, count)]
    return _each(readers)


def _each(readers: Sequence[Callable[[], Image]]) -> Iterator[Image]:
    for read in tqdm(readers, desc="images", unit="image"):
        yield read()


def _image_of(frame: Frame) -> Image:
    return frame.read().image


def _limits(which: int) -> str:
    return ", ".join(f"{name} {limits[which]:g}" for name, limits in TOLERANCES.items())


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m training.validate compact16.onnx --images data/nyu --reference compact.onnx\n"
        "  python -m training.validate compact.onnx --images photos --precision bfloat16 \\\n"
        "    --max-abs-rel 0.02",
    )
    parser.add_argument("model", type=Path, help="exported ONNX file")
    parser.add_argument(
        "--images", required=True, type=Path, help="a folder of images, or any data set"
    )
    parser.add_argument("--reference", type=Path, help="float32 ONNX file (default: the model)")
    parser.add_argument("--engine", default="auto", choices=ENGINES)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument(
        "--limit",
        type=int,
        default=IMAGES,
        metavar="N",
        help=f"images, spread evenly (default: {IMAGES})",
    )
    parser.add_argument(
        "--max-abs-rel",
        type=float,
        help=f"allowed mean relative difference (default, by precision: {_limits(0)})",
    )
    parser.add_argument(
        "--min-delta1",
        type=float,
        help=f"share of pixels that must be within 25 %% (default, by precision: {_limits(1)})",
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 only where the answers agree."""
    args = parse_args(argv)
    reference_path = args.reference or args.model
    try:
        engine = open_engine(args.model, args.engine, args.precision)
        reference = open_engine(reference_path, "onnx", "float32")
        images = read_images(args.images, args.limit)
        result = parity(engine, reference, images)
        # Of a precision that nobody asked for, the file's own decides.
        own = engine.metadata.document.get("precision", "float32")
        max_abs_rel, min_delta1 = TOLERANCES[own if args.precision == "auto" else args.precision]
        if args.max_abs_rel is not None:
            max_abs_rel = args.max_abs_rel
        if args.min_delta1 is not None:
            min_delta1 = args.min_delta1
        faults = result.faults(max_abs_rel, min_delta1)
        if args.json:
            document = {
                "model": str(args.model),
                "engine": engine.describe(),
                "reference": str(reference_path),
                "reference_engine": reference.describe(),
                "agreement": asdict(result),
                "tolerance": {"abs_rel": max_abs_rel, "delta1": min_delta1},
                "faults": faults,
            }
            write_json(args.json, document)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"training.validate: {error}", file=sys.stderr)
        return 1
    print(f"{args.model}, {engine.describe()}, against {reference_path}, {reference.describe()}")
    print(result)
    if faults:
        print(f"training.validate: {args.model}: {'; '.join(faults)}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
