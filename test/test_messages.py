"""ROS messages against bytes and colours worked out by hand."""

from __future__ import annotations

import array
import math
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs.msg")
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.messages import (
    CloudMessage,
    calibration_from_info,
    camera_info_message,
    compressed_to_rgb,
    depth_message,
    depth_to_array,
    disparity_message,
    image_message,
    image_to_rgb,
    stamp_ns,
)

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


# --- image_to_rgb --------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("rgb8", "rgb"), ("bgr8", "bgr"), ("8UC3", "bgr"), ("rgba8", "rgba"), ("bgra8", "bgra")],
)
def test_colour_channels_are_put_in_order_and_alpha_is_dropped(
    encoding: str, order: str, padding: int
) -> None:
    rgb = colours()
    planes = {name: rgb[..., i] for i, name in enumerate("rgb")}
    planes["a"] = np.full(rgb.shape[:2], 3, np.uint8)
    pixels = np.stack([planes[name] for name in order], axis=-1)
    np.testing.assert_array_equal(image_to_rgb(packed(encoding, pixels, padding)), rgb)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_fills_all_three_channels(encoding: str, padding: int) -> None:
    grey = colours()[..., 0]
    rgb = image_to_rgb(packed(encoding, grey, padding))
    np.testing.assert_array_equal(rgb, np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 3])
def test_mono16_keeps_its_high_byte_in_either_byte_order(big_endian: bool, padding: int) -> None:
    values = [[0x12FF, 0xAB01, 0x0000], [0xFFFF, 0x00FF, 0x8000]]
    rows = [struct.pack(">3H" if big_endian else "<3H", *row) + b"\xee" * padding for row in values]
    message = make_image("mono16", 2, 3, 6 + padding, b"".join(rows), big_endian)
    expected = np.array([[0x12, 0xAB, 0], [0xFF, 0, 0x80]], np.uint8)
    np.testing.assert_array_equal(image_to_rgb(message), np.stack([expected] * 3, axis=-1))


# BT.601, video range, worked out by hand: R = 1.164 (Y-16) + 1.596 (V-128),
# G = 1.164 (Y-16) - 0.392 (U-128) - 0.813 (V-128), B = 1.164 (Y-16) + 2.017 (U-128).
YUV = [
    ((16, 128, 128), (0, 0, 0)),
    ((235, 128, 128), (255, 255, 255)),
    ((126, 128, 128), (128, 128, 128)),
    ((82, 90, 240), (255, 1, 0)),
    ((145, 54, 34), (0, 255, 1)),
    ((41, 240, 110), (0, 0, 255)),
    ((100, 140, 110), (69, 108, 122)),
]


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(("yuv", "rgb"), YUV)
@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv422_follows_bt601(
    encoding: str, yuv: tuple[int, int, int], rgb: tuple[int, int, int], padding: int
) -> None:
    y, u, v = yuv
    # The second pixel of each pair is black but for the shared U and V.
    pair = (u, y, v, 16) if encoding in ("yuv422", "uyvy") else (y, u, 16, v)
    pixels = np.array([pair * 2] * 2, np.uint8).reshape(2, 4, 2)
    result = image_to_rgb(packed(encoding, pixels, padding)).astype(int)
    np.testing.assert_allclose(result[:, ::2], np.broadcast_to(rgb, (2, 2, 3)), atol=2)
    assert y == 16 or (result[:, 1::2].sum(-1) < result[:, ::2].sum(-1)).all()


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_mosaics_of_flat_areas_give_their_colours(pattern: str, padding: int) -> None:
    rgb = np.empty((12, 16, 3), np.uint8)
    rgb[:, :8], rgb[:, 8:] = (200, 120, 40), (10, 90, 250)
    mosaic = np.empty((12, 16), np.uint8)
    for i, name in enumerate(pattern):  # the first two pixels of the first two rows
        mosaic[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, "rgb".index(name)]
    result = image_to_rgb(packed(f"bayer_{pattern}8", mosaic, padding))
    np.testing.assert_array_equal(result[:, :7], rgb[:, :7])
    np.testing.assert_array_equal(result[:, 9:], rgb[:, 9:])


def test_contiguous_rgb8_is_not_copied() -> None:
    message = packed("rgb8", colours())
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_padded_rgb8_becomes_contiguous() -> None:
    assert image_to_rgb(packed("rgb8", colours(), padding=4)).flags.c_contiguous


def test_the_last_row_needs_no_padding() -> None:
    message = packed("bgr8", colours(), padding=4)
    message.data = message.data[:-4]
    np.testing.assert_array_equal(image_to_rgb(message), colours()[..., ::-1])


