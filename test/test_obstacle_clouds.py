"""Clouds for a costmap against a loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.mounting import Mounting
from mono_depth_ros.obstacle_clouds import ObstacleClouds

CAMERA = CameraModel(13, 9, 10.0, 12.0, 5.75, 4.5)
LOW, HIGH, RANGE = 0.2, 1.2, 3.0


def scene(seed: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.1, 5, (9, 13)).astype(np.float32)
    for value in (np.nan, np.inf, -np.inf):
        depth[rng.random(depth.shape) < 0.1] = value
    return depth


@pytest.mark.filterwarnings("error")
@settings(deadline=None, max_examples=60)
@given(
    stride=st.integers(1, 3),
    height=st.sampled_from([0.1, 0.7, 2.0]),
    pitch=st.floats(-80, 80),
    roll=st.floats(-180, 180),
    seed=st.integers(0, 1000),
)
def test_both_clouds_are_those_of_a_loop_over_pixels(
    stride: int, height: float, pitch: float, roll: float, seed: int
) -> None:
    mounting = Mounting.from_angles(height, pitch, roll)
    depth = scene(seed)
    obstacles, clearing = ObstacleClouds(CAMERA, mounting, LOW, HIGH, RANGE, stride).build(depth)
    assert obstacles.dtype == clearing.dtype == np.float32
    assert np.isfinite(obstacles).all() and np.isfinite(clearing).all()
    marks, ends = [], []
    for v in range(0, 9, stride):
        for u in range(0, 13, stride):
            z = float(depth[v, u])
            if math.isnan(z) or z == -math.inf:
                continue
            ray = np.array([(u - 5.75) / 10, (v - 4.5) / 12, 1])
            x, y, rise = (float(value) for value in mounting.matrix() @ ray)
            level = math.hypot(x, y)
            if z * level <= RANGE and LOW <= height + z * rise <= HIGH:
                marks.append(z * ray)
            z = min(z, RANGE / level)
            if rise:
                z = min(z, ((HIGH if rise > 0 else 0) - height) / rise)
            if z > 0:
                ends.append(z * ray)
    for cloud, expected in ((obstacles, marks), (clearing, ends)):
        assert len(cloud) == len(expected)
        if expected:
            np.testing.assert_allclose(cloud, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("value", "ends"), [(np.nan, 0), (-np.inf, 0), (np.inf, 117), (9.0, 117)])
def test_only_rays_that_saw_something_or_nothing_at_all_clear(value: float, ends: int) -> None:
    clouds = ObstacleClouds(CAMERA, Mounting.from_angles(0.7), LOW, HIGH, RANGE)
    obstacles, clearing = clouds.build(np.full((9, 13), value, np.float32))
    assert len(obstacles) == 0 and len(clearing) == ends


def test_far_rays_end_at_the_range_the_ground_or_the_top_of_the_band() -> None:
    mounting = Mounting.from_angles(0.7, 5, 2)
    clouds = ObstacleClouds(CAMERA, mounting, LOW, HIGH, RANGE)
    _, clearing = clouds.build(np.full((9, 13), np.inf, np.float32))
    level = clearing.astype(np.float64) @ mounting.matrix().T
    above, distance = 0.7 + level[:, 2], np.hypot(level[:, 0], level[:, 1])
    limits = np.stack([RANGE - distance, above, HIGH - above])
    assert (limits > -1e-5).all()
    np.testing.assert_allclose(limits.min(axis=0), 0, atol=1e-5)
    assert (limits < 1e-5).any(axis=1).all()


def test_from_above_the_band_only_rays_that_come_down_clear() -> None:
    camera = CameraModel(13, 9, 10.0, 12.0, 6.0, 4.0)  # whose middle row is level
    clouds = ObstacleClouds(camera, Mounting.from_angles(1.5), LOW, HIGH, RANGE)
    _, clearing = clouds.build(np.full((9, 13), np.inf, np.float32))
    assert len(clearing) == 4 * 13 and (clearing[:, 1] > 0).all()


def test_clouds_are_views_of_buffers_that_the_next_call_reuses() -> None:
    clouds = ObstacleClouds(CAMERA, Mounting.from_angles(0.7), LOW, HIGH, RANGE)
    first = [cloud.copy() for cloud in clouds.build(scene(1))]
    obstacles, clearing = clouds.build(scene(2))
    again = clouds.build(scene(1))
    assert np.shares_memory(obstacles, again[0]) and np.shares_memory(clearing, again[1])
    assert not np.shares_memory(*again)
    for cloud, expected in zip(again, first, strict=True):
        np.testing.assert_array_equal(cloud, expected)


@pytest.mark.parametrize(
    "limits",
    [(1.0, 0.5, 3.0, 1), (0.1, 1.0, 0.0, 1), (0.1, 1.0, math.inf, 1), (0.1, 1.0, math.nan, 1),
     (0.1, 1.0, 3.0, 0)],
)  # fmt: skip
def test_empty_limits_are_rejected(limits: tuple[float, float, float, int]) -> None:
    with pytest.raises(ValueError, match=r"band|range|stride"):
        ObstacleClouds(CAMERA, Mounting.from_angles(0.7), *limits)


def test_another_size_is_rejected() -> None:
    clouds = ObstacleClouds(CAMERA, Mounting.from_angles(0.7), LOW, HIGH, RANGE)
    with pytest.raises(ValueError, match="size"):
        clouds.build(np.ones((9, 12), np.float32))
