"""Checks that an engine computes what the network is: its answers against ONNX Runtime in float32.

Run it on the machine that will run the network, after an export to another precision or for a new
runtime. The exit status is 1 where the answers are further apart than allowed, or not finite.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mono_depth_ros.engines import ENGINES, PRECISIONS, Engine, open_engine
from mono_depth_ros.frame_source import IMAGE_SUFFIXES, natural_key
from training.data.frame import DataError, Frame
from training.data.image_file import read_rgb
from training.data.sources import open_frames
from training.json_file import write_json
from training.spread import spread

IMAGES = 20
# The compact network in float16 is at 0.0007; in bfloat16 at 0.012, with steps that can be seen
# in its surfaces, so who wants that says so.
MAX_ABS_REL = 0.01
MIN_DELTA1 = 0.999

Image = npt.NDArray[np.uint8]
Depth = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How far answers are from reference answers, over all pixels of all images.

    Attributes:
        images: number compared.
        abs_rel: mean of |answer - reference| / reference.
        median_rel: median of the same.
        max_rel: largest of the same.
        delta1: share of pixels with max(answer / reference, reference / answer) < 1.25.
        non_finite: pixels with an answer that is not finite where the reference is; the other
            figures leave them out.
    """

    images: int
    abs_rel: float
    median_rel: float
    max_rel: float
    delta1: float
    non_finite: int

    def faults(self, max_abs_rel: float = MAX_ABS_REL, min_delta1: float = MIN_DELTA1) -> list[str]:
        """What is beyond tolerance, in words; empty where the answers agree."""
        checks = (
            (self.non_finite > 0, f"{self.non_finite} values are not finite"),
            (self.abs_rel > max_abs_rel, f"abs_rel {self.abs_rel:.2e} is above {max_abs_rel:g}"),
            (self.delta1 < min_delta1, f"delta1 {self.delta1:.5f} is below {min_delta1:g}"),
        )
        return [text for fault, text in checks if fault]

    def __str__(self) -> str:
        return (
            f"abs_rel {self.abs_rel:.2e}, median {self.median_rel:.2e}, largest {self.max_rel:.2e},"
            f" delta1 {self.delta1:.5f}, not finite {self.non_finite} ({self.images} images)"
        )


def agreement(answers: Iterable[tuple[Depth, Depth]]) -> Agreement:
    """Compares pairs of an answer and a reference, each hxw float32 metres.

    Raises:
        ValueError: there is no pair, a pair differs in shape, or no pixel can be compared.
    """
    ratios, images, non_finite = [np.zeros(0)], 0, 0
    for answer, reference in answers:
        if answer.shape != reference.shape:
            raise ValueError(
                f"answer {answer.shape} and reference {reference.shape} differ in size"
            )
        known = np.isfinite(reference) & (reference > 0)
        both = known & np.isfinite(answer)
        ratios.append(answer[both].astype(np.float64) / reference[both])
        images += 1
        non_finite += int(known.sum() - both.sum())
    ratio = np.concatenate(ratios)
    if ratio.size == 0:
        raise ValueError(f"nothing to compare: no finite depth in {images} images")
    error = np.abs(ratio - 1)
    return Agreement(
        images=images,
        abs_rel=float(error.mean()),
        median_rel=float(np.median(error)),
        max_rel=float(error.max()),
        delta1=float(((ratio > 1 / 1.25) & (ratio < 1.25)).mean()),
        non_finite=non_finite,
    )


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


def resized(images: Iterable[Image], engine: Engine) -> Iterator[Image]:
    """The images at an engine's input size, resampled as the estimator does."""
    height, width = engine.input_spec.shape[1:3]
    for image in images:
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        yield np.ascontiguousarray(small, np.uint8)


def compare(engine: Engine, reference: Engine, images: Iterable[Image]) -> Agreement:
    """Runs two engines on the same images, HxWx3 uint8 RGB of any size.

    Raises:
        ValueError: the networks do not take the same input, or nothing can be compared.
        EngineError: a runtime failed.
    """
    first, second = engine.metadata, reference.metadata
    if engine.input_spec.shape != reference.input_spec.shape or first.focal != second.focal:
        raise ValueError(
            f"the networks are of {first.width}x{first.height} at {first.focal:.1f} px and"
            f" {second.width}x{second.height} at {second.focal:.1f} px; export both alike"
        )
    return agreement((engine.infer(x), reference.infer(x)) for x in resized(images, engine))


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
        default=MAX_ABS_REL,
        help=f"allowed mean relative difference (default: {MAX_ABS_REL})",
    )
    parser.add_argument(
        "--min-delta1",
        type=float,
        default=MIN_DELTA1,
        help=f"share of pixels that must be within 25 %% (default: {MIN_DELTA1})",
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
        result = compare(engine, reference, images)
        faults = result.faults(args.max_abs_rel, args.min_delta1)
        if args.json:
            document = {
                "model": str(args.model),
                "engine": engine.describe(),
                "reference": str(reference_path),
                "reference_engine": reference.describe(),
                "agreement": asdict(result),
                "tolerance": {"abs_rel": args.max_abs_rel, "delta1": args.min_delta1},
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
