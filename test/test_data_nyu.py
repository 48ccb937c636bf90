"""NYU-Depth-V2 in its three layouts, written in the real formats and compared with the truth."""

from __future__ import annotations

import multiprocessing
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
h5py = pytest.importorskip("h5py")
scipy_io = pytest.importorskip("scipy.io")
pytest.importorskip("rosbags")

from data_layouts import (
    BANDS_M,
    MAT_TRAIN,
    NYU_TRAIN_FRAMES,
    encoded,
    mat_depth,
    mat_image,
    write_mat,
    write_nyu_folder,
    write_zip,
    zip_members,
)

from training.data import nyu
from training.data.frame import DataError, Frame
from training.data.nyu import read_nyu, split_indices
from training.data.nyu_mat import read_nyu_mat
from training.data.nyu_zip import read_nyu_zip

ONE_LINE = r"(?m)\A[^\n]*{}[^\n]*\Z"


# --- the folder ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nyu_folder(tmp_path_factory.mktemp("nyu") / "nyu")


def test_nyu_depth_is_the_middle_of_its_step(folder: Path) -> None:
    frame = read_nyu(folder, "train", border=0)[7]
    pair = frame.read()
    assert frame.name == pair.name == "nyu/0007"
    assert pair.depth.dtype == np.float32
    assert pair.depth[0, 0] == pytest.approx((48 + 0.5) / 25.5)
    assert pair.depth[300, 0] == pytest.approx((38 + 0.5) / 25.5)
    assert np.isnan(pair.depth[:, 300:303]).all()
    assert np.isfinite(pair.depth).sum() == 480 * 637


def test_nyu_images_are_rgb(folder: Path) -> None:
    red, _, blue = read_nyu(folder, "train")[0].read().image[0, 0].astype(int)
    assert red > 1.7 * blue


@pytest.mark.parametrize("border", [0, 10, 25])
def test_the_border_is_cut_on_all_sides(folder: Path, border: int) -> None:
    whole, cut = (read_nyu(folder, "test", border=b)[0].read() for b in (0, border))
    inside = (slice(border, 480 - border), slice(border, 640 - border))
    np.testing.assert_array_equal(cut.depth, whole.depth[inside])
    np.testing.assert_array_equal(cut.image, whole.image[inside])
    assert (cut.fx, cut.fy) == (518.858, 519.470)


def test_fit_and_validation_share_out_the_training_split(folder: Path) -> None:
    fit, validation, train, test = (
        split_indices(folder, split) for split in ("fit", "validation", "train", "test")
    )
    assert not set(fit) & set(validation)
    assert sorted(fit + validation) == train == list(range(NYU_TRAIN_FRAMES))
    assert not set(test) & set(train)
    # Four runs of eight, one before each quarter's end: neighbouring frames show the same room.
    assert validation == [i for end in (12, 24, 36, 48) for i in range(end - 8, end)]
    assert [f.name for f in read_nyu(folder, "fit")] == [f"nyu/{i:04d}" for i in fit]


def test_nyu_errors_are_one_line_that_names_the_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=ONE_LINE.format("'dev'[^\n]*validation")):
        read_nyu(folder, "dev")
    with pytest.raises(DataError, match=ONE_LINE.format(r"test654\.txt[^\n]*depth8")):
        read_nyu(tmp_path, "test")
    (tmp_path / "test654.txt").write_text("12\nseven\n")
    with pytest.raises(DataError, match=ONE_LINE.format(r"test654\.txt[^\n]*seven")):
        read_nyu(tmp_path, "test")
    (tmp_path / "test654.txt").write_text("5")
    with pytest.raises(DataError, match=ONE_LINE.format(r"0005\.jpg")):
        read_nyu(tmp_path, "test")[0].read()


def test_nyu_frames_of_another_size_are_rejected(tmp_path: Path) -> None:
    for sub, name, channels in (("rgb", "0005.jpg", 3), ("depth8", "0005.png", 1)):
        (tmp_path / sub).mkdir()
        pixels = np.ones((240, 320, channels), np.uint8)
        (tmp_path / sub / name).write_bytes(encoded(Path(name).suffix, pixels))
    (tmp_path / "test654.txt").write_text("5")
    with pytest.raises(DataError, match="0005: is not 640x480"):
        read_nyu(tmp_path, "test")[0].read()


# --- the MATLAB file -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mat(tmp_path_factory.mktemp("mat") / "nyu_depth_v2_labeled.mat")


