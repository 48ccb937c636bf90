"""Scans against planes whose range is known, and against a loop over all pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.mounting import Mounting
from mono_depth_ros.scan import ScanBuilder

CAMERA = CameraModel.from_hfov(80, 60, 60)


def angles(scan: ScanBuilder) -> npt.NDArray[np.float64]:
    return np.asarray(scan.angle_min + scan.angle_increment * np.arange(scan.size), np.float64)


def wall(camera: CameraModel, mounting: Mounting, distance: float) -> npt.NDArray[np.float32]:
    """Depth of a vertical wall across the way ahead; +Inf where a ray never meets it."""
    forward = mounting.rays(camera)[0]
    depth = np.full(forward.shape, np.inf)
    np.divide(distance, forward, out=depth, where=forward > 1e-6)
    return depth.astype(np.float32)


@pytest.mark.parametrize(
    ("pitch", "roll"), [(0, 0), (10, 0), (-10, 0), (25, 5), (40, -20), (0, 90), (5, 180), (45, 0)]
)
@pytest.mark.parametrize(("height", "distance"), [(0.5, 0.8), (1.4, 3.0)])
def test_a_wall_ahead_is_straight_in_the_scan(
    height: float, distance: float, pitch: float, roll: float
) -> None:
    mounting = Mounting.from_angles(height, pitch, roll)
    scan = ScanBuilder(CAMERA, mounting, 0.1, 1.0, 0.1, 10)
    ranges = scan.build(wall(CAMERA, mounting, distance))
    assert ranges.dtype == np.float32 and ranges.shape == (scan.size,)
    hit = np.isfinite(ranges)
    assert hit.sum() > scan.size // 3
    # Of two directions a bin apart, one is that of the point.
    turn = np.abs(angles(scan))
    near = distance / np.cos((turn - scan.angle_increment).clip(0))
    far = distance / np.cos(turn + scan.angle_increment)
    assert (ranges[hit] >= near[hit] - 1e-4).all() and (ranges[hit] <= far[hit] + 1e-4).all()


def test_a_level_camera_has_a_bin_for_the_middle_of_each_pixel_column_in_turn() -> None:
    scan = ScanBuilder(CAMERA, Mounting.from_angles(0.5), 0.1, 1.0, 0.1, 10)
    edge = math.atan(39.5 / CAMERA.fx)
    assert scan.angle_min == pytest.approx(-edge)
    assert scan.angle_max == pytest.approx(edge, abs=scan.angle_increment)
    assert scan.angle_increment == pytest.approx(1 / CAMERA.fx, rel=1e-3)
    assert scan.angle_max == scan.angle_min + (scan.size - 1) * scan.angle_increment
    assert not np.isnan(scan.build(np.full((60, 80), np.inf, np.float32))).any()


def test_angles_grow_to_the_left() -> None:
    scan = ScanBuilder(CAMERA, Mounting.from_angles(0.5), 0.1, 1.0, 0.1, 10)
    depth = np.full((60, 80), 4, np.float32)
    depth[:, :40] = 2
    ranges = scan.build(depth)
    left = angles(scan) > scan.angle_increment
    assert (ranges[left] < 2.4).all() and (ranges[angles(scan) < -scan.angle_increment] > 3).all()


@settings(max_examples=40, deadline=None)
@given(
    height=st.floats(0, 2),
    pitch=st.floats(-60, 90),
    roll=st.floats(-180, 180),
    low=st.floats(0, 1),
    thickness=st.floats(0.1, 2),
    size=st.tuples(st.integers(2, 40), st.integers(2, 200)),
    hfov=st.floats(30, 110),
    seed=st.integers(0, 1000),
)
def test_the_scan_is_that_of_a_loop_over_pixels(
    height: float,
    pitch: float,
    roll: float,
    low: float,
    thickness: float,
    size: tuple[int, int],
    hfov: float,
    seed: int,
) -> None:
    camera = CameraModel.from_hfov(*size, hfov)
    mounting = Mounting.from_angles(height, pitch, roll)
    try:
        scan = ScanBuilder(camera, mounting, low, low + thickness, 0.5, 4)
    except ValueError:
        assert not any(
            0.001 < part < 0.999 and math.hypot(*point[:2]) < 4
            for point in _points(mounting, camera, np.full(size[::-1], 3.9, np.float32))
            for part in [(point[2] - low) / thickness]
        )
        return
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.1, 6, size[::-1]).astype(np.float32)
    depth[rng.random(depth.shape) < 0.6] = np.nan
    depth[rng.random(depth.shape) < 0.1] = np.inf
    ranges = scan.build(depth)
    explained = ~np.isfinite(ranges) & ~np.isneginf(ranges)
    for x, y, z in _points(mounting, camera, depth):
        distance, angle = math.hypot(x, y), math.atan2(y, x)
        turn = np.abs((angles(scan) - angle + math.pi) % (2 * math.pi) - math.pi)
        near = turn <= scan.angle_increment * 1.001
        # Rounding may put what lies on a limit on either side.
        if -1e-4 < z - low < thickness + 1e-4:
            same = ranges == -np.inf if distance < 0.5 else np.abs(ranges - distance) < 1e-4
            same |= (np.abs(distance - 0.5) < 1e-4) & (ranges == -np.inf)
            explained |= near & same
        if 1e-4 < z - low < thickness - 1e-4 and distance < 4 - 1e-4:
            assert ranges[near].min(where=~np.isnan(ranges[near]), initial=9) <= distance + 1e-4
    assert explained.all()


def _points(
    mounting: Mounting, camera: CameraModel, depth: npt.NDArray[np.float32]
) -> list[tuple[float, float, float]]:
    """x, y and height above ground of each pixel with depth, one by one."""
    found = []
    for v, u in np.argwhere(np.isfinite(depth)):
        z = float(depth[v, u])
        optical = ((u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z)
        x, y, up = (float(value) for value in mounting.matrix() @ optical)
        found.append((x, y, mounting.height + up))
    return found


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (15, 3), (30, 45), (0, 90)])
def test_no_single_pixel_is_lost(pitch: float, roll: float) -> None:
    mounting = Mounting.from_angles(0.5, pitch, roll)
    scan = ScanBuilder(CAMERA, mounting, 0.1, 1.0, 0.05, 10)
    forward, left, rise = mounting.rays(CAMERA)
    for v, u in np.random.default_rng(0).integers(0, (60, 80), (200, 2)):
        depth = np.full((60, 80), np.inf, np.float32)
        depth[v, u] = 0.3
        ranges = scan.build(depth)
        seen = np.flatnonzero(np.isfinite(ranges))
        if 0.1 < 0.5 + 0.3 * rise[v, u] < 1.0:
            assert seen.size == 1
            angle = math.atan2(left[v, u], forward[v, u])
            assert abs(angles(scan)[seen[0]] - angle) < scan.angle_increment * 1.001
            distance = 0.3 * math.hypot(left[v, u], forward[v, u])
            assert ranges[seen[0]] == pytest.approx(distance, rel=1e-4)
        else:
            assert seen.size == 0


def middle(ranges: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without the directions at the sides, which a pitched camera sees only near it."""
    quarter = ranges.size // 4
    return ranges[quarter:-quarter]


