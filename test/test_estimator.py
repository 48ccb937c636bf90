"""The estimator: focal-length rule, range, size, and independence of frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import networks
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.estimator import DepthEstimator, Rectifier
from mono_depth_ros.filters import EdgeAwareUpsampler


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> DepthEstimator:
    """Answers red * RED_SCALE metres at the training focal length."""
    path = networks.red_channel(tmp_path_factory.mktemp("model") / "red.onnx")
    return DepthEstimator.open(path, min_depth=0.1, max_depth=50.0)


def flat(red: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), red, np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(16, 800),
    height=st.integers(16, 600),
    focal=st.floats(50, 2000),
    stretch=st.floats(0.8, 1.25),
)
def test_depth_is_scaled_by_the_focal_length_in_network_pixels(
    red: DepthEstimator, width: int, height: int, focal: float, stretch: float
) -> None:
    camera = CameraModel(width, height, focal, focal * stretch, width / 2, height / 2)
    red.set_range(0.0, 1e6)
    depth = red.estimate(flat(100, width, height), camera).depth
    assert depth.shape == (height, width) and depth.dtype == np.float32
    fx, fy = focal * networks.WIDTH / width, focal * stretch * networks.HEIGHT / height
    truth = 100 * networks.RED_SCALE * (fx * fy) ** 0.5 / networks.FOCAL
    np.testing.assert_allclose(depth, truth, rtol=1e-4)


def test_a_zoomed_picture_of_the_same_wall_gives_the_same_depth(tmp_path: Path) -> None:
    """Cutting out the middle of a picture and enlarging it is a longer focal length."""
    estimator = DepthEstimator.open(networks.apparent_size(tmp_path / "size.onnx", side=0.5))
    camera = CameraModel.from_hfov(640, 480, 80.0)
    wide = np.zeros((480, 640, 3), np.uint8)
    half = round(camera.fx * 0.25 / 2.0)  # a 0.5 m square at 2 m
    wide[240 - half : 240 + half, 320 - half : 320 + half] = 255
    whole = float(np.median(estimator.estimate(wide, camera).depth))
    crop = np.ascontiguousarray(wide[120:360, 160:480])
    near = camera.cropped(160, 120, 320, 240)
    zoomed = float(np.median(estimator.estimate(crop, near).depth))
    enlarged = cv2.resize(crop, (640, 480), interpolation=cv2.INTER_LINEAR)
    again = float(np.median(estimator.estimate(np.asarray(enlarged), near.scaled(640, 480)).depth))
    truth = 0.25 * camera.fx / half
    assert whole == pytest.approx(truth, rel=5e-3)
    assert zoomed == pytest.approx(truth, rel=5e-3)
    assert again == pytest.approx(truth, rel=5e-3)


def test_out_of_range_is_signed_infinity_never_zero(red: DepthEstimator) -> None:
    camera = CameraModel(96, 96, 100.0, 100.0, 47.5, 47.5)
    image = flat(0, 96, 96)
    for third, value in enumerate((50, 100, 200)):
        image[third * 32 : (third + 1) * 32] = value
    scale = red.focal_scale(camera)
    metres = np.array([50, 100, 200]) * networks.RED_SCALE * scale
    red.set_range(float(metres[0] + 0.1), float(metres[2] - 0.1))
    depth = red.estimate(image, camera).depth
    assert np.isneginf(depth[:30]).all() and np.isposinf(depth[-30:]).all()
    np.testing.assert_allclose(depth[36:60], metres[1], rtol=1e-4)
    assert (depth != 0).all()


def test_frames_do_not_leak_into_each_other(red: DepthEstimator) -> None:
    camera = CameraModel(64, 48, 100.0, 100.0, 31.5, 23.5)
    red.set_range(0.1, 50.0)
    holes = np.zeros((48, 64), bool)
    holes[10:20] = True
    first = red.estimate(flat(200, 64, 48), camera, outside=holes).depth.copy()
    assert np.isnan(first[10:20]).all() and np.isfinite(first[20:]).all()
    second = red.estimate(flat(100, 64, 48), camera).depth
    np.testing.assert_allclose(
        second, 100 * networks.RED_SCALE * red.focal_scale(camera), rtol=1e-4
    )


def test_non_finite_values_are_counted(tmp_path: Path) -> None:
    estimator = DepthEstimator.open(networks.not_finite(tmp_path / "nan.onnx"))
    camera = CameraModel(128, 96, 100.0, 100.0, 63.5, 47.5)
    image = flat(0, 128, 96)
    image[:, 64:] = 9
    frame = estimator.estimate(image, camera)
    assert frame.non_finite == 48 * 32
    assert frame.valid == np.isfinite(frame.depth).sum() < frame.depth.size
    assert np.isnan(frame.depth[:, :60]).all() and np.isfinite(frame.depth[:, 68:]).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lowest=st.sampled_from([0, 1, 40]),
    limits=st.tuples(st.floats(0, 6), st.floats(0.01, 6)),
    has_outside=st.booleans(),
)
def test_limits_are_those_of_the_whole_arithmetic(
    red: DepthEstimator,
    seed: int,
    lowest: int,
    limits: tuple[float, float],
    has_outside: bool,
) -> None:
    """Each step over the whole image, one after the other, gives the same bits."""
    rng = np.random.default_rng(seed)
    image = rng.integers(lowest, 120, (48, 64, 3), np.uint8)
    camera = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
    outside = rng.random((48, 64)) < 0.1 if has_outside else None
    red.set_range(limits[0], limits[0] + limits[1])
    frame = red.estimate(image, camera, outside)
    small = cv2.resize(image, (networks.WIDTH, networks.HEIGHT), interpolation=cv2.INTER_AREA)
    answer = red.engine.infer(np.asarray(small, np.uint8))
    coarse = (answer.shape[0], answer.shape[1])
    depth = EdgeAwareUpsampler(coarse, (48, 64))(answer, image)
    depth = depth * np.float32(red.focal_scale(camera))
    depth[depth < red.min_depth] = -np.inf
    depth[depth > red.max_depth] = np.inf
    if outside is not None:
        depth[outside] = np.nan
    np.testing.assert_array_equal(frame.depth, depth)
    assert frame.valid == np.isfinite(depth).sum()


def test_wrong_sizes_and_ranges_are_refused(red: DepthEstimator) -> None:
    camera = CameraModel(64, 48, 100.0, 100.0, 31.5, 23.5)
    with pytest.raises(ValueError, match="camera model is for 64x48"):
        red.estimate(flat(1, 48, 64), camera)
    with pytest.raises(ValueError, match="depth range"):
        red.set_range(3.0, 3.0)


def test_rectifier_matches_opencv_and_marks_what_the_camera_does_not_see() -> None:
    k = (200.0, 0.0, 100.0, 0.0, 200.0, 75.0, 0.0, 0.0, 1.0)
    d = (0.3, 0.0, 0.0, 0.0, 0.0)
    noise = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8)
    rectifier = Rectifier(Calibration(200, 150, k, d, "plumb_bob"))
    matrix = np.array(k).reshape(3, 3)
    truth = cv2.undistort(image, matrix, np.array(d), newCameraMatrix=matrix)
    assert rectifier.outside is not None
    inside = ~rectifier.outside
    # Both round map positions to 1/32 pixel, each in its own way.
    np.testing.assert_allclose(rectifier(image)[inside].astype(int), truth[inside], atol=1)
    assert np.abs(image[inside].astype(int) - truth[inside]).max() > 10
    assert 0.02 < rectifier.outside.mean() < 0.5


def test_an_ideal_camera_is_passed_through_untouched() -> None:
    k = (200.0, 0.0, 100.0, 0.0, 200.0, 75.0, 0.0, 0.0, 1.0)
    image = flat(9, 200, 150)
    rectifier = Rectifier(Calibration(200, 150, k))
    assert rectifier(image) is image and rectifier.outside is None
