"""Windows of camera images against sizes worked out by hand, and depth seen through them."""

from __future__ import annotations

from pathlib import Path

import networks
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.aspect import ASPECTS, BAR_RGB, Framing, Window, window, window_size
from mono_depth_ros.camera import CameraModel
from mono_depth_ros.camera_graph import with_camera
from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.model import read_model

INPUT = (networks.HEIGHT, networks.WIDTH)  # 4:3


@pytest.mark.parametrize(
    ("camera", "aspect", "expected"),
    [
        ((720, 1280), "stretch", Window(0, 0, 1280, 720)),
        ((720, 1280), "letterbox", Window(0, -120, 1280, 960)),
        ((720, 1280), "crop", Window(160, 0, 960, 720)),
        ((512, 640), "letterbox", Window(-22, 0, 683, 512)),
        ((512, 640), "crop", Window(0, 16, 640, 480)),
        ((480, 480), "letterbox", Window(-80, 0, 640, 480)),
        ((480, 480), "crop", Window(0, 60, 480, 360)),
        ((480, 640), "letterbox", Window(0, 0, 640, 480)),
        ((480, 640), "crop", Window(0, 0, 640, 480)),
        ((1, 1000), "crop", Window(499, 0, 1, 1)),
    ],
)
def test_windows_are_where_they_are_expected(
    camera: tuple[int, int], aspect: str, expected: Window
) -> None:
    assert window(camera, INPUT, aspect) == expected
    assert window_size(camera, INPUT, aspect) == (expected.height, expected.width)


SIDES = st.integers(1, 4000)


@given(SIDES, SIDES, SIDES, SIDES)
def test_windows_have_the_shape_of_the_input_and_hold_or_fit_the_image(
    height: int, width: int, rows: int, columns: int
) -> None:
    for aspect in ("letterbox", "crop"):
        w = window((height, width), (rows, columns), aspect)
        # One side is the camera's, the other as exact as whole pixels are.
        assert w.width == width or w.height == height
        error = min(
            abs(w.width - w.height * columns / rows), abs(w.height - w.width * rows / columns)
        )
        assert error <= 0.5 or 1 in (w.width, w.height)
        assert abs(w.x + w.width / 2 - width / 2) <= 0.5
        assert abs(w.y + w.height / 2 - height / 2) <= 0.5
        if aspect == "letterbox":
            assert w.x <= 0 and w.y <= 0 and w.width >= width and w.height >= height
        else:
            assert w.x >= 0 and w.y >= 0 and w.width <= width and w.height <= height


def test_another_aspect_is_refused(red: DepthEstimator) -> None:
    with pytest.raises(ValueError, match="'squeeze' is not one of stretch, letterbox, crop"):
        window((480, 640), INPUT, "squeeze")
    with pytest.raises(ValueError, match="'squeeze'"):
        red.set_aspect("squeeze")


def test_bars_have_their_colour_and_the_image_its_place() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    seen = Framing((4, 6), Window(-1, -2, 8, 8)).cut(image)
    expected = np.full((8, 8, 3), BAR_RGB, np.uint8)
    expected[2:6, 1:7] = image
    np.testing.assert_array_equal(seen, expected)
    cropped = Framing((4, 6), Window(2, 1, 3, 2)).cut(image)
    np.testing.assert_array_equal(cropped, image[1:3, 2:5])
    assert cropped.flags.c_contiguous


# --- depth ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> DepthEstimator:
    """Answers red * RED_SCALE metres at the training focal length."""
    path = networks.red_channel(tmp_path_factory.mktemp("model") / "red.onnx")
    return DepthEstimator.open(path, min_depth=0.0, max_depth=1e6)


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(50, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("aspect", "focal"),
    # 800 px of a 1280x720 image, at 128x96: by 1/10 and 1/7.5; by 1/10; by 1/7.5.
    [("stretch", 800 / 75**0.5), ("letterbox", 80.0), ("crop", 800 / 7.5)],
)
def test_the_focal_length_is_scaled_as_the_pixels_are(
    red: DepthEstimator, aspect: str, focal: float
) -> None:
    red.set_aspect(aspect)
    camera = CameraModel(1280, 720, 800.0, 800.0, 639.5, 359.5)
    frame = red.estimate(np.full((720, 1280, 3), 100, np.uint8), camera)
    truth = 100 * networks.RED_SCALE * focal / networks.FOCAL
    depth = frame.depth[:, 160:1120] if aspect == "crop" else frame.depth[2:-2]
    np.testing.assert_allclose(depth, truth, rtol=1e-5)
    assert frame.depth.shape == (720, 1280) and frame.camera is camera


