"""Bags that rosbags writes, read back against what went in."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import re
import shutil
import sqlite3
import statistics
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags")
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from mono_depth_ros.image_encoding import compressed_depth_to_array
from mono_depth_ros.image_topic import ImageTopic
from mono_depth_ros.stamp_matching import match_stamps
from training.data.folder import read_folder
from training.data.frame import DataError, Frame, load
from training.data.rgbd_topics import TopicError, choose
from training.data.rosbag import read_bag
from training.import_bag import main

Rgb = npt.NDArray[np.uint8]
Millimetres = npt.NDArray[np.uint16]
Metres = npt.NDArray[np.float32]
Item = tuple[str, Any, int]

TYPES = get_typestore(Stores.ROS2_KILTED)
WIDTH, HEIGHT = 32, 24
COLOUR, DEPTH = "/cam/color/image_raw", "/cam/aligned_depth_to_color/image_raw"
INFO = "/cam/color/camera_info"
FRAME = "camera_color_optical_frame"
START, PERIOD = 1_700_000_000_000_000_000, 100_000_000
STORAGES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
SUFFIXES = {"sqlite3": ".db3", "mcap": ".mcap"}
NO_LENS = (40.0, 41.0, 15.5, 11.5)

storages = pytest.mark.parametrize("storage", STORAGES)


# --- Messages and bags ---------------------------------------------------------------------------


def make(kind: str, *values: Any) -> Any:
    return TYPES.types[kind](*values)


def header(stamp: int, frame_id: str = FRAME) -> Any:
    time = make("builtin_interfaces/msg/Time", stamp // 10**9, stamp % 10**9)
    return make("std_msgs/msg/Header", time, frame_id)


def raw(stamp: int, pixels: npt.NDArray[Any], encoding: str, frame_id: str = FRAME) -> Any:
    data = np.frombuffer(pixels.tobytes(), np.uint8)
    height, width = pixels.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        header(stamp, frame_id), height, width, encoding, 0, len(data) // height, data,
    )  # fmt: skip


def compressed(stamp: int, data: bytes, form: str, frame_id: str = FRAME) -> Any:
    payload = np.frombuffer(data, np.uint8)
    return make("sensor_msgs/msg/CompressedImage", header(stamp, frame_id), form, payload)


def info(
    width: int = WIDTH,
    height: int = HEIGHT,
    k: tuple[float, float, float, float] = NO_LENS,
    d: tuple[float, ...] = (),
    model: str = "plumb_bob",
    p: tuple[float, float, float, float] | None = None,
    binning: tuple[int, int] = (0, 0),
    roi: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Any:
    """`k` and `p` are fx, fy, cx, cy; `roi` is x, y, width, height."""
    fx, fy, cx, cy = k
    px, py, pcx, pcy = p or k
    x, y, w, h = roi
    return make(
        "sensor_msgs/msg/CameraInfo",
        header(START), height, width, model, np.array(d, np.float64),
        np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1], np.float64), np.eye(3).ravel(),
        np.array([px, 0, pcx, 0, 0, py, pcy, 0, 0, 0, 1, 0], np.float64), *binning,
        make("sensor_msgs/msg/RegionOfInterest", x, y, h, w, False),
    )  # fmt: skip


def write(
    folder: Path,
    storage: str,
    items: Iterable[Item],
    version: Literal[8, 9] = 9,
    compression: CompressionMode = CompressionMode.NONE,
    little_endian: bool = True,
) -> Path:
    """A bag of (topic, message, receive time), in that order."""
    writer = Writer(folder, version=version, storage_plugin=STORAGES[storage])
    writer.set_compression(compression, CompressionFormat.ZSTD)
    connections: dict[str, Any] = {}
    with writer:
        for topic, message, received in items:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            data = TYPES.serialize_cdr(message, kind, little_endian=little_endian)
            writer.write(connections[topic], received, data)
    return folder


def file_of(folder: Path, storage: str) -> Path:
    return folder / f"{folder.name}{SUFFIXES[storage]}"


def colours(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Rgb:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def millimetres(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Millimetres:
    codes = np.random.default_rng(seed).integers(300, 9000, (height, width), np.uint16)
    codes[:2, seed % width] = 0
    return codes


def smooth(seed: int) -> Rgb:
    """An image that JPEG changes little."""
    return np.asarray(cv2.resize(colours(seed, 3, 4), (WIDTH, HEIGHT)), np.uint8)


def in_metres(codes: Millimetres) -> Metres:
    return np.where(codes == 0, np.nan, codes / 1000).astype(np.float32)


def stamps(count: int) -> list[int]:
    return [START + i * PERIOD for i in range(count)]


def recording(count: int = 4, camera: Any = None, depth_frame: str = FRAME) -> list[Item]:
    """`count` frames of rgb8 and 16UC1 from `colours(i)` and `millimetres(i)`."""
    items: list[Item] = [(INFO, camera or info(), START)]
    for i, stamp in enumerate(stamps(count)):
        items.append((COLOUR, raw(stamp, colours(i), "rgb8"), stamp + 5))
        items.append((DEPTH, raw(stamp, millimetres(i), "16UC1", depth_frame), stamp + 7))
    return items


def check_recording(frames: list[Frame], numbers: Iterable[int], bag: str) -> None:
    """The frames are those of `recording()` with these numbers."""
    assert [f.name for f in frames] == [f"{bag}/{START + i * PERIOD}" for i in numbers]
    assert {f.scene for f in frames} == {bag}
    for i, frame in zip(numbers, frames, strict=True):
        pair = frame.read()
        np.testing.assert_array_equal(pair.image, colours(i))
        np.testing.assert_allclose(pair.depth, in_metres(millimetres(i)), rtol=1e-6)
        assert (pair.fx, pair.fy, pair.name) == (40.0, 41.0, frame.name)


def fault(function: Callable[..., object], *arguments: Any) -> str:
    """The message of the DataError that a call gives; one line."""
    with pytest.raises(DataError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


# --- What comes back is what went in -------------------------------------------------------------


def encode(extension: str, pixels: Rgb | Millimetres) -> bytes:
    ok, data = cv2.imencode(extension, pixels)
    assert ok
    return data.tobytes()


def quantised(depth: Metres, quantization: float = 100.0, furthest: float = 10.0) -> bytes:
    """As compressed_depth_image_transport publishes 32FC1, a pixel at a time."""
    a = quantization * (quantization + 1)
    b = 1 - a / furthest
    code = np.zeros(depth.shape, np.uint16)
    for at, value in np.ndenumerate(depth):
        if value < furthest:
            code[at] = int(a / float(value) + b)
    return struct.pack("<iff", 0, a, b) + encode(".png", code)


IMAGES: dict[str, Callable[[int, Rgb], Any]] = {
    "rgb8": lambda stamp, rgb: raw(stamp, rgb, "rgb8"),
    "bgra8": lambda stamp, rgb: raw(
        stamp, np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 9, np.uint8)]), "bgra8"
    ),
    "png": lambda stamp, rgb: compressed(
        stamp, encode(".png", rgb[..., ::-1]), "rgb8; png compressed bgr8"
    ),
    "jpeg": lambda stamp, rgb: compressed(
        stamp, encode(".jpg", rgb[..., ::-1]), "rgb8; jpeg compressed bgr8"
    ),
}
# The last numbers are what a pixel may be off, as a share of its depth.
DEPTHS: dict[str, tuple[Callable[[int, Metres, Millimetres], Any], float]] = {
    "16UC1": (lambda stamp, _, codes: raw(stamp, codes, "16UC1"), 0),
    "32FC1": (lambda stamp, metres, _: raw(stamp, metres, "32FC1"), 0),
    "16UC1 png": (
        lambda stamp, _, codes: compressed(
            stamp, bytes(12) + encode(".png", codes), "16UC1; compressedDepth png"
        ),
        0,
    ),
    # Of A / Z + B the fraction is dropped, so Z / A at most; A is 10100 and Z below 10 m.
    "32FC1 png": (
        lambda stamp, metres, _: compressed(stamp, quantised(metres), "32FC1; compressedDepth png"),
        1e-3,
    ),
}


@storages
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "file"])
@pytest.mark.parametrize(
    ("image", "depth"),
    [("rgb8", "16UC1"), ("bgra8", "32FC1"), ("png", "16UC1 png"), ("jpeg", "32FC1 png")],
)
def test_images_and_depth_come_back_in_every_encoding(
    tmp_path: Path, storage: str, bare: bool, image: str, depth: str
) -> None:
    suffixes = {"png": "/compressed", "jpeg": "/compressed", "16UC1 png": "/compressedDepth"}
    suffixes["32FC1 png"] = "/compressedDepth"
    make_depth, tolerance = DEPTHS[depth]
    items: list[Item] = [(INFO, info(), START)]
    for i, stamp in enumerate(stamps(3)):
        rgb = smooth(i)
        metres = in_metres(millimetres(i))
        items.append((COLOUR + suffixes.get(image, ""), IMAGES[image](stamp, rgb), stamp))
        message = make_depth(stamp, metres, millimetres(i))
        items.append((DEPTH + suffixes.get(depth, ""), message, stamp))
    bag = write(tmp_path / "kitchen", storage, items)
    frames = read_bag(file_of(bag, storage) if bare else str(bag))
    assert [f.name for f in frames] == [f"kitchen/{stamp}" for stamp in stamps(3)]
    for i, frame in enumerate(frames):
        pair = frame.read()
        rgb = smooth(i)
        error = np.abs(pair.image.astype(int) - rgb)
        assert error.mean() < 4 if image == "jpeg" else not error.any()
        truth = in_metres(millimetres(i))
        np.testing.assert_array_equal(np.isnan(pair.depth), np.isnan(truth))
        np.testing.assert_allclose(pair.depth, truth, rtol=tolerance + 1e-6)
        assert pair.image.dtype == np.uint8 and pair.depth.dtype == np.float32
        assert pair.image.flags.writeable and pair.depth.flags.writeable


def test_quantised_inverse_depth_worked_out_by_hand() -> None:
    # q = 100 and 10 m: A = 10100, B = 1 - 1010 = -1009. 2 m is 5050 - 1009 = 4041 exactly; 3 m is
    # 3366.67 - 1009, cut to 2357, which reads as 10100 / 3366.
    png = encode(".png", np.array([[4041, 2357, 0]], np.uint16))
    data = struct.pack("<iff", 0, 10100, -1009) + png
    depth = compressed_depth_to_array(compressed(0, data, "32FC1; compressedDepth png"))
    np.testing.assert_allclose(depth, [[2.0, 3.0005942, np.nan]], rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "start"), [("16UC1; compressedDepth", 12), ("16UC1; png compressed ", 0)]
)
def test_other_transports_of_millimetres_are_read(form: str, start: int) -> None:
    data = bytes(start) + encode(".png", np.array([[0, 1500, 65535]], np.uint16))
    depth = compressed_depth_to_array(compressed(0, data, form))
    np.testing.assert_allclose(depth, [[np.nan, 1.5, 65.535]], rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "data", "text"),
    [
        ("16UC1; compressedDepth rvl", bytes(40), "compressedDepth rvl.*format to png"),
        ("32FC1; png compressed", encode(".png", np.ones((2, 2), np.uint16)), "not supported"),
        ("rgb8; jpeg compressed bgr8", bytes(40), "not supported"),
        ("32FC1; compressedDepth png", b"", "of 0 bytes"),
        ("32FC1; compressedDepth png", bytes(11), "of 11 bytes"),
        ("16UC1; compressedDepth png", bytes(40), "16-bit PNG"),
        ("16UC1; compressedDepth png", bytes(12) + encode(".png", colours(0)), "16-bit PNG"),
    ],
)
def test_depth_that_cannot_be_decompressed_says_why(form: str, data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        compressed_depth_to_array(compressed(0, data, form))


PNG = encode(".png", np.arange(12, dtype=np.uint16).reshape(3, 4))


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(["16UC1", "32FC1"]), st.binary(max_size=14), st.integers(0, len(PNG)))
def test_any_compressed_depth_gives_pixels_or_a_value_error(
    encoding: str, start: bytes, length: int
) -> None:
    message = compressed(0, start + PNG[:length], f"{encoding}; compressedDepth png")
    try:
        depth = compressed_depth_to_array(message)
    except ValueError:
        return
    assert depth.ndim == 2 and depth.dtype == np.float32


@storages
def test_depth_that_is_no_measurement_is_nan(tmp_path: Path, storage: str) -> None:
    items = recording(2)[:1]
    metres = np.full((HEIGHT, WIDTH), 2.5, np.float32)
    metres[0, :5] = (0, math.nan, math.inf, -math.inf, -1)
    for stamp in stamps(2):
        items.append((COLOUR, raw(stamp, colours(0), "rgb8"), stamp))
        items.append((DEPTH, raw(stamp, metres, "32FC1"), stamp))
    depth = read_bag(write(tmp_path / "bag", storage, items))[0].read().depth
    assert np.isnan(depth[0, :5]).all()
    assert (depth[0, 5:] == 2.5).all() and (depth[1:] == 2.5).all()


# --- What bags there are -------------------------------------------------------------------------


@storages
@pytest.mark.parametrize("version", [8, 9])
def test_jazzy_and_kilted_metadata_are_read(
    tmp_path: Path, storage: str, version: Literal[8, 9]
) -> None:
    bag = write(tmp_path / "bag", storage, recording(), version)
    check_recording(read_bag(bag), range(4), "bag")


def as_humble(bag: Path) -> None:
    """Takes out what Humble's sqlite3 storage did not have: definitions, hashes, schema."""
    database = sqlite3.connect(file_of(bag, "sqlite3"))
    database.execute("DROP TABLE message_definitions")
    database.execute("DROP TABLE schema")
    database.execute("DROP TABLE metadata")
    database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
    database.commit()
    database.close()
    path = bag / "metadata.yaml"
    document = yaml.safe_load(path.read_text())
    metadata = document["rosbag2_bagfile_information"]
    metadata["version"] = 5
    del metadata["custom_data"], metadata["ros_distro"]
    for topic in metadata["topics_with_message_count"]:
        del topic["topic_metadata"]["type_description_hash"]
        topic["topic_metadata"]["offered_qos_profiles"] = ""
    path.write_text(yaml.safe_dump(document))


