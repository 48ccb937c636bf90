"""Folders with settings, encoded images and lenses, against what was written or is computed."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

for module in ("h5py", "pydantic", "rosbags", "scipy"):
    pytest.importorskip(module)

from data_layouts import write_folder

from mono_depth_ros.camera import CameraModel
from training.data.folder import read_folder, write_pair, write_settings
from training.data.frame import DataError
from training.data.image_file import read_depth_png, read_rgb
from training.data.lens import Lens, rectify

ONE_LINE = r"(?m)\A[^\n]*{}[^\n]*\Z"


def test_folder_depth_is_in_metres_and_zero_is_none(tmp_path: Path) -> None:
    frames = read_folder(write_folder(tmp_path / "desk", {"fx": 30, "fy": 31.5}))
    first, second = (frame.read() for frame in frames)
    assert [(frame.name, frame.scene) for frame in frames] == [
        ("desk/0000", "desk"),
        ("desk/0001", "desk"),
    ]
    assert (first.fx, first.fy, first.name) == (30.0, 31.5, "desk/0000")
    assert first.depth[1, 1] == 1.0 and second.depth[1, 1] == 2.0
    assert np.isnan(first.depth[0, 0]) and np.isfinite(first.depth).sum() == 24 * 32 - 1
    assert first.image.shape == (24, 32, 3)
    assert first.image.dtype == np.uint8 and first.depth.dtype == np.float32


def test_frames_of_a_folder_can_be_pickled(tmp_path: Path) -> None:
    frames = read_folder(write_folder(tmp_path / "desk", {"fx": 30, "fy": 31.5}))
    copy = pickle.loads(pickle.dumps(frames))
    np.testing.assert_array_equal(copy[1].read().depth, frames[1].read().depth)


def test_intrinsics_and_scene_may_differ_between_frames(tmp_path: Path) -> None:
    per_frame = [{"fx": 30, "fy": 31, "scene": "hall"}, {"fx": 60, "fy": 62}]
    frames = read_folder(write_folder(tmp_path / "desk", {"per_frame": per_frame, "fx": 1}))
    pairs = [frame.read() for frame in frames]
    assert [(pair.fx, pair.fy) for pair in pairs] == [(30.0, 31.0), (60.0, 62.0)]
    assert [frame.scene for frame in frames] == ["hall", "desk"]


def test_a_folder_tells_its_scene_or_that_of_every_frame(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "a", {"fx": 30, "fy": 30, "scene": "attic"})
    each = write_folder(tmp_path / "b", {"fx": 30, "fy": 30, "scene_of_frame": ["x", "y"]})
    assert [frame.scene for frame in read_folder(one)] == ["attic", "attic"]
    assert [frame.scene for frame in read_folder(each)] == ["x", "y"]


def test_settings_elsewhere_name_the_folder_relative_to_themselves(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data" / "sofa", "[]", rgb="colour/left", depth="depth16")
    (root / "meta.json").unlink()
    for place, named in (
        (tmp_path / "sets" / "sofa.yaml", "../data/sofa"),
        (tmp_path / "sofa.yml", str(root)),
    ):
        place.parent.mkdir(exist_ok=True)
        place.write_text(
            f"root: {named}\nrgb: colour/left\ndepth: depth16\ndepth_scale: 2e-4\nfx: 5e1\nfy: 51\n"
        )
        frame = read_folder(place)[1]
        assert (frame.name, frame.scene) == ("sofa/0001", "sofa")
        pair = frame.read()
        assert pair.depth[5, 5] == pytest.approx(2000 / 5000)
        assert (pair.fx, pair.fy) == (50.0, 51.0)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    depth = np.linspace(-1, 70, 24 * 32, dtype=np.float32).reshape(24, 32)
    depth[3, 3], depth[3, 4] = np.nan, np.inf
    image = np.full((24, 32, 3), (200, 20, 90), np.uint8)
    write_pair(tmp_path / "room", "0000", image, depth)
    write_settings(tmp_path / "room", 1e-3, CameraModel(32, 24, 20.0, 21.0, 15.5, 11.5), source="x")
    pair = read_folder(tmp_path / "room")[0].read()
    kept = (depth >= 5e-4) & (depth < 65.5355)
    np.testing.assert_array_equal(np.isfinite(pair.depth), kept)
    np.testing.assert_allclose(pair.depth[kept], depth[kept], atol=5.1e-4)
    np.testing.assert_allclose(pair.image, image, atol=4)
    assert (pair.fx, pair.fy) == (20.0, 21.0)


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ("{", "meta.json"),
        ("[1, 2]", "meta.json: must be a mapping"),
        ("", "meta.json: must be a mapping"),
        ("\x00", "meta.json"),
        ({"fx": 30}, "meta.json: fy: .*required"),
        ({"fx": "wide", "fy": 30}, "meta.json: fx: .*number"),
        ({"fx": 0, "fy": 30}, "meta.json: fx: .*greater than 0"),
        ({"fx": math.nan, "fy": 30}, "meta.json: fx: .*finite"),
        ({"fx": 30, "fy": 30, "depth_scale": -1}, "meta.json: depth_scale: .*greater than 0"),
        ({"fx": 30, "fy": 30, "distortion": [0.1, 0.2]}, "distortion is k1 k2 p1 p2"),
        ({"fx": 30, "fy": 30, "distortion": [0.1, 0, 0, 0]}, "distortion needs .* cx and cy"),
        ({"fx": 30, "fy": 30, "scene_of_frame": ["a"]}, "scene_of_frame has 1 .*2 images"),
        ({"per_frame": [{"fx": 30, "fy": 30}]}, "per_frame has 1 entries for 2 images"),
        ({"per_frame": [{"fx": 30, "fy": 30}, {}]}, "meta.json: per_frame 1: fx"),
        ({"fx": 30, "fy": 30, "rgb": "left"}, r"desk/left: no \.jpg"),
        ({"fx": 30, "fy": 30, "depth": "right"}, r"desk/right: no \.png"),
        ({"fx": 30, "fy": 30, "root": "nowhere"}, "nowhere/rgb: no"),
    ],
)
def test_bad_settings_are_a_one_line_error(tmp_path: Path, meta: object, text: str) -> None:
    with pytest.raises(DataError, match=text) as error:
        read_folder(write_folder(tmp_path / "desk", meta))
    assert "\n" not in str(error.value)
    assert "desk" in str(error.value)


def test_missing_settings_and_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no dataset\.yaml"):
        read_folder(tmp_path)
    with pytest.raises(DataError, match=r"none\.yaml: No such file"):
        read_folder(tmp_path / "none.yaml")
    with pytest.raises(DataError, match=r"rgb: no \.jpg"):
        read_folder(write_folder(tmp_path / "empty", {"fx": 30, "fy": 30}, frames=0))


def test_missing_and_mismatched_depth_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "desk", {"fx": 30, "fy": 30})
    cv2.imwrite(str(folder / "depth" / "0001.png"), np.ones((12, 32), np.uint16))
    with pytest.raises(DataError, match=r"desk/rgb/0001\.jpg: image is 32x24, depth 32x12"):
        read_folder(folder)[1].read()
    (folder / "depth" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"depth/0001\.png: missing, .* 1 of 2 images"):
        read_folder(folder)


def test_intrinsics_for_another_size_are_refused(tmp_path: Path) -> None:
    size = {"fx": 60, "fy": 60, "width": 64, "height": 48}
    frame = read_folder(write_folder(tmp_path / "desk", size))[0]
    with pytest.raises(DataError, match=r"0000\.jpg: is 32x24, its intrinsics are for 64x48"):
        frame.read()


# --- encoded images ------------------------------------------------------------------------------


def test_a_colour_or_float_picture_is_no_depth(tmp_path: Path) -> None:
    for name, pixels in (
        ("colour.png", np.ones((24, 32, 3), np.uint8)),
        ("float.tiff", np.ones((24, 32), np.float32)),
    ):
        cv2.imwrite(str(tmp_path / name), pixels)
        with pytest.raises(DataError, match=ONE_LINE.format(f"{name}: .*8 or 16 bit")):
            read_depth_png(tmp_path / name, 1e-3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    rng = np.random.default_rng(1)
    data = cv2.imencode(suffix, rng.integers(0, 255, (40, 50), np.uint8))[1].tobytes()
    path = tmp_path / f"half{suffix}"
    path.write_bytes(data[: int(len(data) * kept)])
    for read in (read_rgb, lambda p: read_depth_png(p, 1.0)):
        with pytest.raises(DataError, match=ONE_LINE.format(rf"half\{suffix}: damaged")):
            read(path)


def test_missing_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=ONE_LINE.format(r"none\.png: No such file")):
        read_rgb(tmp_path / "none.png")


def test_codes_that_mean_nothing_become_nan(tmp_path: Path) -> None:
    codes = np.array([[0, 1, 65534, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "d.png"), codes)
    np.testing.assert_array_equal(
        read_depth_png(tmp_path / "d.png", 0.5, invalid=(0, 65535)), [[np.nan, 0.5, 32767, np.nan]]
    )


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((3, 4), 7, np.uint8))
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), np.full((3, 4, 3), 7))


# --- lenses --------------------------------------------------------------------------------------


def distorted(x: float, y: float, d: tuple[float, ...]) -> tuple[float, float]:
    """Where plumb_bob puts the ray (x, y, 1), written out from its definition."""
    k1, k2, p1, p2, k3 = (*d, 0.0)[:5]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


COEFFICIENTS = st.tuples(
    st.floats(-0.25, 0.25), st.floats(-0.1, 0.1), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01)
)


@settings(max_examples=25, deadline=None)
@given(COEFFICIENTS, st.floats(-0.05, 0.05), st.floats(55, 90), st.floats(-4, 4))
def test_rectifying_looks_where_the_lens_put_each_ray(
    four: tuple[float, ...], k3: float, focal: float, shift: float
) -> None:
    d = (*four, k3)
    lens = Lens(focal, focal * 1.1, 40 + shift, 30 - shift, d)
    v, u = np.mgrid[:60, :80]
    image = np.stack([3 * u, 4 * v, 0 * u], axis=2).astype(np.uint8)
    # Tells its pixel exactly.
    depth = (100 + u + 1000 * v).astype(np.float32)
    straight, straight_depth = rectify(image, depth, lens, "lens")
    assert straight.dtype == np.uint8 and straight_depth.dtype == np.float32
    for row in range(0, 60, 7):
        for column in range(0, 80, 7):
            ray = ((column - (40 + shift)) / focal, (row - (30 - shift)) / (focal * 1.1))
            x, y = distorted(*ray, d)
            x, y = x * focal + 40 + shift, y * focal * 1.1 + 30 - shift
            read = straight_depth[row, column]
            if -0.1 < x < 79.1 and -0.1 < y < 59.1:
                # A thirty-second of a pixel is the resolution of the maps.
                if 0.1 < x < 78.9 and 0.1 < y < 58.9:
                    np.testing.assert_allclose(straight[row, column, :2], [3 * x, 4 * y], atol=0.7)
                    du, dv = (read - 100) % 1000 - x, (read - 100) // 1000 - y
                    assert abs(du) <= 0.55 and abs(dv) <= 0.55
            else:
                assert np.isnan(read) and not straight[row, column].any()


def test_a_lens_that_bends_nothing_returns_the_arrays_themselves() -> None:
    image, depth = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6), np.float32)
    for lens in (Lens(5, 5), Lens(5, 5, 3, 2, (0, 0, 0, 0, 0))):
        same_image, same_depth = rectify(image, depth, lens, "plain")
        assert same_image is image and same_depth is depth


def test_a_distorted_folder_is_rectified_with_its_intrinsics_kept(tmp_path: Path) -> None:
    meta = {"fx": 30, "fy": 30, "cx": 15.5, "cy": 11.5, "distortion": [0.4, 0.2, 0, 0, 0.1]}
    pair = read_folder(write_folder(tmp_path / "desk", meta))[0].read()
    assert (pair.fx, pair.fy) == (30, 30)
    # Corners look outside of the stored image, the centre does not.
    assert np.isnan(pair.depth[[0, 0, -1, -1], [0, -1, 0, -1]]).all()
    assert not pair.image[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (pair.depth[8:16, 10:22] == 1).all() and (pair.image[8:16, 10:22] == 50).all()