def test_the_floor_is_no_obstacle_for_a_pitched_camera() -> None:
    mounting = Mounting.from_angles(0.4, 20, 3)
    rise = mounting.rays(CAMERA)[2]
    floor = np.where(rise < 0, -0.4 / np.minimum(rise, -1e-9), np.inf).astype(np.float32)
    scan = ScanBuilder(CAMERA, mounting, 0.03, 1.0, 0.1, 8)
    ranges = scan.build(floor)
    assert not np.isfinite(ranges).any() and np.isposinf(middle(ranges)).all()
    # As high as the camera tells, the same floor is one.
    assert np.isfinite(ScanBuilder(CAMERA, mounting, -0.1, 1.0, 0.1, 8).build(floor)).any()


@pytest.mark.filterwarnings("error")
def test_what_is_unknown_is_nan_and_what_is_too_near_is_minus_infinity() -> None:
    scan = ScanBuilder(CAMERA, Mounting.from_angles(0.5), 0.1, 1.0, 0.5, 3)
    depth = np.full((60, 80), np.nan, np.float32)
    assert np.isnan(scan.build(depth)).all()
    depth[:, 0:16] = 2.0
    depth[:, 16:32] = np.inf
    depth[:, 32:48] = -np.inf
    depth[30, 48:64] = 0.2
    ranges = scan.build(depth)
    column = np.rint(CAMERA.cx - CAMERA.fx * np.tan(angles(scan))).astype(int)
    inner = ~np.isin(column % 16, (0, 15))
    part = column // 16
    assert np.isfinite(ranges[inner & (part == 0)]).all()
    assert np.isposinf(ranges[inner & (part == 1)]).all()
    assert np.isneginf(ranges[inner & (part == 2)]).all()
    assert np.isneginf(ranges[inner & (part == 3)]).all()
    assert np.isnan(ranges[inner & (part == 4)]).all()
    depth[:] = 3.5  # further than range_max
    assert np.isposinf(scan.build(depth)).all()


@pytest.mark.filterwarnings("error")
def test_too_near_for_a_camera_above_the_band_may_be_anything() -> None:
    scan = ScanBuilder(CAMERA, Mounting.from_angles(1.5, 20), 0.1, 1.0, 0.1, 6)
    assert np.isnan(scan.build(np.full((60, 80), -np.inf, np.float32))).all()
    assert np.isposinf(middle(scan.build(np.full((60, 80), np.inf, np.float32)))).all()


