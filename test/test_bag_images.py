"""Images of a ROS 2 bag as a source of frames: bags written by rosbags, pixels known exactly."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

import mono_depth_ros
from mono_depth_ros.bag_images import is_bag
from mono_depth_ros.frame_source import SourceError, open_source

TYPES = get_typestore(Stores.ROS2_HUMBLE)
SECOND = 10**9


def header(second: int) -> Any:
    time = TYPES.types["builtin_interfaces/msg/Time"](second, 0)
    return TYPES.types["std_msgs/msg/Header"](time, "eye")


def picture(second: int, pixels: np.ndarray, encoding: str = "rgb8") -> Any:
    data = np.frombuffer(pixels.tobytes(), np.uint8)
    height, width = pixels.shape[:2]
    kind = TYPES.types["sensor_msgs/msg/Image"]
    return kind(header(second), height, width, encoding, 0, len(data) // height, data)


def png(second: int, pixels: np.ndarray) -> Any:
    data = cv2.imencode(".png", pixels[..., ::-1])[1].ravel()
    return TYPES.types["sensor_msgs/msg/CompressedImage"](header(second), "rgb8; png", data)


def colours(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)


def write(
    path: Path, items: Iterable[tuple[str, Any]], storage: StoragePlugin = StoragePlugin.MCAP
) -> Path:
    """A bag of (topic, message), one a second."""
    connections: dict[str, Any] = {}
    with Writer(path, version=9, storage_plugin=storage) as writer:
        for second, (topic, message) in enumerate(items):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(connections[topic], second * SECOND, TYPES.serialize_cdr(message, kind))
    return path


def no_warning(text: str) -> None:
    raise AssertionError(text)


def read(source: str, every: int = 1) -> dict[int, np.ndarray]:
    return {frame.index: frame.image for frame in open_source(source, no_warning).frames(every)}


@pytest.mark.parametrize("storage", list(StoragePlugin), ids=lambda s: s.name)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_only_camera_is_read_and_depth_is_not_one(
    tmp_path: Path, storage: StoragePlugin, compressed: bool
) -> None:
    topic = "/eye/image_raw/compressed" if compressed else "/eye/image_raw"
    depth = np.zeros((6, 8), np.uint16)
    items = [
        item
        for second in range(4)
        for item in (
            ("/eye/depth", picture(second, depth, "16UC1")),
            (topic, (png if compressed else picture)(second, colours(second))),
        )
    ]
    bag = write(tmp_path / "bag", items, storage)
    for path in (bag, *bag.glob("bag*[!l]")):
        assert is_bag(path)
        source = open_source(str(path), no_warning)
        assert (source.length, source.live, source.fps) == (4, False, None)
        found = read(str(path), every=2)
        assert list(found) == [0, 2]
        for index, image in found.items():
            np.testing.assert_array_equal(image, colours(index))


def test_raw_images_are_preferred_to_the_same_in_compressed_form(tmp_path: Path) -> None:
    items = [("/eye/compressed", png(0, colours(1))), ("/eye", picture(0, colours(2)))]
    np.testing.assert_array_equal(read(str(write(tmp_path / "bag", items)))[0], colours(2))


def test_one_of_several_cameras_is_named_behind_a_colon(tmp_path: Path) -> None:
    items = [(f"/{side}/image", picture(0, colours(i))) for i, side in enumerate(("left", "right"))]
    bag = write(tmp_path / "bag", items)
    with pytest.raises(
        SourceError, match=r"2 cameras \(/left/image, /right/image\); name one as .*bag:/TOPIC"
    ):
        open_source(str(bag), no_warning)
    np.testing.assert_array_equal(read(f"{bag}:/right/image")[0], colours(1))
    with pytest.raises(SourceError, match="has no images on /top/image; it has /left/image"):
        open_source(f"{bag}:/top/image", no_warning)


def test_a_bag_without_a_camera_says_so(tmp_path: Path) -> None:
    depth = picture(0, np.zeros((6, 8), np.uint16), "16UC1")
    with pytest.raises(SourceError, match="has no images of a camera; record"):
        open_source(str(write(tmp_path / "bag", [("/depth", depth)])), no_warning)


def test_an_image_that_cannot_be_decoded_is_skipped_and_named(tmp_path: Path) -> None:
    bad = picture(1, colours(1), "rgb8")
    bad.step = 3
    bag = write(tmp_path / "bag", [("/eye", picture(0, colours(0))), ("/eye", bad)])
    warnings: list[str] = []
    frames = list(open_source(str(bag), warnings.append).frames(1))
    assert [frame.index for frame in frames] == [0]
    assert len(warnings) == 1 and "/eye 1" in warnings[0] and "skipped" in warnings[0]


@pytest.mark.parametrize("content", [b"", b"no bag at all"])
def test_a_damaged_bag_is_one_line_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    bag = tmp_path / "cut.mcap"
    bag.write_bytes(content)
    with pytest.raises(SourceError, match=r"cut\.mcap: cannot be read as a ROS 2 bag") as refusal:
        open_source(str(bag), no_warning)
    assert "\n" not in str(refusal.value) and "mcap recover" in str(refusal.value)


def test_a_bag_cut_off_after_its_index_was_read_is_not_silence(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", [("/eye", picture(i, colours(i))) for i in range(3)])
    source = open_source(str(bag), no_warning)
    (bag / "bag.mcap").write_bytes(b"")
    with pytest.raises(SourceError, match="cannot be read as a ROS 2 bag"):
        list(source.frames(1))


def test_the_package_that_reads_bags_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write(tmp_path / "bag", [("/eye", picture(0, colours(0)))])
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    monkeypatch.delitem(sys.modules, "mono_depth_ros.bag_reader")
    monkeypatch.delattr(mono_depth_ros, "bag_reader")
    with pytest.raises(SourceError, match="pip install rosbags"):
        open_source(str(bag), no_warning)