@pytest.mark.parametrize("bare", [False, True], ids=["folder", "file"])
def test_a_bag_of_humble_without_message_definitions_is_read(tmp_path: Path, bare: bool) -> None:
    bag = write(tmp_path / "bag", "sqlite3", recording(), 8)
    as_humble(bag)
    check_recording(read_bag(file_of(bag, "sqlite3") if bare else bag), range(4), "bag")


@storages
def test_topics_of_types_that_nobody_knows_do_not_matter(tmp_path: Path, storage: str) -> None:
    bag = tmp_path / "bag"
    with Writer(bag, version=9, storage_plugin=STORAGES[storage]) as writer:
        odd = writer.add_connection("/odd", "my_msgs/msg/Odd", msgdef="no ) definition", rihs01="x")
        writer.write(odd, START, b"\0\1\0\0")
        connections: dict[str, Any] = {}
        for topic, message, received in recording():
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], received, TYPES.serialize_cdr(message, kind))
    check_recording(read_bag(bag), range(4), "bag")


@storages
def test_messages_of_a_big_endian_machine_are_read(tmp_path: Path, storage: str) -> None:
    bag = write(tmp_path / "bag", storage, recording(), little_endian=False)
    check_recording(read_bag(bag), range(4), "bag")


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        ("sqlite3", CompressionMode.MESSAGE),
        ("mcap", CompressionMode.MESSAGE),
        ("mcap", CompressionMode.STORAGE),
    ],
)
def test_compressed_messages_and_chunks_are_read(
    tmp_path: Path, storage: str, mode: CompressionMode
) -> None:
    bag = write(tmp_path / "bag", storage, recording(), compression=mode)
    check_recording(read_bag(bag), range(4), "bag")


