"""Fits the confidence of `mono_depth_ros.confidence` to a network, and measures it.

A pixel is right where max(Z / truth, truth / Z) < 1.25. Fit on frames that the network was not
trained on: on others it is right more often than it will be on a robot. Frames are used whole,
cropped around their centre as far as the network is meant for so narrow a view, and with a fault
that cameras on robots have (blur, darkness, glare, JPEG). Every data set of the fit weighs the
same, and so does every view in it. It is measured on whole frames, without and with such faults.

What is fitted is compared with a constant, with depth edges alone, with the agreement of the
network's answers to the image and to its mirror image (`flip`, which takes a second pass), and with
all of that together (`all_and_flip`). Prints the coefficients, and for each data set:

    delta1      share of the pixels that are right, mean over frames
    confidence  mean over frames; equal to delta1 if it is calibrated as a whole
    ece         expected calibration error: mean distance of the two in 15 bins of confidence
    auroc       chance that a pixel that is right has more confidence than one that is wrong, over
                all pixels; auroc_frame: within a frame, mean over frames
    ause        area between two curves of AbsRel: of what remains as pixels are taken away in order
                of confidence, and in order of error; 0 is perfect; mean over frames
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.confidence import FEATURES, GRID, ConfidenceFeatures
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.json_file import write_json
from training.data.augment import degrade
from training.data.frame import Frame
from training.data.nyu import SPLITS
from training.data.pair import Pair
from training.data.sources import open_frames
from training.evaluate import default_protocol
from training.protocols import PROTOCOLS, Protocol
from training.spread import spread

RIGHT = 1.25
CROPS = (0.75, 0.6)
# Half of the views of a frame, so that faults are told from frames that are hard by themselves.
FAULTS = 3
# Ratio of focal lengths, camera to training: what the narrowest crops in training amount to.
NARROWEST = 1.7
# Neighbouring pixels of the grid tell the same.
STRIDE = 4
RIDGE = 1e-3
ITERATIONS = 25
BINS = 15
STEPS = 20
COLUMNS = (*FEATURES, "flip")
MODELS = {
    "constant": ("constant",),
    "edges": ("constant", "relief_narrow", "relief_wide"),
    "confidence": FEATURES,
    "flip": ("constant", "flip"),
    "all_and_flip": COLUMNS,
}

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """Pixels of some views of frames.

    Attributes:
        features: NxC float64, C as `COLUMNS`.
        error: N float64, AbsRel.
        right: N, whether a pixel is within 25 %.
        frame: N, which view it is of.
    """

    features: Vector
    error: Vector
    right: npt.NDArray[np.bool_]
    frame: npt.NDArray[np.intp]

    def weights(self) -> Vector:
        """N float64 of sum 1, with the same sum for each frame."""
        counts = np.bincount(self.frame)
        return np.asarray(1 / (counts[self.frame] * np.count_nonzero(counts)), np.float64)

    def columns(self, names: Sequence[str]) -> Vector:
        """The features of these names, Nxlen(names)."""
        return self.features[:, [COLUMNS.index(name) for name in names]]


def _masked(pair: Pair, protocol: Protocol) -> Pair:
    """The pair without the truth that a protocol leaves out."""
    inside = np.zeros(pair.depth.shape, bool)
    inside[slice(*protocol.rows), slice(*protocol.columns)] = True
    inside &= (pair.depth > protocol.min_truth) & (pair.depth < protocol.max_truth)
    return replace(pair, depth=np.where(inside, pair.depth, np.float32(np.nan)))


def _cropped(pair: Pair, share: float) -> Pair:
    """The middle `share` of width and height: the view of a longer lens."""
    height, width = (round(share * side) for side in pair.depth.shape)
    y, x = (pair.depth.shape[0] - height) // 2, (pair.depth.shape[1] - width) // 2
    window = slice(y, y + height), slice(x, x + width)
    return replace(pair, image=pair.image[window], depth=pair.depth[window])


def _faulty(pair: Pair, count: int) -> Iterator[Pair]:
    """The pair with one fault, `count` times; its name decides which."""
    rng = np.random.default_rng(list(pair.name.encode()))
    for _ in range(count):
        yield replace(pair, image=degrade(np.ascontiguousarray(pair.image), rng))


def _camera(pair: Pair) -> CameraModel:
    height, width = pair.depth.shape
    return CameraModel(width, height, pair.fx, pair.fy, (width - 1) / 2, (height - 1) / 2)


Views = Callable[[Pair, DepthEstimator], Iterator[Pair]]


def whole_view(pair: Pair, estimator: DepthEstimator) -> Iterator[Pair]:
    """The frame as it is."""
    yield pair


def faulty_view(pair: Pair, estimator: DepthEstimator) -> Iterator[Pair]:
    """The frame with one fault."""
    yield from _faulty(pair, 1)


def fit_views(pair: Pair, estimator: DepthEstimator) -> Iterator[Pair]:
    """The frame, with faults, and cropped."""
    yield pair
    yield from _faulty(pair, FAULTS)
    for share in CROPS:
        cropped = _cropped(pair, share)
        if estimator.focal_scale(_camera(cropped)) <= NARROWEST:
            yield cropped


def _on_grid(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    grid = cv2.resize(depth, GRID[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(grid[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE], np.float32)


def _view_samples(estimator: DepthEstimator, pair: Pair) -> tuple[Vector, Vector, Vector]:
    """Features (NxC), estimated and true depth (N) of a view's pixels that have both."""
    camera = _camera(pair)
    image = np.ascontiguousarray(pair.image)
    mirror_image = np.ascontiguousarray(image[:, ::-1])
    answer = estimator.estimate(mirror_image, camera).depth
    mirrored = _on_grid(np.ascontiguousarray(answer[:, ::-1]))
    depth = estimator.estimate(image, camera).depth
    maps = ConfidenceFeatures(camera)(depth, image)
    z, truth = _on_grid(depth), _on_grid(pair.depth)
    known = np.isfinite(z) & np.isfinite(truth) & ~np.isnan(mirrored)
    # The mirror image's answer may be out of range where the other is not.
    mirrored = np.clip(mirrored[known], estimator.min_depth, estimator.max_depth)
    flip = np.sqrt(np.abs(np.log(mirrored / z[known])))
    features = maps[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE][:, known]
    stack = np.concatenate((features, flip[None])).T.astype(np.float64)
    return stack, z[known].astype(np.float64), truth[known].astype(np.float64)


