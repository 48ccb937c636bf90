"""Edge-aware up-sampling of planes, steps and holes whose exact result is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.filters import EdgeAwareUpsampler

Depth = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

SIZES = [
    ((12, 16), (48, 64)),
    ((12, 16), (24, 32)),
    ((12, 16), (12, 16)),
    ((12, 16), (31, 45)),
    ((11, 17), (50, 40)),
]


def noise(size: tuple[int, int], seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def upsample(depth: Depth, image: Image) -> Depth:
    coarse = (depth.shape[0], depth.shape[1])
    return EdgeAwareUpsampler(coarse, (image.shape[0], image.shape[1]))(depth, image)


# --- surfaces ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SIZES),
    st.floats(0.1, 3.0),
    st.floats(-1, 1),
    st.floats(0, 1),
    st.sampled_from([-1, 1]),
)
def test_a_slanted_plane_stays_a_plane(
    sizes: tuple[tuple[int, int], tuple[int, int]],
    furthest: float,
    slope: float,
    share: float,
    sign: int,
) -> None:
    (h, w), (height, width) = sizes
    # Inverse depth is linear in the pixels. Slopes stay below what counts as a step.
    b, c = 0.065 * furthest * slope * share, 0.065 * furthest * slope * (1 - share) * sign

    def surface(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Depth:
        plane = b * x[None] + c * y[:, None]
        corners = [b * i * (w - 1) + c * j * (h - 1) for i in (0, 1) for j in (0, 1)]
        return np.asarray(1 / (furthest + plane - min(corners)), np.float32)

    # Centres of the fine pixels in coarse pixels.
    x = (np.arange(width) + 0.5) * w / width - 0.5
    y = (np.arange(height) + 0.5) * h / height - 0.5
    inside = ((y >= 0) & (y <= h - 1))[:, None] & ((x >= 0) & (x <= w - 1))
    depth = upsample(surface(np.arange(float(w)), np.arange(float(h))), noise((height, width)))
    np.testing.assert_allclose(depth[inside], surface(x, y)[inside], rtol=2e-3)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(SIZES), st.floats(0.0625, 80, width=32))
def test_constant_depth_stays_constant(
    sizes: tuple[tuple[int, int], tuple[int, int]], value: float
) -> None:
    coarse, fine = sizes
    depth = upsample(np.full(coarse, value, np.float32), noise(fine))
    assert depth.shape == fine
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, value, rtol=1e-6)


def test_equal_sizes_leave_a_smooth_surface_as_it_is() -> None:
    depth = np.add.outer(np.linspace(1, 1.2, 12), np.linspace(0, 0.2, 16)).astype(np.float32)
    np.testing.assert_allclose(upsample(depth, noise((12, 16))), depth, rtol=1e-6)


# --- steps ---------------------------------------------------------------------------------------

COARSE, EDGE = (24, 32), 16  # the image's edge, in coarse pixels
GAPS = [(1.0, 3.0), (3.0, 1.0), (2.0, 2.5), (0.5, 8.0)]


def step(
    near: float, far: float, scale: int, shift: int = 0, blur: int = 0, turned: bool = False
) -> tuple[Depth, Depth]:
    """The result for a step of depth beside an edge of colour, and its truth."""
    row = np.where(np.arange(COARSE[1]) < EDGE + shift, near, far)
    if blur:
        wide = np.pad(row, blur, mode="edge")
        row = np.convolve(wide, np.ones(2 * blur + 1) / (2 * blur + 1), mode="valid")
    coarse = np.tile(row.astype(np.float32), (COARSE[0], 1))
    left = np.arange(COARSE[1] * scale) < EDGE * scale
    truth = np.tile(np.where(left, near, far).astype(np.float32), (COARSE[0] * scale, 1))
    colour = np.where(left[:, None], (60, 80, 50), (180, 150, 170)).astype(np.uint8)
    image = np.tile(colour, (COARSE[0] * scale, 1, 1))
    if turned:
        coarse, truth = np.ascontiguousarray(coarse.T), np.ascontiguousarray(truth.T)
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
    result = upsample(coarse, image)
    return (result.T, truth.T) if turned else (result, truth)


def between(depth: Depth, near: float, far: float) -> npt.NDArray[np.bool_]:
    """Pixels in mid-air: further than 5 % of the gap from both sides."""
    gap = 0.05 * abs(far - near)
    return np.asarray((np.abs(depth - near) > gap) & (np.abs(depth - far) > gap))


def displacement(depth: Depth, truth: Depth) -> int:
    """Most pixels by which any row's edge is off."""
    middle = (truth.min() + truth.max()) / 2
    return int(((depth < middle) != (truth < middle)).sum(axis=1).max())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("near", "far"), GAPS)
def test_a_step_stays_exactly_where_the_image_has_it(
    near: float, far: float, scale: int, turned: bool
) -> None:
    depth, truth = step(near, far, scale, turned=turned)
    np.testing.assert_allclose(depth, truth, rtol=1e-5)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize(("near", "far"), GAPS)
def test_a_step_that_the_network_misplaced_is_no_further_off_and_still_a_step(
    near: float, far: float, shift: int, scale: int, turned: bool
) -> None:
    depth, truth = step(near, far, scale, shift=shift, turned=turned)
    assert not between(depth, near, far).any()
    assert displacement(depth, truth) <= scale


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("near", "far"), GAPS)
def test_a_step_blurred_over_three_pixels_becomes_a_step_again(
    near: float, far: float, scale: int, turned: bool
) -> None:
    depth, truth = step(near, far, scale, blur=1, turned=turned)
    assert not between(depth, near, far).any()
    assert displacement(depth, truth) <= scale


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("near", "far"), [(1.0, 3.0), (3.0, 1.0), (0.5, 8.0)])
def test_of_a_step_blurred_over_five_pixels_most_mid_air_points_go(
    near: float, far: float, scale: int
) -> None:
    depth, truth = step(near, far, scale, blur=2)
    # Four coarse pixels are in mid-air before.
    assert between(depth, near, far).sum(axis=1).max() <= 2 * scale
    assert displacement(depth, truth) <= 2 * scale