@storages
def test_a_bag_split_into_files_is_one_recording(tmp_path: Path, storage: str) -> None:
    bag = write(tmp_path / "bag", storage, recording()[:5])
    rest = write(tmp_path / "rest", storage, [recording()[0], *recording()[5:]])
    shutil.copy(file_of(rest, storage), bag / f"second{SUFFIXES[storage]}")
    path = bag / "metadata.yaml"
    document = yaml.safe_load(path.read_text())
    metadata = document["rosbag2_bagfile_information"]
    metadata["relative_file_paths"].append(f"second{SUFFIXES[storage]}")
    path.write_text(yaml.safe_dump(document))
    check_recording(read_bag(bag), range(4), "bag")


# --- Synchronisation -----------------------------------------------------------------------------


@storages
def test_header_stamps_count_and_not_the_order_or_time_of_recording(
    tmp_path: Path, storage: str
) -> None:
    camera, *messages = recording(6)
    shuffled = [messages[i] for i in np.random.default_rng(0).permutation(len(messages))]
    items = [(t, message, START + 10**9 * i) for i, (t, message, _) in enumerate(shuffled)]
    bag = write(tmp_path / "bag", storage, [camera, *items])
    check_recording(read_bag(bag), range(6), "bag")


@storages
def test_messages_recorded_at_the_same_time_are_told_apart(tmp_path: Path, storage: str) -> None:
    # With use_sim_time, everything between two ticks of the clock is.
    items = [(topic, message, START) for topic, message, _ in recording(5)]
    check_recording(read_bag(write(tmp_path / "bag", storage, items)), range(5), "bag")