def test_mat_frames_are_upright_rgb_and_metres(mat: Path) -> None:
    for frame, index in zip(read_nyu_mat(mat, "train", border=0), MAT_TRAIN, strict=True):
        pair = frame.read()
        assert frame.name == pair.name == f"nyu/{index:04d}"
        np.testing.assert_array_equal(pair.image, mat_image(index))
        expected = mat_depth(index)
        assert np.isnan(pair.depth[7, 11])
        expected[7, 11] = np.nan
        np.testing.assert_array_equal(pair.depth, expected)
        assert pair.image.flags.c_contiguous and pair.depth.flags.c_contiguous
        assert pair.image.dtype == np.uint8 and pair.depth.dtype == np.float32
        assert (pair.fx, pair.fy) == (518.858, 519.470)


def test_the_official_split_counts_from_one(mat: Path) -> None:
    test = read_nyu_mat(mat, "test")
    assert [(frame.name, frame.scene) for frame in test] == [("nyu/0003", "cafe_0002")]
    assert test[0].read().image.shape == (460, 620, 3)


def test_recordings_of_one_room_are_one_scene(mat: Path) -> None:
    scenes = [frame.scene for frame in read_nyu_mat(mat, "train")]
    assert scenes == ["kitchen_0004", "office_0001", "office_0001", "den_0003", "den_0003"]


def test_mat_fit_and_validation_share_no_room(mat: Path) -> None:
    fit, validation = (read_nyu_mat(mat, split) for split in ("fit", "validation"))
    names = sorted(frame.name for frame in fit + validation)
    assert names == [f"nyu/{i:04d}" for i in MAT_TRAIN]
    assert len(validation) == 1
    assert not {frame.scene for frame in fit} & {frame.scene for frame in validation}


def _mean_depth(frame: Frame) -> float:
    return float(np.nanmean(frame.read().depth))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loader_processes_read_what_the_parent_has_opened(mat: Path, method: str) -> None:
    frames = read_nyu_mat(mat, "train")
    here = [_mean_depth(frame) for frame in frames]
    with warnings.catch_warnings(), multiprocessing.get_context(method).Pool(2) as pool:
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        assert pool.map(_mean_depth, frames * 3) == here * 3
    assert [_mean_depth(frame) for frame in frames] == here


@pytest.mark.parametrize("kept", [0.0, 0.4, 0.99])
def test_a_half_downloaded_mat_file_is_said_to_be_incomplete(
    mat: Path, tmp_path: Path, kept: float
) -> None:
    content = mat.read_bytes()
    path = tmp_path / "half.mat"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=ONE_LINE.format(r"half\.mat[^\n]*download it again")):
        read_nyu_mat(path, "train")


def test_another_mat_file_is_told_apart(mat: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"splits\.mat: not a complete MATLAB 7\.3"):
        read_nyu_mat(mat.with_name("splits.mat"), "train")
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(DataError, match=r"other\.mat: has no depths, scenes; is it nyu_depth"):
        read_nyu_mat(tmp_path / "other.mat", "train")
    with pytest.raises(DataError, match=r"none\.mat: not found"):
        read_nyu_mat(tmp_path / "none.mat", "train")
    with pytest.raises(DataError, match="'dev'"):
        read_nyu_mat(mat, "dev")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"splits\.mat: not found"),
        (b"no MATLAB file, but longer than its header" * 10, r"splits\.mat: cannot be read"),
        ({"testNdxs": [1]}, r"splits\.mat: cannot be read for trainNdxs"),
        ({"trainNdxs": [0, 1]}, r"splits\.mat: trainNdxs are not frames of 1 to 6"),
        ({"trainNdxs": [6, 7]}, r"splits\.mat: trainNdxs are not frames of 1 to 6"),
        ({"trainNdxs": [2, 2]}, r"splits\.mat: trainNdxs are not frames of 1 to 6"),
    ],
)
def test_a_missing_or_wrong_split_is_named(
    mat: Path, tmp_path: Path, content: bytes | dict[str, list[int]] | None, text: str
) -> None:
    (tmp_path / "nyu.mat").symlink_to(mat)
    if isinstance(content, bytes):
        (tmp_path / "splits.mat").write_bytes(content)
    elif content:
        scipy_io.savemat(tmp_path / "splits.mat", content)
    with pytest.raises(DataError, match=ONE_LINE.format(text)):
        read_nyu_mat(tmp_path / "nyu.mat", "train")


