"""The bytes of image messages against colours worked out by hand. Needs no ROS."""

from __future__ import annotations

import resource
import struct
import tracemalloc
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mono_depth_ros import image_encoding
from mono_depth_ros.image_encoding import (
    compressed_depth_to_array,
    compressed_to_rgb,
    depth_to_array,
    image_to_rgb,
)

Rgb = npt.NDArray[np.uint8]

ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "8UC4", "mono8", "8UC1", "mono16"),
    *("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21", "nv24"),
    *("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"),
)


@dataclass
class Image:
    """The fields of sensor_msgs/Image."""

    height: int
    width: int
    step: int
    encoding: str
    is_bigendian: int
    data: Any  # bytes; a protocol's attributes do not take a narrower type


@dataclass
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage."""

    format: str
    data: Any


def make_image(
    encoding: str, height: int, width: int, step: int, data: bytes, big_endian: int = 0
) -> Image:
    return Image(height, width, step, encoding, int(big_endian), data)


def packed(encoding: str, pixels: npt.NDArray[Any], padding: int = 0) -> Image:
    """`pixels` row by row, each row followed by `padding` bytes of rubbish."""
    rows = [row.tobytes() + b"\xee" * padding for row in pixels]
    return make_image(encoding, len(rows), pixels.shape[1], len(rows[0]), b"".join(rows))


def colours(height: int = 5, width: int = 6) -> Rgb:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def one_line(error: ValueError) -> str:
    text = str(error)
    assert text and "\n" not in text and len(text) < 500
    return text


# --- image_to_rgb --------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        ("rgb8", "rgb"),
        ("bgr8", "bgr"),
        ("8UC3", "bgr"),
        ("rgba8", "rgba"),
        ("bgra8", "bgra"),
        ("8UC4", "bgra"),
    ],
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


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24"])
def test_planes_of_yuv_follow_bt601(encoding: str, padding: int) -> None:
    """Blocks of two by two pixels, each in another colour of `YUV`; rows padded with rubbish."""
    height, width, step = 4, 6, 6 + padding
    blocks = [[YUV[(3 * v + u) % len(YUV)] for u in range(3)] for v in range(2)]
    ratio = 1 if encoding == "nv24" else 2
    data = bytearray(b"\xee" * (step * height + (2 * step * height if ratio == 1 else step * 2)))
    for v, u in np.ndindex(height, width):
        y, cb, cr = blocks[v // 2][u // 2][0]
        data[v * step + u] = y
        start = step * height + (v // ratio) * step * (3 - ratio) + 2 * (u // ratio)
        data[start : start + 2] = bytes((cr, cb) if encoding == "nv21" else (cb, cr))
    result = image_to_rgb(make_image(encoding, height, width, step, bytes(data)))
    for v, u in np.ndindex(height, width):
        np.testing.assert_allclose(result[v, u].astype(int), blocks[v // 2][u // 2][1], atol=2)


@pytest.mark.parametrize("encoding", ["nv12", "nv24"])
def test_the_last_row_of_the_second_plane_needs_no_padding(encoding: str) -> None:
    size = 4 * 8 + (8 + 4 if encoding == "nv12" else 3 * 16 + 8)
    message = make_image(encoding, 4, 4, 8, bytes(range(128, 128 + size)))
    assert image_to_rgb(message).shape == (4, 4, 3)
    message.data = message.data[:-1]
    with pytest.raises(ValueError, match=f"needs {size}"):
        image_to_rgb(message)


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


@pytest.mark.parametrize("size", [(3, 3), (5, 7), (4, 9)])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_mosaics_of_odd_sizes_keep_their_colour(pattern: str, size: tuple[int, int]) -> None:
    mosaic = np.empty(size, np.uint8)
    for i, name in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = {"r": 200, "g": 120, "b": 40}[name]
    result = image_to_rgb(packed(f"bayer_{pattern}8", mosaic))
    np.testing.assert_array_equal(result, np.broadcast_to([200, 120, 40], (*size, 3)))


@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if e != "mono16"])
def test_byte_order_means_nothing_to_bytes(encoding: str) -> None:
    data = np.random.default_rng(1).integers(0, 256, 4 * 12 * 3, np.uint8).tobytes()
    if encoding in ("rgba8", "bgra8", "8UC4"):
        step = 24
    elif encoding in ("rgb8", "bgr8", "8UC3"):
        step = 18
    else:
        step = 12
    little, big = (image_to_rgb(make_image(encoding, 4, 6, step, data, order)) for order in (0, 1))
    np.testing.assert_array_equal(little, big)


def test_a_step_that_no_second_row_needs_may_be_huge() -> None:
    message = make_image("bgr8", 1, 4, 2**32 - 1, colours(1, 4).tobytes())
    np.testing.assert_array_equal(image_to_rgb(message), colours(1, 4)[..., ::-1])


def test_bytes_behind_the_last_row_are_left_alone() -> None:
    message = packed("bgr8", colours())
    message.data += b"more"
    np.testing.assert_array_equal(image_to_rgb(message), colours()[..., ::-1])


def test_contiguous_rgb8_is_not_copied() -> None:
    message = packed("rgb8", colours())
    assert np.shares_memory(image_to_rgb(message), np.frombuffer(message.data, np.uint8))


def test_padded_rgb8_becomes_contiguous() -> None:
    assert image_to_rgb(packed("rgb8", colours(), padding=4)).flags.c_contiguous


def test_the_last_row_needs_no_padding() -> None:
    message = packed("bgr8", colours(), padding=4)
    message.data = message.data[:-4]
    np.testing.assert_array_equal(image_to_rgb(message), colours()[..., ::-1])


def test_padded_rgb8_goes_into_an_out_of_the_right_size() -> None:
    out = np.zeros((5, 6, 3), np.uint8)
    assert image_to_rgb(packed("rgb8", colours(), padding=4), out) is out
    np.testing.assert_array_equal(out, colours())


@pytest.mark.parametrize("encoding", ["bgr8", "bayer_rggb8", "yuyv", "mono16", "nv12", "nv24"])
def test_an_out_of_the_right_size_is_filled(encoding: str) -> None:
    bytes_per_pixel = {"bgr8": 3, "yuyv": 2, "mono16": 2}.get(encoding, 1)
    message = make_image(encoding, 4, 6, 6 * bytes_per_pixel, bytes(range(4 * 6 * 3)))
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
        (make_image("nv16", 2, 2, 2, bytes(6)), "encoding 'nv16'"),
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
        (make_image("yuyv", 2, 3, 6, bytes(12)), "yuyv' cannot hold 3x2"),
        (make_image("uyvy", 2, 1, 2, bytes(4)), "uyvy' cannot hold 1x2"),
        (make_image("nv12", 3, 4, 4, bytes(30)), "nv12' cannot hold 4x3"),
        (make_image("nv12", 4, 4, 4, bytes(23)), "23 bytes, 4x4 nv12 of step 4 needs 24"),
        (make_image("nv12", 4, 4, 6, bytes(33)), "33 bytes, 4x4 nv12 of step 6 needs 34"),
        (make_image("nv24", 4, 4, 4, bytes(47)), "needs 48"),
        (make_image("bayer_rggb8", 2, 2, 2, bytes(4)), "bayer_rggb8' cannot hold 2x2"),
        (make_image("16UC1", 2, 2, 4, bytes(8)), "encoding '16UC1'"),
        (make_image("a\nb" * 99, 2, 2, 4, bytes(8)), "not supported"),
        (make_image("mono8", 2**32 - 1, 2**32 - 1, 2**32 - 1, bytes(8)), "8 bytes"),
        (make_image("nv24", 2**32 - 1, 2**32 - 1, 2**32 - 1, bytes(8)), "8 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_image_is_a_one_line_error_that_names_what_is_wrong(
    message: Image, text: str
) -> None:
    with pytest.raises(ValueError, match=text) as error:
        image_to_rgb(message)
    one_line(error.value)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(ENCODINGS),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 40),
    st.binary(),
)
@example("rgb8", 2, 2, 6, bytes(range(12)))
def test_every_pixel_is_read_from_where_it_stands(
    encoding: str, height: int, width: int, step: int, data: bytes
) -> None:
    try:
        rgb = image_to_rgb(make_image(encoding, height, width, step, data))
    except ValueError as error:
        one_line(error)
        return
    assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8
    if encoding in ("rgb8", "bgr8"):
        order = 1 if encoding == "rgb8" else -1
        for v, u in np.ndindex(height, width):
            at = v * step + 3 * u
            assert rgb[v, u].tolist() == list(data[at : at + 3][::order])


# --- compressed ----------------------------------------------------------------------------------


def compressed(data: bytes, text: str = "jpeg") -> CompressedImage:
    return CompressedImage(text, data)


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


@pytest.mark.parametrize("reads_rgb", [True, False], ids=["to rgb", "to bgr"])
@pytest.mark.parametrize(
    ("extension", "text"),
    [
        (".png", "rgb8; png compressed bgr8"),
        (".png", "bgra8; png compressed bgr8"),
        (".png", "png"),
        (".jpg", "rgb8; jpeg compressed bgr8"),
        (".jpg", "bgr8; jpeg compressed bgr8"),
        (".jpg", "yuv422_yuy2; jpeg compressed bgr8"),
        (".jpg", "jpeg"),
        (".jpg", ""),
    ],
)
def test_colours_are_true_whatever_the_format_says_of_the_source(
    extension: str, text: str, reads_rgb: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on older OpenCV too, which decodes to BGR only."""
    if not reads_rgb:
        monkeypatch.setattr(image_encoding, "_IMREAD_RGB", None)
    rgb = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    out = np.zeros_like(rgb)
    result = compressed_to_rgb(compressed(encoded(extension, rgb), text), out)
    np.testing.assert_allclose(result.astype(int), rgb, atol=4)
    if image_encoding._IMREAD_RGB is None:
        assert result is out