@storages
def test_jittered_and_missing_stamps_are_matched(tmp_path: Path, storage: str) -> None:
    ms = 1_000_000
    # 100 ms apart. 0: 20 late. 1: none. 2: exact. 3: 30 early. 4: its only neighbour, 80 late, is
    # nearer to 5, whose own is nearer still. 5: 10 early. No image at 600; depth is there. 7: 49
    # late.
    images = [0, 100, 200, 300, 400, 500, 700]
    depths = [20, 200, 270, 480, 490, 600, 749]
    expected = {0: 20, 200: 200, 300: 270, 500: 490, 700: 749}
    items: list[Item] = [(INFO, info(), START)]
    for i, at in enumerate(images):
        items.append((COLOUR, raw(START + at * ms, colours(i), "rgb8"), START + i))
    for i, at in enumerate(depths):
        items.append((DEPTH, raw(START + at * ms, millimetres(i), "16UC1"), START + i))
    frames = read_bag(write(tmp_path / "bag", storage, items))
    assert [f.name for f in frames] == [f"bag/{START + at * ms}" for at in expected]
    for frame, (image, depth) in zip(frames, expected.items(), strict=True):
        pair = frame.read()
        np.testing.assert_array_equal(pair.image, colours(images.index(image)))
        truth = in_metres(millimetres(depths.index(depth)))
        np.testing.assert_allclose(pair.depth, truth, rtol=1e-6)


SOME_STAMPS = st.lists(st.integers(0, 300), min_size=1, max_size=30, unique=True).map(sorted)


@settings(deadline=None, max_examples=300)
@given(SOME_STAMPS, SOME_STAMPS)
def test_matches_are_each_others_nearest_within_half_a_period(
    images: list[int], depths: list[int]
) -> None:
    i, j, tolerance = match_stamps(np.array(images), np.array(depths))
    periods = [
        statistics.median(b - a for a, b in pairwise(s)) for s in (images, depths) if len(s) > 1
    ]
    assert tolerance == min(periods, default=0) / 2
    expected = []
    for image in images:
        depth = min(depths, key=lambda d: (abs(d - image), d))
        back = min(images, key=lambda s: (abs(s - depth), -s))
        if back == image and abs(depth - image) <= tolerance:
            expected.append((image, depth))
    assert [(images[a], depths[b]) for a, b in zip(i, j, strict=True)] == expected


def test_streams_half_a_period_apart_match_with_the_depth_before() -> None:
    images = np.arange(0, 1000, 100)
    i, j, _ = match_stamps(images, images + 50)
    assert i.tolist() == list(range(1, 10))
    assert j.tolist() == list(range(9))


@storages
def test_of_images_with_one_stamp_the_first_is_taken(tmp_path: Path, storage: str) -> None:
    camera, *messages = recording(3)
    again = [(COLOUR, raw(stamp, colours(9), "rgb8"), stamp + 50) for stamp in stamps(3)]
    bag = write(tmp_path / "bag", storage, [camera, *messages, *again])
    check_recording(read_bag(bag), range(3), "bag")


@storages
def test_a_bag_of_one_frame_is_read_if_its_stamps_agree(tmp_path: Path, storage: str) -> None:
    check_recording(read_bag(write(tmp_path / "bag", storage, recording(1))), range(1), "bag")


@storages
def test_streams_that_are_never_close_are_an_error(tmp_path: Path, storage: str) -> None:
    camera, *messages = recording(6)
    late = [
        (t, raw(START + 10**12 + i * PERIOD, millimetres(i), "16UC1"), received)
        for i, (t, _, received) in enumerate(messages[1::2])
    ]
    bag = write(tmp_path / "bag", storage, [camera, *messages[::2], *late])
    text = fault(read_bag, bag)
    assert "50.0 ms" in text and COLOUR in text and DEPTH in text and "synchronise" in text


# --- Geometry ------------------------------------------------------------------------------------

LENS = (-0.25, 0.08, 0.003, -0.002, 0.0)
LENS_K, LENS_P = (30.0, 31.0, 16.2, 11.3), (28.0, 28.5, 15.8, 11.9)


def distorted(u: int, v: int) -> tuple[float, float]:
    """Where the rectified pixel (u, v) is in the raw image: plumb_bob, by hand."""
    x, y = (u - LENS_P[2]) / LENS_P[0], (v - LENS_P[3]) / LENS_P[1]
    k1, k2, p1, p2, k3 = LENS
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return xd * LENS_K[0] + LENS_K[2], yd * LENS_K[1] + LENS_K[3]


