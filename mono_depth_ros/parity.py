"""Whether an engine computes what its network is: its depth against ONNX Runtime's in float32."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from mono_depth_ros.frame_source import open_source
from mono_depth_ros.shipped_file import shipped_file

if TYPE_CHECKING:
    from mono_depth_ros.engines.engine import Engine

_LOGGER = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
Depth = npt.NDArray[np.float32]

# The largest abs_rel and the smallest delta1. Compact on 32 frames of NYU is at abs_rel 2e-7 in
# float32, 0.0016 in float16, 0.014 in bfloat16 and 0.015 in INT8, all at delta1 1; a DenseNet-169
# U-Net after half an hour of training at 0.053 and 0.989 in INT8 (4 frames). In INT8 neither loses
# delta1 against the truth (32 validation frames). GPUs may compute float32 in TF32, which has the
# digits of float16.
TOLERANCES: dict[str, tuple[float, float]] = {
    "float32": (0.005, 0.999),
    "float16": (0.01, 0.999),
    "bfloat16": (0.03, 0.999),
    "int8": (0.06, 0.98),
}


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

    def faults(self, max_abs_rel: float, min_delta1: float) -> list[str]:
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
        if non_finite == 0:
            raise ValueError(f"nothing to compare: no finite depth in {images} images")
        return Agreement(images, math.inf, math.inf, math.inf, 0.0, non_finite)
    error = np.abs(ratio - 1)
    return Agreement(
        images=images,
        abs_rel=float(error.mean()),
        median_rel=float(np.median(error)),
        max_rel=float(error.max()),
        delta1=float(((ratio > 1 / 1.25) & (ratio < 1.25)).mean()),
        non_finite=non_finite,
    )


def parity(engine: Engine, reference: Engine, images: Iterable[Image]) -> Agreement:
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
    size = engine.input_spec.shape[1:3]
    return agreement(
        (engine.infer(x), reference.infer(x)) for x in (resized(image, size) for image in images)
    )


def resized(image: Image, size: tuple[int, ...]) -> Image:
    """HxWx3 uint8 resampled to a size (height, width), as `DepthEstimator` does."""
    height, width = size
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small, np.uint8)


def parity_images(directory: Path | None, count: int, size: tuple[int, int]) -> Iterator[Image]:
    """Up to `count` images at a size (height, width), HxWx3 uint8 RGB, spread over a source.

    Args:
        directory: folder of images, or a video; None takes the rendered rooms that ship with the
            package.

    Raises:
        SourceError: there is no image.
        FileNotFoundError: the package's own images are missing.
    """
    folder = directory or shipped_file("models/parity/README.md").parent
    source = open_source(str(folder), _LOGGER.warning)
    every = max(1, (source.length or 0) // count)
    for frame in islice(source.frames(every), count):
        yield resized(frame.image, size)
