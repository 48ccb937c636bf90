"""TUM RGB-D sequences: association of stamps, the published lenses, and the lists of files."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

for module in ("h5py", "pydantic", "rosbags", "scipy"):
    pytest.importorskip(module)

from data_layouts import START, write_sequence

from training.data.frame import DataError
from training.data.tum import LENSES, associate, read_tum

ONE_LINE = r"(?m)\A[^\n]*{}[^\n]*\Z"


def test_each_image_gets_the_nearest_depth_within_20_ms(tmp_path: Path) -> None:
    root = write_sequence(
        tmp_path / "rgbd_dataset_freiburg3_office",
        rgb=[0.000, 0.033, 0.066, 0.500],
        # The second is near two images, and nearer to the first; the last has no image.
        depth=[0.005, 0.052, 0.470],
    )
    frames = read_tum(root)
    assert [frame.name.split("/")[1] for frame in frames] == [
        f"{START + stamp:.6f}" for stamp in (0.000, 0.066)
    ]
    pairs = [frame.read() for frame in pickle.loads(pickle.dumps(frames))]
    assert [int(pair.image[5, 5, 0]) for pair in pairs] == [0, 20]
    assert [float(pair.depth[5, 5]) for pair in pairs] == pytest.approx([1.0, 1.1])
    assert np.isnan(pairs[0].depth[0, 0])
    assert {frame.scene for frame in frames} == {"rgbd_dataset_freiburg3_office"}


STAMPS = st.lists(st.integers(0, 400), unique=True, max_size=25).map(sorted)


@given(STAMPS, STAMPS, st.integers(0, 30))
def test_association_is_the_greedy_one(first: list[int], second: list[int], tolerance: int) -> None:
    """Takes the closest pair that is left until none is close enough."""
    left, right, expected = set(range(len(first))), set(range(len(second))), []
    while True:
        near = [(abs(first[i] - second[j]), i, j) for i in left for j in right]
        if not near or min(near)[0] > tolerance:
            break
        _, i, j = min(near)
        expected.append((i, j))
        left.remove(i)
        right.remove(j)
    result = associate(np.array(first, float), np.array(second, float), float(tolerance))
    assert result == sorted(expected)


@pytest.mark.parametrize(
    ("folder", "fx", "distorts"),
    [
        ("rgbd_dataset_freiburg1_rpy", 517.3, True),
        ("rgbd_dataset_freiburg2_desk", 520.9, True),
        ("rgbd_dataset_freiburg3_cabinet", 535.4, False),
        ("tum_fr1_xyz", 517.3, True),
    ],
)
def test_the_sequence_s_name_tells_its_lens(
    tmp_path: Path, folder: str, fx: float, distorts: bool
) -> None:
    pair = read_tum(write_sequence(tmp_path / folder, [0.0], [0.01]))[0].read()
    assert pair.fx == fx
    assert pair.depth[240, 320] == 1.0
    # Barrel distortion leaves nothing to look at in the straight image's corners.
    assert np.isnan(pair.depth[[0, 479], [639, 0]]).all() == distorts


def test_the_published_lenses_distort_as_opencv_says() -> None:
    points = np.array([[[-0.5, -0.4, 1.0]], [[0.3, 0.2, 1.0]], [[0.55, -0.4, 1.0]]])
    for lens in (LENSES["1"], LENSES["2"]):
        assert lens.cx is not None and lens.cy is not None
        k = np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
        seen, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, np.array(lens.distortion))
        straight, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, np.zeros(5))
        moved = np.linalg.norm(seen - straight, axis=-1).ravel()
        # A Kinect's colour camera: nothing near the axis, up to some 20 pixels in the corners.
        assert moved[1] < 6 and 3 < moved[0] < 30 and 3 < moved[2] < 30


def test_other_cameras_need_a_dataset_yaml(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "my_kitchen", [0.0], [0.0], size=(24, 32))
    with pytest.raises(DataError, match=ONE_LINE.format("my_kitchen.*freiburg.*dataset.yaml")):
        read_tum(root)
    (root / "dataset.yaml").write_text("fx: 30\nfy: 31\ndepth_scale: 0.001\nscene: kitchen\n")
    frame = read_tum(root)[0]
    pair = frame.read()
    assert (frame.scene, pair.fx, pair.fy, pair.depth[5, 5]) == ("kitchen", 30.0, 31.0, 5.0)
    (root / "dataset.yaml").write_text("fx: 30\nfy: 31\n")
    assert read_tum(root)[0].read().depth[5, 5] == 1.0
    (root / "dataset.yaml").write_text("fy: 31\n")
    with pytest.raises(DataError, match=ONE_LINE.format(r"dataset\.yaml: fx")):
        read_tum(root)


def test_missing_and_malformed_lists_are_named(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "freiburg1_desk", [0.0], [1.0], size=(24, 32))
    with pytest.raises(DataError, match=ONE_LINE.format("freiburg1_desk: no stamps .* 0.02 s")):
        read_tum(root)
    for content in ("now rgb/0.png\n", "12.5\n"):
        (root / "rgb.txt").write_text(content)
        with pytest.raises(DataError, match=ONE_LINE.format(r"rgb\.txt: has a line")):
            read_tum(root)
    (root / "rgb.txt").unlink()
    with pytest.raises(DataError, match=ONE_LINE.format(r"rgb\.txt: No such file")):
        read_tum(root)


def test_missing_images_and_those_of_another_size_are_named(tmp_path: Path) -> None:
    root = write_sequence(tmp_path / "freiburg1_desk", [0.0, 1.0], [0.0, 1.0], size=(24, 32))
    first, second = read_tum(root)
    with pytest.raises(
        DataError, match=ONE_LINE.format("is 32x24, its intrinsics are for 640x480")
    ):
        first.read()
    for file in (root / "depth").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=ONE_LINE.format(r"depth/13050312\d\d\.\d+\.png: No such")):
        second.read()