def sample(estimator: DepthEstimator, frames: Sequence[Frame], views: Views) -> Samples:
    """Runs the network on views of frames.

    Raises:
        ValueError: a frame cannot be read, or none has depth.
        EngineError: the runtime failed.
    """
    protocol = PROTOCOLS[default_protocol(frames)]
    parts = []
    for frame in tqdm(frames, desc="sample", unit="frame"):
        for view in views(_masked(frame.read(), protocol), estimator):
            part = _view_samples(estimator, view)
            if part[1].size:
                parts.append(part)
    if not parts:
        raise ValueError("no frame has depth to compare with")
    features, z, truth = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Samples(
        features,
        np.abs(z - truth) / truth,
        np.maximum(z / truth, truth / z) < RIGHT,
        np.repeat(np.arange(len(parts)), [part[1].size for part in parts]),
    )


def logistic(features: Vector, coefficients: Vector) -> Vector:
    """Probability for each row of NxC features."""
    return np.asarray(1 / (1 + np.exp(-(features @ coefficients))), np.float64)


def fit_logistic(
    features: Vector, right: npt.NDArray[np.bool_], weights: Vector, ridge: float = RIDGE
) -> Vector:
    """The most probable coefficients, by Newton's method.

    Args:
        features: NxC float64; the first is the constant, which `ridge` leaves free.
        right: N.
        weights: N float64 of sum 1.
        ridge: of the squared coefficients of features scaled to unit variance: half of it, times
            their sum, is added to the mean cross entropy.

    Returns:
        C float64.

    Raises:
        ValueError: it does not converge, as where all pixels are right.
    """
    mean = weights @ features
    penalty = ridge * (weights @ (features - mean) ** 2)
    penalty[0] = 0
    coefficients = np.zeros(features.shape[1])
    for _ in range(ITERATIONS):
        p = logistic(features, coefficients)
        gradient = features.T @ (weights * (p - right)) + penalty * coefficients
        curvature = features.T @ ((weights * p * (1 - p))[:, None] * features) + np.diag(penalty)
        # A feature that never changes, as of one camera, has neither gradient nor curvature.
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        coefficients -= step
        if np.abs(step).max() < 1e-8:
            return coefficients
    raise ValueError("the fit does not converge; give more frames, some of them with errors")