def lens_items(topic: str, depth: str) -> list[Item]:
    """Pixels that tell where they are: red and green in the image, a number of its own in depth."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = 7 * np.arange(WIDTH), 7 * np.arange(HEIGHT)[:, None]
    codes = np.arange(1000, 1000 + HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    camera = info(k=LENS_K, p=LENS_P, d=LENS)
    items: list[Item] = [(topic.rpartition("/")[0] + "/camera_info", camera, START)]
    for stamp in stamps(2):
        items.append((topic, raw(stamp, rgb, "rgb8"), stamp))
        items.append((depth, raw(stamp, codes, "16UC1"), stamp))
    return items


@storages
def test_a_distorted_camera_is_rectified_and_depth_is_not_mixed(
    tmp_path: Path, storage: str
) -> None:
    frames = read_bag(write(tmp_path / "bag", storage, lens_items(COLOUR, DEPTH)))
    # Twice, since the maps are kept.
    for pair in (frames[0].read(), frames[1].read()):
        assert (pair.fx, pair.fy) == (28.0, 28.5)
        inside = 0
        for v, u in np.ndindex(HEIGHT, WIDTH):
            x, y = distorted(u, v)
            if not (0 <= x <= WIDTH - 1 and 0 <= y <= HEIGHT - 1):
                assert math.isnan(pair.depth[v, u])
                continue
            # The maps count in 32nds of a pixel.
            assert pair.image[v, u, :2] == pytest.approx((7 * x, 7 * y), abs=1)
            if (
                max(abs(x % 1 - 0.5), abs(y % 1 - 0.5)) < 0.5
                and min(abs(x % 1 - 0.5), abs(y % 1 - 0.5)) > 0.04
            ):
                inside += 1
                assert pair.depth[v, u] == pytest.approx(
                    (1000 + WIDTH * round(y) + round(x)) / 1000, abs=1e-6
                )
        assert inside > 400


@storages
def test_an_image_that_its_name_calls_rectified_is_left_as_it_is(
    tmp_path: Path, storage: str
) -> None:
    # As image_proc publishes it: camera_info is still that of the raw image.
    items = lens_items("/cam/color/image_rect_color", DEPTH)
    pair = read_bag(write(tmp_path / "bag", storage, items))[0].read()
    np.testing.assert_array_equal(pair.image, items[1][1].data.reshape(HEIGHT, WIDTH, 3))
    assert pair.depth[0, 0] == pytest.approx(1.0) and np.isfinite(pair.depth).all()
    assert (pair.fx, pair.fy) == (28.0, 28.5)


@storages
def test_focal_lengths_follow_binning_and_region_of_interest(tmp_path: Path, storage: str) -> None:
    # 64x96 pixels from (100, 40) of 1280x960, of which 2x4 become one: 32x24.
    camera = info(1280, 960, (1000.0, 1100.0, 640.0, 480.0), binning=(2, 4), roi=(100, 40, 64, 96))
    pair = read_bag(write(tmp_path / "bag", storage, recording(2, camera)))[0].read()
    assert (pair.fx, pair.fy) == (500.0, 275.0)
    np.testing.assert_array_equal(pair.image, colours(0))


@storages
@pytest.mark.parametrize(("height", "width"), [(12, 16), (48, 64), (36, 48), (18, 24)])
def test_depth_of_another_size_is_resampled_by_its_nearest_pixel(
    tmp_path: Path, storage: str, height: int, width: int
) -> None:
    items: list[Item] = [(INFO, info(), START)]
    for i, stamp in enumerate(stamps(2)):
        items.append((COLOUR, raw(stamp, colours(i), "rgb8"), stamp))
        items.append((DEPTH, raw(stamp, millimetres(i, height, width), "16UC1"), stamp))
    pair = read_bag(write(tmp_path / "bag", storage, items))[1].read()
    depth = in_metres(millimetres(1, height, width))
    assert pair.depth.shape == (HEIGHT, WIDTH)
    for v, u in np.ndindex(HEIGHT, WIDTH):
        # The centre of a pixel, counted from the edge of the image in pixels of the depth.
        y, x = (v + 0.5) * height / HEIGHT, (u + 0.5) * width / WIDTH
        if y % 1 and x % 1:  # not on the edge between two
            np.testing.assert_allclose(pair.depth[v, u], depth[int(y), int(x)], rtol=1e-6)
    np.testing.assert_array_equal(pair.image, colours(1))


# --- Choice of topics ----------------------------------------------------------------------------


def topic(name: str, encoding: str, frame: str) -> ImageTopic:
    return ImageTopic(name, encoding, frame, name.endswith(("compressed", "compressedDepth")))


REALSENSE = [
    topic("/camera/camera/color/image_raw", "rgb8", "camera_color_optical_frame"),
    topic("/camera/camera/color/image_raw/compressed", "rgb8", "camera_color_optical_frame"),
    topic("/camera/camera/depth/image_rect_raw", "16UC1", "camera_depth_optical_frame"),
    topic("/camera/camera/infra1/image_rect_raw", "mono8", "camera_infra1_optical_frame"),
    topic("/camera/camera/aligned_depth_to_color/image_raw", "16UC1", "camera_color_optical_frame"),
    topic(
        "/camera/camera/aligned_depth_to_color/image_raw/compressedDepth",
        "16UC1",
        "camera_color_optical_frame",
    ),
    topic(
        "/camera/camera/aligned_depth_to_color/image_raw/compressed",
        "16UC1",
        "camera_color_optical_frame",
    ),
]
ZED_FRAME = "zed_left_camera_optical_frame"
ZED = [
    topic("/zed/zed_node/rgb/image_rect_color", "bgra8", ZED_FRAME),
    topic("/zed/zed_node/rgb_raw/image_raw_color", "bgra8", ZED_FRAME),
    topic("/zed/zed_node/left/image_rect_color", "bgra8", ZED_FRAME),
    topic("/zed/zed_node/left_raw/image_raw_color", "bgra8", ZED_FRAME),
    topic("/zed/zed_node/right/image_rect_color", "bgra8", "zed_right_camera_optical_frame"),
    topic("/zed/zed_node/rgb_gray/image_rect_gray", "mono8", ZED_FRAME),
    topic("/zed/zed_node/confidence/confidence_map", "32FC1", ZED_FRAME),
    topic("/zed/zed_node/depth/depth_registered", "32FC1", ZED_FRAME),
]
OAK = [
    topic("/oak/left/image_rect", "mono8", "oak_left_camera_optical_frame"),
    topic("/oak/rgb/image_raw", "bgr8", "oak_rgb_camera_optical_frame"),
    topic("/oak/stereo/image_raw", "16UC1", "oak_rgb_camera_optical_frame"),
]
KINECT = [
    topic("/rgb/image_raw", "bgra8", "rgb_camera_link"),
    topic("/ir/image_raw", "mono16", "depth_camera_link"),
    topic("/depth/image_raw", "32FC1", "depth_camera_link"),
    topic("/depth_to_rgb/image_raw", "32FC1", "rgb_camera_link"),
    topic("/rgb_to_depth/image_raw", "bgra8", "depth_camera_link"),
]
OPENNI = [
    topic("/camera/rgb/image_raw", "rgb8", "camera_rgb_optical_frame"),
    topic("/camera/rgb/image_rect_color", "rgb8", "camera_rgb_optical_frame"),
    topic("/camera/depth/image_raw", "16UC1", "camera_depth_optical_frame"),
    topic("/camera/depth_registered/image_raw", "16UC1", "camera_rgb_optical_frame"),
]
REALSENSE_AND_IMAGE_PROC = [
    *REALSENSE,
    topic("/camera/camera/color/image_rect_color", "rgb8", "camera_color_optical_frame"),
]


@pytest.mark.parametrize(
    ("topics", "image", "depth"),
    [
        (REALSENSE, "color/image_raw", "aligned_depth_to_color/image_raw"),
        (ZED, "rgb/image_rect_color", "depth/depth_registered"),
        (OAK, "rgb/image_raw", "stereo/image_raw"),
        (KINECT, "rgb/image_raw", "depth_to_rgb/image_raw"),
        (OPENNI, "rgb/image_rect_color", "depth_registered/image_raw"),
        (REALSENSE_AND_IMAGE_PROC, "color/image_raw", "aligned_depth_to_color/image_raw"),
    ],
    ids=["RealSense", "ZED", "OAK", "Kinect", "OpenNI", "RealSense and image_proc"],
)
def test_the_topics_of_a_camera_are_found_by_themselves(
    topics: list[ImageTopic], image: str, depth: str
) -> None:
    for order in (topics, topics[::-1]):
        a, b = choose(order)
        assert a.name.endswith(f"/{image}") and b.name.endswith(f"/{depth}")


def test_a_compressed_topic_is_taken_where_there_is_no_raw_one() -> None:
    image, depth = choose([t for t in REALSENSE if t.is_compressed])
    assert image.name == "/camera/camera/color/image_raw/compressed"
    assert depth.name == "/camera/camera/aligned_depth_to_color/image_raw/compressedDepth"
    assert image.info == "/camera/camera/color/camera_info"


@pytest.mark.parametrize("kind", ["confidence", "disparity"])
def test_maps_of_other_quantities_are_no_depth(kind: str) -> None:
    topics = [topic(f"/c/{name}/image", "32FC1", "c") for name in (kind, "depth")]
    _, depth = choose([*topics, topic("/c/rgb/image", "rgb8", "c")])
    assert depth.name == "/c/depth/image"


def two_cameras() -> list[ImageTopic]:
    return [
        topic(f"/{name}/{kind}/image_raw", encoding, f"{name}_color_optical_frame")
        for name in ("front", "back")
        for kind, encoding in (("color", "rgb8"), ("aligned_depth_to_color", "16UC1"))
    ]


def test_two_cameras_have_to_be_chosen_from() -> None:
    with pytest.raises(TopicError, match=r"/front/color/image_raw.*--image-topic") as error:
        choose(two_cameras())
    assert "/back/aligned_depth_to_color/image_raw" in str(error.value)


@pytest.mark.parametrize("name", ["front", "back"])
def test_one_name_chooses_a_camera(name: str) -> None:
    for image, depth in (
        choose(two_cameras(), f"/{name}/color/image_raw"),
        choose(two_cameras(), None, f"/{name}/aligned_depth_to_color/image_raw"),
    ):
        assert image.name == f"/{name}/color/image_raw"
        assert depth.name == f"/{name}/aligned_depth_to_color/image_raw"


def test_depth_of_the_other_camera_is_refused() -> None:
    topics = [t for t in REALSENSE if "aligned" not in t.name]
    with pytest.raises(TopicError, match=r"align_depth\.enable:=true") as error:
        choose(topics)
    assert "camera_depth_optical_frame" in str(error.value)


def test_depth_named_registered_may_have_a_frame_of_its_own() -> None:
    topics = [topic("/c/rgb/image", "rgb8", "a"), topic("/c/depth_registered/image", "16UC1", "b")]
    assert choose(topics) == tuple(topics)


@storages
def test_topics_are_found_in_a_bag_and_can_be_named(tmp_path: Path, storage: str) -> None:
    items = recording(3)
    items += [
        (name.replace("/cam/", "/other/"), message, received) for name, message, received in items
    ]
    bag = write(tmp_path / "bag", storage, items)
    text = fault(read_bag, bag)
    assert str(bag) in text and "/other/color/image_raw" in text and "--depth-topic" in text
    check_recording(read_bag(bag, COLOUR, DEPTH), range(3), "bag")
    text = fault(read_bag, bag, "/elsewhere")
    assert "/elsewhere" in text and COLOUR in text


@storages
def test_a_topic_of_the_wrong_kind_is_refused(tmp_path: Path, storage: str) -> None:
    bag = write(tmp_path / "bag", storage, recording(2))
    assert f"{COLOUR} (rgb8) is not depth" in fault(read_bag, bag, COLOUR, COLOUR)
    assert f"{DEPTH} (16UC1) is not colour" in fault(read_bag, bag, DEPTH, DEPTH)


@storages
def test_a_grey_image_can_be_named(tmp_path: Path, storage: str) -> None:
    items = recording(2)
    for i, stamp in enumerate(stamps(2)):
        items[2 * i + 1] = (COLOUR, raw(stamp, colours(i)[..., 0].copy(), "mono8"), stamp)
    bag = write(tmp_path / "bag", storage, items)
    assert "no colour images" in fault(read_bag, bag)
    image = read_bag(bag, COLOUR)[1].read().image
    np.testing.assert_array_equal(image, np.dstack([colours(1)[..., 0]] * 3))


# --- Bad bags ------------------------------------------------------------------------------------


def without(name: str) -> list[Item]:
    return [item for item in recording() if item[0] != name]


UNREGISTERED = [
    (t.replace("aligned_depth_to_color", "depth"), m, r)
    for t, m, r in recording(depth_frame="camera_depth_optical_frame")
]
BAD_BAGS: dict[str, tuple[list[Item], str]] = {
    "no depth": (without(DEPTH), f"no depth .*{COLOUR} .rgb8.*align_depth"),
    "no colour": (without(COLOUR), f"no colour images.*{DEPTH} .16UC1.*--image-topic"),
    "no camera_info": (without(INFO), f"no camera_info on {INFO}.*record it too.*none"),
    "camera_info elsewhere": (
        [("/x/camera_info", info(), START), *without(INFO)],
        "it has: /x/camera_info",
    ),
    "uncalibrated": (
        recording(camera=info(k=(0.0, 0.0, 0.0, 0.0))),
        f"{INFO}: camera_info has K.0. = 0.*camera_calibration, and record again",
    ),
    "not a number": (recording(camera=info(d=(math.nan,) * 5)), f"{INFO}: .*not finite"),
    "unknown lens": (
        recording(camera=info(d=(0.1,), model="fish")),
        "bag/1700000000000000000: .*'fish'",
    ),
    "another size": (recording(camera=info(64, 48)), "32x24, its camera_info is for 64x48"),
    "unregistered": (UNREGISTERED, "camera_depth_optical_frame.*align_depth.enable:=true"),
    "another shape": (
        [
            (t, raw(r - 7, millimetres(1, 24, 24), "16UC1") if t == DEPTH else m, r)
            for t, m, r in recording()
        ],
        "32x24, .* 24x24, .*align_depth",
    ),
    "unknown encoding": (
        [(t, raw(r - 5, colours(0), "64FC3") if t == COLOUR else m, r) for t, m, r in recording()],
        "bag/1700000000000000000: image encoding '64FC3'",
    ),
    "nothing": ([], "no colour images.*none"),
    "no images": ([(INFO, info(), START)], "no colour images.*none"),
}


@storages
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "file"])
@pytest.mark.parametrize(("items", "text"), BAD_BAGS.values(), ids=list(BAD_BAGS))
def test_a_bag_that_cannot_be_used_says_why(
    tmp_path: Path, storage: str, bare: bool, items: list[Item], text: str
) -> None:
    bag = write(tmp_path / "bag", storage, items)
    path = file_of(bag, storage) if bare else bag
    assert re.search(text, fault(read_bag, path))


def test_a_path_that_is_no_bag_says_what_would_be(tmp_path: Path) -> None:
    assert "missing: not found" in fault(read_bag, tmp_path / "missing")
    assert "no metadata.yaml; write it with `ros2 bag reindex`" in fault(read_bag, tmp_path)
    for name, text in (("old.bag", "rosbags-convert"), ("bag.mcap.zstd", "decompress it")):
        (tmp_path / name).write_bytes(b"rubbish")
        assert text in fault(read_bag, tmp_path / name)
    for name in ("text.mcap", "text.db3"):
        (tmp_path / name).write_bytes(b"rubbish")
        assert "cannot be read as a ROS 2 bag" in fault(read_bag, tmp_path / name)


@storages
@pytest.mark.parametrize("text", ["", "a: [", "rosbag2_bagfile_information: 3", "a: b"])
def test_damaged_metadata_is_a_one_line_error(tmp_path: Path, storage: str, text: str) -> None:
    bag = write(tmp_path / "bag", storage, recording(2))
    (bag / "metadata.yaml").write_text(text)
    assert "cannot be read as a ROS 2 bag" in fault(read_bag, bag)


@storages
def test_a_truncated_bag_is_a_one_line_error(tmp_path: Path, storage: str) -> None:
    path = file_of(write(tmp_path / "bag", storage, recording(6)), storage)
    data = path.read_bytes()
    # SQLite takes what is missing of its last page, 4096 bytes, for zeros.
    for length in (0, 7, 50, 5000, len(data) // 2, len(data) - 5000):
        cut = tmp_path / f"cut{length}{path.suffix}"
        cut.write_bytes(data[:length])
        text = fault(lambda cut=cut: load(read_bag(cut)))
        assert str(cut) in text and "mcap recover" in text


@pytest.fixture(scope="module")
def bag_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The file of a small bag in either storage."""
    folder, items = tmp_path_factory.mktemp("bags"), recording(2, info(k=LENS_K, d=LENS))
    return {s: file_of(write(folder / s, s, items), s).read_bytes() for s in STORAGES}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(STORAGES)), st.data())
