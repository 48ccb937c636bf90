"""Small data sets in every layout that training reads, written in the real formats."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import scipy.io
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore


def encoded(suffix: str, pixels: npt.NDArray[np.generic]) -> bytes:
    """A file of that kind."""
    return cv2.imencode(suffix, np.asarray(pixels))[1].tobytes()


NYU_TRAIN_FRAMES = 48


def write_nyu_folder(root: Path) -> Path:
    """48 training and 2 test frames: a wall whose brightness tells its distance."""
    (root / "rgb").mkdir(parents=True)
    (root / "depth8").mkdir()
    for i in range(NYU_TRAIN_FRAMES + 2):
        code = np.full((480, 640), 20 + 4 * i, np.uint8)
        code[240:] -= 10
        code[:, 300:303] = 0
        image = cv2.cvtColor(255 - code, cv2.COLOR_GRAY2BGR)
        image[..., 0] = image[..., 0] // 2  # blue, in OpenCV's order
        (root / "rgb" / f"{i:04d}.jpg").write_bytes(encoded(".jpg", image))
        (root / "depth8" / f"{i:04d}.png").write_bytes(encoded(".png", code))
    (root / "train795.txt").write_text("\n".join(f"{i:04d}" for i in range(NYU_TRAIN_FRAMES)))
    (root / "test654.txt").write_text(f"{NYU_TRAIN_FRAMES}\n{NYU_TRAIN_FRAMES + 1}\n")
    return root


MAT_SCENES = ["kitchen_0004", "office_0001a", "office_0001b", "cafe_0002", "den_0003", "den_0003"]
MAT_TRAIN, MAT_TEST = [0, 1, 2, 4, 5], [3]


def mat_image(index: int) -> npt.NDArray[np.uint8]:
    """480x640x3, every channel different and telling its row or column."""
    v, u = np.mgrid[:480, :640]
    return np.stack([v // 2, u // 3, np.full_like(u, 40 * index)], axis=2).astype(np.uint8)


def mat_depth(index: int) -> npt.NDArray[np.float32]:
    v, u = np.mgrid[:480, :640]
    depth = np.asarray(1 + index + v / 1000 + u / 10000, np.float32)
    depth[7, 11] = [0, np.nan, np.inf, -np.inf, -1.0, 0][index]
    return depth


def write_mat(path: Path) -> Path:
    """Six frames as MATLAB 7.3 writes them: HDF5 with dimensions in reverse, names by reference."""
    with h5py.File(path, "w", userblock_size=512) as file:
        images = np.stack([mat_image(i).transpose(2, 1, 0) for i in range(6)])
        file.create_dataset("images", data=images, chunks=(1, 3, 640, 480), compression="gzip")
        depths = np.stack([mat_depth(i).T for i in range(6)])
        file.create_dataset("depths", data=depths, chunks=(1, 640, 480), compression="gzip")
        names = file.create_dataset("scenes", (1, 6), dtype=h5py.ref_dtype)
        for i, scene in enumerate(MAT_SCENES):
            letters = np.array([[ord(letter)] for letter in scene], np.uint16)
            names[0, i] = file.create_dataset(f"#refs#/{i}", data=letters).ref
    ndxs = {"trainNdxs": np.array([MAT_TRAIN]).T + 1.0, "testNdxs": np.array([MAT_TEST]).T + 1.0}
    scipy.io.savemat(path.with_name("splits.mat"), ndxs)
    return path


# Depths in metres of bands of 80 rows, the same in training and test frames.
BANDS_M = [0.0, 0.7, 1.234, 4.999, 9.97, 10.0]
FOLDERS = ["basement_0001a_out", "basement_0001b_out", "cafe_0002_out", "nyu_office_0_out"]


def bands(values: list[float], kind: type[np.uint8 | np.uint16]) -> npt.NDArray[np.generic]:
    return np.repeat(np.repeat(np.array(values, kind)[:, None], 80, axis=0), 640, axis=1)


def zip_members() -> dict[str, bytes]:
    """Three frames of each of four recordings, and two test frames, by name."""
    members: dict[str, bytes] = {}
    image = np.zeros((480, 640, 3), np.uint8)
    image[..., 2], image[:, 320:, 1] = 200, 90  # red, and green on the right
    depth8 = encoded(".png", bands([round(25.5 * metres) for metres in BANDS_M], np.uint8))
    depth16 = encoded(".png", bands([1000 * metres for metres in BANDS_M], np.uint16))
    train, test = [], []
    for folder in FOLDERS:
        for number in (1, 2, 10):
            stem = f"data/nyu2_train/{folder}/{number}"
            members |= {f"{stem}.jpg": encoded(".jpg", image), f"{stem}.png": depth8}
            train.append(f"{stem}.jpg,{stem}.png\r\n")
    for number in (0, 1448):
        stem = f"data/nyu2_test/{number:05d}"
        members |= {f"{stem}_colors.png": encoded(".png", image), f"{stem}_depth.png": depth16}
        test.append(f"{stem}_colors.png,{stem}_depth.png\n")
    members["data/nyu2_train.csv"] = "".join(train).encode()
    members["data/nyu2_test.csv"] = "".join(test).encode()
    return members


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_folder(
    root: Path, meta: object, frames: int = 2, rgb: str = "rgb", depth: str = "depth"
) -> Path:
    """Frames of 24x32 whose depth is 1000, 2000, ... units, none in the corner."""
    for name in (rgb, depth):
        (root / name).mkdir(parents=True)
    for i in range(frames):
        codes = np.full((24, 32), 1000 * (i + 1), np.uint16)
        codes[0, 0] = 0
        cv2.imwrite(str(root / rgb / f"{i:04d}.jpg"), np.full((24, 32, 3), 50, np.uint8))
        cv2.imwrite(str(root / depth / f"{i:04d}.png"), codes)
    (root / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    return root


START = 1305031229.5


def write_sequence(
    root: Path,
    rgb: list[float],
    depth: list[float],
    size: tuple[int, int] = (480, 640),
) -> Path:
    """Images at `rgb` seconds and depth at `depth` seconds; both tell which of them they are."""
    for name, stamps in (("rgb", rgb), ("depth", depth)):
        (root / name).mkdir(parents=True)
        lines = ["# color images", "# file: 'x.bag'", "# timestamp filename"]
        for i, stamp in enumerate(stamps):
            pixels = (
                np.full((*size, 3), 10 * i, np.uint8)
                if name == "rgb"
                else np.full(size, 5000 + 500 * i, np.uint16)
            )
            pixels[0, 0] = 0
            cv2.imwrite(str(root / name / f"{START + stamp:.6f}.png"), pixels)
            lines.append(f"{START + stamp:.6f} {name}/{START + stamp:.6f}.png")
        (root / f"{name}.txt").write_text("\n".join([*lines, "", ""]))
    return root


def write_scene(root: Path, sequences: tuple[int, ...] = (1, 2, 13), frames: int = 2) -> Path:
    """Sequences whose frames are a wall at as many metres as the sequence's number."""
    for sequence in sequences:
        folder = root / f"seq-{sequence:02d}"
        folder.mkdir(parents=True)
        for i in range(frames):
            codes = np.full((480, 640), 1000 * sequence, np.uint16)
            codes[100:120], codes[200:220] = 65535, 0
            stem = str(folder / f"frame-{i:06d}")
            cv2.imwrite(f"{stem}.color.png", np.full((480, 640, 3), sequence, np.uint8))
            cv2.imwrite(f"{stem}.depth.png", codes)
            np.savetxt(f"{stem}.pose.txt", np.eye(4))
    (root / "TrainSplit.txt").write_text("sequence1\r\nsequence13\r\n")
    (root / "TestSplit.txt").write_text("sequence2\n")
    return root


