"""ROS messages against bytes and colours worked out by hand."""

from __future__ import annotations

import array
import math
import os
import struct
import subprocess
import sys
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs.msg")
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.depth_encoding import millimetres
from mono_depth_ros.disparity import disparity
from mono_depth_ros.messages import (
    CloudMessage,
    DisparityMessage,
    ImageMessage,
    calibration_from_info,
    camera_info_message,
    compressed_to_rgb,
    depth_to_array,
    image_message,
    image_to_rgb,
    scan_message,
    stamp_ns,
    xyz_cloud_message,
)
from mono_depth_ros.output_profiles import PROFILES, CloudLayout

Rgb = npt.NDArray[np.uint8]

ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "mono8", "8UC1", "mono16"),
    *("yuv422", "uyvy", "yuv422_yuy2", "yuyv"),
    *("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"),
)
HEADER = Header(stamp=Time(sec=12, nanosec=345_678_901), frame_id="camera_optical")
CAMERA = CameraModel(4, 3, 50.0, 60.0, 1.5, 1.25)


def make_image(
    encoding: str, height: int, width: int, step: int, data: bytes, big_endian: bool = False
) -> Image:
    message = Image(header=HEADER, height=height, width=width, step=step, encoding=encoding)
    message.is_bigendian = int(big_endian)
    message.data = array.array("B", data)
    return message


def packed(encoding: str, pixels: npt.NDArray[Any], padding: int = 0) -> Image:
    """`pixels` row by row, each row followed by `padding` bytes of rubbish."""
    rows = [row.tobytes() + b"\xee" * padding for row in pixels]
    data = b"".join(rows)
    return make_image(encoding, len(rows), pixels.shape[1], len(rows[0]), data)


def colours(height: int = 5, width: int = 6) -> Rgb:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


# --- images in, whose bytes are test_image_encoding.py's ---------------------------------------


@pytest.mark.parametrize("padding", [0, 4])
def test_an_image_of_ros_is_read(padding: int) -> None:
    bgr = colours()[..., ::-1]
    np.testing.assert_array_equal(image_to_rgb(packed("bgr8", bgr, padding)), colours())


def test_contiguous_rgb8_of_ros_is_not_copied() -> None:
    message = packed("rgb8", colours())
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_a_compressed_image_of_ros_is_read() -> None:
    ok, data = cv2.imencode(".png", np.ascontiguousarray(colours()[..., ::-1]))
    assert ok
    message = CompressedImage(header=HEADER, format="rgb8; png compressed bgr8")
    message.data = array.array("B", data.tobytes())
    np.testing.assert_array_equal(compressed_to_rgb(message), colours())


SIZES = st.one_of(st.integers(0, 8), st.integers(0, 2**32 - 1))
STEPS = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))


def test_every_encoding_is_what_cv_bridge_reads() -> None:
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    channels = {"8UC3": 3, "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono16": 2}
    channels |= dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv"), 2)
    for encoding in ENCODINGS:
        n = channels.get(encoding, 1)
        data = np.random.default_rng(0).integers(0, 256, 8 * 10 * n, np.uint8).tobytes()
        result = image_to_rgb(make_image(encoding, 8, 10, 10 * n, data))
        # 8UC1 and 8UC3 have no colour for cv_bridge to convert.
        named = {"8UC1": "mono8", "8UC3": "bgr8"}.get(encoding, encoding)
        expected = bridge.imgmsg_to_cv2(make_image(named, 8, 10, 10 * n, data), "rgb8")
        np.testing.assert_allclose(result.astype(int), expected.astype(int), atol=1)


# --- depth ---------------------------------------------------------------------------------------

ODD_DEPTH = np.array(
    [[np.nan, np.inf, -np.inf, 0.0], [-1.0, 65.535, 65.536, 1e6], [0.0004, 0.0006, 1.2344, 1.2346]],
    np.float32,
)
ODD_MILLIMETRES = ((0, 0, 0, 0), (0, 65535, 0, 0), (0, 1, 1234, 1235))


@pytest.mark.filterwarnings("error")
def test_16uc1_is_rounded_millimetres_and_zero_where_there_is_none() -> None:
    image = ImageMessage(3, 4, "16UC1")
    depth = ODD_DEPTH.copy()
    image.pixels[...] = millimetres(depth)
    message = image.message(HEADER)
    np.testing.assert_array_equal(depth, ODD_DEPTH)
    rows = tuple(struct.unpack_from("<4H", message.data, 8 * i) for i in range(3))
    assert rows == ODD_MILLIMETRES
    assert (message.step, message.is_bigendian, message.encoding) == (8, 0, "16UC1")
    assert (message.height, message.width, len(message.data)) == (3, 4, 24)