def test_a_bag_with_flipped_bits_gives_pairs_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory,
    bag_files: dict[str, bytes],
    storage: str,
    data: st.DataObject,
) -> None:
    content = bytearray(bag_files[storage])
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flipped") / f"bag{SUFFIXES[storage]}"
    path.write_bytes(content)
    try:
        pairs = load(read_bag(path))
    except DataError:
        return
    for pair in pairs:
        assert pair.image.shape == (*pair.depth.shape, 3)
        assert pair.fx > 0 and pair.fy > 0


@storages
def test_a_damaged_image_is_named_when_it_is_read(tmp_path: Path, storage: str) -> None:
    items = [
        (f"{t}/compressed", compressed(r - 5, encode(".jpg", m.data.reshape(24, 32, 3)), "jpeg"), r)
        if t == COLOUR
        else (t, m, r)
        for t, m, r in recording(3)
    ]
    items[3][1].data = items[3][1].data[:0]
    frames = read_bag(write(tmp_path / "bag", storage, items))
    assert fault(frames[1].read).startswith(f"bag/{START + PERIOD}: compressed image of 0 bytes")
    assert frames[2].read().image.shape == (24, 32, 3)


@storages
def test_a_bag_that_goes_away_is_an_error_that_names_it(tmp_path: Path, storage: str) -> None:
    bag = write(tmp_path / "bag", storage, recording(2))
    frames = pickle.dumps(read_bag(bag))
    shutil.move(bag, tmp_path / "elsewhere")
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        future = pool.submit(pickle.loads(frames)[0].read)
        assert isinstance(future.exception(), DataError)
        assert f"{bag}: not found" in str(future.exception())


