"""What lies at a path is recognised, alone or among others, and divided into splits."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

for module in ("h5py", "pydantic", "rosbags", "scipy"):
    pytest.importorskip(module)

from data_layouts import (
    write_bag,
    write_folder,
    write_mat,
    write_nyu_folder,
    write_scene,
    write_sequence,
    write_zip,
    zip_members,
)

from training.data.frame import DataError, Frame, load
from training.data.sources import LAYOUTS, open_frames

SPLITS = ("train", "fit", "validation", "test")
LENS = {"fx": 30, "fy": 30}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each layout."""
    root = tmp_path_factory.mktemp("layouts")
    write_nyu_folder(root / "nyu")
    write_mat(root / "nyu_depth_v2_labeled.mat")
    write_zip(root / "nyu_data.zip", zip_members())
    write_bag(root / "kitchen_bag")
    write_sequence(root / "freiburg3_office", [0.0, 0.1], [0.0, 0.1])
    write_scene(root / "chess")
    write_folder(root / "desk", LENS, frames=4)
    (root / "sets").mkdir()
    (root / "sets" / "desk.yaml").write_text("root: ../desk\nfx: 50\nfy: 50\n")
    return root


def names(frames: list[Frame]) -> list[str]:
    return [frame.name for frame in frames]


@pytest.mark.parametrize(
    ("path", "train", "test", "first"),
    [
        ("nyu", 48, 2, "nyu/0000"),
        ("nyu_depth_v2_labeled.mat", 5, 1, "nyu/0000"),
        ("nyu_data.zip", 12, 2, "nyu/basement_0001a/1"),
        ("kitchen_bag", 3, 3, "kitchen_bag/1700000000000000000"),
        ("kitchen_bag/kitchen_bag.mcap", 3, 3, "kitchen_bag/1700000000000000000"),
        ("freiburg3_office", 2, 2, "freiburg3_office/1305031229.500000"),
        ("chess", 4, 2, "chess/seq-01/frame-000000"),
        ("desk", 4, 4, "desk/0000"),
        ("desk/meta.json", 4, 4, "desk/0000"),
        ("sets/desk.yaml", 4, 4, "desk/0000"),
    ],
)
def test_every_layout_is_recognised_and_divided(
    root: Path, path: str, train: int, test: int, first: str
) -> None:
    frames = {split: open_frames(str(root / path), split) for split in SPLITS}
    assert (len(frames["train"]), len(frames["test"])) == (train, test)
    assert names(open_frames(root / path)) == names(frames["train"])
    assert frames["train"][0].name == first
    assert frames["fit"] and frames["validation"]
    assert sorted(names(frames["fit"] + frames["validation"])) == sorted(names(frames["train"]))
    for frame in (frames["train"][-1], frames["test"][0]):
        pair = pickle.loads(pickle.dumps(frame)).read()
        assert pair.name == frame.name
        assert pair.image.shape == (*pair.depth.shape, 3)
        assert np.isfinite(pair.depth).any()


@pytest.mark.parametrize("path", ["nyu", "nyu_depth_v2_labeled.mat", "nyu_data.zip"])
def test_nyu_is_whole_where_protocols_count_its_rows(root: Path, path: str) -> None:
    for split, shape in (("fit", (460, 620)), ("validation", (480, 640)), ("test", (480, 640))):
        assert open_frames(root / path, split)[0].read().depth.shape == shape


def test_a_folder_of_data_sets_is_their_sum(root: Path) -> None:
    frames = {split: open_frames(root, split) for split in SPLITS}
    parts = ("chess", "desk", "freiburg3_office", "kitchen_bag", "nyu")
    assert names(frames["train"]) == [
        name for part in parts for name in names(open_frames(root / part))
    ]
    assert len(frames["test"]) == 2 + 4 + 2 + 3 + 2
    assert sorted(names(frames["fit"] + frames["validation"])) == sorted(names(frames["train"]))
    # NYU keeps its own parts; of the others whole scenes are held out, of all together.
    others = [frame for frame in frames["validation"] if frame.scene != "nyu"]
    assert len(frames["validation"]) - len(others) == 32
    assert {f.scene for f in others} and not {f.scene for f in others} & {
        f.scene for f in frames["fit"]
    }


def test_a_tenth_of_the_scenes_is_held_out(tmp_path: Path) -> None:
    for i in range(30):
        write_folder(tmp_path / f"room-{i:02d}", LENS)
    fit, validation = (open_frames(tmp_path, split) for split in ("fit", "validation"))
    assert (len(fit), len(validation)) == (54, 6)
    assert len({frame.scene for frame in validation}) == 3
    assert names(open_frames(tmp_path, "validation")) == names(validation)


def test_all_frames_can_be_loaded(root: Path) -> None:
    pairs = load(open_frames(root / "desk") + open_frames(root / "kitchen_bag"))
    depths = [float(np.nanmax(pair.depth)) for pair in pairs]
    assert depths == pytest.approx([1, 2, 3, 4, 1, 2, 3])


def test_folders_that_hold_something_else_are_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path / "desk", LENS)
    (tmp_path / "notes").mkdir()
    (tmp_path / "half" / "rgb").mkdir(parents=True)
    (tmp_path / "readme.yaml").write_text("x: 1")
    assert names(open_frames(tmp_path)) == ["desk/0000", "desk/0001"]


def test_settings_beside_depth8_make_it_a_folder_of_its_own(tmp_path: Path) -> None:
    write_folder(tmp_path / "robot", {**LENS, "depth": "depth8"}, depth="depth8")
    assert names(open_frames(tmp_path / "robot")) == ["robot/0000", "robot/0001"]


def test_what_is_not_recognised_lists_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "splits.mat").write_bytes(b"")
    for path, text in (
        (tmp_path, "holds no data set"),
        (tmp_path / "splits.mat", "holds no data set"),
        (tmp_path / "none", "not found"),
    ):
        with pytest.raises(DataError, match=text) as error:
            open_frames(path)
        message = str(error.value)
        assert "\n" not in message and str(path) in message
        assert all(layout.description in message for layout in LAYOUTS)


def test_an_unknown_split_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"'dev'.*train, test, fit, validation"):
        open_frames(root / "desk", "dev")


@pytest.mark.parametrize("name", ["a.mat", "a.zip", "a.mcap", "a.db3", "a.yaml"])
def test_a_missing_or_empty_file_of_a_known_kind_is_named(tmp_path: Path, name: str) -> None:
    for prepare in (lambda path: None, lambda path: path.write_bytes(b"")):
        prepare(tmp_path / name)
        with pytest.raises(DataError, match=rf"(?m)\A[^\n]*{name}[^\n]*\Z"):
            open_frames(tmp_path / name)


def test_a_frame_without_any_depth_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "desk", LENS, frames=1)
    cv2.imwrite(str(folder / "depth" / "0000.png"), np.zeros((24, 32), np.uint16))
    assert np.isnan(open_frames(folder)[0].read().depth).all()
