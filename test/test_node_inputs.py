"""Whatever a camera sends gives the depth of what it saw: encodings, calibrations, shapes."""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import networks
import numpy as np
import numpy.typing as npt
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_rig import (
    CAMERA,
    HEIGHT,
    OWN_DOMAIN,
    SCALE,
    SHARED_DOMAIN,
    WIDTH,
    Rig,
    assert_depth,
    flat,
)
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.messages import camera_info_message, depth_to_array, image_message

Pixels = npt.NDArray[Any]


def metres(red: float) -> float:
    """What the red-channel network says of one shade of red to `CAMERA`."""
    return red * networks.RED_SCALE * SCALE


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("inputs")
    model = networks.red_channel(folder / "red.onnx")
    made = Rig(folder / "log.txt", SHARED_DOMAIN, model=model, max_depth=20.0)
    made.active()
    made.hear(Image, "depth/image_rect")
    made.hear(CameraInfo, "depth/camera_info")
    yield made
    made.close()


# Encodings

RED, GREEN, BLUE = 180, 90, 40
# BT.601, video range
LUMA = round(16 + 0.257 * RED + 0.504 * GREEN + 0.098 * BLUE)
CB = round(128 - 0.148 * RED - 0.291 * GREEN + 0.439 * BLUE)
CR = round(128 + 0.439 * RED - 0.368 * GREEN - 0.071 * BLUE)