def calibration_error(
    confidence: Vector, right: npt.NDArray[np.bool_], weights: Vector, bins: int = BINS
) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015) in bins of equal width.

    >>> right = np.array([True, True, True, False])
    >>> round(calibration_error(np.full(4, 0.9), right, np.full(4, 0.25)), 6)
    0.15
    """
    place = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    gap = np.bincount(place, weights * (confidence - right), bins)
    return float(np.abs(gap).sum() / weights.sum())


def auroc(score: Vector, right: npt.NDArray[np.bool_]) -> float:
    """Probability that a right pixel scores above a wrong one, ties counted half; NaN if all are
    of one kind.

    >>> auroc(np.array([0.9, 0.6, 0.4, 0.4]), np.array([True, True, False, True]))
    0.8333333333333334
    """
    positives = int(right.sum())
    negatives = right.size - positives
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[right].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def sparsification_error(confidence: Vector, error: Vector, steps: int = STEPS) -> float:
    """Area under the sparsification error curve (Ilg et al., ECCV 2018): how much larger the mean
    error of the most confident pixels is than that of the best ones, mean over shares taken away.

    Equally confident pixels have their mean error each.

    >>> error = np.array([0.1, 0.2, 0.3, 0.4])
    >>> sparsification_error(-error, error, 4), sparsification_error(np.zeros(4), error, 4)
    (0.0, 0.075)
    """
    _, place = np.unique(-confidence, return_inverse=True)
    expected = (np.bincount(place, error) / np.bincount(place))[place]
    by_confidence = expected[np.argsort(place, kind="stable")]
    kept = error.size - np.arange(steps) * error.size // steps
    curves = [np.cumsum(e)[kept - 1] / kept for e in (by_confidence, np.sort(error))]
    return round(float((curves[0] - curves[1]).mean()), 12)


def figures(confidence: Vector, samples: Samples) -> dict[str, float]:
    """What the module's docstring lists, of one confidence."""
    weights = samples.weights()
    views = np.split(np.arange(confidence.size), np.flatnonzero(np.diff(samples.frame)) + 1)
    within = [auroc(confidence[view], samples.right[view]) for view in views]
    areas = [sparsification_error(confidence[view], samples.error[view]) for view in views]
    return {
        "confidence": float(weights @ confidence),
        "ece": calibration_error(confidence, samples.right, weights),
        "auroc": auroc(confidence, samples.right),
        "auroc_frame": float(np.nanmean(within)) if np.isfinite(within).any() else float("nan"),
        "ause": float(np.mean(areas)),
    }


def reliability(confidence: Vector, samples: Samples) -> list[dict[str, float]]:
    """Mean confidence, share of right pixels and share of all pixels in each tenth of
    confidence that has any.
    """
    weights = samples.weights()
    place = np.minimum((confidence * 10).astype(np.intp), 9)
    share, sure, right = (
        np.bincount(place, weights * values, 10) for values in (1.0, confidence, samples.right)
    )
    return [
        {"confidence": sure[i] / share[i], "delta1": right[i] / share[i], "share": share[i]}
        for i in np.flatnonzero(share)
    ]