@pytest.mark.parametrize("encoding", ["bgr8", "bayer_rggb8", "yuyv", "mono16"])
def test_an_out_of_the_right_size_is_filled(encoding: str) -> None:
    bytes_per_pixel = {"bgr8": 3, "bayer_rggb8": 1}.get(encoding, 2)
    message = make_image(encoding, 4, 6, 6 * bytes_per_pixel, bytes(range(4 * 6 * bytes_per_pixel)))
    out = np.zeros((4, 6, 3), np.uint8)
    result = image_to_rgb(message, out)
    assert np.shares_memory(result, out)
    np.testing.assert_array_equal(result, image_to_rgb(message))


def test_an_out_of_another_size_is_left_alone() -> None:
    out = np.zeros((2, 2, 3), np.uint8)
    assert image_to_rgb(packed("bgr8", colours()), out).shape == (5, 6, 3)
    assert not out.any()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (make_image("nv12", 2, 2, 2, bytes(6)), "encoding 'nv12'"),
        (make_image("", 2, 2, 6, bytes(12)), "encoding ''"),
        (make_image("rgb8", 0, 2, 6, b""), "2x0"),
        (make_image("rgb8", 2, 0, 0, b""), "0x2"),
        (make_image("rgb8", 2, 2, 5, bytes(12)), "step 5"),
        (make_image("mono16", 2, 2, 3, bytes(12)), "step 3"),
        (make_image("rgb8", 2, 2, 6, bytes(11)), "11 bytes"),
        (make_image("rgb8", 2, 2, 6, b""), "0 bytes"),
        (make_image("rgb8", 2, 2**31, 2**32 - 1, bytes(12)), "step 4294967295"),
        (make_image("mono8", 2, 2**31, 2**31, bytes(12)), "12 bytes"),
        (make_image("mono8", 2**32 - 1, 1, 1, bytes(12)), "12 bytes"),
        (make_image("yuyv", 2, 3, 6, bytes(12)), "even width"),
        (make_image("uyvy", 2, 1, 2, bytes(4)), "even width"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_image_is_a_one_line_error_that_names_what_is_wrong(
    message: Image, text: str
) -> None:
    with pytest.raises(ValueError, match=text) as error:
        image_to_rgb(message)
    one_line(error)


SIZES = st.one_of(st.integers(0, 8), st.integers(0, 2**32 - 1))
STEPS = st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(ENCODINGS) | st.text(), SIZES, SIZES, STEPS, st.binary(), st.booleans())
@example("rgb8", 2, 2, 6, bytes(range(12)), False)
@example("bayer_gbrg8", 2, 2, 2, bytes(4), False)
@example("bayer_gbrg8", 1, 3, 3, bytes(3), False)
def test_any_image_gives_its_pixels_or_a_value_error(
    encoding: str, height: int, width: int, step: int, data: bytes, big_endian: bool
) -> None:
    message = make_image(encoding, height, width, step, data, big_endian)
    try:
        rgb = image_to_rgb(message)
    except ValueError:
        return
    assert rgb.shape == (height, width, 3)
    assert rgb.dtype == np.uint8
    if encoding in ("rgb8", "bgr8"):
        order = 1 if encoding == "rgb8" else -1
        for v, u in np.ndindex(height, width):
            at = v * step + 3 * u
            assert rgb[v, u].tolist() == list(data[at : at + 3][::order])


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


# --- compressed ----------------------------------------------------------------------------------


def compressed(data: bytes) -> CompressedImage:
    message = CompressedImage(header=HEADER, format="jpeg")
    message.data = array.array("B", data)
    return message


def encoded(extension: str, rgb: Rgb) -> bytes:
    ok, data = cv2.imencode(extension, np.ascontiguousarray(rgb[..., ::-1]))
    assert ok
    return data.tobytes()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_png_is_decoded_exactly() -> None:
    np.testing.assert_array_equal(
        compressed_to_rgb(compressed(encoded(".png", colours()))), colours()
    )


def test_jpeg_is_decoded_as_rgb() -> None:
    rgb = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    result = compressed_to_rgb(compressed(encoded(".jpg", rgb)))
    np.testing.assert_allclose(result.astype(int), rgb, atol=4)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello", encoded(".png", colours())[:30], png_header(100_000, 100_000)],
    ids=["empty", "zero", "text", "truncated", "too many pixels"],
)
def test_what_is_no_picture_is_a_one_line_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be decoded") as error:
        compressed_to_rgb(compressed(data))
    assert f"{len(data)} bytes" in one_line(error)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([b"", b"\xff\xd8\xff", b"BM", encoded(".png", colours())[:33]]), st.binary())