def test_cameras_of_two_shapes_see_a_wall_at_the_same_distance(tmp_path: Path) -> None:
    """A 0.5 m square at 2 m, before a black wall, seen by a network that measures apparent size."""
    estimator = DepthEstimator.open(
        networks.apparent_size(tmp_path / "size.onnx", side=0.5), max_depth=100.0
    )
    distances = {}
    for aspect, width, height, focal in (
        ("stretch", 640, 480, 320.0),
        ("crop", 640, 480, 320.0),
        ("crop", 1280, 720, 480.0),
        ("crop", 480, 480, 480.0),
        ("crop", 640, 512, 320.0),
    ):
        estimator.set_aspect(aspect)
        half = round(focal * 0.25 / 2.0)
        image = np.zeros((height, width, 3), np.uint8)
        image[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = 255
        camera = CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        depth = estimator.estimate(image, camera).depth
        distances[aspect, width, height] = float(np.nanmedian(depth))
    np.testing.assert_allclose(list(distances.values()), 2.0, rtol=2e-3)
    # Their windows are reduced by 5 and by 7.5, to the same pixels.
    assert distances["crop", 1280, 720] == pytest.approx(distances["stretch", 640, 480], rel=1e-4)


def test_a_letterboxed_image_is_one_with_bars(red: DepthEstimator) -> None:
    image = noise(90, 160)
    camera = CameraModel.from_hfov(160, 90, 70.0)
    barred = np.full((120, 160, 3), BAR_RGB, np.uint8)
    barred[15:105] = image
    red.set_aspect("stretch")
    whole = CameraModel(160, 120, camera.fx, camera.fy, camera.cx, camera.cy + 15)
    expected = red.estimate(barred, whole).depth[15:105].copy()
    red.set_aspect("letterbox")
    frame = red.estimate(image, camera)
    np.testing.assert_array_equal(frame.depth, expected)
    assert frame.valid == frame.depth.size


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (101, 101)])
def test_a_cropped_image_has_depth_in_its_window_only(
    red: DepthEstimator, size: tuple[int, int]
) -> None:
    height, width = size
    image, camera = noise(height, width), CameraModel.from_hfov(width, height, 70.0)
    w = window(size, INPUT, "crop")
    region = slice(w.y, w.y + w.height), slice(w.x, w.x + w.width)
    red.set_aspect("stretch")
    cut = camera.cropped(w.x, w.y, w.width, w.height)
    expected = red.estimate(np.ascontiguousarray(image[region]), cut).depth.copy()
    red.set_aspect("crop")
    frame = red.estimate(image, camera)
    np.testing.assert_array_equal(frame.depth[region], expected)
    outside = np.ones(size, bool)
    outside[region] = False
    assert np.isnan(frame.depth[outside]).all() and frame.image is image
    assert frame.valid == np.isfinite(frame.depth).sum() == w.width * w.height


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(ASPECTS),
            st.sampled_from([(90, 160), (96, 128), (64, 64)]),
            st.booleans(),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_changing_the_aspect_leaves_nothing_behind(
    red: DepthEstimator, changes: list[tuple[str, tuple[int, int], bool]]
) -> None:
    for i, (aspect, size, has_outside) in enumerate(changes):
        image, camera = noise(*size, i), CameraModel.from_hfov(size[1], size[0], 70.0)
        outside = noise(*size, i)[..., 0] > 200 if has_outside else None
        red.set_aspect(aspect)
        red.set_range(0.0, 6.0)
        depth = red.estimate(image, camera, outside).depth
        fresh = DepthEstimator(red.engine, 0.0, 6.0, aspect=aspect)
        np.testing.assert_array_equal(depth, fresh.estimate(image, camera, outside).depth)
    red.set_range(0.0, 1e6)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_an_engine_for_camera_images_takes_those_of_the_window(tmp_path: Path, aspect: str) -> None:
    model = read_model(networks.red_channel(tmp_path / "red.onnx"))
    size = window_size((192, 384), INPUT, aspect)
    whole = DepthEstimator(OnnxEngine(with_camera(model, *size), "auto", None), aspect=aspect)
    bare = DepthEstimator(OnnxEngine(model, "auto", None), aspect=aspect)
    image, camera = np.full((192, 384, 3), 90, np.uint8), CameraModel.from_hfov(384, 192, 70.0)
    np.testing.assert_allclose(
        whole.estimate(image, camera).depth, bare.estimate(image, camera).depth, rtol=1e-5
    )