@pytest.mark.parametrize("text", ["mono8; jpeg compressed mono8", "mono8; png compressed "])
def test_compressed_grey_fills_all_three_channels(text: str) -> None:
    grey = np.full((16, 16), 77, np.uint8)
    data = cv2.imencode(".png" if "png" in text else ".jpg", grey)[1].tobytes()
    np.testing.assert_allclose(compressed_to_rgb(compressed(data, text)).astype(int), 77, atol=1)


def test_png_of_16_bits_keeps_the_high_byte() -> None:
    grey = np.array([[0x12FF, 0xAB01], [0x00FF, 0xFFFF]], np.uint16)
    data = cv2.imencode(".png", grey)[1].tobytes()
    rgb = compressed_to_rgb(compressed(data, "mono16; png compressed "))
    np.testing.assert_array_equal(rgb[..., 0], [[0x12, 0xAB], [0, 0xFF]])


def test_alpha_is_dropped_from_a_png() -> None:
    rgba = np.dstack((colours()[..., ::-1], np.full((5, 6), 9, np.uint8)))
    data = cv2.imencode(".png", rgba)[1].tobytes()
    np.testing.assert_array_equal(compressed_to_rgb(compressed(data)), colours())


def test_a_bayer_mosaic_in_a_png_is_interpolated() -> None:
    mosaic = np.empty((6, 8), np.uint8)
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200, 40
    mosaic[::2, 1::2] = mosaic[1::2, ::2] = 120
    message = compressed(cv2.imencode(".png", mosaic)[1].tobytes(), "bayer_rggb8; png compressed ")
    expected = np.broadcast_to([200, 120, 40], (6, 8, 3))
    np.testing.assert_array_equal(compressed_to_rgb(message), expected)


