"""Parity: figures worked out by hand, engines that differ by a known amount, images to use."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import networks
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mono_depth_ros.engines import PRECISIONS, open_engine
from mono_depth_ros.frame_source import SourceError
from mono_depth_ros.parity import TOLERANCES, agreement, parity, parity_images, resized

LIMITS = TOLERANCES["float32"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images, whose red is twenty times their number."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(10):
        image = np.full((60, 80, 3), (0, 0, 20 * (i + 1)), np.uint8)
        cv2.imwrite(str(folder / f"photo{i + 1}.png"), image)
    return folder


# --- figures -------------------------------------------------------------------------------------


def test_figures_of_agreement_worked_out_by_hand() -> None:
    reference = np.array([[1.0, 2.0, 4.0, 5.0, 0.0, np.nan]], np.float32)
    answer = np.array([[1.1, 2.0, 2.0, np.nan, 1.0, 1.0]], np.float32)
    result = agreement([(answer, reference), (reference, reference)])
    # Seven pixels have a finite answer: 0.1, 0, 0.5, and four that are equal.
    assert result.images == 2 and result.non_finite == 1
    assert result.abs_rel == pytest.approx(0.6 / 7, rel=1e-5)
    assert result.median_rel == 0
    assert result.max_rel == pytest.approx(0.5)
    assert result.delta1 == pytest.approx(6 / 7)


@given(
    ratios=hnp.arrays(
        np.float32, st.integers(1, 30), elements=st.floats(-4, 4, width=32, allow_nan=False)
    )
)
def test_delta1_is_what_its_definition_says(ratios: npt.NDArray[np.float32]) -> None:
    near = sum(r > 0 and max(r, 1 / r) < 1.25 for r in map(float, ratios))
    result = agreement([(ratios[None], np.ones((1, len(ratios)), np.float32))])
    assert result.delta1 == pytest.approx(near / len(ratios))
    assert result.max_rel == pytest.approx(max(abs(float(r) - 1) for r in ratios))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_a_fault(bad: float) -> None:
    answer = np.ones((100, 100), np.float32)
    answer[3, 4] = bad
    result = agreement([(answer, np.ones((100, 100), np.float32))])
    assert result.abs_rel == 0 and result.non_finite == 1
    assert result.faults(*LIMITS) == ["1 values are not finite"]


def test_an_answer_without_a_finite_value_has_every_fault() -> None:
    result = agreement([(np.full((2, 2), np.nan, np.float32), np.ones((2, 2), np.float32))])
    assert result.non_finite == 4 and len(result.faults(*LIMITS)) == 3


def test_nothing_to_compare_is_an_error() -> None:
    nothing = np.full((2, 2), np.nan, np.float32)
    with pytest.raises(ValueError, match="0 images"):
        agreement([])
    with pytest.raises(ValueError, match="1 images"):
        agreement([(nothing, nothing)])
    with pytest.raises(ValueError, match="differ in size"):
        agreement([(nothing, nothing[:1])])


def test_every_precision_has_limits_and_coarser_ones_have_wider() -> None:
    assert set(TOLERANCES) == set(PRECISIONS) - {"auto"}
    widths = [TOLERANCES[name][0] for name in ("float32", "float16", "bfloat16")]
    assert widths == sorted(set(widths))


# --- engines -------------------------------------------------------------------------------------


def test_engines_that_differ_by_two_percent_are_found_out(tmp_path: Path, photos: Path) -> None:
    right = open_engine(networks.red_channel(tmp_path / "right.onnx"), "onnx")
    wrong = open_engine(
        networks.red_channel(tmp_path / "wrong.onnx", factor=1.02 * networks.RED_SCALE), "openvino"
    )
    size = (networks.HEIGHT, networks.WIDTH)
    result = parity(wrong, right, parity_images(photos, 4, size))
    assert result.images == 4
    assert result.abs_rel == pytest.approx(0.02, rel=1e-4)
    assert result.faults(*LIMITS) == ["abs_rel 2.00e-02 is above 0.005"]


def test_networks_of_another_focal_length_are_not_compared(tmp_path: Path) -> None:
    path = networks.red_channel(tmp_path / "red.onnx")
    model = onnx.load(path)
    model.metadata_props[0].value = model.metadata_props[0].value.replace("100.0", "120.0")
    onnx.save(model, tmp_path / "other.onnx")
    first, second = (open_engine(tmp_path / f"{n}.onnx", "onnx") for n in ("red", "other"))
    with pytest.raises(ValueError, match=r"128x96 at 100\.0 px and 128x96 at 120\.0 px"):
        parity(first, second, [])


# --- images --------------------------------------------------------------------------------------


def reds(path: Path, count: int) -> list[int]:
    return [int(image[0, 0, 0]) // 20 for image in parity_images(path, count, (24, 32))]


def test_images_are_spread_over_a_folder(photos: Path) -> None:
    assert reds(photos, 100) == list(range(1, 11))
    assert reds(photos, 5) == [1, 3, 5, 7, 9]
    assert reds(photos, 1) == [1]


def test_the_pictures_that_ship_show_different_rooms() -> None:
    images = np.stack(list(parity_images(None, 100, (240, 320))))
    assert images.shape == (6, 240, 320, 3) and images.dtype == np.uint8
    # Neither blank nor alike: spread in each, and between any two.
    assert (images.std(axis=(1, 2)) > 15).all()
    differences = np.abs(images[:, None].astype(int) - images[None]).mean(axis=(2, 3, 4))
    assert differences[~np.eye(6, dtype=bool)].min() > 20


def test_images_are_averaged_down_and_contiguous() -> None:
    image = np.zeros((8, 12, 3), np.uint8)
    image[::2] = 200
    small = resized(image, (4, 6))
    assert small.flags.c_contiguous and (small == 100).all() and small.shape == (4, 6, 3)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=str(tmp_path)):
        next(parity_images(tmp_path, 3, (4, 4)))