def write_bag(folder: Path, frames: int = 3) -> Path:
    """A colour camera of 32x24 and registered depth at 1, 2, ... metres, 30 times a second."""
    types = get_typestore(Stores.ROS2_HUMBLE)

    def make(kind: str, *values: Any) -> Any:
        return types.types[kind](*values)

    k = np.array([40, 0, 15.5, 0, 41, 11.5, 0, 0, 1], np.float64)
    p = np.insert(k, [3, 6, 9], 0.0)
    all_of_it = make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for i in range(frames):
            stamp = 1_700_000_000_000_000_000 + i * 33_000_000
            time = make("builtin_interfaces/msg/Time", stamp // 10**9, stamp % 10**9)
            header = make("std_msgs/msg/Header", time, "camera_color_optical_frame")
            colour = np.full(24 * 32 * 3, 60 + i, np.uint8)
            depth = np.full(24 * 32, 1000 * (i + 1), np.uint16).view(np.uint8)
            lens = (header, 24, 32, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0)
            for topic, kind, values in (
                ("color/image_raw", "Image", (header, 24, 32, "rgb8", 0, 96, colour)),
                ("color/camera_info", "CameraInfo", (*lens, all_of_it)),
                ("depth_registered/image", "Image", (header, 24, 32, "16UC1", 0, 64, depth)),
            ):
                kind = f"sensor_msgs/msg/{kind}"
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=types)
                content = types.serialize_cdr(make(kind, *values), kind)
                writer.write(connections[topic], stamp, content)
    return folder