def test_a_damaged_frame_is_named(mat: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mat"
    content = bytearray(mat.read_bytes())
    with h5py.File(mat) as file:
        chunk = file["depths"].id.get_chunk_info(4)
    # Offsets count from the end of MATLAB's header.
    middle = 512 + chunk.byte_offset + chunk.size // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    (tmp_path / "splits.mat").write_bytes(mat.with_name("splits.mat").read_bytes())
    frames = {frame.name: frame for frame in read_nyu_mat(path, "train")}
    assert frames["nyu/0005"].read().depth.shape == (460, 620)
    with pytest.raises(DataError, match=ONE_LINE.format(r"damaged\.mat: frame 4 is damaged")):
        frames["nyu/0004"].read()


# --- the zip -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zip(tmp_path_factory.mktemp("zip") / "nyu_data.zip", zip_members())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_training_depth_is_rounded_and_its_ends_are_no_measurements(
    tmp_path: Path, method: int
) -> None:
    path = write_zip(tmp_path / "nyu.zip", zip_members(), method)
    pair = read_nyu_zip(path, "train", border=0)[0].read()
    read = pair.depth[40::80, 100]
    assert np.isnan(read[[0, 5]]).all()
    np.testing.assert_allclose(read[1:5], BANDS_M[1:5], atol=0.5 / 25.5)
    assert read[1] == pytest.approx(18 / 25.5)
    np.testing.assert_array_equal(pair.depth, np.repeat(read, 80)[:, None].repeat(640, axis=1))


def test_zip_test_depth_is_in_millimetres_and_named_as_in_the_labelled_set(archive: Path) -> None:
    frames = read_nyu_zip(archive, "test", border=0)
    assert [frame.name for frame in frames] == ["nyu/0000", "nyu/1448"]
    read = frames[1].read().depth[40::80, 100]
    assert np.isnan(read[0])
    np.testing.assert_allclose(read[1:], BANDS_M[1:], atol=1e-6)


def test_zip_frames_have_their_image_upright_in_rgb_and_nyu_s_intrinsics(archive: Path) -> None:
    for split in ("train", "test"):
        frame = read_nyu_zip(archive, split)[0]
        pair = frame.read()
        assert pair.image.shape == (460, 620, 3) and pair.depth.shape == (460, 620)
        red, green, blue = pair.image[200, 100].astype(int)
        assert (red > 150, green < 30, blue < 30) == (True, True, True)
        assert pair.image[200, 500, 1] > 60
        assert (pair.name, pair.fx, pair.fy) == (frame.name, nyu.FX, nyu.FY)


def test_zip_fit_and_validation_are_parts_of_train_that_share_no_room(archive: Path) -> None:
    train, fit, validation = (read_nyu_zip(archive, s) for s in ("train", "fit", "validation"))
    assert len(train) == len({frame.name for frame in train}) == 12
    assert sorted(f.name for f in fit + validation) == sorted(f.name for f in train)
    assert {f.scene for f in train} == {"basement_0001", "cafe_0002", "nyu_office_0"}
    # The room of three is nearer to a fifth of twelve frames than that of six.
    assert len(validation) == 3
    assert not {f.scene for f in fit} & {f.scene for f in validation}
    again = read_nyu_zip(archive, "validation")
    assert [f.name for f in again] == [f.name for f in validation]
    assert train[2].name == "nyu/basement_0001a/10"


def test_zip_frames_can_be_pickled(archive: Path) -> None:
    frames = read_nyu_zip(archive, "train")
    copy = pickle.loads(pickle.dumps(frames))
    assert [_mean_depth(frame) for frame in copy] == [_mean_depth(frame) for frame in frames]


def test_a_damaged_image_in_the_zip_is_named(tmp_path: Path) -> None:
    members = zip_members()
    path = write_zip(tmp_path / "nyu.zip", members, zipfile.ZIP_STORED)
    spoilt = "data/nyu2_train/cafe_0002_out/2.png"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as opened:
        content[opened.getinfo(spoilt).header_offset + 30 + len(spoilt) + 60] ^= 0x10
    path.write_bytes(content)
    broken = ONE_LINE.format(rf"nyu\.zip:{spoilt}: damaged; download")
    for frame in read_nyu_zip(path, "train"):
        if frame.name == "nyu/cafe_0002/2":
            with pytest.raises(DataError, match=broken):
                frame.read()
        else:
            frame.read()


