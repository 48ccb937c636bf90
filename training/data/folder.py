"""Folders of RGB + 16-bit millimetre depth pairs with their intrinsics in `meta.json`."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

from training.data.pair import Pair, read_all, read_depth_png, read_rgb


def _read_pair(folder: Path, stem: str, fx: float, fy: float) -> Pair:
    image = read_rgb(folder / "rgb" / f"{stem}.jpg")
    depth = read_depth_png(folder / "depth" / f"{stem}.png", 1e-3)
    if image.shape[:2] != depth.shape:
        raise ValueError(f"{folder}/{stem}: image {image.shape[:2]} and depth {depth.shape} differ")
    return Pair(image, depth, fx, fy, f"{folder.name}/{stem}")


def read_folder(folder: str | Path) -> list[Pair]:
    """Reads `rgb/NNNN.jpg`, `depth/NNNN.png` (0 = none) and `meta.json`.

    The latter holds `fx`, `fy` in pixels at the stored size, or one such object a frame under
    `per_frame`.

    Raises:
        ValueError: a file is missing, unreadable or of another size, or there is no image.
    """
    folder = Path(folder)
    stems = sorted(path.stem for path in (folder / "rgb").glob("*.jpg"))
    try:
        meta = json.loads((folder / "meta.json").read_text())
        focals = [
            (float(k["fx"]), float(k["fy"])) for k in meta.get("per_frame", [meta] * len(stems))
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'meta.json'}: {type(error).__name__}: {error}") from None
    if not stems:
        raise ValueError(f"{folder}: no rgb/*.jpg in it")
    if len(focals) != len(stems):
        raise ValueError(f"{folder}: {len(stems)} images but intrinsics for {len(focals)}")
    if not all(0 < f < math.inf for pair in focals for f in pair):
        raise ValueError(f"{folder / 'meta.json'}: fx and fy must be positive")
    return read_all(
        [
            partial(_read_pair, folder, stem, fx, fy)
            for stem, (fx, fy) in zip(stems, focals, strict=True)
        ]
    )


def read_folders(root: str | Path) -> list[Pair]:
    """Reads every folder under `root` that has a `meta.json`.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    folders = sorted(path.parent for path in Path(root).glob("*/meta.json"))
    if not folders:
        raise ValueError(f"{root}: no folder with a meta.json in it")
    return [pair for folder in folders for pair in read_folder(folder)]
