"""Augmentation keeps metric truth, keeps image and depth registered, and is repeatable."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("pydantic")

from training.data.augment import (
    MAX_FRAME,
    Augmentation,
    _rotate,
    augment,
    cut_flip,
    degrade,
    draw_frame,
    resize_pair,
)
from training.data.pair import Pair

# All but the cut, which moves the square over the edge, and degradations, which have their own.
EVERYTHING = Augmentation(
    flip=0.5, channel_permutation=0.2, colour=1.0, rotation=0.3, min_crop=0.6, frame=0.3
)

SIDE, DISTANCE = 0.1, 2.0


def square_pair(fx: float = 500.0, fy: float = 500.0) -> Pair:
    """A white square of side 0.1 m on a black wall 2 m away, in the image's centre."""
    image = np.zeros((480, 640, 3), np.uint8)
    w, h = round(fx * SIDE / DISTANCE), round(fy * SIDE / DISTANCE)
    image[240 - h // 2 : 240 - h // 2 + h, 320 - w // 2 : 320 - w // 2 + w] = 255
    return Pair(image, np.full((480, 640), DISTANCE, np.float32), fx, fy, "square")


def apparent_side(image: npt.NDArray[np.uint8]) -> float:
    """Side in pixels of a square of the area that is brighter than halfway, frames left out."""
    margin = round(MAX_FRAME * max(image.shape)) + 1
    grey = image[margin:-margin, margin:-margin].astype(float).mean(axis=2)
    return math.sqrt((grey > (grey.min() + grey.max()) / 2).sum())


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (240, 240), (192, 256), (360, 640)])
@pytest.mark.parametrize(("fx", "fy"), [(500.0, 500.0), (400.0, 640.0), (900.0, 900.0)])
def test_the_apparent_size_of_a_resized_pair_fits_its_depth(
    size: tuple[int, int], fx: float, fy: float
) -> None:
    focal = 300.0
    image, depth = resize_pair(square_pair(fx, fy), size, focal)
    # The area of an anti-aliased square is the sum of its brightness.
    side = math.sqrt(image[..., 0].sum() / 255)
    np.testing.assert_allclose(depth, focal * SIDE / side, rtol=0.02)


def test_a_resized_pair_has_the_sizes_asked_for() -> None:
    image, depth = resize_pair(square_pair(), (96, 128), 100.0)
    assert image.shape == (96, 128, 3)
    assert image.dtype == np.uint8
    assert depth.shape == (48, 64)
    assert depth.dtype == np.float32
    assert resize_pair(square_pair(), (96, 128), 100.0, stride=4)[1].shape == (24, 32)


def test_resizing_invents_no_depth_between_two_surfaces() -> None:
    depth = np.full((480, 640), 1.0, np.float32)
    depth[100:300, 200:333] = 3.0
    depth[:7] = np.nan
    pair = Pair(np.zeros((480, 640, 3), np.uint8), depth, 500, 500, "step")
    _, small = resize_pair(pair, (226, 302), 500 * 302 / 640)
    ratio = small / np.nanmin(small)
    assert set(np.round(ratio[np.isfinite(ratio)], 4)) == {1.0, 3.0}
    assert np.isnan(small[:2]).all() and np.isfinite(small[2:]).all()


def test_augmented_views_keep_metric_truth() -> None:
    pair, focal = square_pair(), 260.0
    sides, depths = [], []
    for seed in range(40):
        image, depth = augment(pair, np.random.default_rng(seed), (240, 320), focal, EVERYTHING)
        z = float(np.nanmax(depth))
        assert np.nanmin(depth) == pytest.approx(z)
        sides.append(apparent_side(image) * z / focal)
        depths.append(z)
    np.testing.assert_allclose(sides, SIDE, rtol=0.08)
    assert np.mean(sides) == pytest.approx(SIDE, rel=0.02)
    # Views differ, or the test above has not seen a zoom.
    assert max(depths) / min(depths) > 1.3


def test_flips_keep_image_and_depth_registered() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    depth = np.full((480, 640), 1.0, np.float32)
    image[:, 320:], depth[:, 320:] = 255, 3.0
    pair, bright_on_the_right = Pair(image, depth, 500, 500, "halves"), []
    for seed in range(20):
        view, z = augment(pair, np.random.default_rng(seed), (120, 160), 130.0, EVERYTHING)
        grey = view.astype(float).mean(axis=2)
        small = cv2.resize(grey, (z.shape[1], z.shape[0]), interpolation=cv2.INTER_AREA)
        bright, valid = small > (small.min() + small.max()) / 2, np.isfinite(z)
        far = z > 2 * np.nanmin(z)
        assert (bright == far)[valid].mean() > 0.97
        bright_on_the_right.append(bool(bright[:, -5:].mean() > 0.5))
    assert len(set(bright_on_the_right)) == 2


