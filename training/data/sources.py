"""A data set from a path: finds out what lies there, and reads the split that is asked for.

Splits are `train`, its two parts `fit` and `validation`, and `test`. The NYU layouts have their own
parts. Everything else is divided by scene, all data sets under a path together: `VALIDATION_SHARE`
of the frames is for validation. A data set that is published without a split is both its own
training set and its own test set: use it as one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.data import nyu
from training.data.folder import read_folder, settings_file
from training.data.frame import DataError, Frame, split_frames
from training.data.nyu_mat import SPLITS_FILE, read_nyu_mat
from training.data.nyu_zip import read_nyu_zip
from training.data.seven_scenes import SPLIT_FILES as SEVEN_SCENES_SPLIT_FILES
from training.data.seven_scenes import read_seven_scenes
from training.data.tum import read_tum

VALIDATION_SHARE = 0.1
SETTINGS_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Layout:
    """A way that data sets lie on disk.

    Attributes:
        description: for messages.
        matches: whether a path looks like one.
        read: the frames of a split. Only layouts that divide their training set themselves are
            asked for `fit` and `validation`.
        divides: whether they do.
    """

    description: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, str], list[Frame]]
    divides: bool = False


def _border(split: str) -> int:
    """Evaluation protocols count rows and columns of the whole image."""
    return nyu.BORDER if split in ("train", "fit") else 0


def _read_bag(path: Path, split: str) -> list[Frame]:
    # Bags are rarely what is read, and what reads them takes a while to import.
    from training.data.rosbag import read_bag

    return read_bag(path)


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda path: all((path / name).exists() for name in names)


# What is more particular comes first: a TUM sequence may have a dataset.yaml, too.
LAYOUTS = (
    Layout(
        "nyu_depth_v2_labeled.mat",
        lambda path: path.suffix == ".mat" and path.name != SPLITS_FILE and path.is_file(),
        lambda path, split: read_nyu_mat(path, split, _border(split)),
        divides=True,
    ),
    Layout(
        "nyu_data.zip",
        lambda path: path.suffix == ".zip" and path.is_file(),
        lambda path, split: read_nyu_zip(path, split, _border(split)),
        divides=True,
    ),
    Layout(
        "a ROS 2 bag (.mcap, .db3, or a folder with metadata.yaml)",
        lambda path: (path / "metadata.yaml").is_file() or path.suffix in (".mcap", ".db3"),
        _read_bag,
    ),
    Layout(
        f"NYU as rgb/, depth8/ and {' and '.join(nyu.SPLIT_FILES.values())}",
        lambda path: _has("rgb", "depth8")(path) and settings_file(path) is None,
        lambda path, split: nyu.read_nyu(path, split, _border(split)),
        divides=True,
    ),
    Layout(
        "a TUM RGB-D sequence (rgb.txt, depth.txt)",
        _has("rgb.txt", "depth.txt"),
        lambda path, split: read_tum(path),
    ),
    Layout(
        "a scene of 7-Scenes (TrainSplit.txt, TestSplit.txt)",
        _has(*SEVEN_SCENES_SPLIT_FILES.values()),
        read_seven_scenes,
    ),
    Layout(
        "a folder with dataset.yaml or meta.json, or a .yaml that names one",
        lambda path: settings_file(path) is not None or path.suffix in SETTINGS_SUFFIXES,
        lambda path, split: read_folder(path),
    ),
)


def _layout(path: Path) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.matches(path)), None)


def _data_sets(path: Path) -> list[tuple[Layout, Path]]:
    """The data set at a path, or those in the folders under it, in name order."""
    if layout := _layout(path):
        return [(layout, path)]
    folders = sorted(child for child in path.glob("*") if child.is_dir())
    found = [(layout, folder) for folder in folders if (layout := _layout(folder))]
    if not found:
        known = "; ".join(layout.description for layout in LAYOUTS)
        problem = "holds no data set that is known" if path.exists() else "not found"
        raise DataError(f"{path}: {problem}; known are {known}; or a folder of such folders")
    return found


def open_frames(path: str | Path, split: str = "train") -> list[Frame]:
    """The frames of a split of what lies at a path, unread.

    NYU's frames come without their white border for training, and whole for validation and test.

    Args:
        path: a data set in one of `LAYOUTS`, or a folder of folders with any mixture of them.
        split: train, fit, validation or test.

    Raises:
        DataError: nothing is recognised there, the split is unknown, or a data set is incomplete.
    """
    nyu.check_split(split)
    data_sets = _data_sets(Path(path))
    if split in ("train", "test"):
        return [frame for layout, where in data_sets for frame in layout.read(where, split)]
    divided = [
        f for layout, where in data_sets if layout.divides for f in layout.read(where, split)
    ]
    whole = [
        f for layout, where in data_sets if not layout.divides for f in layout.read(where, "train")
    ]
    if whole:
        divided += split_frames(whole, VALIDATION_SHARE, seed=0)[split == "validation"]
    return divided