# --- Processes and threads -----------------------------------------------------------------------


@storages
def test_frames_are_read_from_several_threads(tmp_path: Path, storage: str) -> None:
    frames = read_bag(write(tmp_path / "bag", storage, recording(30)))
    order = [int(i) for i in np.random.default_rng(1).permutation(30)] * 4
    for i, pair in zip(order, load([frames[i] for i in order], threads=8), strict=True):
        np.testing.assert_array_equal(pair.image, colours(i))


@storages
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pickled_frame_is_read_in_another_process(
    tmp_path: Path, storage: str, method: str
) -> None:
    frames = read_bag(write(tmp_path / "bag", storage, recording(20)))
    order = [int(i) for i in np.random.default_rng(1).permutation(20)]
    frames[0].read()  # so that there is an open file to inherit
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        theirs = [pool.submit(frames[i].read) for i in order]
        # A file position shared with a child would be moved by it.
        for i, future in zip(order, theirs, strict=True):
            np.testing.assert_array_equal(frames[19 - i].read().image, colours(19 - i))
            pair = future.result()
            np.testing.assert_array_equal(pair.image, colours(i))
            np.testing.assert_allclose(pair.depth, in_metres(millimetres(i)), rtol=1e-6)


# --- training.import_bag -------------------------------------------------------------------------


