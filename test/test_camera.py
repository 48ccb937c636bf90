"""Camera geometry against block averages of rays and OpenCV's own projection functions."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import Calibration, CameraModel

Array = npt.NDArray[np.float64]

CAMERAS = st.builds(
    CameraModel,
    width=st.integers(4, 40),
    height=st.integers(4, 40),
    fx=st.floats(2, 200),
    fy=st.floats(2, 200),
    cx=st.floats(-10, 50),
    cy=st.floats(-10, 50),
)


def block_mean(values: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.float32]:
    return np.asarray(values.reshape(-1, n).mean(axis=1), np.float32)


@settings(deadline=None, max_examples=50)
@given(CAMERAS, st.integers(1, 5), st.integers(1, 5))
def test_a_pixel_of_the_reduced_image_looks_along_the_mean_of_the_rays_it_averages(
    small: CameraModel, nx: int, ny: int
) -> None:
    full = replace(small, width=small.width * nx, height=small.height * ny)
    reduced = full.scaled(small.width, small.height)
    for ray, whole, n in zip(reduced.rays(), full.rays(), (nx, ny), strict=True):
        np.testing.assert_allclose(ray, block_mean(whole, n), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(CAMERAS, *[st.integers(1, 100)] * 4)
def test_scaling_composes(camera: CameraModel, w1: int, h1: int, w2: int, h2: int) -> None:
    once, twice = camera.scaled(w2, h2), camera.scaled(w1, h1).scaled(w2, h2)
    np.testing.assert_allclose(once.matrix(), twice.matrix(), rtol=1e-9, atol=1e-9)
    assert (once.width, once.height) == (twice.width, twice.height) == (w2, h2)


def test_a_crop_then_a_reduction_looks_along_the_rays_of_the_window() -> None:
    camera = CameraModel(40, 30, 31.0, 29.0, 18.5, 16.25)
    x, y = camera.rays()
    crop = camera.cropped(6, 9, 24, 12).scaled(8, 6)
    np.testing.assert_allclose(crop.rays()[0], block_mean(x[6:30], 3), rtol=1e-5)
    np.testing.assert_allclose(crop.rays()[1], block_mean(y[9:21], 2), rtol=1e-5)
    assert (crop.width, crop.height) == (8, 6)


@given(CAMERAS)
def test_rays_project_back_to_their_pixels(camera: CameraModel) -> None:
    x, y = camera.rays()
    points = np.stack([x[[0, -1]], y[[0, -1]], np.ones(2)], axis=1).astype(np.float64)
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.matrix(), np.zeros(4))
    expected = [[0, 0], [camera.width - 1, camera.height - 1]]
    np.testing.assert_allclose(pixels[:, 0], expected, atol=1e-3)


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(1, 179))
def test_the_field_of_view_spans_the_outer_edges_of_the_image(w: int, h: int, hfov: float) -> None:
    camera = CameraModel.from_hfov(w, h, hfov)
    left = math.atan((-0.5 - camera.cx) / camera.fx)
    right = math.atan((w - 0.5 - camera.cx) / camera.fx)
    assert math.degrees(right - left) == pytest.approx(hfov)
    assert left == pytest.approx(-right)
    assert camera.fx == camera.fy
    assert camera.cy == (h - 1) / 2


@pytest.mark.parametrize("hfov", [0.0, -10.0, 180.0, 360.0, math.nan, math.inf])
def test_an_impossible_field_of_view_is_rejected(hfov: float) -> None:
    with pytest.raises(ValueError, match="field of view"):
        CameraModel.from_hfov(640, 480, hfov)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("name", ["fx", "fy"])
def test_bad_focal_lengths_are_rejected(name: str, bad: float) -> None:
    values = {"fx": 100.0, "fy": 100.0, name: bad}
    with pytest.raises(ValueError, match=f"{name}="):
        CameraModel(64, 48, cx=32, cy=24, **values)


@pytest.mark.parametrize("center", [(math.nan, 1.0), (1.0, math.inf)])
def test_a_principal_point_that_is_not_finite_is_rejected(center: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="intrinsics"):
        CameraModel(64, 48, 100, 100, *center)


@pytest.mark.parametrize("size", [(0, 48), (64, 0), (-1, 48)])
def test_an_empty_image_is_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="empty"):
        CameraModel(*size, 100, 100, 32, 24)


def test_the_focal_length_is_the_geometric_mean() -> None:
    assert CameraModel(64, 48, 50, 200, 0, 0).focal == pytest.approx(100)


# --- Calibration ---------------------------------------------------------------------------------

WIDTH, HEIGHT = 160, 120
K = (110.0, 0.0, 82.0, 0.0, 108.0, 57.5, 0.0, 0.0, 1.0)
# Another focal length and centre than K's, wide enough to look past the raw image's border.
P = (80.0, 0.0, 78.0, 0.0, 0.0, 82.0, 61.0, 0.0, 0.0, 0.0, 1.0, 0.0)
R = tuple(float(v) for v in cv2.Rodrigues(np.array([0.02, -0.05, 0.03]))[0].ravel())
PLUMB_BOB = (-0.28, 0.07, 1.5e-3, -8e-4, 0.01)
RATIONAL = (0.4, -0.1, 1e-3, -2e-3, 0.02, 0.75, 0.05, 0.01)
EQUIDISTANT = (-0.02, 0.012, -0.004, 0.001)
LENSES = [
    ("plumb_bob", PLUMB_BOB),
    ("plumb_bob", PLUMB_BOB[:4]),
    ("rational_polynomial", RATIONAL),
    ("rational_polynomial", (*RATIONAL, 1e-3, -2e-3, 5e-4, 1e-3)),
    ("rational_polynomial", (*RATIONAL, 1e-3, -2e-3, 5e-4, 1e-3, 0.01, -0.02)),
    ("equidistant", EQUIDISTANT),
]
WINDOWS = [
    ((1, 1), (0, 0, 0, 0)),
    ((2, 2), (0, 0, 0, 0)),
    ((0, 0), (24, 16, 96, 80)),
    ((2, 4), (24, 16, 96, 80)),
    ((2, 2), (8, 8, 101, 75)),
]


def calibration(model: str, d: tuple[float, ...]) -> Calibration:
    return Calibration(WIDTH, HEIGHT, K, d, model)


def raw_positions(c: Calibration, p: tuple[float, ...]) -> tuple[Array, Array]:
    """Where the raw image shows each rectified pixel, by OpenCV's own projection.

    CameraInfo: the region is cut out of the full image, then binned.
    """
    (bx, by), (left, top) = (max(b, 1) for b in c.binning), c.roi[:2]
    width, height = (c.roi[2] or c.width) // bx, (c.roi[3] or c.height) // by
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    full = np.stack([(u + 0.5) * bx - 0.5 + left, (v + 0.5) * by - 0.5 + top, np.ones_like(u)], -1)
    rectified = full.reshape(-1, 3) @ np.linalg.inv(np.array(p).reshape(3, 4)[:, :3]).T
    rays = rectified @ np.array(c.r).reshape(3, 3)
    k, d, zero = np.array(c.k).reshape(3, 3), np.array(c.d), np.zeros((3, 1))
    if c.model == "equidistant":
        projected, _ = cv2.fisheye.projectPoints(rays[:, None], zero, zero, k, d)
    else:
        projected, _ = cv2.projectPoints(rays, zero, zero, k, d)
    x, y = projected.reshape(height, width, 2).transpose(2, 0, 1)
    return (x - left + 0.5) / bx - 0.5, (y - top + 0.5) / by - 0.5


def check_maps(c: Calibration, p: tuple[float, ...]) -> npt.NDArray[np.bool_]:
    maps = c.rectify_maps()
    assert maps is not None
    fixed, fraction, outside = maps
    raw, (x, y) = c.raw(), raw_positions(c, p)
    inside = (x > 0.05) & (y > 0.05) & (x < raw.width - 1.05) & (y < raw.height - 1.05)
    beyond = (x < -0.05) | (y < -0.05) | (x > raw.width - 0.95) | (y > raw.height - 0.95)
    assert not outside[inside].any()
    assert outside[beyond].all()
    # An image of its own coordinates, remapped, shows where each pixel was taken from.
    columns, rows = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (raw.width, raw.height)))
    for coordinates, expected in ((columns, x), (rows, y)):
        seen = cv2.remap(coordinates, fixed, fraction, cv2.INTER_LINEAR)
        np.testing.assert_allclose(seen[inside], expected[inside], atol=0.04)
    assert inside.sum() > 0.15 * inside.size
    return beyond


@pytest.mark.parametrize(("binning", "roi"), WINDOWS)
@pytest.mark.parametrize(("model", "d"), LENSES)
def test_maps_point_to_where_the_lens_shows_each_ray(
    model: str, d: tuple[float, ...], binning: tuple[int, int], roi: tuple[int, int, int, int]
) -> None:
    c = replace(calibration(model, d), r=R, p=P, binning=binning, roi=roi)
    check_maps(c, P)


@pytest.mark.parametrize(("model", "d"), LENSES)
def test_pixels_that_the_raw_image_does_not_cover_are_marked(
    model: str, d: tuple[float, ...]
) -> None:
    wide = (40.0, *P[1:5], 41.0, *P[6:])
    beyond = check_maps(replace(calibration(model, d), p=wide), wide)
    assert beyond.any()


@pytest.mark.parametrize(("model", "d"), LENSES)
def test_p_of_zeros_means_k(model: str, d: tuple[float, ...]) -> None:
    c = calibration(model, d)
    assert c.rectified() == c.raw() == CameraModel(WIDTH, HEIGHT, K[0], K[4], K[2], K[5])
    check_maps(c, (*K[:3], 0, *K[3:6], 0, *K[6:], 0))


def test_a_new_projection_alone_needs_maps() -> None:
    check_maps(replace(calibration("plumb_bob", (0.0,) * 5), p=P), P)


def test_a_rotation_alone_needs_maps() -> None:
    c = replace(calibration("", ()), r=R, p=P)
    check_maps(c, P)
    assert c.rectified().fx == P[0]


@pytest.mark.parametrize("model", ["", "plumb_bob", "rational_polynomial", "equidistant", "odd"])
@pytest.mark.parametrize("d", [(), (0.0,) * 5])
@pytest.mark.parametrize("r", [(1.0, 0, 0, 0, 1, 0, 0, 0, 1), (0.0,) * 9])
def test_an_ideal_camera_needs_no_maps(
    model: str, d: tuple[float, ...], r: tuple[float, ...]
) -> None:
    c = replace(calibration(model, d), r=r, p=(*K[:3], 0, *K[3:6], 0, *K[6:], 0))
    assert c.rectify_maps() is None


@pytest.mark.parametrize(("binning", "roi"), WINDOWS)
def test_intrinsics_follow_the_region_and_the_binning(
    binning: tuple[int, int], roi: tuple[int, int, int, int]
) -> None:
    c = replace(calibration("", ()), p=P, binning=binning, roi=roi)
    bx, by = max(binning[0], 1), max(binning[1], 1)
    for camera, fx, fy, cx, cy in (
        (c.raw(), K[0], K[4], K[2], K[5]),
        (c.rectified(), P[0], P[5], P[2], P[6]),
    ):
        assert (camera.width, camera.height) == c.image_size
        # Pixel (0, 0) averages the first bx by by pixels of the region.
        first_x = roi[0] + (bx - 1) / 2
        first_y = roi[1] + (by - 1) / 2
        np.testing.assert_allclose(camera.rays()[0][0], (first_x - cx) / fx, rtol=1e-5)
        np.testing.assert_allclose(camera.rays()[1][0], (first_y - cy) / fy, rtol=1e-5)
        assert camera.fx == pytest.approx(fx / bx)
        assert camera.fy == pytest.approx(fy / by)


@pytest.mark.parametrize(
    ("binning", "roi", "size"),
    [
        ((0, 0), (0, 0, 0, 0), (161, 121)),
        ((2, 2), (0, 0, 0, 0), (80, 60)),
        ((1, 1), (5, 6, 70, 50), (70, 50)),
        ((4, 2), (5, 6, 70, 50), (17, 25)),
    ],
)
def test_the_image_size_is_that_of_the_binned_region(
    binning: tuple[int, int], roi: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    assert Calibration(161, 121, K, binning=binning, roi=roi).image_size == size


def test_a_region_smaller_than_the_binning_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"binning \(8, 8\) leaves an empty image"):
        Calibration(WIDTH, HEIGHT, K, binning=(8, 8), roi=(0, 0, 4, 4)).raw()


def test_a_fisheye_that_sees_more_than_a_plane_holds_keeps_its_middle() -> None:
    """200 degrees across, and no P: the rectified image has K's scale, and all of it is seen."""
    focal = 80 / math.radians(100)
    k = (focal, 0.0, 79.5, 0.0, focal, 59.5, 0.0, 0.0, 1.0)
    c = Calibration(160, 120, k, (1e-9, 0.0, 0.0, 0.0), "equidistant")
    maps = c.rectify_maps()
    assert maps is not None
    assert not maps[2].any()
    assert c.rectified() == CameraModel(160, 120, focal, focal, 79.5, 59.5)
    # The last column looks along atan(79.5 / f) = 60 degrees, at f * 60 degrees from the middle.
    columns = np.broadcast_to(np.arange(160, dtype=np.float32), (120, 160))
    seen = cv2.remap(np.ascontiguousarray(columns), maps[0], maps[1], cv2.INTER_LINEAR)
    x, y = 79.5 / focal, 0.5 / focal
    radius = math.hypot(x, y)
    assert seen[59, 159] == pytest.approx(79.5 + focal * math.atan(radius) * x / radius, abs=0.05)