def mosaic(pattern: str) -> npt.NDArray[np.uint8]:
    shades = {"r": RED, "g": GREEN, "b": BLUE}
    tile = np.array([shades[letter] for letter in pattern], np.uint8).reshape(2, 2)
    return np.tile(tile, (HEIGHT // 2, WIDTH // 2))


def planes(*chroma: int, columns: int, rows: int) -> npt.NDArray[np.uint8]:
    luma = np.full((HEIGHT, WIDTH), LUMA, np.uint8)
    return np.concatenate([luma, np.tile(np.array(chroma, np.uint8), (rows, columns))])


# Rows of samples, and the red that they show.
SAMPLES: dict[str, tuple[Pixels, int]] = {
    "rgb8": (np.tile(np.array([RED, GREEN, BLUE], np.uint8), (HEIGHT, WIDTH)), RED),
    "bgr8": (np.tile(np.array([BLUE, GREEN, RED], np.uint8), (HEIGHT, WIDTH)), RED),
    "rgba8": (np.tile(np.array([RED, GREEN, BLUE, 7], np.uint8), (HEIGHT, WIDTH)), RED),
    "bgra8": (np.tile(np.array([BLUE, GREEN, RED, 7], np.uint8), (HEIGHT, WIDTH)), RED),
    "mono8": (np.full((HEIGHT, WIDTH), 77, np.uint8), 77),
    "mono16": (np.full((HEIGHT, WIDTH), 77 << 8 | 200, np.uint16), 77),
    "yuv422": (np.tile(np.array([CB, LUMA, CR, LUMA], np.uint8), (HEIGHT, WIDTH // 2)), RED),
    "uyvy": (np.tile(np.array([CB, LUMA, CR, LUMA], np.uint8), (HEIGHT, WIDTH // 2)), RED),
    "yuv422_yuy2": (np.tile(np.array([LUMA, CB, LUMA, CR], np.uint8), (HEIGHT, WIDTH // 2)), RED),
    "yuyv": (np.tile(np.array([LUMA, CB, LUMA, CR], np.uint8), (HEIGHT, WIDTH // 2)), RED),
    "nv12": (planes(CB, CR, columns=WIDTH // 2, rows=HEIGHT // 2), RED),
    "nv21": (planes(CR, CB, columns=WIDTH // 2, rows=HEIGHT // 2), RED),
    # Two rows of the plane of luma hold one of chroma.
    "nv24": (planes(CB, CR, columns=WIDTH // 2, rows=2 * HEIGHT), RED),
    "bayer_rggb8": (mosaic("rggb"), RED),
    "bayer_bggr8": (mosaic("bggr"), RED),
    "bayer_gbrg8": (mosaic("gbrg"), RED),
    "bayer_grbg8": (mosaic("grbg"), RED),
}


def packed(samples: Pixels, encoding: str, header: Header, padding: int) -> Image:
    rows = samples.view(np.uint8).reshape(samples.shape[0], -1)
    if encoding == "nv24":  # rows of chroma are two steps long, and so is their padding
        luma, chroma = rows[:HEIGHT], rows[HEIGHT:].reshape(HEIGHT, -1)
        data = np.pad(luma, ((0, 0), (0, padding)), constant_values=238).tobytes()
        data += np.pad(chroma, ((0, 0), (0, 2 * padding)), constant_values=238).tobytes()
    else:
        data = np.pad(rows, ((0, 0), (0, padding)), constant_values=238).tobytes()
    message = Image(header=header, height=HEIGHT, width=WIDTH, encoding=encoding)
    message.step = rows.shape[1] + padding
    message.data = array.array("B", data)
    return message


@pytest.mark.parametrize("padding", [0, 12])
@pytest.mark.parametrize("encoding", SAMPLES)
def test_every_encoding_gives_the_depth_of_its_colours(
    rig: Rig, encoding: str, padding: int
) -> None:
    samples, red = SAMPLES[encoding]

    def send(header: Header) -> None:
        info = camera_info_message(CAMERA, header)
        rig.send(packed(samples, encoding, header, padding), info)

    depth = depth_to_array(rig.answer(send, "depth/image_rect"))
    assert depth.shape == (HEIGHT, WIDTH)
    # YUV is rounded; a mosaic has no neighbours beyond its border.
    np.testing.assert_allclose(depth[4:-4, 4:-4], metres(red), rtol=0.015)


# Calibrations

# Gentle enough that no neighbours differ like two surfaces.
SLOPE = flat(0)
SLOPE[..., 0] = np.add.outer(np.linspace(60, 100, HEIGHT), np.linspace(0, 150, WIDTH))
LENSES = {
    "plumb_bob": [-0.3, 0.1, 0.001, -0.002, 0.0],
    "rational_polynomial": [0.4, -0.2, 0.001, 0.001, 0.05, 0.7, -0.1, 0.02],
    "equidistant": [-0.1, 0.05, -0.02, 0.01],
}


def undistorted(pixels: npt.NDArray[np.uint8], model: str, d: list[float]) -> Pixels:
    """Pixel by pixel: where the lens puts each ray of the ideal camera."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)])
    points = rays.reshape(3, -1).T.copy()
    zero = np.zeros(3)
    if model == "equidistant":
        points = points[:, None, :2] / points[:, None, 2:]
        at = cv2.fisheye.distortPoints(points, CAMERA.matrix(), np.array(d))
    else:
        at = cv2.projectPoints(points, zero, zero, CAMERA.matrix(), np.array(d))[0]
    x, y = at.reshape(HEIGHT, WIDTH, 2).astype(np.float32).transpose(2, 0, 1)
    red = pixels[..., 0].astype(np.float32)
    return np.asarray(cv2.remap(red, x, y, cv2.INTER_LINEAR, borderValue=(np.nan,)))


@pytest.mark.parametrize("model", LENSES)
def test_every_lens_is_rectified(rig: Rig, model: str) -> None:
    def lens(info: CameraInfo) -> None:
        info.distortion_model, info.d = model, LENSES[model]

    depth = depth_to_array(rig.see(SLOPE, change=lens))
    truth = undistorted(SLOPE, model, LENSES[model]) * networks.RED_SCALE * SCALE
    known = np.isfinite(depth) & np.isfinite(truth)
    assert known.mean() > 0.7
    error = np.abs(depth - truth)[known] / truth[known]
    assert np.median(error) < 0.01 and error.max() < 0.05
    # A node that ignored the lens would be far off somewhere.
    plain = metres(1) * SLOPE[..., 0]
    assert (np.abs(plain - truth)[known] / truth[known]).max() > 0.08


def test_an_unknown_lens_is_an_error_unless_nothing_is_rectified(rig: Rig) -> None:
    def lens(info: CameraInfo) -> None:
        info.distortion_model, info.d = "double_sphere", [0.1, 0.2, 0.3, 0.4]

    header = rig.header()
    info = camera_info_message(CAMERA, header)
    lens(info)
    rig.refuses(image_message(flat(9), "rgb8", header), info, "double_sphere", "rectify")
    assert rig.set(rectify="off") == (True, "")
    try:
        assert_depth(rig.see(flat(100), change=lens), 100)
    finally:
        assert rig.set(rectify="auto") == (True, "")


def test_region_and_binning_are_in_the_camera_info_that_goes_out(rig: Rig) -> None:
    # A sensor of 800x600, of which 640x480 from (100, 40) are sent, binned two by two.
    full = CameraModel(800, 600, 500.0, 510.0, 401.5, 296.25)

    def window(info: CameraInfo) -> None:
        info.binning_x = info.binning_y = 2
        info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 40, 640, 480

    def send(header: Header) -> None:
        info = camera_info_message(full, header)
        window(info)
        rig.send(image_message(flat(100), "rgb8", header), info)

    depth, info = rig.answer(send, "depth/image_rect", "depth/camera_info")
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    # A binned pixel's centre lies between two: (c - offset + 0.5) / 2 - 0.5.
    k = [250.0, 0, (301.5 + 0.5) / 2 - 0.5, 0, 255.0, (256.25 + 0.5) / 2 - 0.5, 0, 0, 1]
    assert list(info.k) == pytest.approx(k)
    assert list(info.p) == pytest.approx([*k[:3], 0, *k[3:6], 0, *k[6:], 0])
    assert (info.binning_x, info.binning_y, info.roi.width, info.roi.height) == (0, 0, 0, 0)
    focal = np.sqrt(250.0 * 255.0) * networks.WIDTH / WIDTH
    expected = 100 * networks.RED_SCALE * focal / networks.FOCAL
    np.testing.assert_allclose(depth_to_array(depth), expected, rtol=1e-4)


@pytest.mark.parametrize("choice", ["on", True])
def test_rectify_on_can_be_set_as_a_word_or_a_switch(rig: Rig, choice: str | bool) -> None:
    assert rig.set(rectify=choice) == (True, "")

    def lens(info: CameraInfo) -> None:
        info.d = LENSES["plumb_bob"]

    try:
        depth = depth_to_array(rig.see(SLOPE, change=lens))
    finally:
        assert rig.set(rectify="auto") == (True, "")
    truth = undistorted(SLOPE, "plumb_bob", LENSES["plumb_bob"]) * networks.RED_SCALE * SCALE
    known = np.isfinite(depth) & np.isfinite(truth)
    assert (np.abs(depth - truth)[known] / truth[known]).max() < 0.05


@pytest.mark.parametrize("choice", ["off", False])
def test_rectify_off_takes_p_and_leaves_the_pixels(rig: Rig, choice: str | bool) -> None:
    assert rig.set(rectify=choice) == (True, "")

    def send(header: Header) -> None:
        info = camera_info_message(CAMERA, header)
        info.d = LENSES["plumb_bob"]
        info.p = [300.0, 0, 150.0, 0, 0, 310.0, 110.0, 0, 0, 0, 1, 0]
        rig.send(image_message(SLOPE, "rgb8", header), info)

    try:
        depth, info = rig.answer(send, "depth/image_rect", "depth/camera_info")
    finally:
        assert rig.set(rectify="auto") == (True, "")
    assert list(info.k) == [300.0, 0, 150.0, 0, 310.0, 110.0, 0, 0, 1]
    focal = np.sqrt(300.0 * 310.0) * networks.WIDTH / WIDTH
    truth = SLOPE[..., 0] * networks.RED_SCALE * focal / networks.FOCAL
    np.testing.assert_allclose(depth_to_array(depth), truth, rtol=0.03)


# camera_info that is late, missing, or changes


def test_a_camera_info_after_its_image_still_counts_for_it(rig: Rig) -> None:
    assert_depth(rig.see(flat(100)), 100)
    other = CameraModel(200, 150, 130.0, 130.0, 99.5, 74.5)

    def send(header: Header) -> None:
        rig.image.publish(image_message(flat(100, 200, 150), "rgb8", header))
        rig.peer.spin(0.03)
        rig.info.publish(camera_info_message(other, header))

    rig.peer.heard["/diagnostics"].clear()
    depth, info = rig.answer(send, "depth/image_rect", "depth/camera_info")
    assert (depth.width, depth.height) == (info.width, info.height) == (200, 150)
    expected = 100 * networks.RED_SCALE * 130.0 * networks.WIDTH / 200 / networks.FOCAL
    np.testing.assert_allclose(depth_to_array(depth), expected, rtol=1e-4)
    assert_depth(rig.see(flat(100)), 100)


def test_calibrations_of_two_sizes_in_turn_each_go_with_their_image(rig: Rig) -> None:
    for _ in range(3):
        for camera in (CAMERA, CAMERA.scaled(160, 120), CAMERA.scaled(640, 480)):
            message = rig.see(flat(100, camera.width, camera.height), camera=camera)
            assert (message.width, message.height) == (camera.width, camera.height)
            np.testing.assert_allclose(depth_to_array(message), metres(100), rtol=1e-4)


def test_images_without_an_info_of_their_own_take_the_newest(rig: Rig) -> None:
    assert_depth(rig.see(flat(100)), 100)
    assert_depth(rig.see(flat(150), camera=None), 150)


# Nodes of their own


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(remappings: Mapping[str, str] = MappingProxyType({}), **settings: Any) -> Rig:
        made = Rig(tmp_path / "log.txt", OWN_DOMAIN, remappings, **settings)
        rigs.append(made)
        made.active()
        made.hear(Image, "depth/image_rect")
        return made

    yield make
    for made in rigs:
        made.close()


def test_an_image_called_image_rect_is_not_rectified_again(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = start(
        {"image_raw": "image_rect_color"},
        model=networks.red_channel(tmp_path / "red.onnx"),
        max_depth=20.0,
    )

    def lens(info: CameraInfo) -> None:
        info.d = LENSES["plumb_bob"]

    depth = depth_to_array(rig.see(SLOPE, change=lens))
    np.testing.assert_allclose(depth, metres(1) * SLOPE[..., 0], rtol=0.03)
    assert rig.set(rectify="on") == (True, "")
    depth = depth_to_array(rig.see(SLOPE, change=lens))
    truth = undistorted(SLOPE, "plumb_bob", LENSES["plumb_bob"]) * networks.RED_SCALE * SCALE
    known = np.isfinite(depth) & np.isfinite(truth)
    assert (np.abs(depth - truth)[known] / truth[known]).max() < 0.05


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".png", "rgb8; png compressed bgr8"), (".jpg", "rgb8; jpeg compressed bgr8")],
)
def test_compressed_images_are_decoded(
    start: Callable[..., Rig], tmp_path: Path, suffix: str, form: str
) -> None:
    rig = start(model=networks.red_channel(tmp_path / "red.onnx"), image_transport="compressed")
    camera = rig.peer.node.create_publisher(
        CompressedImage, "image_raw/compressed", qos_profile_sensor_data
    )
    ok, code = cv2.imencode(suffix, flat(100)[..., ::-1])
    assert ok

    def send(header: Header) -> None:
        rig.info.publish(camera_info_message(CAMERA, header))
        camera.publish(CompressedImage(header=header, format=form, data=code.tobytes()))

    depth = depth_to_array(rig.answer(send, "depth/image_rect"))
    np.testing.assert_allclose(depth, metres(100), rtol=1e-4 if suffix == ".png" else 0.02)


WIDE = CameraModel.from_hfov(640, 360, 75.0)


def square(distance: float, side: float) -> npt.NDArray[np.uint8]:
    """A white square on a black wall, seen by `WIDE`, area-sampled."""

    def coverage(focal: float, centre: float, count: int) -> Pixels:
        low = focal * -side / 2 / distance + centre
        high = focal * side / 2 / distance + centre
        i = np.arange(count)
        inside = np.minimum(high, i + 0.5) - np.maximum(low, i - 0.5)
        return np.asarray(inside.clip(0, 1), np.float64)

    share = np.outer(
        coverage(WIDE.fy, WIDE.cy, WIDE.height), coverage(WIDE.fx, WIDE.cx, WIDE.width)
    )
    return np.repeat(np.rint(share * 255).astype(np.uint8)[..., None], 3, axis=2)


def test_a_wide_image_gets_its_depth_in_every_aspect(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = start(model=networks.apparent_size(tmp_path / "size.onnx", side=0.6))
    rig.hear(CameraInfo, "depth/camera_info")
    truth = 2.0

    def send(header: Header) -> None:
        info = camera_info_message(WIDE, header)
        rig.send(image_message(square(truth, 0.6), "rgb8", header), info)

    for aspect in ("crop", "stretch", "crop"):
        assert rig.set(aspect=aspect) == (True, "")
        message, info = rig.answer(send, "depth/image_rect", "depth/camera_info")
        depth = depth_to_array(message)
        assert depth.shape == (360, 640)
        assert list(info.k) == pytest.approx([WIDE.fx, 0, 319.5, 0, WIDE.fy, 179.5, 0, 0, 1])
        # 4:3 of 360 rows are 480 columns.
        inner = slice(80, 560) if aspect == "crop" else slice(None)
        np.testing.assert_allclose(depth[:, inner], truth, atol=0.02)
        outer = np.ones(640, bool)
        outer[inner] = False
        assert np.isnan(depth[:, outer]).all()


def test_letterbox_keeps_the_shape_and_covers_the_whole_image(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    # The bars are not black, so a network that counts bright pixels would see them.
    model = networks.red_channel(tmp_path / "red.onnx")
    rig = start(model=model, aspect="letterbox", max_depth=20.0)
    pixels = np.full((360, 640, 3), 50, np.uint8)
    pixels[:, :320, 0], pixels[:, 320:, 0] = 100, 150
    depth = depth_to_array(rig.see(pixels, camera=WIDE))
    # 640x480 go into the network, so across and down are scaled alike.
    scale = networks.RED_SCALE * WIDE.fx * networks.WIDTH / 640 / networks.FOCAL
    rows = slice(12, -12)
    np.testing.assert_allclose(depth[rows, :300], 100 * scale, rtol=1e-3)
    np.testing.assert_allclose(depth[rows, 340:], 150 * scale, rtol=1e-3)
    assert np.isfinite(depth).all()


def test_no_camera_info_is_an_error_with_the_remedy_until_one_comes(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = start(model=networks.red_channel(tmp_path / "red.onnx"))

    def complaint() -> bool:
        rig.image.publish(image_message(flat(100), "rgb8", rig.header()))
        rig.peer.spin(0.2)
        return any(
            array.status[0].level == DiagnosticStatus.ERROR
            and "camera_info" in array.status[0].message
            and "fallback_hfov_deg" in array.status[0].message
            for array in rig.peer.heard["/diagnostics"]
        )

    rig.peer.wait(complaint, "error about camera_info", rig.process)
    assert rig.heard() == []
    assert_depth(rig.see(flat(100)), 100)
