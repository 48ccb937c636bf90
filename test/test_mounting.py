"""How a camera is held, against rotations composed by hand and heights pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.mounting import Mounting

CAMERA = CameraModel(7, 5, 6.0, 8.0, 2.5, 2.25)
Quaternion = tuple[float, float, float, float]
# REP 103: the body frame (x forward, y left, z up) from the optical frame, x y z w.
OPTICAL: Quaternion = (-0.5, 0.5, -0.5, 0.5)


def about(axis: int, degrees: float) -> Quaternion:
    half = math.radians(degrees) / 2
    vector = [0.0, 0.0, 0.0]
    vector[axis] = math.sin(half)
    return (vector[0], vector[1], vector[2], math.cos(half))


def product(*quaternions: Quaternion) -> Quaternion:
    x, y, z, w = quaternions[0]
    for a, b, c, d in quaternions[1:]:
        x, y, z, w = (
            w * a + x * d + y * c - z * b,
            w * b - x * c + y * d + z * a,
            w * c + x * b - y * a + z * d,
            w * d - x * a - y * b - z * c,
        )
    return (x, y, z, w)


def test_a_level_camera_looks_ahead_with_its_right_to_the_right() -> None:
    matrix = Mounting.from_angles(1.0).matrix()
    np.testing.assert_allclose(matrix @ (0, 0, 1), (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(matrix @ (1, 0, 0), (0, -1, 0), atol=1e-12)
    np.testing.assert_allclose(matrix @ (0, 1, 0), (0, 0, -1), atol=1e-12)


def test_positive_pitch_looks_down_and_positive_roll_lowers_the_right_hand_side() -> None:
    down = Mounting.from_angles(1.0, pitch_deg=30).matrix() @ (0, 0, 1)
    np.testing.assert_allclose(down, (math.sqrt(3) / 2, 0, -0.5), atol=1e-12)
    right = Mounting.from_angles(1.0, roll_deg=30).matrix() @ (1, 0, 0)
    np.testing.assert_allclose(right, (0, -math.sqrt(3) / 2, -0.5), atol=1e-12)


@given(st.floats(-89.5, 89.5), st.floats(-180, 180), st.floats(-180, 180), st.floats(0.1, 10))
def test_a_transform_says_the_same_as_its_angles_whatever_its_yaw(
    pitch: float, roll: float, yaw: float, length: float
) -> None:
    quaternion = product(about(2, yaw), about(1, pitch), about(0, roll), OPTICAL)
    mounting = Mounting.from_transform((3, -4, 0.7), [length * value for value in quaternion])
    expected = Mounting.from_angles(0.7, pitch, roll)
    assert mounting.height == 0.7
    np.testing.assert_allclose(mounting.rotation, expected.rotation, atol=1e-6)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_the_level_frame_hangs_under_the_optical_frame(pitch: float, roll: float) -> None:
    level = Mounting.from_angles(0.7, pitch, roll).level_quaternion()
    # Optical from level, then level from optical, is to be where one was.
    there = product(about(1, pitch), about(0, roll), OPTICAL, level)
    np.testing.assert_allclose(np.abs(there), (0, 0, 0, 1), atol=1e-6)


@pytest.mark.parametrize("pitch", [-90, 90])
@pytest.mark.parametrize("yaw", [0, 77])
def test_straight_up_or_down_the_image_edge_is_ahead(pitch: float, yaw: float) -> None:
    mounting = Mounting.from_transform((0, 0, 1), product(about(2, yaw), about(1, pitch), OPTICAL))
    # Looking down, the upper edge of the image is ahead; looking up, the lower one.
    ahead = mounting.matrix() @ (0, -math.copysign(1, pitch), 0)
    np.testing.assert_allclose(ahead, (1, 0, 0), atol=1e-9)
    np.testing.assert_allclose(
        mounting.rotation, Mounting.from_angles(1, pitch).rotation, atol=1e-9
    )


def test_rays_are_the_optical_rays_turned() -> None:
    mounting = Mounting.from_angles(0.5, 20, -35)
    rays = mounting.rays(CAMERA)
    assert rays.shape == (3, 5, 7)
    for v in range(5):
        for u in range(7):
            ray = mounting.matrix() @ ((u - 2.5) / 6, (v - 2.25) / 8, 1)
            np.testing.assert_allclose(rays[:, v, u], ray, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    height=st.floats(0, 3),
    pitch=st.floats(-90, 90),
    roll=st.floats(-180, 180),
    low=st.floats(-1, 2),
    thickness=st.floats(0.05, 3),
)
def test_a_pixel_is_in_the_band_between_its_two_depths_and_nowhere_else(
    height: float, pitch: float, roll: float, low: float, thickness: float
) -> None:
    mounting = Mounting.from_angles(height, pitch, roll)
    near, far = mounting.band(CAMERA, low, low + thickness)
    for v in range(5):
        for u in range(7):
            ray = mounting.matrix() @ ((u - 2.5) / 6, (v - 2.25) / 8, 1)
            for z in np.geomspace(0.01, 100, 23):
                above = height + z * ray[2]
                if min(abs(above - low), abs(above - low - thickness)) > 1e-4:
                    inside = low < above < low + thickness
                    assert (near[v, u] <= z <= far[v, u]) == inside


def test_level_rays_are_in_the_band_at_any_depth_or_at_none_that_is_seen() -> None:
    camera = CameraModel(3, 3, 10, 10, 1, 1)
    near, far = Mounting.from_angles(0.5).band(camera, 0.1, 1.0)
    assert near[1, 1] == 0 and far[1, 1] > 1e6
    for height in (0.05, 1.5):
        near, far = Mounting.from_angles(height).band(camera, 0.1, 1.0)
        assert near[1, 1] > 1e6 or far[1, 1] < 0


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (math.nan, 0, 0, 1), (math.inf, 0, 0, 1)])
def test_a_quaternion_that_is_no_rotation_is_rejected(quaternion: Quaternion) -> None:
    with pytest.raises(ValueError, match="quaternion"):
        Mounting.from_transform((0, 0, 1), quaternion)


@pytest.mark.parametrize("angles", [(91, 0), (-91, 0), (math.nan, 0), (0, math.nan)])
def test_angles_that_no_camera_has_are_rejected(angles: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="camera"):
        Mounting.from_angles(1.0, *angles)


def test_a_matrix_that_is_no_rotation_and_an_unknown_height_are_rejected() -> None:
    with pytest.raises(ValueError, match="rotation"):
        Mounting(1.0, (1, 0, 0, 0, 1, 0, 0, 0, -1))
    with pytest.raises(ValueError, match="rotation"):
        Mounting(1.0, (2, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(ValueError, match="height"):
        Mounting.from_angles(math.nan)


@pytest.mark.parametrize("heights", [(1.0, 1.0), (1.0, 0.5), (math.nan, 1.0)])
def test_an_empty_band_is_rejected(heights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="band"):
        Mounting.from_angles(1.0).band(CAMERA, *heights)
