"""A measured depth topic of a bag against the estimates for the images of the same bag."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mono_depth_ros.bag_reader import UnregisteredError, decode_registered_depth
from mono_depth_ros.calibrated_view import CameraError, View
from mono_depth_ros.depth_comparison import OBSTACLE_RANGE, DepthComparison, Errors
from mono_depth_ros.estimator import DepthFrame
from mono_depth_ros.frame_source import SourceError, Warn
from mono_depth_ros.image_topic import DEPTH_ENCODINGS, REGISTER, ImageTopic, is_registered
from mono_depth_ros.markdown_table import markdown_table
from mono_depth_ros.stamp_matching import match_stamps

_SYNCHRONISE = "let the driver stamp them together (RealSense: enable_sync:=true)"
# Below this share of matched images, a stream is not what the user thinks it is.
_FEW = 0.9
# A scale error that is worth a word, and a drift that no single factor mends.
_BIASED, _DRIFTING = 0.05, 0.2


@dataclass(frozen=True)
class Matches:
    """Which images have measured depth.

    Attributes:
        images, depths: number of distinct stamps on each topic.
        depth_of: stamp of the depth image of each matched image's stamp, in nanoseconds.
        offset_ms: median of depth stamp - image stamp.
        tolerance_ms: the widest gap allowed.
    """

    images: int
    depths: int
    depth_of: dict[int, int]
    offset_ms: float
    tolerance_ms: float


def match(
    bag: Path, image: ImageTopic, depth: ImageTopic, stamps: Mapping[str, array[int]]
) -> Matches:
    """Matches images with depth, nearest stamps within half a frame period (see `match_stamps`).

    Args:
        stamps: of the messages on both topics in nanoseconds, in any order.

    Raises:
        SourceError: there is no match, and nothing to compare.
    """
    images, depths = (np.unique(np.array(stamps[topic.name], np.int64)) for topic in (image, depth))
    if not images.size or not depths.size:
        empty = image if not images.size else depth
        raise SourceError(f"{bag}: has no message on {empty.name}; repair or record it again")
    i, j, tolerance = match_stamps(images, depths)
    if not i.size:
        raise SourceError(
            f"{bag}: no image on {image.name} has depth on {depth.name} stamped within"
            f" {tolerance * 1e-6:.1f} ms of it; {_SYNCHRONISE}"
        )
    depth_of = dict(zip(images[i].tolist(), depths[j].tolist(), strict=True))
    offset = float(np.median(depths[j] - images[i]))
    return Matches(images.size, depths.size, depth_of, offset * 1e-6, tolerance * 1e-6)


def choose_depth(bag: Path, topics: list[ImageTopic], name: str, image: ImageTopic) -> ImageTopic:
    """The topic of measured depth.

    Raises:
        SourceError: it is not there, is no depth, or is not seen from the image's camera.
    """
    found = [topic for topic in topics if topic.name == name]
    if not found:
        listing = ", ".join(topic.name for topic in topics if topic.is_depth) or "none"
        raise SourceError(f"{bag}: has no images on {name}; depth it has: {listing}")
    depth = found[0]
    if depth.encoding not in DEPTH_ENCODINGS:
        raise SourceError(
            f"{bag}: {depth} is not depth ({' or '.join(DEPTH_ENCODINGS)}); name another topic with"
            " --compare"
        )
    if not is_registered(image, depth):
        raise SourceError(
            f"{bag}: {depth.name} is depth in the frame '{depth.frame_id}', {image.name} is seen"
            f" from '{image.frame_id}'; {REGISTER}"
        )
    return depth


class BagComparison:
    """Pairs estimates and measurements, whichever comes first, and compares them.

    Holds no more than what was recorded between the two of a pair.
    """

    def __init__(self, image: ImageTopic, depth: ImageTopic, matches: Matches, warn: Warn) -> None:
        self.depth, self.matches = depth, matches
        self._image, self._warn = image, warn
        self._result = DepthComparison()
        self._image_of = {d: i for i, d in matches.depth_of.items()}
        self._depth_of = dict(matches.depth_of)
        self._estimates: dict[int, tuple[npt.NDArray[np.float32], View]] = {}
        self._measured: dict[int, bytes] = {}

    def warn_of_stamps(self) -> None:
        """Says so if many images have no depth, or all stamps are apart."""
        found, matches = len(self.matches.depth_of), self.matches
        if found < _FEW * min(matches.images, matches.depths):
            self._warn(
                f"only {found} of {matches.images} images have depth stamped within"
                f" {matches.tolerance_ms:.1f} ms, of {matches.depths} on {self.depth.name};"
                f" {_SYNCHRONISE}"
            )
        elif abs(matches.offset_ms) > matches.tolerance_ms / 2:
            self._warn(
                f"depth on {self.depth.name} is stamped {matches.offset_ms:+.1f} ms from the"
                f" images, so what moves is compared with where it is not; {_SYNCHRONISE}"
            )

    def add_estimate(self, stamp: int, estimate: tuple[DepthFrame, View] | None) -> None:
        """Adds the estimate for an image, or None where there is none for this one."""
        partner = self._depth_of.pop(stamp, None)
        if partner is None:
            return
        if estimate is None:
            self._measured.pop(partner, None)
            self._image_of.pop(partner, None)
        elif partner in self._measured:
            self._compare(self._measured.pop(partner), estimate[0].depth, estimate[1])
        else:
            # A copy, since the estimator overwrites its arrays.
            self._estimates[stamp] = estimate[0].depth.copy(), estimate[1]

    def add_measured(self, stamp: int, raw: bytes) -> None:
        """Adds a serialised depth message."""
        partner = self._image_of.pop(stamp, None)
        if partner is None:
            return
        if partner in self._estimates:
            self._compare(raw, *self._estimates.pop(partner))
        else:
            self._measured[stamp] = raw

    def _compare(self, raw: bytes, estimate: npt.NDArray[np.float32], view: View) -> None:
        height, width = estimate.shape
        try:
            truth = decode_registered_depth(raw, self.depth, self._image, width, height)
            self._result.add(estimate, view.rectify_depth(truth), view.rectifier.camera)
        except UnregisteredError as error:
            raise SourceError(str(error)) from None
        except CameraError:
            raise
        except ValueError as error:
            self._warn(f"{self.depth.name}: {error}; skipped")

    def figures(self) -> dict[str, Any]:
        """Everything, for machines and for `comparison_table`.

        Raises:
            SourceError: no pixel has both.
        """
        result, matches = self._result, self.matches
        if not result.frames:
            raise SourceError(
                f"{self.depth.name}: no measured pixel coincides with an estimate; is it depth that"
                " --min-depth and --max-depth let through?"
            )
        scale = result.scale()
        return {
            "topic": self.depth.name,
            "images": matches.images,
            "depth_images": matches.depths,
            "matched": len(matches.depth_of),
            "compared": result.frames,
            "median_offset_ms": round(matches.offset_ms, 3),
            "tolerance_ms": round(matches.tolerance_ms, 3),
            "bands": [asdict(band) for band in result.bands()],
            "overall": asdict(result.overall()),
            "frames_scaled_by_median": asdict(result.scaled()),
            "scale": {**asdict(scale), "drift": scale.drift},
            "obstacles": {"range_m": OBSTACLE_RANGE, **asdict(result.obstacles())},
        }


def _row(name: str, errors: Errors) -> list[str]:
    return [
        name,
        str(errors.pixels),
        f"{errors.coverage:.3f}",
        f"{errors.abs_rel:.3f}",
        f"{errors.rmse:.3f}",
        f"{errors.delta1:.3f}",
        f"{errors.bias:.3f}",
    ]


def _scale_remedy(median: float, drift: float) -> str:
    finetune = "python -m training.finetune BAG --out FOLDER learns this camera"
    if drift > _DRIFTING:
        return f"the scale drifts between frames, which no single factor mends: {finetune}"
    if abs(median - 1) > _BIASED:
        return (
            "the scale is off by a constant factor: check the calibration, since depth grows with"
            f" the focal length; if it is right, {finetune}"
        )
    return ""


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({part / whole:.1%})" if whole else "")


def comparison_table(figures: Mapping[str, Any]) -> str:
    """What `BagComparison.figures` gives, for reading."""
    rows = []
    for band in (Errors(**row) for row in figures["bands"]):
        if not np.isnan(band.coverage):  # nothing was measured there
            far = f" to {band.far:g} m" if np.isfinite(band.far) else " m and more"
            rows.append(_row(f"{band.near:g}{far}", band))
    rows.append(_row("all", Errors(**figures["overall"])))
    rows.append(_row("all, median-scaled", Errors(**figures["frames_scaled_by_median"])))
    header = ("true depth", "pixels", "coverage", "AbsRel", "RMSE m", "delta1", "est/true")
    scale, obstacles = figures["scale"], figures["obstacles"]
    lines = [
        markdown_table(header, rows),
        "",
        f"matched          {figures['matched']} of {figures['images']} images with"
        f" {figures['depth_images']} on {figures['topic']}; median offset"
        f" {figures['median_offset_ms']:+.1f} ms",
        f"scale            {scale['median']:.3f} x true in the median frame,"
        f" {scale['low']:.3f} to {scale['high']:.3f} in 90 % of them",
        f"missed obstacles {_share(obstacles['missed'], obstacles['real'])} nearer than"
        f" {obstacles['range_m']:g} m are seen > 25 % and > 0.3 m farther",
        f"false obstacles  {_share(obstacles['false'], obstacles['estimated'])} that are seen there"
        " are so much farther in truth",
    ]
    remedy = _scale_remedy(scale["median"], scale["drift"])
    return "\n".join([*lines, remedy] if remedy else lines)
