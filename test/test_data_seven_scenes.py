"""7-Scenes: its splits, and depth moved from the depth camera's pixels to the colour camera's."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

for module in ("h5py", "pydantic", "rosbags", "scipy"):
    pytest.importorskip(module)

from data_layouts import write_scene

from training.data.frame import DataError
from training.data.seven_scenes import read_seven_scenes, register_depth

ONE_LINE = r"(?m)\A[^\n]*{}[^\n]*\Z"


def test_the_published_split_lists_sequences(tmp_path: Path) -> None:
    root = write_scene(tmp_path / "chess")
    train, test = read_seven_scenes(root, "train"), read_seven_scenes(root, "test")
    assert [frame.name for frame in train] == [
        f"chess/seq-{sequence}/frame-00000{i}" for sequence in ("01", "13") for i in (0, 1)
    ]
    assert {frame.scene for frame in train + test} == {"chess"}
    pair = pickle.loads(pickle.dumps(test))[0].read()
    assert (pair.fx, pair.fy, pair.name) == (525.0, 525.0, "chess/seq-02/frame-000000")
    assert pair.image.shape == (480, 640, 3) and (pair.image == 2).all()
    assert set(np.unique(pair.depth[np.isfinite(pair.depth)])) == {2.0}


def test_neither_code_for_no_depth_is_a_depth(tmp_path: Path) -> None:
    pair = read_seven_scenes(write_scene(tmp_path / "chess"), "test")[0].read()
    # Rows 100 to 119 and 200 to 219, drawn together by 525 / 585 about row 240.
    for first, last in ((100, 119), (200, 219)):
        inner = slice(round(240 + (first - 240) * 525 / 585), round(240 + (last - 240) * 525 / 585))
        assert np.isnan(pair.depth[inner]).all()
    assert np.isfinite(pair.depth[150:170, 320]).all()


def test_a_point_lands_where_the_colour_camera_sees_it() -> None:
    rng = np.random.default_rng(3)
    depth = np.full((480, 640), np.nan, np.float32)
    for v, u in zip(rng.integers(0, 480, 3000), rng.integers(0, 640, 3000), strict=True):
        depth[v, u] = rng.uniform(0.4, 4.0)
    expected: dict[tuple[int, int], float] = {}
    for v, u in np.argwhere(np.isfinite(depth)):
        z = float(depth[v, u])
        x, y = (u - 320) / 585 * z, (v - 240) / 585 * z
        # The colour camera is 25 mm to the right, looking the same way.
        column, row = round((x - 0.025) / z * 525 + 320), round(y / z * 525 + 240)
        if 0 <= column < 640:
            expected[row, column] = min(z, expected.get((row, column), np.inf))
    registered = register_depth(depth)
    found = {(v, u): registered[v, u] for v, u in np.argwhere(np.isfinite(registered)).tolist()}
    # Single precision may round a few columns that are in between to the other side.
    same = {pixel for pixel in expected if found.get(pixel) == np.float32(expected[pixel])}
    assert len(same) >= 0.995 * len(expected)
    assert abs(len(found) - len(expected)) <= 0.005 * len(expected)


def test_a_wall_has_no_holes_and_keeps_its_distance() -> None:
    registered = register_depth(np.full((480, 640), 1.5, np.float32))
    # 585 px seen with 525 px: the wall ends inside the colour image on all sides.
    rows, columns = np.nonzero(np.isfinite(registered))
    assert (rows.min(), rows.max()) == (25, 454)
    shift = -0.025 * 525 / 1.5
    assert columns.min() == round(320 - 320 * 525 / 585 + shift)
    assert columns.max() == round(320 + 319 * 525 / 585 + shift)
    inside = registered[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (inside == 1.5).all()


def test_near_things_hide_what_is_behind_them() -> None:
    depth = np.full((480, 640), 3.0, np.float32)
    depth[200:280, 300:340] = 0.6
    registered = register_depth(depth)
    near = registered == np.float32(0.6)
    v, u = np.nonzero(near)
    left, right = (320 + (column - 320) * 525 / 585 - 0.025 * 525 / 0.6 for column in (300, 339))
    assert (u.min(), u.max()) == (round(left), round(right))
    assert near[v.min() : v.max() + 1, u.min() : u.max() + 1].all()
    # To its right the wall is hidden from the depth camera but not from the colour camera.
    assert np.isnan(registered[240, u.max() + 1 : u.max() + 10]).all()


def test_frames_without_any_depth_are_read() -> None:
    assert np.isnan(register_depth(np.full((480, 640), np.nan, np.float32))).all()


def test_missing_parts_of_a_scene_are_named(tmp_path: Path) -> None:
    root = write_scene(tmp_path / "fire", sequences=(1,), frames=1)
    with pytest.raises(DataError, match=ONE_LINE.format(r"seq-13: no frame.* unpack seq-13\.zip")):
        read_seven_scenes(root, "train")
    (root / "TrainSplit.txt").write_text("seq-01\n")
    with pytest.raises(DataError, match=ONE_LINE.format(r"TrainSplit\.txt: must have lines like")):
        read_seven_scenes(root, "train")
    (root / "TrainSplit.txt").write_text("")
    with pytest.raises(DataError, match=r"TrainSplit\.txt"):
        read_seven_scenes(root, "train")
    (root / "TestSplit.txt").unlink()
    with pytest.raises(DataError, match=r"TestSplit\.txt: No such file"):
        read_seven_scenes(root, "test")
    with pytest.raises(DataError, match="'dev'"):
        read_seven_scenes(root, "dev")


def test_another_size_and_a_missing_depth_are_named(tmp_path: Path) -> None:
    root = write_scene(tmp_path / "fire")
    first, second = read_seven_scenes(root, "test")
    cv2.imwrite(str(root / "seq-02" / "frame-000000.color.png"), np.ones((24, 32, 3), np.uint8))
    (root / "seq-02" / "frame-000001.depth.png").unlink()
    with pytest.raises(DataError, match=ONE_LINE.format(r"frame-000000\.color\.png: .*640x480")):
        first.read()
    with pytest.raises(DataError, match=ONE_LINE.format(r"frame-000001\.depth\.png: No such")):
        second.read()