def test_pixels_beside_a_step_take_the_side_whose_colour_they_have() -> None:
    # A staircase edge inside the coarse pixels, which only the image can show.
    depth = np.tile(np.where(np.arange(16) < 8, 1, 4).astype(np.float32), (12, 1))
    edge = 32 + np.arange(48) % 3 - 1
    left = np.arange(64) < edge[:, None]
    image = np.where(left[..., None], 40, 200).astype(np.uint8).repeat(3, axis=2)
    np.testing.assert_allclose(upsample(depth, image), np.where(left, 1, 4), rtol=1e-5)


def test_without_colour_the_nearest_side_is_taken() -> None:
    depth = np.tile(np.where(np.arange(16) < 8, 1, 4).astype(np.float32), (12, 1))
    result = upsample(depth, np.full((48, 64, 3), 128, np.uint8))
    np.testing.assert_allclose(result, np.where(np.arange(64) < 32, 1, 4)[None].repeat(48, 0))


# --- holes ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0, -1.0])
@pytest.mark.parametrize("place", [(5, 13), (0, 0), (11, 15), (4, 3)])
def test_a_hole_is_nan_and_leaves_its_surroundings_alone(
    bad: float, place: tuple[int, int]
) -> None:
    depth = np.tile(np.where(np.arange(16) < 9, 1, 4).astype(np.float32), (12, 1))
    image = noise((48, 64))
    whole = upsample(depth, image).copy()
    depth[place] = bad
    result = upsample(depth, image)
    hole = np.zeros((12, 16), bool)
    hole[place] = True
    hole = hole.repeat(4, axis=0).repeat(4, axis=1)
    assert np.isnan(result[hole]).all()
    np.testing.assert_allclose(result[~hole], whole[~hole], rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_nothing_valid_gives_nothing_valid(
    sizes: tuple[tuple[int, int], tuple[int, int]], bad: float
) -> None:
    coarse, fine = sizes
    result = upsample(np.full(coarse, bad, np.float32), noise(fine))
    assert result.shape == fine
    assert np.isnan(result).all()


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(SIZES), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_results_lie_within_the_range_of_the_input(
    sizes: tuple[tuple[int, int], tuple[int, int]], seed: int, invalid: float
) -> None:
    coarse, fine = sizes
    rng = np.random.default_rng(seed)
    depth = np.exp(rng.uniform(-2, 3, coarse)).astype(np.float32)
    depth[rng.random(coarse) < invalid] = np.nan
    depth[0, 0] = 2.0
    result = upsample(depth, noise(fine, seed))
    valid = np.isfinite(result)
    assert (result[valid] >= np.nanmin(depth) * 0.9999).all()
    assert (result[valid] <= np.nanmax(depth) * 1.0001).all()


# --- use -----------------------------------------------------------------------------------------


def test_results_do_not_depend_on_the_call_before() -> None:
    rng = np.random.default_rng(0)
    smooth = np.full((12, 16), 2.0, np.float32)
    rough = rng.uniform(0.5, 8, (12, 16)).astype(np.float32)
    holes = np.where(rng.random((12, 16)) < 0.3, np.nan, rough).astype(np.float32)
    empty = np.full((12, 16), np.nan, np.float32)
    inputs = [(d, noise((48, 64), i)) for i, d in enumerate((smooth, rough, holes, empty))]
    alone = [upsample(*i).copy() for i in inputs]
    shared = EdgeAwareUpsampler((12, 16), (48, 64))
    for k in (0, 1, 2, 3, 2, 1, 0, 3, 1):
        np.testing.assert_array_equal(shared(*inputs[k]), alone[k])


def test_inputs_are_not_changed() -> None:
    depth = np.random.default_rng(0).uniform(0.5, 8, (12, 16)).astype(np.float32)
    depth[3, 3] = np.nan
    image = noise((48, 64))
    depth.flags.writeable = image.flags.writeable = False
    upsample(depth, image)


@pytest.mark.parametrize("camera_height", [0.2, 0.3, 0.5, 1.0])
def test_floor_under_a_low_camera_is_not_terraced(camera_height: float) -> None:
    """Z = f * height / (rows below the horizon): steep far away, but a plane and no steps."""
    coarse, fine, focal = (120, 160), (480, 640), 520.0

    def floor(rows: int, columns: int) -> npt.NDArray[np.float32]:
        scale = rows / fine[0]
        below = np.arange(rows) + 0.5 - 0.5 * rows
        with np.errstate(divide="ignore"):
            z = focal * scale * camera_height / below
        z[below <= 0] = 8.0
        return np.repeat(np.clip(z, 0.1, 8.0)[:, None], columns, axis=1).astype(np.float32)

    image = np.full((*fine, 3), 128, np.uint8)
    depth = EdgeAwareUpsampler(coarse, fine)(floor(*coarse), image)
    truth = floor(*fine)
    # Nearer than where the edge between floor and far wall begins.
    inside = (truth < min(3.0, 10 * camera_height)) & (np.arange(fine[0])[:, None] < fine[0] - 4)
    assert (np.abs(depth / truth - 1)[inside]).max() < 0.02
    assert np.median(np.abs(depth / truth - 1)[inside]) < 0.005