@pytest.mark.parametrize(
    "content", [b"", b"no image", zip_members()["data/nyu2_train/cafe_0002_out/2.png"][:90]]
)
def test_a_member_that_was_never_an_image_is_named(tmp_path: Path, content: bytes) -> None:
    name = "data/nyu2_train/cafe_0002_out/2.png"
    path = write_zip(tmp_path / "nyu.zip", zip_members() | {name: content})
    frame = next(f for f in read_nyu_zip(path, "train") if f.name == "nyu/cafe_0002/2")
    with pytest.raises(DataError, match=ONE_LINE.format(rf"nyu\.zip:{name}: damaged, or not")):
        frame.read()


def test_a_zip_that_was_replaced_is_not_read_at_the_old_places(tmp_path: Path) -> None:
    members = zip_members()
    path = write_zip(tmp_path / "nyu.zip", members)
    frames = read_nyu_zip(path, "train")
    write_zip(path, dict(reversed(members.items())))
    for frame in frames:
        with pytest.raises(DataError, match=r"nyu\.zip:data/nyu2_train/.*download"):
            frame.read()
    for frame in read_nyu_zip(path, "train"):
        frame.read()


@pytest.mark.parametrize(
    ("csv", "text"),
    [
        (None, r"has no data/nyu2_train\.csv; is it nyu_data\.zip"),
        ("", r"nyu2_train\.csv: lists nothing"),
        ("a.jpg\n", r"nyu2_train\.csv: 'a\.jpg' is not IMAGE,DEPTH"),
        ("a.jpg,b.png,c\n", r"is not IMAGE,DEPTH"),
        ("a.jpg,b.png\n", r"nyu\.zip:a\.jpg: missing, though data/nyu2_train\.csv lists it"),
        ("data/nyu2_train.csv,data/nyu2_test.csv", "neither a training nor a test image"),
    ],
)
def test_a_wrong_csv_in_the_zip_is_named(tmp_path: Path, csv: str | None, text: str) -> None:
    members = zip_members()
    del members["data/nyu2_train.csv"]
    if csv is not None:
        members["data/nyu2_train.csv"] = csv.encode()
    path = write_zip(tmp_path / "nyu.zip", members)
    with pytest.raises(DataError, match=ONE_LINE.format(text)):
        read_nyu_zip(path, "train")


def test_a_zip_frame_of_another_size_or_kind_is_rejected(tmp_path: Path) -> None:
    name = "data/nyu2_train/cafe_0002_out/2.png"
    for pixels, text in (
        (np.ones((240, 320), np.uint8), "cafe_0002/2: is not 640x480"),
        (np.ones((480, 640, 3), np.uint8), "2.png: 3 channel"),
    ):
        path = write_zip(tmp_path / "nyu.zip", zip_members() | {name: encoded(".png", pixels)})
        frame = next(f for f in read_nyu_zip(path, "train") if f.name == "nyu/cafe_0002/2")
        with pytest.raises(DataError, match=text):
            frame.read()


def test_what_is_no_zip_is_said_to_be_none(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    for name, data in (("half.zip", content[: len(content) // 2]), ("text.zip", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=ONE_LINE.format(f"{name}: no complete zip")):
            read_nyu_zip(tmp_path / name, "train")
    with pytest.raises(DataError, match=r"none\.zip: not found"):
        read_nyu_zip(tmp_path / "none.zip", "train")
    with pytest.raises(DataError, match="'dev'"):
        read_nyu_zip(archive, "dev")


def test_an_unusual_compression_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "nyu.zip", zip_members(), zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match=r"nyu2_train\.csv: packed by method 12"):
        read_nyu_zip(path, "train")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damage_anywhere_in_the_zip_is_a_one_line_data_error_or_harmless(
    archive: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(archive.read_bytes())
    # The directory at the end, or anywhere.
    start = struct.unpack("<I", content[-6:-2])[0] if data.draw(st.booleans()) else 0
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(start, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(content)
    truth = {frame.name: frame for frame in read_nyu_zip(archive, "test")}
    message = "damaged.zip"
    try:
        for frame in read_nyu_zip(path, "test"):
            pair, expected = frame.read(), truth[frame.name].read()
            np.testing.assert_array_equal(pair.image, expected.image)
            np.testing.assert_array_equal(pair.depth, expected.depth)
    except DataError as error:
        message = str(error)
    assert "\n" not in message and "damaged.zip" in message