def test_32fc1_keeps_every_value() -> None:
    image = ImageMessage(3, 4, "32FC1")
    image.pixels[...] = ODD_DEPTH
    message = image.message(HEADER)
    values = struct.unpack("<12f", message.data)
    np.testing.assert_array_equal(np.array(values, np.float32).reshape(3, 4), ODD_DEPTH)
    assert (message.step, message.is_bigendian, len(message.data)) == (16, 0, 48)
    assert (message.height, message.width, message.header) == (3, 4, HEADER)


@pytest.mark.parametrize(
    ("encoding", "pixel"), [("rgb8", (1, 2, 3)), ("bgr8", (3, 2, 1)), ("bgra8", (3, 2, 1, 255))]
)
def test_a_colour_message_holds_the_bytes_of_its_pixels(
    encoding: str, pixel: tuple[int, ...]
) -> None:
    image = ImageMessage(2, 5, encoding)
    image.pixels[...] = pixel
    message = image.message(HEADER)
    assert (message.encoding, message.step) == (encoding, 5 * len(pixel))
    assert message.data.tobytes() == bytes(pixel) * 10


def test_the_next_frame_goes_into_the_same_message() -> None:
    image = ImageMessage(1, 2, "32FC1")
    for value in (1.0, 2.0):
        image.pixels[...] = value
        header = Header(frame_id=str(value))
        message = image.message(header)
        assert struct.unpack("<2f", message.data) == (value,) * 2
        assert message.header == header


def test_an_encoding_that_is_not_sent_is_rejected() -> None:
    with pytest.raises(ValueError, match="'mono1'"):
        ImageMessage(3, 4, "mono1")


def test_a_view_with_gaps_gives_the_same_message() -> None:
    depth = np.arange(1, 49, dtype=np.float32).reshape(6, 8)
    view, copy = depth[::2, ::-2], depth[::2, ::-2].copy()
    assert image_message(view, "32FC1", HEADER) == image_message(copy, "32FC1", HEADER)


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_is_read_in_metres_in_either_byte_order(big_endian: bool) -> None:
    order = ">" if big_endian else "<"
    millimetres = make_image(
        "16UC1", 1, 3, 8, struct.pack(f"{order}4H", 0, 1234, 65535, 7), big_endian
    )
    metres = make_image("32FC1", 1, 2, 8, struct.pack(f"{order}2f", 1.5, -math.inf), big_endian)
    np.testing.assert_allclose(depth_to_array(millimetres), [[np.nan, 1.234, 65.535]], rtol=1e-6)
    np.testing.assert_array_equal(depth_to_array(metres), [[1.5, -np.inf]])


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["32FC1", "16UC1", "rgb8"]), SIZES, SIZES, STEPS, st.binary())
def test_any_depth_message_gives_its_pixels_or_a_value_error(
    encoding: str, height: int, width: int, step: int, data: bytes
) -> None:
    try:
        depth = depth_to_array(make_image(encoding, height, width, step, data))
    except ValueError:
        return
    assert depth.shape == (height, width)
    assert depth.dtype == np.float32
    if encoding == "16UC1":
        for v, u in np.ndindex(height, width):
            (value,) = struct.unpack_from("<H", data, v * step + 2 * u)
            assert depth[v, u] == pytest.approx(value / 1000) if value else np.isnan(depth[v, u])


def test_an_rgb_message_says_what_it_holds() -> None:
    message = image_message(colours(), "rgb8", HEADER)
    assert (message.height, message.width, message.step) == (5, 6, 18)
    assert message.data.tobytes() == colours().tobytes()


def test_a_mirrored_view_is_sent_mirrored() -> None:
    message = image_message(colours()[:, ::-1], "rgb8", HEADER)
    assert message.data[:3].tolist() == colours()[0, -1].tolist()


def test_the_stamp_is_in_nanoseconds() -> None:
    assert stamp_ns(HEADER) == 12_345_678_901


# --- cloud ---------------------------------------------------------------------------------------


def cloud_message() -> tuple[PointCloud2, npt.NDArray[np.float32], Rgb]:
    depth = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    depth[1, 2] = np.nan
    cloud = CloudMessage(3, 4, CloudLayout())
    CloudBuilder(CAMERA).build(depth, colours(3, 4), out=cloud.points)
    return cloud.message(HEADER), depth, colours(3, 4)


