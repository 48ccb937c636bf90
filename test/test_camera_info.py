"""CameraInfo -> Calibration: what is refused, and what topic names tell. Needs no ROS."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.camera_info import UncalibratedError, already_rectified, calibration_from_info
from mono_depth_ros.estimator import Rectifier


@dataclass
class Region:
    """The fields of sensor_msgs/RegionOfInterest."""

    x_offset: int = 0
    y_offset: int = 0
    width: int = 0
    height: int = 0
    do_rectify: bool = False


@dataclass
class Info:
    """The fields of sensor_msgs/CameraInfo; a protocol's attributes do not take narrower types."""

    width: int = 640
    height: int = 480
    distortion_model: str = "plumb_bob"
    d: Any = field(default_factory=lambda: [-0.1, 0.01, 0.001, 0.002, 0.0])
    k: Any = field(default_factory=lambda: [500.0, 0, 320, 0, 510.0, 240, 0, 0, 1])
    r: Any = field(default_factory=lambda: [1.0, 0, 0, 0, 1, 0, 0, 0, 1])
    p: Any = field(default_factory=lambda: [400.0, 0, 310, -40, 0, 410, 230, 0, 0, 0, 1, 0])
    binning_x: int = 0
    binning_y: int = 0
    roi: Any = field(default_factory=Region)


TURNED = [math.cos(0.3), -math.sin(0.3), 0, math.sin(0.3), math.cos(0.3), 0, 0, 0, 1.0]


@pytest.mark.parametrize(
    "info",
    [
        Info(),
        Info(d=[], distortion_model=""),
        Info(r=[0.0] * 9, p=[0.0] * 12),
        Info(p=[0.0] * 10 + [1.0, 0.0]),
        Info(r=[round(x, 3) for x in TURNED]),
        Info(binning_x=640, binning_y=480),
        Info(roi=Region(639, 479, 1, 1)),
        Info(roi=Region(0, 0, 640, 480, do_rectify=True)),
    ],
)
def test_what_drivers_send_is_taken(info: Info) -> None:
    calibration = calibration_from_info(info)
    assert calibration.rectified().fx > 0
    maps = calibration.rectify_maps()
    assert maps is None or maps[2].shape == calibration.image_size[::-1]


def test_do_rectify_changes_nothing() -> None:
    infos = [Info(roi=Region(10, 20, 300, 200, flag)) for flag in (False, True)]
    assert calibration_from_info(infos[0]) == calibration_from_info(infos[1])
    assert calibration_from_info(infos[0]).rectified() == CameraModel(300, 200, 400, 410, 300, 210)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"width": 0}, "0x480"),
    ({"height": 0}, "640x0"),
    ({"width": 2**31}, "1 to 32767"),
    ({"height": 2**32 - 1, "width": 2**32 - 1}, "1 to 32767"),
    ({"k": [500.0] * 8}, r"\(8, 9, 12\)"),
    ({"k": []}, r"\(0, 9, 12\)"),
    ({"r": [1.0]}, r"\(9, 1, 12\)"),
    ({"p": [1.0] * 13}, r"\(9, 9, 13\)"),
    ({"k": [math.nan, 0, 320, 0, 510, 240, 0, 0, 1]}, "not finite"),
    ({"d": [0.1, math.nan, 0, 0, 0]}, "not finite"),
    ({"r": [math.inf] * 9}, "not finite"),
    ({"p": [400.0, 0, 310, math.nan, 0, 410, 230, 0, 0, 0, 1, 0]}, "not finite"),
    ({"k": [-500.0, 0, 320, 0, 510, 240, 0, 0, 1]}, "fx=-500.0"),
    ({"k": [500.0, 0, 320, 0, -510, 240, 0, 0, 1]}, "fy=-510"),
    ({"k": [1e300, 0, 320, 0, 510, 240, 0, 0, 1]}, "fx=1e"),
    ({"k": [1e-300, 0, 320, 0, 510, 240, 0, 0, 1]}, "fx=1e-300"),
    ({"k": [500.0, 0, 1e300, 0, 510, 240, 0, 0, 1]}, "principal point"),
    ({"p": [400.0, 0, 310, 0, 0, 0, 230, 0, 0, 0, 1, 0]}, "fy=0"),
    ({"p": [0.0, 0, 310, 0, 0, 410, 230, 0, 0, 0, 1, 0]}, "fx=0"),
    ({"p": [-400.0, 0, 310, 0, 0, 410, 230, 0, 0, 0, 1, 0]}, "fx=-400"),
    ({"r": [1.0, 0, 0, 0, 1, 0, 0, 0, -1]}, "does not rotate"),
    ({"r": [1.1, 0, 0, 0, 1, 0, 0, 0, 1]}, "does not rotate"),
    ({"r": [1.0, 0.2, 0, 0, 1, 0, 0, 0, 1]}, "does not rotate"),
    ({"roi": Region(600, 0, 41, 480)}, "not within a 640x480"),
    ({"roi": Region(0, 400, 640, 81)}, "not within"),
    ({"roi": Region(1, 0, 0, 0)}, "not within"),
    ({"roi": Region(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1)}, "not within"),
    ({"binning_x": 641}, "binning"),
    ({"binning_y": 2**32 - 1}, "binning"),
    ({"binning_x": 11, "roi": Region(0, 0, 10, 10)}, "binning"),
]