def unchunk(path: Path) -> None:
    """Rewrites an MCAP as the storage preset `fastwrite` does: neither chunks nor an index."""
    data = path.read_bytes()
    magic, at, out = data[:8], 8, bytearray(data[:8])
    while at < len(data) - 8:
        length = struct.unpack_from("<Q", data, at + 1)[0]
        record = data[at : at + 9 + length]
        if record[0] == 0x01:
            out += record
        elif record[0] == 0x06:  # start, end, size, checksum, no compression, length: 40 bytes
            out += record[9 + 40 :]
        at += 9 + length
    out += struct.pack("<BQI", 0x0F, 4, 0) + struct.pack("<BQQQI", 0x02, 20, 0, 0, 0) + magic
    path.write_bytes(out)


def check_import(root: Path, numbers: Iterable[int]) -> None:
    folder = root / "kitchen"
    expected = [f"{START + i * PERIOD:019d}" for i in numbers]
    assert sorted(p.stem for p in folder.glob("rgb/*.jpg")) == expected
    for i, name in zip(numbers, expected, strict=True):
        codes = cv2.imread(str(folder / "depth" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(codes, millimetres(i))
        image = cv2.imread(str(folder / "rgb" / f"{name}.jpg"))
        assert image is not None and image.shape == (HEIGHT, WIDTH, 3)
        assert abs(image[..., ::-1].mean() - colours(i).mean()) < 3
    document = yaml.safe_load((folder / "dataset.yaml").read_text())
    assert {name: document[name] for name in ("fx", "fy", "cx", "cy", "scene", "depth_scale")} == {
        "fx": 40.0, "fy": 41.0, "cx": 15.5, "cy": 11.5, "scene": "kitchen", "depth_scale": 1e-3,
    }  # fmt: skip


@storages
def test_a_bag_is_imported_as_a_folder(
    tmp_path: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / "kitchen", storage, recording(5))
    assert main([str(bag), "--out", str(tmp_path / "out")]) == 0
    assert "kitchen: 5 frames" in capsys.readouterr().out
    check_import(tmp_path / "out", range(5))
    frames = read_folder(tmp_path / "out" / "kitchen")
    assert [f.scene for f in frames] == ["kitchen"] * 5
    np.testing.assert_allclose(frames[3].read().depth, in_metres(millimetres(3)), rtol=1e-6)


@storages
def test_every_third_frame_is_imported(tmp_path: Path, storage: str) -> None:
    bag = write(tmp_path / "kitchen", storage, recording(8))
    assert main([str(bag), "--out", str(tmp_path / "out"), "--every", "3"]) == 0
    check_import(tmp_path / "out", (0, 3, 6))


@storages
def test_imported_frames_are_in_order_of_time_whatever_the_clock(
    tmp_path: Path, storage: str
) -> None:
    items: list[Item] = [(INFO, info(), 0)]
    for i, stamp in enumerate((9_900_000_000, 10_000_000_000, 10_100_000_000)):  # simulated time
        items.append((COLOUR, raw(stamp, colours(i), "rgb8"), stamp))
        items.append((DEPTH, raw(stamp, millimetres(i), "16UC1"), stamp))
    bag = write(tmp_path / "kitchen", storage, items)
    assert main([str(bag), "--out", str(tmp_path)]) == 1  # where the bag is
    assert main([str(bag), "--out", str(tmp_path / "out")]) == 0
    for i, frame in enumerate(read_folder(tmp_path / "out" / "kitchen")):
        np.testing.assert_allclose(frame.read().depth, in_metres(millimetres(i)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["no index", "sqlite3 file", "mcap file"])
def test_a_bag_without_random_access_has_to_be_imported(tmp_path: Path, kind: str) -> None:
    storage = "sqlite3" if kind == "sqlite3 file" else "mcap"
    mode = CompressionMode.FILE if kind.endswith("file") else CompressionMode.NONE
    bag = write(tmp_path / "kitchen", storage, recording(5), compression=mode)
    if kind == "no index":
        unchunk(file_of(bag, storage))
    assert "python -m training.import_bag kitchen --out" in fault(read_bag, bag)
    assert main([str(bag), "--out", str(tmp_path / "out")]) == 0
    check_import(tmp_path / "out", range(5))


@storages
def test_an_import_of_named_topics(tmp_path: Path, storage: str) -> None:
    items = recording(2)
    items += [(name.replace("/cam/", "/other/"), m, received) for name, m, received in items]
    bag = write(tmp_path / "kitchen", storage, items)
    options = ["--image-topic", COLOUR, "--depth-topic", DEPTH]
    assert main([str(bag), "--out", str(tmp_path / "out")]) == 1
    assert main([str(bag), "--out", str(tmp_path / "out"), *options]) == 0
    check_import(tmp_path / "out", range(2))


def test_an_import_that_fails_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(tmp_path / "missing"), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("training.import_bag: ") and error.count("\n") == 1
    bag = write(tmp_path / "kitchen", "mcap", recording(2))
    assert main([str(bag), "--out", str(out)]) == 0
    capsys.readouterr()
    assert main([str(bag), "--out", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("every", ["0", "-2", "x"])
def test_every_has_to_be_a_count(tmp_path: Path, every: str) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path), "--every", every])