def test_the_cloud_message_describes_its_bytes() -> None:
    message, _, _ = cloud_message()
    assert (message.height, message.width) == (3, 4)
    assert (message.point_step, message.row_step, len(message.data)) == (16, 64, 192)
    assert message.header == HEADER
    assert not message.is_bigendian and not message.is_dense
    fields = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    kind = PointField.FLOAT32
    assert fields == [("x", 0, kind, 1), ("y", 4, kind, 1), ("z", 8, kind, 1), ("rgb", 12, kind, 1)]


def test_the_cloud_is_read_back_by_its_fields() -> None:
    message, depth, image = cloud_message()
    offset = {field.name: field.offset for field in message.fields}
    for v, u in np.ndindex(3, 4):
        at = v * message.row_step + u * message.point_step
        x, y, z = (struct.unpack_from("<f", message.data, at + offset[name])[0] for name in "xyz")
        b, g, r = message.data[at + offset["rgb"] : at + offset["rgb"] + 3]
        assert (r, g, b) == tuple(image[v, u])
        if math.isnan(depth[v, u]):
            assert math.isnan(x) and math.isnan(y) and math.isnan(z)
        else:
            assert (x, y) == pytest.approx(((u - 1.5) * z / 50, (v - 1.25) * z / 60), rel=1e-5)
            assert z == depth[v, u]


def test_sensor_msgs_py_reads_the_cloud() -> None:
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2")
    message, depth, _ = cloud_message()
    points = point_cloud2.read_points(message)
    np.testing.assert_array_equal(np.asarray(points["z"]).reshape(3, 4), depth)


def test_the_next_cloud_goes_into_the_same_message() -> None:
    cloud = CloudMessage(1, 1, CloudLayout())
    for value in (1.0, 2.0):
        cloud.points[...] = value
        assert struct.unpack("<4f", cloud.message(HEADER).data) == (value,) * 4


