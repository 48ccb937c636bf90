"""Figures of a depth stream against loops over pixels, and obstacles in scenes made by hand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import numpy.typing as npt
import pytest

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.depth_comparison import BAND_EDGES, DepthComparison, Errors, Obstacles
from mono_depth_ros.nearest_obstacles import SECTORS, nearest_obstacles

CAMERA = CameraModel(128, 96, 110.0, 110.0, 63.5, 47.5)
SHAPE = (CAMERA.height, CAMERA.width)
Depth = npt.NDArray[np.float32]


def wall(distance: float) -> Depth:
    return np.full(SHAPE, distance, np.float32)


def noisy(seed: int) -> tuple[Depth, Depth]:
    """An estimate and a truth that cover all bands, with holes of every kind in both."""
    random = np.random.default_rng(seed)
    truth = np.exp(random.uniform(np.log(0.3), np.log(14), SHAPE)).astype(np.float32)
    estimate = (truth * np.exp(random.normal(0.1, 0.3, SHAPE))).astype(np.float32)
    for depth in (estimate, truth):
        for value in (np.nan, np.inf, -np.inf, 0.0):
            depth[random.random(SHAPE) < 0.02] = value
    return estimate, truth


def by_hand(frames: list[tuple[Depth, Depth]], near: float, far: float, scaled: bool) -> Errors:
    measured, relative, squared, good, ratios = 0, [], [], 0, []
    for estimate, truth in frames:
        pairs = []
        for e, t in zip(estimate.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if not (math.isfinite(t) and t > 0):
                continue
            measured += near <= t < far
            if math.isfinite(e) and e > 0:
                pairs.append((e, t))
        scale = statistics.median(e / t for e, t in pairs) if scaled else 1.0
        for e, t in pairs:
            if near <= t < far:
                e /= scale
                relative.append(abs(e - t) / t)
                squared.append((e - t) ** 2)
                good += max(e / t, t / e) < 1.25
                ratios.append(e / t)
    n = len(ratios)
    return Errors(
        near,
        far,
        n,
        n / measured,
        sum(relative) / n,
        math.sqrt(sum(squared) / n),
        good / n,
        statistics.median(ratios),
    )


def check(found: Errors, expected: Errors) -> None:
    assert (found.near, found.far, found.pixels) == (expected.near, expected.far, expected.pixels)
    for name in ("coverage", "abs_rel", "rmse", "delta1"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4), name
    assert found.bias == pytest.approx(expected.bias, rel=1e-3)


def test_errors_are_those_of_loops_over_the_pixels_of_all_frames() -> None:
    frames = [noisy(seed) for seed in range(2)]
    comparison = DepthComparison()
    for estimate, truth in frames:
        comparison.add(estimate, truth, CAMERA)
    for band, near, far in zip(comparison.bands(), BAND_EDGES[:-1], BAND_EDGES[1:], strict=True):
        check(band, by_hand(frames, near, far, scaled=False))
    check(comparison.overall(), by_hand(frames, 0, math.inf, scaled=False))
    check(comparison.scaled(), by_hand(frames, 0, math.inf, scaled=True))
    assert comparison.frames == 2


def test_scale_is_the_spread_of_the_frames_medians() -> None:
    comparison = DepthComparison()
    for ratio in (1.0, 1.1, 1.2, 1.3, 1.4):
        comparison.add(wall(3 * ratio), wall(3), CAMERA)
    scale = comparison.scale()
    assert scale.median == pytest.approx(1.2)
    # numpy.percentile's linear rule: 5 % of four steps is a fifth of the first step.
    assert (scale.low, scale.high) == pytest.approx((1.02, 1.38))
    assert scale.drift == pytest.approx(1.38 / 1.02 - 1)


def test_an_empty_band_is_not_a_number_and_one_without_estimates_has_no_coverage() -> None:
    comparison = DepthComparison()
    comparison.add(wall(math.inf), wall(12), CAMERA)
    empty, unseen = comparison.bands()[0], comparison.bands()[-1]
    assert empty.pixels == 0
    assert math.isnan(empty.coverage)
    assert (unseen.pixels, unseen.coverage) == (0, 0.0)
    assert comparison.frames == 0
    with pytest.raises(ValueError, match="no frame"):
        comparison.scale()


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        DepthComparison().add(wall(1), np.ones((3, 4), np.float32), CAMERA)


# -- obstacles -------------------------------------------------------------------------------------


def floor(height: float, pitch_deg: float) -> Depth:
    """Depth of a level floor below a camera that looks down by `pitch_deg`; above it nothing."""
    pitch = math.radians(pitch_deg)
    _, rays = CAMERA.rays()
    # Down in the camera's frame is (0, cos, sin), so a ray (x, y, 1) z is height below where ...
    down = rays * math.cos(pitch) + math.sin(pitch)
    with np.errstate(divide="ignore"):
        column = np.where(down > 0, height / down, np.inf)
    return np.repeat(column.astype(np.float32)[:, None], CAMERA.width, axis=1)


@pytest.mark.parametrize("pitch", [-10, 0, 20, 40])
def test_a_floor_is_no_obstacle_and_a_wall_is_one(pitch: float) -> None:
    depth = floor(0.5, pitch)
    assert np.isinf(nearest_obstacles(depth, CAMERA)).all()
    nearest = nearest_obstacles(np.minimum(depth, wall(1.5)), CAMERA)
    # Where floor and wall meet, pixels of the floor count for some rows.
    np.testing.assert_allclose(nearest, 1.5, rtol=0.03)


def test_a_box_is_seen_in_its_directions_only() -> None:
    depth = np.minimum(floor(0.5, 0), wall(4))
    depth[40:60, 32:64] = 1.0
    nearest = nearest_obstacles(depth, CAMERA)
    columns = CAMERA.width // SECTORS
    expected = np.full(SECTORS, 4, np.float32)
    expected[32 // columns : 64 // columns] = 1
    np.testing.assert_allclose(nearest, expected)


def test_a_speck_is_no_obstacle() -> None:
    depth = wall(4)
    depth[50, 40] = 1.0
    np.testing.assert_allclose(nearest_obstacles(depth, CAMERA), 4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 5), (7, 3)])
def test_small_images_have_fewer_sectors(shape: tuple[int, int]) -> None:
    height, width = shape
    camera = CameraModel.from_hfov(width, height, 60)
    assert nearest_obstacles(np.ones(shape, np.float32), camera).shape == (width,)


@pytest.mark.parametrize(
    ("estimate", "truth", "expected"),
    [
        (1.5, 1.5, (SECTORS, SECTORS, 0, 0)),
        (1.8, 1.5, (SECTORS, SECTORS, 0, 0)),  # 20 %
        (1.9, 1.5, (SECTORS, SECTORS, SECTORS, 0)),
        (0.6, 0.4, (SECTORS, SECTORS, 0, 0)),  # 50 %, but 0.2 m
        (5.0, 1.5, (SECTORS, 0, SECTORS, 0)),
        (math.inf, 1.5, (SECTORS, 0, SECTORS, 0)),
        (1.5, 5.0, (0, SECTORS, 0, SECTORS)),
        (1.5, math.nan, (0, 0, 0, 0)),
        (4.0, 5.0, (0, 0, 0, 0)),
    ],
)
def test_missed_and_false_obstacles(
    estimate: float, truth: float, expected: tuple[int, int, int, int]
) -> None:
    comparison = DepthComparison()
    comparison.add(wall(estimate), wall(truth), CAMERA)
    assert comparison.obstacles() == Obstacles(*expected)
