"""Confidence against a plain computation, and its sense on scenes that are made for it."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.confidence import (
    COEFFICIENTS,
    FEATURES,
    GRID,
    ConfidenceEstimator,
    ConfidenceFeatures,
    softness,
)

Depth = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
CAMERA = CameraModel.from_hfov(640, 480, 63.3)


def pattern(width: int = 640, height: int = 480) -> Image:
    """Coloured waves, long and short: neither dark, bright, blurred nor noisy."""
    x = (np.arange(width) + 0.5)[None] / width
    y = (np.arange(height) + 0.5)[:, None] / height
    wave = (3 * np.sin(110 * x) * np.sin(80 * y) + np.sin(700 * x) * np.sin(500 * y)) / 4
    return np.stack([128 + 60 * wave, 128 - 50 * wave, 120 + 40 * wave], 2).astype(np.uint8)


def wall(depth: float, width: int = 640, height: int = 480) -> Depth:
    return np.full((height, width), depth, np.float32)


def room(width: int = 640, height: int = 480) -> Depth:
    """A floor, a wall behind it, and a box before the wall."""
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / height
    x = (np.arange(width, dtype=np.float32) + 0.5)[None] / width
    depth = np.minimum(4.0, 0.5 / np.maximum(y - 0.5, 1e-3)) + np.zeros((1, width), np.float32)
    box = (abs(x - 0.3) < 0.1) & (abs(y - 0.6) < 0.2)
    return np.where(box, np.float32(1.2), depth).astype(np.float32)


def of(depth: Depth, image: Image, camera: CameraModel = CAMERA) -> Depth:
    return ConfidenceEstimator(camera)(depth, image)


# --- the same, computed plainly --------------------------------------------------------------


def plain_softness(image: Image) -> float:
    height, width = image.shape[:2]
    green = image[:, :, 1].astype(float)

    def samples(count: int, size: int) -> list[int]:
        return [int((i + 0.5) * size / count) for i in range(count)]

    def ratio(lines: npt.NDArray[np.float64]) -> float:
        wide = np.mean([abs(line[8:] - line[:-8]).mean() for line in lines])
        fine = np.mean([abs(line[1:] - line[:-1]).mean() for line in lines])
        return float((wide + 0.1) / (fine + 0.1))

    across = green[np.ix_(samples(60, height), samples(320, width))]
    along = green[np.ix_(samples(240, height), samples(80, width))].T
    return math.log(max(ratio(across), ratio(along)))


def plain_confidence(
    depth: Depth, image: Image, camera: CameraModel, row: int, column: int
) -> float:
    """The confidence at the centre of a grid cell, before up-sampling."""
    rows, columns = GRID
    height, width = depth.shape

    def pixel(r: int, c: int) -> tuple[int, int]:
        return int((r + 0.5) * height / rows), int((c + 0.5) * width / columns)

    def log_depth(r: int, c: int) -> float:
        z = float(depth[pixel(r, c)])
        return math.log(2.5 if math.isnan(z) else min(max(z, 0.1), 10.0))

    def relief(reach: int) -> float:
        around = [
            log_depth(r, c)
            for r in range(max(row - reach, 0), min(row + reach + 1, rows))
            for c in range(max(column - reach, 0), min(column + reach + 1, columns))
        ]
        return math.sqrt(max(around) - min(around))

    def grey(r: int, c: int) -> float:
        red, green, blue = image[pixel(r, c)].astype(float)
        return float(round(0.299 * red + 0.587 * green + 0.114 * blue))

    # Away from the border, where the mean would need what lies beyond it.
    near_greys = [grey(row + i, column + j) for i in range(-4, 5) for j in range(-4, 5)]
    all_greys = [grey(r, c) for r in range(rows) for c in range(columns)]
    focal = camera.focal / math.sqrt(width * height)
    soft = plain_softness(image)
    x, y = 2 * (column + 0.5) / columns - 1, 2 * (row + 0.5) / rows - 1
    values = {
        "constant": 1.0,
        "relief_narrow": relief(4),
        "relief_wide": relief(10),
        "near": max(0.0, math.log(2) - log_depth(row, column)),
        "side": x * x,
        "height": y,
        "narrow_view": max(0.0, math.log(focal / 0.9367)),
        "dark": max(0.0, 1 - sum(all_greys) / len(all_greys) / 64),
        "bright": max(0.0, (round(sum(near_greys) / 81) - 208) / 47),
        "blur": max(0.0, soft - 1.4),
        "noise": max(0.0, 0.9 - soft),
    }
    odds = sum(c * values[name] for name, c in zip(FEATURES, COEFFICIENTS, strict=True))
    return 1 / (1 + math.exp(-odds))


@pytest.mark.parametrize("seed", range(3))
def test_confidence_is_what_a_plain_computation_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # As large as the grid: up-sampling then changes nothing.
    rows, columns = GRID
    camera = CameraModel.from_hfov(columns, rows, (35.0, 60.0, 90.0)[seed])
    depth = room(columns, rows)
    depth[rng.random(depth.shape) < 0.02] = np.nan
    depth[40:50, 20:30], depth[90:95, 100:] = np.inf, -np.inf
    noise = rng.normal(0, (0, 8, 30)[seed], (rows, columns, 3))
    image = np.clip(pattern(columns, rows) * (1.9, 0.4, 1.0)[seed] + noise, 0, 255).astype(np.uint8)
    confidence = of(depth, image, camera)
    for row, column in itertools.product((5, 45, 64, 93), (6, 25, 48, 110, 150)):
        if np.isfinite(depth[row, column]):
            expected = plain_confidence(depth, image, camera, row, column)
            # Greys are rounded to whole levels in fixed point.
            assert confidence[row, column] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("reach", [1, 3, 9])
def test_softness_is_what_a_plain_computation_gives(scale: int, reach: int) -> None:
    noise = np.random.default_rng(scale).integers(0, 256, (240 * scale, 320 * scale, 3), np.uint8)
    for window in ((reach, 1), (1, reach)):
        image = np.asarray(cv2.blur(noise, window), np.uint8)
        assert softness(image) == pytest.approx(plain_softness(image), abs=1e-6)


def test_softness_of_white_noise_is_0_and_of_a_ramp_nearly_log_8() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    assert softness(noise) == pytest.approx(0, abs=0.02)
    ramp = np.empty((480, 640, 3), np.uint8)
    ramp[:] = np.arange(640)[None, :, None] // 3
    # 16 pixels apart and 2 apart, at a third of a grey level a pixel.
    assert softness(ramp) == pytest.approx(math.log((16 / 3 + 0.1) / (2 / 3 + 0.1)), abs=0.02)


# --- ranges and invalid depth ----------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1), st.floats(5, 170))
def test_values_are_probabilities_and_unknown_exactly_where_depth_is(
    width: int, height: int, seed: int, hfov: float
) -> None:
    rng = np.random.default_rng(seed)
    depth = np.exp(rng.normal(0, 3, (height, width))).astype(np.float32)
    holes = rng.random(depth.shape) < 0.3
    depth[holes] = rng.choice([np.nan, np.inf, -np.inf], int(holes.sum()))
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    confidence = of(depth, image, CameraModel.from_hfov(width, height, hfov))
    assert confidence.shape == depth.shape and confidence.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(confidence), ~np.isfinite(depth))
    assert ((confidence > 0) & (confidence < 1))[np.isfinite(depth)].all()


def test_a_frame_without_any_depth_has_no_confidence() -> None:
    assert np.isnan(of(wall(math.nan), pattern())).all()


def test_another_size_than_the_camera_s_is_an_error() -> None:
    estimator = ConfidenceEstimator(CAMERA)
    with pytest.raises(ValueError, match="640x480"):
        estimator(wall(2, 320, 240), pattern())
    with pytest.raises(ValueError, match="640x480"):
        estimator(wall(2), pattern(320, 240))
    with pytest.raises(ValueError, match="out is float64"):
        estimator(wall(2), pattern(), np.empty((480, 640)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not contiguous"):
        estimator(wall(2), pattern(), np.empty((480, 1280), np.float32)[:, ::2])


# --- sense -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1.2, 1.5, 3.0])
def test_a_step_is_less_sure_than_a_flat_wall_and_the_higher_the_less(ratio: float) -> None:
    flat, step, higher = wall(2.5), wall(2.5), wall(2.5)
    step[:, 320:] *= ratio
    higher[:, 320:] *= ratio * 1.2
    image = pattern()
    beside = (slice(None), slice(300, 316))
    assert (of(step, image)[beside] < of(flat, image)[beside] - 0.01).all()
    assert (of(higher, image)[beside] < of(step, image)[beside]).all()
    away = (slice(None), slice(0, 200))
    np.testing.assert_array_equal(of(step, image)[away], of(flat, image)[away])


def test_what_is_nearer_than_two_metres_is_less_sure_the_nearer_it_is() -> None:
    centre = [of(wall(depth), pattern())[240, 320] for depth in (4.0, 2.0, 1.0, 0.5, 0.2)]
    assert centre[0] == centre[1]
    assert all(a > b + 0.02 for a, b in itertools.pairwise(centre[1:]))


def test_a_longer_lens_than_in_training_is_less_sure() -> None:
    views = [CameraModel.from_hfov(640, 480, hfov) for hfov in (90, 63.3, 45, 30)]
    middle = [of(wall(3), pattern(), camera)[240, 320] for camera in views]
    assert middle[0] == pytest.approx(middle[1], abs=1e-4)
    assert middle[1] > middle[2] > middle[3]


def faults() -> dict[str, Image]:
    image, rng = pattern(), np.random.default_rng(0)
    dark = image * 0.15 + rng.normal(0, 5, image.shape)
    return {
        "dark": np.clip(dark, 0, 255).astype(np.uint8),
        "overexposed": np.clip(image * 2.5, 0, 255).astype(np.uint8),
        "turned": np.asarray(cv2.blur(image, (19, 1)), np.uint8),
        "out of focus": np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8),
        "covered": np.zeros_like(image),
    }


@pytest.mark.parametrize("fault", list(faults()))
def test_a_bad_image_is_less_sure_than_a_good_one(fault: str) -> None:
    depth = room()
    assert of(depth, faults()[fault]).mean() < of(depth, pattern()).mean() - 0.02


# --- sizes and buffers -----------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 960), (1280, 720), (500, 333)])
def test_another_image_size_gives_the_same_field(width: int, height: int) -> None:
    small = of(room(), pattern())
    camera = CAMERA.scaled(width, height)
    other = of(room(width, height), pattern(width, height), camera)
    back = cv2.resize(other, (640, 480), interpolation=cv2.INTER_LINEAR)
    difference = np.abs(back - small)
    # Where the depth steps, windows that end beside it or on it differ.
    assert np.median(difference) < 0.01
    assert np.quantile(difference, 0.95) < 0.05


def test_results_go_to_out_and_no_call_changes_another_s() -> None:
    estimator, out = ConfidenceEstimator(CAMERA), np.empty((480, 640), np.float32)
    first = estimator(room(), pattern(), out)
    assert first is out
    kept = out.copy()
    own = estimator(wall(1), faults()["dark"])
    assert not np.shares_memory(own, out)
    np.testing.assert_array_equal(out, kept)
    np.testing.assert_array_equal(estimator(room(), pattern(), out), kept)


def test_inputs_are_left_as_they_are() -> None:
    depth, image = room(), pattern()
    depth[3, 5], depth[7, 9] = np.nan, np.inf
    before = depth.copy(), image.copy()
    of(depth, image)
    np.testing.assert_array_equal(depth, before[0])
    np.testing.assert_array_equal(image, before[1])


def test_buffers_are_reused() -> None:
    estimator = ConfidenceEstimator(CAMERA)
    maps = estimator.features(room(), pattern())
    where = [value for value in vars(estimator.features).values() if isinstance(value, np.ndarray)]
    addresses = [value.ctypes.data for value in where]
    assert estimator.features(wall(1), faults()["dark"]) is maps
    after = [value for value in vars(estimator.features).values() if isinstance(value, np.ndarray)]
    assert [value.ctypes.data for value in after] == addresses


def test_features_are_zero_for_a_good_image_of_a_far_wall_in_the_middle() -> None:
    maps = ConfidenceFeatures(CAMERA)(wall(3), pattern())
    middle = dict(zip(FEATURES, maps[:, GRID[0] // 2, GRID[1] // 2], strict=True))
    assert middle.pop("constant") == 1
    assert middle == pytest.approx(dict.fromkeys(middle, 0), abs=0.01)