def test_the_scan_is_written_into_out_and_does_not_depend_on_the_last_one() -> None:
    camera = CameraModel.from_hfov(64, 300, 40)
    scan = ScanBuilder(camera, Mounting.from_angles(0.5, 5), 0.1, 1.0, 0.1, 10)
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0.5, 5, (2, 300, 64)).astype(np.float32)
    expected = scan.build(first)
    out = np.empty(scan.size, np.float32)
    assert scan.build(second, out) is out
    assert scan.build(first, out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    "limits", [(0.5, 0.4, 0.1, 5.0), (0.1, 1.0, 5.0, 5.0), (0.1, 1.0, -1.0, 5.0),
               (0.1, 1.0, 0.1, math.inf), (0.1, 1.0, math.nan, 5.0)]
)  # fmt: skip
def test_empty_limits_are_rejected(limits: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"band|range"):
        ScanBuilder(CAMERA, Mounting.from_angles(0.5), *limits)


def test_a_camera_that_cannot_see_the_band_is_rejected_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="camera_pitch_deg"):
        ScanBuilder(CAMERA, Mounting.from_angles(1.5, -60), 0.1, 1.0, 0.1, 5)


def test_another_size_is_rejected() -> None:
    scan = ScanBuilder(CAMERA, Mounting.from_angles(0.5), 0.1, 1.0, 0.1, 5)
    with pytest.raises(ValueError, match="size"):
        scan.build(np.ones((60, 81), np.float32))


@pytest.mark.parametrize(
    ("height", "distance", "seen"),
    [(1.5, 3.0, True), (1.5, 1.0, False), (1.2, 0.5, True), (1.2, 0.3, False), (0.05, 0.1, False)],
)
def test_a_wall_that_hides_the_band_does_not_free_it(
    height: float, distance: float, seen: bool
) -> None:
    # The edges look 26.6 degrees up and down: from 0.5 m above the band (up to 1 m) the camera
    # sees it from 1 m on (1.016 m, to the middle of the last row), from 0.2 m above from 0.41 m,
    # from 0.05 m below (from 0.1 m) from 0.1 m.
    camera = CameraModel(80, 60, 60.0, 60.0, 39.5, 29.5)
    scan = ScanBuilder(camera, Mounting.from_angles(height), 0.1, 1.0, 0.05, 10.0)
    ranges = scan.build(np.full((60, 80), distance, np.float32))
    if seen:
        assert np.isfinite(ranges).all()
    else:
        assert np.isnan(ranges).all()
    assert np.isposinf(scan.build(np.full((60, 80), np.inf, np.float32))).all()


def test_a_pixel_is_free_only_as_far_as_it_sees_the_band() -> None:
    mounting = Mounting.from_angles(0.3)
    rise = mounting.rays(CAMERA)[2]
    floor = np.where(rise < 0, -0.3 / np.minimum(rise, -1e-9), np.inf)
    scan = ScanBuilder(CAMERA, mounting, 0.1, 1.0, 0.1, 10.0)
    # The floor up to 2 m is known, and nothing above it: what stands at 3 m may be anywhere.
    known = np.where(floor < 2, floor, np.nan).astype(np.float32)
    assert np.isnan(scan.build(known)).all()
    known = np.where(floor < 2, floor, np.inf).astype(np.float32)
    assert np.isposinf(middle(scan.build(known))).all()


@pytest.mark.parametrize(("pitch", "sees"), [(0.0, True), (10.0, True), (50.0, False)])
def test_a_direction_is_free_only_where_the_band_is_seen_up_to_the_largest_range(
    pitch: float, sees: bool
) -> None:
    camera = CameraModel.from_hfov(160, 120, 60.0)
    builder = ScanBuilder(camera, Mounting.from_angles(0.8, pitch), 0.1, 1.0, 0.1, 10.0)
    # Nothing but floor, as far as the camera can tell.
    rise = builder.mounting.rays(camera)[2]
    floor = np.where(rise < 0, 0.8 / -np.minimum(rise, -1e-9), np.inf)
    depth = np.where(floor < 10, floor, np.inf).astype(np.float32)
    ranges = builder.build(depth)
    # The upper edge looks 21 degrees above the optical axis: with 50 degrees of pitch it sees the
    # height of 0.1 m at 1.3 m (0.7 m / tan 29 degrees), and nothing beyond.
    assert np.isposinf(middle(ranges)).all() if sees else np.isnan(ranges).all()
    assert not np.isfinite(ranges).any()
    depth[60] = 0.6
    near = builder.build(depth)
    assert np.isfinite(near).any()