def test_a_rotation_in_exif_is_left_to_the_calibration() -> None:
    jpeg = encoded(".jpg", np.zeros((16, 32, 3), np.uint8))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert compressed_to_rgb(compressed(turned)).shape == (16, 32, 3)


def jpeg_header(width: int, height: int) -> bytes:
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "neither JPEG nor PNG"),
        (b"\0", "neither"),
        (b"hello", "neither"),
        (b"BM" + bytes(60), "neither"),
        (b"\xff\xd8", "neither"),
        (b"\xff\xd8\xff\xe0\0\0\xff\xe0", "neither"),
        (b"\xff\xd8" + b"\xff" * 99, "neither"),
        (png_header(0, 5), "neither"),
        (encoded(".png", colours())[:30], "cut short"),
        (encoded(".jpg", colours(64, 64))[:-40], "cut short"),
        (png_header(60_000, 60_000), "60000x60000 are too many pixels"),
        (png_header(30_000, 30_000), "too many"),
        (png_header(2**31 - 1, 2**31 - 1), "too many"),
        (jpeg_header(65_535, 65_535), "65535x65535 are too many"),
        (jpeg_header(64, 64), "cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture_is_a_one_line_error(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text) as error:
        compressed_to_rgb(compressed(data, "a\nb" * 99))
    assert f"{len(data)} bytes" in one_line(error.value)


@pytest.mark.parametrize("kind", ["16UC1; png compressed ", "16UC1; compressedDepth png"])
def test_compressed_depth_of_too_many_pixels_is_not_decoded(kind: str) -> None:
    header = bytes(12) if "compressedDepth" in kind else b""
    with pytest.raises(ValueError, match="not a 16-bit PNG"):
        compressed_depth_to_array(compressed(header + png_header(30_000, 30_000), kind))


# --- malformed messages --------------------------------------------------------------------------

NUMBERS = st.one_of(st.integers(0, 12), st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 640]))
IMAGES = st.builds(
    Image,
    height=NUMBERS | st.integers(0, 2**32 - 1),
    width=NUMBERS | st.integers(0, 2**32 - 1),
    step=NUMBERS | st.integers(0, 2**32 - 1),
    encoding=st.sampled_from((*ENCODINGS, "16UC1", "32FC1", "bayer_rggb16")) | st.text(max_size=50),
    is_bigendian=st.integers(0, 255),
    data=st.binary(max_size=400),
)
STARTS = [
    *(b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0", b"BM", b"II*\0", b"\x89PNG\r\n\x1a\n"),
    *(encoded(".png", colours())[:n] for n in (24, 33, 60)),
    *(encoded(".jpg", colours(16, 16))[:n] for n in (20, 200, 400, 600)),
    *(png_header(60_000, 60_000), jpeg_header(65_535, 65_535)),
]
FORMATS = [
    *("jpeg", "png", "", "bgr8; jpeg compressed bgr8", "mono8; png compressed "),
    *("bayer_rggb8; png compressed ", "16UC1; compressedDepth png", "32FC1; compressedDepth png"),
]
COMPRESSED = st.builds(
    CompressedImage,
    format=st.sampled_from(FORMATS) | st.text(max_size=50),
    data=st.builds(bytes.__add__, st.sampled_from(STARTS), st.binary(max_size=200)),
)


def check_malformed(message: Image | CompressedImage) -> None:
    """Every reader returns an array, or raises a ValueError of one line, and allocates little."""
    readers = (image_to_rgb, depth_to_array)
    if isinstance(message, CompressedImage):
        readers = (compressed_to_rgb, compressed_depth_to_array)  # type: ignore[assignment]
    tracemalloc.start()
    for read in readers:
        try:
            result = read(message)  # type: ignore[arg-type]
        except ValueError as error:
            one_line(error)
        else:
            assert result.ndim in (2, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@settings(deadline=None, max_examples=300)
@given(IMAGES | COMPRESSED)
def test_a_malformed_image_is_a_value_error_of_one_line(message: Image | CompressedImage) -> None:
    check_malformed(message)


@pytest.mark.slow
def test_10000_malformed_images_neither_crash_nor_fill_the_memory() -> None:
    # What the decoders allocate is not Python's, and shows only in the process.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(deadline=None, max_examples=10_000, database=None)
    @given(IMAGES | COMPRESSED)
    def check(message: Image | CompressedImage) -> None:
        check_malformed(message)

    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
