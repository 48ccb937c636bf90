"""Disparity against projection into both cameras of the pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.disparity import INVALID, disparity, right_projection


@given(
    fx=st.floats(10, 2000),
    baseline=st.floats(0.01, 1),
    u=st.floats(0, 640),
    v=st.floats(0, 480),
    z=st.floats(0.1, 100),
)
def test_disparity_is_how_far_a_point_moves_from_the_left_to_the_right_image(
    fx: float, baseline: float, u: float, v: float, z: float
) -> None:
    camera = CameraModel(640, 480, fx, 1.1 * fx, 300.5, 250.25)
    point = np.array([(u - 300.5) / fx * z, (v - 250.25) / (1.1 * fx) * z, z, 1])
    x, y, w = np.array(right_projection(camera, baseline)).reshape(3, 4) @ point
    assert y / w == pytest.approx(v, abs=1e-6)
    d = disparity(np.full((1, 1), z, np.float32), fx, baseline)
    assert d[0, 0] == pytest.approx(u - x / w, rel=1e-5, abs=1e-6)


def test_the_right_camera_stands_a_baseline_to_the_right() -> None:
    """CameraInfo: Tx = -fx' * B, with B the baseline."""
    p = right_projection(CameraModel(640, 480, 500, 510, 320, 240), 0.1)
    assert p == (500, 0, 320, -50, 0, 510, 240, 0, 0, 0, 1, 0)


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_is_invalid_and_leaves_its_neighbours_alone() -> None:
    depth = np.array([[1, np.nan, 2], [np.inf, 4, -np.inf]], np.float32)
    expected = np.array([[50, INVALID, 25], [INVALID, 12.5, INVALID]], np.float32)
    np.testing.assert_array_equal(disparity(depth, 500, 0.1), expected)
    assert np.isnan(depth[0, 1]) and np.isposinf(depth[1, 0])


def test_out_is_filled() -> None:
    depth = np.random.default_rng(0).uniform(0.3, 9, (48, 64)).astype(np.float32)
    depth.flags.writeable = False
    out = np.full((48, 64), 7, np.float32)
    assert disparity(depth, 500, 0.1, out) is out
    np.testing.assert_allclose(out, 50 / depth, rtol=1e-6)