@pytest.mark.parametrize("angle", [-4.0, -1.5, 2.0, 5.0])
def test_rotation_turns_image_and_depth_alike_and_uncovers_corners_without_depth(
    angle: float,
) -> None:
    v, u = np.mgrid[:240, :320]
    slope = u // 2 + v // 4 + 10
    image = np.repeat(slope[..., None], 3, axis=2).astype(np.uint8)
    pair = Pair(image, slope.astype(np.float32), 250, 250, "slope")
    turned = _rotate(pair, angle)
    hole = np.isnan(turned.depth)
    assert hole.any() and not hole[12:-12, 12:-12].any()
    uncovered = [hole[0, :40], hole[0, -40:], hole[-1, :40], hole[-1, -40:]]
    assert sum(corner.any() for corner in uncovered) >= 2
    np.testing.assert_allclose(turned.image[..., 0][~hole], turned.depth[~hole], atol=1.5)
    assert (turned.depth[~hole] != pair.depth[~hole]).any()
    assert (turned.fx, turned.fy) == (250, 250)


@pytest.mark.parametrize("seed", range(5))
def test_a_painted_frame_has_no_depth_and_is_thin(seed: int) -> None:
    image, depth = np.full((96, 128, 3), 100, np.uint8), np.ones((48, 64), np.float32)
    draw_frame(image, depth, np.random.default_rng(seed))
    painted = (image != 100).any(axis=2)
    hole = np.isnan(depth).repeat(2, axis=0).repeat(2, axis=1)
    assert painted.any() and hole[painted].all()
    assert not hole[4:-4, 4:-4].any()
    assert (depth[np.isfinite(depth)] == 1).all()


def test_the_same_seed_gives_the_same_view() -> None:
    first, second, third = (
        augment(square_pair(), np.random.default_rng(seed), (96, 128), 100.0, EVERYTHING)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != third[0]).any()


def test_augmentation_leaves_the_data_set_alone() -> None:
    pair = square_pair()
    for seed in range(5):
        augment(pair, np.random.default_rng(seed), (96, 128), 100.0, EVERYTHING)
    np.testing.assert_array_equal(pair.image, square_pair().image)
    np.testing.assert_array_equal(pair.depth, square_pair().depth)


def test_without_settings_a_view_is_the_resized_pair() -> None:
    image, depth = augment(square_pair(), np.random.default_rng(0), (96, 128), 90.0, Augmentation())
    expected = resize_pair(square_pair(), (96, 128), 90.0)
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(depth, expected[1])


def test_a_cut_swaps_the_same_rows_of_image_and_depth() -> None:
    rows = np.arange(48, dtype=np.uint8)
    image = np.repeat(np.repeat(rows, 2)[:, None, None], 3, axis=2).repeat(8, axis=1)
    depth = np.repeat(rows[:, None].astype(np.float32), 4, axis=1)
    cuts = set()
    for seed in range(20):
        view, z = cut_flip(image, depth, np.random.default_rng(seed))
        np.testing.assert_array_equal(view[::2, 0, 0], z[:, 0])
        assert sorted(z[:, 0]) == list(rows)
        cut = int(np.flatnonzero(z[:, 0] == 0)[0])
        assert list(z[:, 0]) == [*rows[48 - cut :], *rows[: 48 - cut]]
        cuts.add(cut)
    assert len(cuts) > 5 and min(cuts) > 4 and max(cuts) < 44


def test_every_degradation_changes_the_image_and_keeps_its_content() -> None:
    ramp = np.tile(np.linspace(20, 230, 160), (120, 1))
    image = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
    image[40:80, 60:100] = (250, 10, 120)
    seen = set()
    for seed in range(60):
        out = degrade(image, np.random.default_rng(seed))
        assert out.shape == image.shape and out.dtype == np.uint8
        assert (out != image).any()
        correlation = np.corrcoef(out.ravel().astype(float), image.ravel().astype(float))[0, 1]
        assert correlation > 0.7
        seen.add(round(float(out.mean() / image.mean()), 1))
    assert min(seen) < 0.5 and max(seen) > 1.2  # darkness and glare were among them


def test_colour_changes_do_not_touch_depth() -> None:
    settings = Augmentation(colour=1.0, degradation=1.0, channel_permutation=1.0)
    _, depth = augment(square_pair(), np.random.default_rng(3), (96, 128), 90.0, settings)
    np.testing.assert_array_equal(depth, resize_pair(square_pair(), (96, 128), 90.0)[1])


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_flips_come_as_often_as_asked_for(probability: float) -> None:
    depth = np.tile(np.arange(1, 9, dtype=np.float32), (6, 1))
    pair = Pair(np.zeros((6, 8, 3), np.uint8), depth, 10, 10, "ramp")
    settings = Augmentation(flip=probability)
    flipped = [
        augment(pair, np.random.default_rng(seed), (6, 8), 10.0, settings)[1][0, 0] > 3
        for seed in range(400)
    ]
    assert np.mean(flipped) == pytest.approx(probability, abs=0.08)