def fit(data_sets: Sequence[Samples]) -> dict[str, Vector]:
    """Coefficients of each of `MODELS`; every data set weighs the same.

    Raises:
        ValueError: as `fit_logistic`.
    """
    right = np.concatenate([samples.right for samples in data_sets])
    weights = np.concatenate([samples.weights() for samples in data_sets]) / len(data_sets)
    return {
        model: fit_logistic(np.concatenate([s.columns(names) for s in data_sets]), right, weights)
        for model, names in MODELS.items()
    }


def measure(samples: Samples, coefficients: Mapping[str, Vector]) -> dict[str, object]:
    """Figures of each of `MODELS` on one data set, and the reliability of the confidence."""
    confidences = {
        model: logistic(samples.columns(MODELS[model]), c) for model, c in coefficients.items()
    }
    return {
        "views": int(np.unique(samples.frame).size),
        "delta1": float(samples.weights() @ samples.right),
        "models": {model: figures(c, samples) for model, c in confidences.items()},
        "reliability": reliability(confidences["confidence"], samples),
    }


def table(name: str, row: Mapping[str, object]) -> str:
    """What `measure` gives, for reading."""
    models = row["models"]
    assert isinstance(models, dict)
    header = next(iter(models.values()))
    lines = [f"{name}: {row['views']} views, delta1 {row['delta1']:.3f}"]
    lines.append(f"  {'':14}{''.join(f'{column:>12}' for column in header)}")
    lines += [
        f"  {model:14}{''.join(f'{value:12.4f}' for value in values.values())}"
        for model, values in models.items()
    ]
    return "\n".join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m training.confidence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n"
        "  python -m training.confidence models/compact.onnx --fit data/nyu validation \\\n"
        "    --fit data/rooms train --test data/nyu test --json confidence.json",
    )
    parser.add_argument("model", type=Path, help="exported ONNX file")
    for option, text in (
        ("--fit", "a data set to fit to, and its split; may be given more than once"),
        ("--test", "a data set to measure on, and its split; may be given more than once"),
    ):
        parser.add_argument(
            option,
            nargs=2,
            action="append",
            default=[],
            metavar=("PATH", "SPLIT"),
            help=f"{text} ({', '.join(SPLITS)}; train is all of a data set without splits)",
        )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N frames of each only, spread evenly over it"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args(argv)
    if not args.fit:
        parser.error("nothing to fit to; give --fit PATH SPLIT")
    return args


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parse_args(argv)
    try:
        estimator = DepthEstimator.open(args.model)
        fitted = [
            sample(estimator, spread(open_frames(path, split), args.limit), fit_views)
            for path, split in args.fit
        ]
        coefficients = fit(fitted)
        rows = {}
        for (path, split), samples in zip(args.fit, fitted, strict=True):
            rows[f"{path} {split} (fitted to)"] = measure(samples, coefficients)
        for path, split in args.test:
            frames = spread(open_frames(path, split), args.limit)
            for text, views in (("", whole_view), (", with faults", faulty_view)):
                samples = sample(estimator, frames, views)
                rows[f"{path} {split}{text}"] = measure(samples, coefficients)
        named = {
            model: dict(zip(MODELS[model], map(float, values), strict=True))
            for model, values in coefficients.items()
        }
        if args.json:
            about = {
                "model": args.model.name,
                "command": shlex.join(
                    ["python", "-m", "training.confidence", *(argv or sys.argv[1:])]
                ),
            }
            write_json(args.json, about | {"coefficients": named, "data": rows})
    except (ValueError, RuntimeError, OSError) as error:
        print(f"training.confidence: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(table(name, row) for name, row in rows.items()))
    print("\ncoefficients (mono_depth_ros/confidence.py)")
    print("\n".join(f"  {name:16}{value:8.3f}" for name, value in named["confidence"].items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