@pytest.mark.parametrize(("changes", "text"), BAD)
def test_what_cannot_be_a_camera_is_a_one_line_error(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as error:
        calibration_from_info(replace(Info(), **changes))
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, UncalibratedError)


@pytest.mark.parametrize("index", [0, 4])
def test_k_of_zero_is_an_uncalibrated_camera(index: int) -> None:
    info = Info()
    info.k[index] = 0.0
    with pytest.raises(UncalibratedError, match="camera_calibration"):
        calibration_from_info(info)


def test_an_unknown_lens_is_no_matter_until_it_is_rectified() -> None:
    calibration = calibration_from_info(Info(distortion_model="kan\nnala"))
    assert calibration.rectified().fx == 400
    with pytest.raises(ValueError, match="rectify to off") as error:
        calibration.rectify_maps()
    assert "\n" not in str(error.value)


# --- malformed messages --------------------------------------------------------------------------

ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, 5e-324, 400.0, 1e6]
FLOATS = st.sampled_from(ODD) | st.floats() | st.floats(-1000, 1000)
COUNTS = st.sampled_from([0, 1, 2, 64, 48, 65, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 80)


def numbers(usual: list[float]) -> st.SearchStrategy[list[float]]:
    """The usual ones with one or two replaced, or any."""

    def changed(pairs: list[tuple[int, float]]) -> list[float]:
        values = list(usual)
        for index, value in pairs:
            values[index % len(values)] = value
        return values

    pair = st.tuples(st.integers(0, 20), FLOATS)
    return st.lists(pair, max_size=2).map(changed) | st.lists(FLOATS, max_size=14)


K = [60.0, 0, 32, 0, 60, 24, 0, 0, 1]
INFOS = st.builds(
    Info,
    width=st.just(64) | COUNTS,
    height=st.just(48) | COUNTS,
    distortion_model=st.sampled_from(
        ["plumb_bob", "rational_polynomial", "equidistant", "", "thin_prism"]
    )
    | st.text(max_size=9),
    d=numbers([-0.1, 0.01, 0.0, 0.0]) | st.lists(FLOATS, max_size=14),
    k=numbers(K),
    r=st.just([1.0, 0, 0, 0, 1, 0, 0, 0, 1]) | st.just(TURNED) | numbers(TURNED),
    p=numbers([60.0, 0, 32, 0, 0, 60, 24, 0, 0, 0, 1, 0]),
    binning_x=st.sampled_from([0, 1, 2]) | COUNTS,
    binning_y=st.sampled_from([0, 1, 2]) | COUNTS,
    roi=st.just(Region()) | st.builds(Region, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans()),
)


def use(info: Info) -> None:
    """Computes all that can be, the maps as of an image that came with the message."""
    calibration = calibration_from_info(info)
    camera = calibration.rectified()
    assert (camera.width, camera.height) == calibration.image_size
    assert camera.width <= info.width and camera.height <= info.height
    assert all(map(np.isfinite, map(np.float32, (camera.focal, camera.cx, camera.cy))))
    if camera.width * camera.height <= 64 * 48:
        image = np.full((camera.height, camera.width, 3), 7, np.uint8)
        assert (Rectifier(calibration)(image) == 7).all()


def check_malformed(info: Info) -> None:
    """A ValueError of one line, or a calibration from which all can be computed."""
    text = "none"
    tracemalloc.start()
    try:
        use(info)
    except ValueError as error:
        text = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert text and "\n" not in text and len(text) < 300
    assert peak < 1 << 20


@settings(deadline=None, max_examples=300)
@given(INFOS)
def test_a_malformed_info_is_a_value_error_of_one_line(info: Info) -> None:
    check_malformed(info)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000, database=None)
@given(INFOS)
def test_10000_malformed_infos_neither_crash_nor_fill_the_memory(info: Info) -> None:
    check_malformed(info)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/camera/image_raw", False),
        ("image_raw", False),
        ("/camera/camera/color/image_raw", False),
        ("/oak/rgb/image_raw/compressed", False),
        ("/zed/zed_node/rgb/color/raw/image", False),
        ("/rect/camera/image_raw", False),
        ("/front_rect/image_raw", False),
        ("/camera/image_direct", False),
        ("/camera/image_unrectified", False),
        ("", False),
        ("/camera/image_rect", True),
        ("image_rect", True),
        ("/camera/image_rect_color", True),
        ("/camera/image_rect/compressed", True),
        ("/camera/image_rect/theora", True),
        ("/camera/infra1/image_rect_raw", True),
        ("/zed/zed_node/rgb/color/rect/image", True),
        ("/zed/zed_node/rgb/color/rect/image/compressed", True),
        ("/camera/rgb/image_rectified", True),
    ],
)
def test_names_tell_rectified_images(topic: str, expected: bool) -> None:
    assert already_rectified(topic) is expected


def test_calibrations_compare_equal_so_that_maps_can_be_kept() -> None:
    first, second = calibration_from_info(Info()), calibration_from_info(Info())
    assert first == second and isinstance(first, Calibration)
