"""Rendered pairs: distinct rooms, exact depth, the lens that is written down, and resumption."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.sim.plan import plan_room
from training.data.folder import read_folder
from training.synthesize import (
    CLEARANCE_M,
    FIRST_SEED,
    HFOV_DEG,
    draw_lens,
    draw_pose,
    is_informative,
    main,
)

ROOMS, FRAMES = 2, 5


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    options = ["--rooms", str(ROOMS), "--frames", str(FRAMES), "--size", "96", "72"]
    assert main(["--out", str(out), "--workers", "2", *options]) == 0
    return out


@given(seed=st.integers(0, 10_000), wide=st.booleans())
def test_lenses_have_a_field_of_view_in_range_and_square_pixels(seed: int, wide: bool) -> None:
    width, height = (640, 480) if wide else (320, 200)
    camera = draw_lens(np.random.default_rng(seed), width, height)
    hfov = 2 * math.degrees(math.atan(width / 2 / camera.fx))
    assert HFOV_DEG[0] <= hfov <= HFOV_DEG[1]
    assert camera.fx == camera.fy


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 500))
def test_cameras_stand_in_the_room_and_in_nothing_else(seed: int) -> None:
    plan, rng = plan_room(seed), np.random.default_rng(seed)
    poses = [pose for _ in range(40) if (pose := draw_pose(plan, rng)) is not None]
    assert poses
    for pose in poses:
        assert (pose.position > CLEARANCE_M).all()
        assert (pose.position < plan.size - CLEARANCE_M).all()
        for low, high in plan.obstacles:
            beside = (pose.position <= low - CLEARANCE_M) | (pose.position >= high + CLEARANCE_M)
            assert beside.any()
        np.testing.assert_allclose(pose.rotation @ pose.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(pose.rotation) == pytest.approx(1)


def test_views_come_from_all_heights_pitches_and_near_things() -> None:
    rng = np.random.default_rng(0)
    poses = []
    for seed in range(30):
        plan = plan_room(seed)
        poses += [pose for _ in range(20) if (pose := draw_pose(plan, rng)) is not None]
    heights = np.array([pose.position[2] for pose in poses])
    pitches = np.degrees([math.asin(pose.rotation[2, 2]) for pose in poses])
    assert (heights < 0.4).mean() > 0.1 and (heights > 1.3).mean() > 0.1
    assert (pitches < -20).mean() > 0.05 and (pitches > 5).mean() > 0.05


def test_flat_and_blocked_views_are_not_informative() -> None:
    rng = np.random.default_rng(0)
    textured = rng.integers(0, 256, (40, 60, 3), np.uint8)
    slope = np.tile(np.linspace(1, 3, 60, dtype=np.float32), (40, 1))
    assert is_informative(textured, slope)
    assert not is_informative(np.full_like(textured, 90), slope)
    assert not is_informative(textured, np.full_like(slope, 2))
    assert not is_informative(textured, slope * 0.1)


@pytest.mark.slow
def test_every_room_is_a_data_set_with_its_own_lens(rendered: Path) -> None:
    folders = sorted(rendered.iterdir())
    seeds = range(FIRST_SEED, FIRST_SEED + ROOMS)
    assert [folder.name for folder in folders] == [f"room-{seed:06d}" for seed in seeds]
    lenses, means = set(), set()
    for folder in folders:
        frames = read_folder(folder)
        assert len(frames) == FRAMES
        assert {frame.scene for frame in frames} == {folder.name}
        for pair in (frame.read() for frame in frames):
            assert pair.image.shape == (72, 96, 3)
            assert np.isfinite(pair.depth).mean() > 0.99
            assert np.nanmin(pair.depth) >= 0.15 and np.nanmax(pair.depth) < 12
            means.add(round(float(pair.image.mean()), 3))
            lenses.add(pair.fx)
    assert len(lenses) == ROOMS and len(means) == ROOMS * FRAMES


@pytest.mark.slow
def test_what_is_there_is_left_alone_and_what_is_missing_is_made_again(
    rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(rendered.iterdir())
    wanted = {path.name: path.read_bytes() for path in (second / "rgb").iterdir()}
    (second / "dataset.yaml").unlink()  # as a kill in the middle of a room leaves it
    (second / "rgb" / "0003.jpg").write_bytes(b"half")
    (first / "rgb" / "0000.jpg").write_bytes(b"left alone")
    options = ["--rooms", str(ROOMS), "--frames", str(FRAMES), "--size", "96", "72"]
    assert main(["--out", str(rendered), "--workers", "1", *options]) == 0
    assert "1 new rooms, 1 were there" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (second / "rgb").iterdir()} == wanted
    assert (first / "rgb" / "0000.jpg").read_bytes() == b"left alone"
    lens = yaml.safe_load((second / "dataset.yaml").read_text())
    assert lens["cx"] == 47.5 and lens["width"] == 96


@pytest.mark.slow
def test_rendered_depth_is_exact_to_the_millimetre(rendered: Path) -> None:
    path = next((sorted(rendered.iterdir())[1] / "depth").iterdir())
    code = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert code.dtype == np.uint16
    assert len(np.unique(code)) > 200


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "x"), "--rooms", "1", "--workers", "1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "file" in lines[0]
