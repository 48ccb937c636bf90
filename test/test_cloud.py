"""Point clouds against a loop over pixels and OpenCV's projection."""

from __future__ import annotations

import math
import struct

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.cloud import DTYPE, POINT_STEP, CloudBuilder
from mono_depth_ros.mounting import Mounting

CAMERA = CameraModel(13, 9, 20.0, 25.0, 5.75, 4.5)


def scene(seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.3, 8, (9, 13)).astype(np.float32)
    return depth, rng.integers(0, 256, (9, 13, 3), np.uint8)


@pytest.mark.parametrize("stride", [1, 2, 3, 20])
def test_every_point_is_the_back_projection_of_its_pixel(stride: int) -> None:
    depth, image = scene()
    cloud = CloudBuilder(CAMERA, stride).build(depth, image)
    rows, columns = range(0, 9, stride), range(0, 13, stride)
    assert cloud.shape == (len(rows), len(columns))
    for i, v in enumerate(rows):
        for j, u in enumerate(columns):
            z, (r, g, b) = float(depth[v, u]), (int(c) for c in image[v, u])
            x, y = (u - 5.75) * z / 20, (v - 4.5) * z / 25
            assert cloud[i, j]["x"] == pytest.approx(x, rel=1e-5, abs=1e-6)
            assert cloud[i, j]["y"] == pytest.approx(y, rel=1e-5, abs=1e-6)
            assert cloud[i, j]["z"] == depth[v, u]
            assert cloud[i, j]["rgb"] == r << 16 | g << 8 | b


@settings(deadline=None, max_examples=30)
@given(
    st.builds(
        CameraModel,
        width=st.integers(1, 20),
        height=st.integers(1, 20),
        fx=st.floats(1, 500),
        fy=st.floats(1, 500),
        cx=st.floats(-5, 25),
        cy=st.floats(-5, 25),
    ),
    st.integers(1, 4),
    st.floats(0.05, 100),
)
def test_projecting_the_cloud_returns_the_pixels(
    camera: CameraModel, stride: int, scale: float
) -> None:
    rng = np.random.default_rng(1)
    size = (camera.height, camera.width)
    depth = (rng.uniform(0.5, 2, size) * scale).astype(np.float32)
    cloud = CloudBuilder(camera, stride).build(depth, np.zeros((*size, 3), np.uint8))
    points = np.stack([cloud[name].ravel() for name in "xyz"], axis=1).astype(np.float64)
    pixels, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.matrix(), np.zeros(4))
    v, u = np.mgrid[: size[0] : stride, : size[1] : stride]
    np.testing.assert_allclose(pixels[:, 0, 0], u.ravel(), atol=1e-3)
    np.testing.assert_allclose(pixels[:, 0, 1], v.ravel(), atol=1e-3)


def test_colour_bytes_lie_as_pcl_reads_them() -> None:
    depth, image = scene()
    image[0, 0] = (0x12, 0x34, 0x56)
    record = CloudBuilder(CAMERA).build(depth, image).tobytes()[:POINT_STEP]
    assert record[12:] == bytes([0x56, 0x34, 0x12, 0x00])
    assert struct.unpack("<I", record[12:]) == (0x00123456,)


