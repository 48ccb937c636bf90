"""50,688 NYU-Depth-V2 training pairs in one zip, read from it without unpacking.

The archive `nyu_data.zip` of "High Quality Monocular Depth Estimation via Transfer Learning"
(Alhashim & Wonka, arXiv 1812.11941), which the later articles trained on:

    data/nyu2_train.csv     lines `data/nyu2_train/SCENE_out/N.jpg,data/nyu2_train/SCENE_out/N.png`
    data/nyu2_test.csv      lines `data/nyu2_test/NNNNN_colors.png,data/nyu2_test/NNNNN_depth.png`

All images are 640x480 with the data set's white border. Depth is in-painted, in two codings:

- Training, 8 bit: v = round(25.5 m), so depth is v / 25.5, as the released loader has it too. The
  other 8-bit copy, in `training.data.nyu`, rounds down. Two observations tell: the toolbox limits
  depth to 0.7 m, whose code is 17.85, and no code is below 18; and frames that are in both copies
  have codes that are equal or greater by one, half and half. 255 is what the toolbox cut off at
  10 m, not a measurement, so it becomes NaN.
- Test, 16 bit: millimetres. The frames are the 654 of the labelled set, and are named as there.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.data import nyu
from training.data.frame import DataError, Frame, split_frames
from training.data.image_file import decode_codes, decode_rgb, to_metres
from training.data.pair import Pair

VALIDATION_SHARE = 0.2
SATURATED = 255
CSV_FILES = {"train": "data/nyu2_train.csv", "test": "data/nyu2_test.csv"}
_TRAIN_IMAGE = re.compile(r"data/nyu2_train/([^/]+)/([^/]+)\.jpg")
_TEST_IMAGE = re.compile(r"data/nyu2_test/(\d+)_colors\.png")
# Signature, 22 bytes that the central directory repeats, lengths of the name and the extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_SIGNATURE = b"PK\x03\x04"


class Member(NamedTuple):
    """Where a file lies in a zip.

    With this, a file is read without the archive's directory, which takes a second to parse and
    70 MB to hold, and without a handle that processes or threads would have to share.
    """

    archive: Path
    name: str
    offset: int
    compressed_size: int
    method: int
    crc: int

    def read(self) -> bytes:
        """The content.

        Raises:
            DataError: it is damaged, or the archive is another one by now.
        """
        where = f"{self.archive}:{self.name}"
        if self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{where}: packed by method {self.method}; pack it again with deflate")
        try:
            with self.archive.open("rb") as file:
                file.seek(self.offset)
                signature, name_length, extra_length = _LOCAL_HEADER.unpack(
                    file.read(_LOCAL_HEADER.size)
                )
                file.seek(name_length + extra_length, 1)
                data = file.read(self.compressed_size)
            if self.method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
        except (OSError, struct.error, zlib.error) as error:
            raise DataError(f"{where}: {error}; download the archive again") from None
        if signature != _LOCAL_SIGNATURE or zlib.crc32(data) != self.crc:
            raise DataError(f"{where}: damaged; download the archive again")
        return data


def _members(path: Path) -> dict[str, Member]:
    """All files in a zip by name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                i.filename: Member(
                    path, i.filename, i.header_offset, i.compress_size, i.compress_type, i.CRC
                )
                for i in archive.infolist()
            }
    except (OSError, zipfile.BadZipFile, struct.error, NotImplementedError, ValueError) as error:
        raise DataError(f"{path}: no complete zip ({error}); download it again") from None


@lru_cache(maxsize=2)
def _rows(path: Path, csv: str, modified_ns: int) -> tuple[tuple[Member, Member], ...]:
    """Image and depth of each line of a CSV file in the zip."""
    members = _members(path)
    if csv not in members:
        raise DataError(f"{path}: has no {csv}; is it nyu_data.zip?")
    rows = []
    for line in members[csv].read().decode("utf-8", "replace").splitlines():
        names = [name.strip() for name in line.split(",")]
        if names == [""]:
            continue
        if len(names) != 2:
            raise DataError(f"{path}:{csv}: '{line[:80]}' is not IMAGE,DEPTH")
        absent = [name for name in names if name not in members]
        if absent:
            raise DataError(
                f"{path}:{absent[0]}: missing, though {csv} lists it; download the archive again"
            )
        rows.append((members[names[0]], members[names[1]]))
    if not rows:
        raise DataError(f"{path}:{csv}: lists nothing; download the archive again")
    return tuple(rows)


def _read_pair(image: Member, depth: Member, border: int, name: str) -> Pair:
    pixels = decode_rgb(image.read(), f"{image.archive}:{image.name}")
    codes = decode_codes(depth.read(), f"{depth.archive}:{depth.name}")
    if codes.dtype == np.uint8:
        metres = to_metres(codes, 1 / nyu.CODES_PER_METRE, invalid=(0, SATURATED))
    else:
        metres = to_metres(codes, 1e-3)
    return nyu.crop_pair(pixels, metres, border, name)


def _frame(image: Member, depth: Member, border: int) -> Frame:
    if found := _TRAIN_IMAGE.fullmatch(image.name):
        folder, stem = found.groups()
        scene = folder.removesuffix("_out")
        name = f"nyu/{scene}/{stem}"
    elif found := _TEST_IMAGE.fullmatch(image.name):
        scene, name = "nyu", f"nyu/{int(found[1]):04d}"
    else:
        raise DataError(f"{image.archive}:{image.name}: neither a training nor a test image")
    return Frame(name, nyu.room(scene), partial(_read_pair, image, depth, border, name))


def read_nyu_zip(path: str | Path, split: str, border: int = nyu.BORDER) -> list[Frame]:
    """The frames of one split, without `border` pixels on each side.

    `fit` and `validation` are parts of `train`, 80:20, that share no room: recordings `..._0001a`
    and `..._0001b` are of one.

    Args:
        path: nyu_data.zip.
        split: train, test, fit or validation.
        border: pixels.

    Raises:
        DataError: unknown split, or the archive is damaged or another one.
    """
    path = Path(path)
    nyu.check_split(split)
    if not path.is_file():
        raise DataError(f"{path}: not found")
    csv = CSV_FILES["test" if split == "test" else "train"]
    # The time, because an archive that was downloaded again has other offsets.
    rows = _rows(path, csv, path.stat().st_mtime_ns)
    frames = [_frame(image, depth, border) for image, depth in rows]
    if split in ("train", "test"):
        return frames
    return split_frames(frames, VALIDATION_SHARE, seed=0)[split == "validation"]