def test_a_fifth_fisheye_coefficient_of_zero_is_nothing() -> None:
    four, five = calibration("equidistant", EQUIDISTANT), (*EQUIDISTANT, 0.0)
    for a, b in zip(
        four.rectify_maps() or (),
        calibration("equidistant", five).rectify_maps() or (),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert four.rectify_maps() is not None


def test_an_unknown_distortion_model_is_named() -> None:
    with pytest.raises(ValueError, match=r"'kannala'.*known: plumb_bob"):
        calibration("kannala", PLUMB_BOB).rectify_maps()


@pytest.mark.parametrize(
    ("model", "count"),
    [("plumb_bob", 3), ("plumb_bob", 6), ("rational_polynomial", 9), ("equidistant", 5)],
)
def test_a_wrong_number_of_coefficients_is_rejected(model: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"{model}.*{count}"):
        calibration(model, (0.1,) * count).rectify_maps()


@pytest.mark.parametrize("bad", [0.0, math.nan, -5.0])
def test_an_uncalibrated_camera_has_no_model(bad: float) -> None:
    c = Calibration(WIDTH, HEIGHT, (bad, *K[1:]))
    for use in (c.raw, c.rectified, c.rectify_maps):
        with pytest.raises(ValueError, match="calibrate"):
            use()