def test_the_record_is_sixteen_bytes_without_gaps() -> None:
    assert DTYPE.itemsize == POINT_STEP == 16
    assert DTYPE.fields is not None
    assert [DTYPE.fields[name][1] for name in ("x", "y", "z", "rgb")] == [0, 4, 8, 12]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pixel_without_depth_has_no_point_and_leaves_the_others_alone(
    bad: float, stride: int
) -> None:
    depth, image = scene()
    whole = CloudBuilder(CAMERA, stride).build(depth, image)
    depth[4, 6] = bad
    cloud = CloudBuilder(CAMERA, stride).build(depth, image)
    hole = np.zeros(cloud.shape, bool)
    hole[4 // stride, 6 // stride] = True
    for name in "xyz":
        assert np.isnan(cloud[name][hole]).all()
        np.testing.assert_array_equal(cloud[name][~hole], whole[name][~hole])
    np.testing.assert_array_equal(cloud["rgb"], whole["rgb"])


def test_no_depth_on_the_optical_axis_is_no_point_either() -> None:
    camera = CameraModel(3, 3, 10, 10, 1, 1)
    depth = np.full((3, 3), np.inf, np.float32)
    cloud = CloudBuilder(camera).build(depth, np.zeros((3, 3, 3), np.uint8))
    assert all(np.isnan(cloud[name]).all() for name in "xyz")


@pytest.mark.parametrize("stride", [1, 2])
def test_views_with_gaps_give_the_same_cloud(stride: int) -> None:
    depth, image = scene()
    wide_depth, wide_image = np.zeros((18, 39), np.float32), np.zeros((18, 39, 5), np.uint8)
    wide_depth[::2, ::3], wide_image[::2, ::3, 4:1:-1] = depth, image
    builder = CloudBuilder(CAMERA, stride)
    expected = builder.build(depth, image).copy()
    cloud = builder.build(wide_depth[::2, ::3], wide_image[::2, ::3, 4:1:-1])
    np.testing.assert_array_equal(cloud, expected)


def test_read_only_input_is_taken_and_not_changed() -> None:
    depth, image = scene()
    depth[0, 0] = np.inf
    depth.flags.writeable = image.flags.writeable = False
    assert np.isnan(CloudBuilder(CAMERA).build(depth, image)[0, 0]["z"])


@pytest.mark.parametrize("stride", [1, 2])
def test_the_cloud_is_written_into_out(stride: int) -> None:
    builder = CloudBuilder(CAMERA, stride)
    out = np.full((builder.height, builder.width, 4), 7, np.float32)
    first = builder.build(*scene(1), out=out)
    assert np.shares_memory(first, out)
    np.testing.assert_array_equal(first, CloudBuilder(CAMERA, stride).build(*scene(1)))
    second = builder.build(*scene(2), out=out)
    np.testing.assert_array_equal(second, CloudBuilder(CAMERA, stride).build(*scene(2)))


def test_a_cloud_without_out_survives_the_next_call() -> None:
    builder = CloudBuilder(CAMERA)
    first = builder.build(*scene(1))
    copy = first.copy()
    builder.build(*scene(2))
    np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((9, 12, 4), np.float32),
        np.zeros((9, 13, 4), np.float64),
        np.zeros((9, 13, 8), np.float32)[..., ::2],
        np.zeros((9, 26, 4), np.float32)[:, ::2],
    ],
    ids=["size", "dtype", "gaps in points", "gaps between points"],
)
def test_an_out_that_cannot_hold_the_cloud_is_rejected(out: npt.NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="out"):
        CloudBuilder(CAMERA).build(*scene(), out=out)


@pytest.mark.parametrize(
    ("depth", "image"), [((9, 12), (9, 13, 3)), ((9, 13), (9, 13)), ((9, 13), (9, 13, 4))]
)
def test_sizes_other_than_the_cameras_are_rejected(
    depth: tuple[int, ...], image: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="size"):
        CloudBuilder(CAMERA).build(np.ones(depth, np.float32), np.zeros(image, np.uint8))


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_below_one_is_rejected(stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        CloudBuilder(CAMERA, stride)


@pytest.mark.filterwarnings("error")
@settings(deadline=None, max_examples=40)
@given(
    stride=st.integers(1, 3),
    ranges=st.tuples(st.sampled_from([0, 1, 2.5]), st.sampled_from([3, 6, math.inf])),
    heights=st.sampled_from([(0.2, 1.5), (-math.inf, 0.5), (0.5, math.inf), (-5, 5)]),
    height=st.sampled_from([0.1, 1, 3]),
    pitch=st.floats(-90, 90),
    roll=st.floats(-180, 180),
    seed=st.integers(0, 1000),
)
def test_points_out_of_limits_are_nan_and_the_others_are_as_they_were(
    stride: int,
    ranges: tuple[float, float],
    heights: tuple[float, float],
    height: float,
    pitch: float,
    roll: float,
    seed: int,
) -> None:
    depth, image = scene(seed)
    depth[0, :3] = np.nan, np.inf, -np.inf
    mounting = Mounting.from_angles(height, pitch, roll)
    whole = CloudBuilder(CAMERA, stride).build(depth, image)
    builder = CloudBuilder(CAMERA, stride, *ranges, mounting, *heights)
    cloud = builder.build(depth, image)
    np.testing.assert_array_equal(cloud["rgb"], whole["rgb"])
    up = mounting.matrix()[2]
    for point, kept in zip(whole.ravel(), cloud.ravel(), strict=True):
        xyz = np.array([point[name] for name in "xyz"], np.float64)
        distance, above = float(np.linalg.norm(xyz)), height + float(up @ xyz)
        limits = (distance - ranges[0], ranges[1] - distance, above - heights[0],
                  heights[1] - above)  # fmt: skip
        if np.isnan(distance) or min(limits) < -1e-4:
            assert all(np.isnan(kept[name]) for name in "xyz")
        elif min(limits) > 1e-4:
            assert kept == point


def test_heights_without_a_mounting_and_empty_limits_are_rejected() -> None:
    with pytest.raises(ValueError, match="mounted"):
        CloudBuilder(CAMERA, min_height=0.1)
    with pytest.raises(ValueError, match="range"):
        CloudBuilder(CAMERA, min_range=2, max_range=2)
    with pytest.raises(ValueError, match="band"):
        CloudBuilder(CAMERA, mounting=Mounting.from_angles(1), min_height=1, max_height=0.5)