LAYOUTS = {
    f"{profile.name} {topic.name}": topic.cloud
    for profile in PROFILES.values()
    for topic in profile.topics
    if topic.output == "points"
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_holds_the_points_that_are_known(layout: CloudLayout) -> None:
    depth = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    depth[1, 2], depth[0, 0] = np.nan, np.inf
    cloud = CloudMessage(3, 4, layout)
    # Twice: what is known may be another number of points in the next frame.
    for _ in range(2):
        depth[2, 3] = -np.inf if np.isfinite(depth[2, 3]) else 12
        CloudBuilder(CAMERA).build(depth, colours(3, 4), out=cloud.points)
        message = deserialize_message(serialize_message(cloud.message(HEADER)), PointCloud2)
        pixels = [(v, u) for v, u in np.ndindex(3, 4)]
        if not layout.organised:
            pixels = [(v, u) for v, u in pixels if np.isfinite(depth[v, u])]
        size = (3, 4) if layout.organised else (1, len(pixels))
        assert (message.height, message.width) == size
        assert message.point_step == layout.point_step
        assert message.row_step == layout.point_step * message.width
        assert len(message.data) == message.row_step * message.height
        assert message.is_dense is not layout.organised
        offsets = {field.name: field.offset for field in message.fields}
        assert offsets == {"x": 0, "y": 4, "z": 8, "rgb": layout.rgb_offset}
        for i, (v, u) in enumerate(pixels):
            at = i * layout.point_step
            found = struct.unpack_from("<3f", message.data, at)
            z = float(depth[v, u])
            right, down = (u - 1.5) * z / 50, (v - 1.25) * z / 60
            expected = (right, down, z) if layout.forward == "z" else (z, -right, -down)
            if not math.isfinite(z):
                expected = (math.nan,) * 3
            assert found == pytest.approx(expected, rel=1e-5, nan_ok=True)
            b, g, r = message.data[at + layout.rgb_offset : at + layout.rgb_offset + 3]
            assert (r, g, b) == tuple(colours(3, 4)[v, u])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_cloud_of_positions_is_dense(count: int) -> None:
    points = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    message = xyz_cloud_message(points, HEADER)
    assert (message.height, message.width, message.is_dense) == (1, count, True)
    assert (message.point_step, message.row_step) == (12, 12 * count)
    assert struct.unpack(f"<{3 * count}f", message.data) == tuple(range(3 * count))
    assert [(field.name, field.offset) for field in message.fields] == [
        ("x", 0),
        ("y", 4),
        ("z", 8),
    ]


# --- scan ----------------------------------------------------------------------------------------


def test_a_scan_message_has_its_ranges_in_order() -> None:
    ranges = np.array([1.5, np.inf, -np.inf, np.nan], np.float32)
    message = scan_message(ranges, (-0.5, 0.25, 0.25), (0.1, 10.0), 0.05, HEADER)
    np.testing.assert_array_equal(message.ranges, ranges)
    assert (message.angle_min, message.angle_max, message.angle_increment) == (-0.5, 0.25, 0.25)
    assert (message.range_min, message.range_max) == pytest.approx((0.1, 10.0))
    assert message.scan_time == pytest.approx(0.05)
    assert (message.time_increment, len(message.intensities)) == (0, 0)
    assert message.header == HEADER


# --- camera_info ---------------------------------------------------------------------------------


def camera_info() -> CameraInfo:
    info = CameraInfo(header=HEADER, width=640, height=480, distortion_model="plumb_bob")
    info.d = [-0.1, 0.01, 0.001, 0.002, 0.0]
    info.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [400.0, 0.0, 310.0, -40.0, 0.0, 410.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def test_camera_info_gives_the_rectified_camera() -> None:
    assert calibration_from_info(camera_info()).rectified() == CameraModel(
        640, 480, 400, 410, 310, 230
    )


def test_camera_info_region_and_binning_are_applied() -> None:
    info = camera_info()
    info.binning_x, info.binning_y = 2, 4
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 40, 200, 120
    # (310 - 100 + 0.5) / 2 - 0.5 and (230 - 40 + 0.5) / 4 - 0.5: pixel centres at whole numbers.
    expected = CameraModel(100, 30, 200.0, 102.5, 104.75, 47.125)
    assert calibration_from_info(info).rectified() == expected


def test_camera_info_carries_the_lens() -> None:
    c = calibration_from_info(camera_info())
    assert (c.model, c.d, c.r) == ("plumb_bob", tuple(camera_info().d), tuple(camera_info().r))
    assert c.rectify_maps() is not None


@pytest.mark.parametrize("index", [0, 4])
def test_an_uncalibrated_camera_is_told_what_to_do(index: int) -> None:
    info = camera_info()
    info.k[index] = 0.0
    with pytest.raises(ValueError, match="fallback_hfov_deg") as error:
        calibration_from_info(info)
    one_line(error)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["k", "d", "r", "p"])
def test_numbers_that_are_not_finite_are_rejected(field: str, bad: float) -> None:
    info = camera_info()
    getattr(info, field)[2] = bad
    with pytest.raises(ValueError, match="not finite") as error:
        calibration_from_info(info)
    one_line(error)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(), min_size=9, max_size=9),
    st.lists(st.floats(), min_size=12, max_size=12),
    st.lists(st.floats(), max_size=9),
    st.lists(st.integers(0, 9), min_size=8, max_size=8),
)
def test_any_camera_info_gives_a_camera_or_a_value_error(
    k: list[float], p: list[float], d: list[float], sizes: list[int]
) -> None:
    info = CameraInfo(width=sizes[0], height=sizes[1], binning_x=sizes[2], binning_y=sizes[3])
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = sizes[4:]
    info.k, info.p, info.d, info.distortion_model = k, p, d, "plumb_bob"
    try:
        calibration = calibration_from_info(info)
        camera = calibration.rectified()
        maps = calibration.rectify_maps()
    except ValueError:
        return
    assert maps is None or maps[2].shape == (camera.height, camera.width)
    assert (camera.width, camera.height) == calibration.image_size
    assert camera.fx > 0 and math.isfinite(camera.cx)


def test_the_camera_info_of_an_ideal_camera() -> None:
    info = camera_info_message(CAMERA, HEADER)
    assert info.header == HEADER
    assert (info.width, info.height) == (4, 3)
    assert (info.distortion_model, list(info.d)) == ("plumb_bob", [0.0] * 5)
    assert list(info.k) == [50, 0, 1.5, 0, 60, 1.25, 0, 0, 1]
    assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert list(info.p) == [50, 0, 1.5, 0, 0, 60, 1.25, 0, 0, 0, 1, 0]
    assert (info.binning_x, info.binning_y, info.roi.width, info.roi.height) == (0, 0, 0, 0)
    assert not info.roi.do_rectify


def test_the_right_camera_is_a_baseline_away() -> None:
    info = camera_info_message(CAMERA, HEADER, 0.12, "rational_polynomial", 8)
    assert list(info.p) == [50, 0, 1.5, -50 * 0.12, 0, 60, 1.25, 0, 0, 0, 1, 0]
    assert list(info.k) == [50, 0, 1.5, 0, 60, 1.25, 0, 0, 1]
    assert (info.distortion_model, list(info.d)) == ("rational_polynomial", [0.0] * 8)