def test_any_compressed_bytes_give_a_picture_or_a_value_error(start: bytes, rest: bytes) -> None:
    try:
        rgb = compressed_to_rgb(compressed(start + rest))
    except ValueError:
        return
    assert rgb.ndim == 3 and rgb.dtype == np.uint8


# --- depth ---------------------------------------------------------------------------------------

ODD_DEPTH = np.array(
    [[np.nan, np.inf, -np.inf, 0.0], [-1.0, 65.535, 65.536, 1e6], [0.0004, 0.0006, 1.2344, 1.2346]],
    np.float32,
)
ODD_MILLIMETRES = ((0, 0, 0, 0), (0, 65535, 0, 0), (0, 1, 1234, 1235))


@pytest.mark.filterwarnings("error")
def test_16uc1_is_rounded_millimetres_and_zero_where_there_is_none() -> None:
    message = depth_message(ODD_DEPTH, "16UC1", HEADER)
    rows = tuple(struct.unpack_from("<4H", message.data, 8 * i) for i in range(3))
    assert rows == ODD_MILLIMETRES
    assert (message.step, message.is_bigendian, message.encoding) == (8, 0, "16UC1")
    assert (message.height, message.width, len(message.data)) == (3, 4, 24)


def test_making_a_message_does_not_change_the_depth() -> None:
    depth = ODD_DEPTH.copy()
    depth_message(depth, "16UC1", HEADER)
    np.testing.assert_array_equal(depth, ODD_DEPTH)


def test_32fc1_keeps_every_value() -> None:
    message = depth_message(ODD_DEPTH, "32FC1", HEADER)
    values = struct.unpack("<12f", message.data)
    np.testing.assert_array_equal(np.array(values, np.float32).reshape(3, 4), ODD_DEPTH)
    assert (message.step, message.is_bigendian, len(message.data)) == (16, 0, 48)
    assert (message.height, message.width, message.header) == (3, 4, HEADER)


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_a_view_with_gaps_gives_the_same_message(encoding: str) -> None:
    depth = np.arange(1, 49, dtype=np.float32).reshape(6, 8)
    view, copy = depth[::2, ::-2], depth[::2, ::-2].copy()
    assert depth_message(view, encoding, HEADER) == depth_message(copy, encoding, HEADER)


def test_another_depth_encoding_is_rejected() -> None:
    with pytest.raises(ValueError, match="'mono16'"):
        depth_message(ODD_DEPTH, "mono16", HEADER)


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
    cloud = CloudMessage(3, 4)
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
    cloud = CloudMessage(1, 1)
    for value in (1.0, 2.0):
        cloud.points[...] = value
        assert struct.unpack("<4f", cloud.message(HEADER).data) == (value,) * 4


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


def test_an_ideal_camera_survives_the_way_through_camera_info() -> None:
    c = calibration_from_info(camera_info_message(CAMERA, HEADER))
    assert c.rectified() == CAMERA
    assert c.rectify_maps() is None


# --- disparity -----------------------------------------------------------------------------------


def test_disparity_is_focal_length_times_baseline_over_depth() -> None:
    depth = np.array([[0.5, 1.0, 2.0], [10.0, 4.0, 8.0]], np.float32)
    camera = replace(CAMERA, width=3, height=2, fx=400.0)
    message = disparity_message(depth, camera, 0.1, (0.5, 10.0), HEADER)
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
    message = disparity_message(depth, replace(CAMERA, width=2, height=1), 0.1, (0.5, 10), HEADER)
    hole, valid = struct.unpack("<2f", message.image.data)
    assert hole < message.min_disparity <= valid <= message.max_disparity


# --- transport -----------------------------------------------------------------------------------


def test_every_message_survives_serialisation() -> None:
    depth = np.ones((3, 4), np.float32)
    messages = [
        depth_message(depth, "32FC1", HEADER),
        depth_message(depth, "16UC1", HEADER),
        image_message(colours(), "rgb8", HEADER),
        camera_info_message(CAMERA, HEADER),
        disparity_message(depth, CAMERA, 0.125, (0.5, 10), HEADER),
    ]
    for message in messages:
        again = deserialize_message(serialize_message(message), type(message))
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
camera, depth = CameraModel(4, 3, 50.0, 60.0, 1.5, 1.25), np.ones((3, 4), np.float32)
for encoding in ("32FC1", "16UC1"):
    depth_message(depth, encoding, Header())
image_message(np.zeros((3, 4, 3), np.uint8), "rgb8", Header())
disparity_message(depth, camera, 0.1, (0.5, 10.0), Header())
calibration_from_info(camera_info_message(camera, Header()))
CloudMessage(3, 4).message(Header())
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