def test_an_ideal_camera_survives_the_way_through_camera_info() -> None:
    c = calibration_from_info(camera_info_message(CAMERA, HEADER))
    assert c.rectified() == CAMERA
    assert c.rectify_maps() is None


# --- disparity -----------------------------------------------------------------------------------


def disparity_message(depth: npt.NDArray[np.float32], camera: CameraModel) -> DisparityImage:
    message = DisparityMessage(camera, 0.1, (0.5, 10.0))
    disparity(depth, camera.fx, 0.1, out=message.pixels)
    return message.message(HEADER)


def test_disparity_is_focal_length_times_baseline_over_depth() -> None:
    depth = np.array([[0.5, 1.0, 2.0], [10.0, 4.0, 8.0]], np.float32)
    message = disparity_message(depth, replace(CAMERA, width=3, height=2, fx=400.0))
    assert struct.unpack("<6f", message.image.data) == (80, 40, 20, 4, 10, 5)
    assert message.f == 400 and message.t == pytest.approx(0.1)
    assert (message.min_disparity, message.max_disparity) == pytest.approx((4.0, 80.0))
    assert message.header == message.image.header == HEADER
    assert message.image.encoding == "32FC1"
    window = message.valid_window
    assert (window.x_offset, window.y_offset, window.width, window.height) == (0, 0, 3, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_invalid_depth_is_below_the_smallest_disparity(bad: float) -> None:
    depth = np.array([[bad, 2.0]], np.float32)
    message = disparity_message(depth, replace(CAMERA, width=2, height=1))
    hole, valid = struct.unpack("<2f", message.image.data)
    assert hole < message.min_disparity <= valid <= message.max_disparity


# --- transport -----------------------------------------------------------------------------------


def test_every_message_survives_serialisation() -> None:
    depth = np.ones((3, 4), np.float32)
    messages = [
        ImageMessage(3, 4, "32FC1").message(HEADER),
        ImageMessage(3, 4, "16UC1").message(HEADER),
        image_message(colours(), "rgb8", HEADER),
        camera_info_message(CAMERA, HEADER, 0.125),
        disparity_message(depth, replace(CAMERA, fx=40.0)),
        scan_message(depth[0], (-0.5, 0.25, 0.25), (0.125, 10.0), 0.25, HEADER),
    ]
    for message in messages:
        again = deserialize_message(serialize_message(message), type(message))
        if isinstance(message, DisparityImage):  # these are rounded to single precision
            assert (again.t, again.min_disparity) == pytest.approx((0.1, message.min_disparity))
            again.t, again.min_disparity = message.t, message.min_disparity
        assert again == message
    cloud, _, _ = cloud_message()
    again = deserialize_message(serialize_message(cloud), PointCloud2)
    assert again.data == cloud.data and again.fields == cloud.fields


def test_a_received_image_is_not_copied_either() -> None:
    message = deserialize_message(serialize_message(packed("rgb8", colours())), Image)
    rgb = image_to_rgb(message)
    np.testing.assert_array_equal(rgb, colours())
    assert np.shares_memory(rgb, np.frombuffer(message.data, np.uint8))


CHECKED = """
import numpy as np
from std_msgs.msg import Header
from mono_depth_ros.camera import CameraModel
from mono_depth_ros.messages import *
from mono_depth_ros.output_profiles import CloudLayout
camera, depth = CameraModel(4, 3, 50.0, 60.0, 1.5, 1.25), np.ones((3, 4), np.float32)
for encoding in ("32FC1", "16UC1", "rgb8", "bgr8", "bgra8"):
    ImageMessage(3, 4, encoding).message(Header())
image_message(np.zeros((3, 4, 3), np.uint8), "rgb8", Header())
DisparityMessage(camera, 0.1, (0.5, 10.0)).message(Header())
calibration_from_info(camera_info_message(camera, Header(), 0.1))
for layout in (CloudLayout(), CloudLayout(20, 16, organised=False), CloudLayout(forward="x")):
    CloudMessage(3, 4, layout).message(Header())
xyz_cloud_message(np.ones((2, 3), np.float32), Header())
scan_message(depth[0], (-0.5, 0.25, 0.25), (0.1, 10.0), 0.05, Header())
try:
    Header(frame_id=1)
except AssertionError:
    print("checked")
"""


def test_the_fields_pass_the_checks_that_ros_makes_when_asked_to() -> None:
    environment = {**os.environ, "ROS_PYTHON_CHECK_FIELDS": "1"}
    command = [sys.executable, "-c", CHECKED]
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.returncode) == ("checked", 0), done.stderr
