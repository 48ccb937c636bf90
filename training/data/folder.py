"""Folders of RGB + 16-bit depth pairs, each with a small YAML (or JSON) that says how to read it.

    rgb/NAME.jpg|png     images
    depth/NAME.png       depth of the same name and size, registered to the image; 0 = none
    dataset.yaml         fx, fy: pixels at the stored size
                         depth_scale: metres per unit of the PNG, default 0.001
                         rgb, depth: the sub-folders, default `rgb` and `depth`
                         distortion: plumb_bob k1 k2 p1 p2 [k3]; image and depth are then rectified
                             as they are read, which needs cx and cy too
                         width, height: the size that all this is for; checked where given
                         scene: name of the place, default the folder's; or `scene_of_frame`, a list
                         per_frame: a list of mappings, one a frame in name order, whose fx, fy, ...
                             and scene go before those above

`meta.json` is read in place of `dataset.yaml`: JSON is YAML. A YAML file of any name may also lie
elsewhere and name the folder as `root`, relative to itself: so a data set is described that nobody
may write to.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mono_depth_ros.atomic import replacing
from mono_depth_ros.camera import CameraModel
from training.data.frame import DataError, Frame
from training.data.image_file import read_depth_png, read_rgb
from training.data.lens import LENS, Lens, Positive, rectify
from training.data.pair import Pair

SETTINGS_FILES = ("dataset.yaml", "meta.json")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DEFAULT_DEPTH_SCALE = 1e-3

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What a settings file says of the whole folder; the module tells what the keys mean."""

    root: Path = Path()
    rgb: str = "rgb"
    depth: str = "depth"
    depth_scale: Positive = DEFAULT_DEPTH_SCALE
    scene: str | None = None
    scene_of_frame: list[str] | None = None
    per_frame: list[dict[str, Any]] | None = None


FOLDER_SETTINGS = TypeAdapter(Settings)


def write_pair(
    folder: Path,
    name: str,
    image: npt.NDArray[np.uint8],
    depth: npt.NDArray[np.float32],
    depth_scale: float = DEFAULT_DEPTH_SCALE,
) -> None:
    """Writes `rgb/NAME.jpg` and `depth/NAME.png`.

    Args:
        image: HxWx3 uint8 RGB.
        depth: HxW float32 metres; what is not positive, not finite or beyond 16 bit becomes 0.
        depth_scale: metres per unit.

    Raises:
        OSError: a file cannot be written.
    """
    units = np.nan_to_num(depth / np.float32(depth_scale), nan=0.0, posinf=0.0, neginf=0.0)
    code = np.where((units >= 0.5) & (units < 65535.5), np.rint(units), 0).astype(np.uint16)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    for path, pixels, option in (
        (folder / "rgb" / f"{name}.jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 93)),
        (folder / "depth" / f"{name}.png", code, (cv2.IMWRITE_PNG_COMPRESSION, 3)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, pixels, option)[1].tobytes())


def write_settings(folder: Path, depth_scale: float, camera: CameraModel, **more: str) -> None:
    """Writes `dataset.yaml`, atomically: where it is, the folder is complete.

    Raises:
        OSError: the file cannot be written.
    """
    document = {
        "depth_scale": depth_scale,
        "width": camera.width,
        "height": camera.height,
        "fx": float(camera.fx),
        "fy": float(camera.fy),
        "cx": float(camera.cx),
        "cy": float(camera.cy),
        **more,
    }
    with replacing(folder / SETTINGS_FILES[0]) as temporary:
        temporary.write_text(yaml.safe_dump(document, sort_keys=False))


def settings_file(folder: Path) -> Path | None:
    """The settings in a folder, if it has any."""
    return next((folder / name for name in SETTINGS_FILES if (folder / name).is_file()), None)


def load_settings(path: Path) -> dict[str, Any]:
    """The mapping in a settings file.

    Raises:
        DataError: it cannot be read, or is no mapping.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: must be a mapping with at least fx and fy")
    return document


def parse(adapter: TypeAdapter[T], document: dict[str, Any], name: str) -> T:
    """What `adapter` makes of a mapping; keys that it does not know are ignored.

    Raises:
        DataError: a value is missing or makes no sense; the message starts with `name`.
    """
    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{name}: {f'{key}: ' if key else ''}{first['msg']}") from None


def read_pair(rgb: Path, depth_file: Path, depth_scale: float, lens: Lens, name: str) -> Pair:
    """Reads an image and its depth map, rectified.

    Args:
        rgb: image file.
        depth_file: one-channel PNG of the same size, 0 = none.
        depth_scale: metres per unit.
        lens: of both.
        name: of the pair.

    Raises:
        DataError: a file is missing, damaged or of another size.
    """
    image, depth = rectify(read_rgb(rgb), read_depth_png(depth_file, depth_scale), lens, str(rgb))
    return Pair(image, depth, lens.fx, lens.fy, name)


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by stem, in name order.

    Raises:
        DataError: there is none.
    """
    found = {p.stem: p for p in sorted(folder.glob("*")) if p.suffix.lower() in suffixes}
    if not found:
        raise DataError(f"{folder}: no {' or '.join(suffixes)} file in it")
    return found


def read_folder(source: str | Path) -> list[Frame]:
    """The frames of a folder with settings, or of a YAML file that names its folder.

    Raises:
        DataError: the settings make no sense, there is no image, or one has no depth.
    """
    source = Path(source)
    path = settings_file(source) if source.is_dir() else source
    if path is None:
        raise DataError(f"{source}: has no {SETTINGS_FILES[0]} that tells fx, fy and depth_scale")
    document = load_settings(path)
    settings = parse(FOLDER_SETTINGS, document, str(path))
    root = (path.parent / settings.root).resolve()
    images = _files(root / settings.rgb, IMAGE_SUFFIXES)
    depths = _files(root / settings.depth, (".png",))
    without = [stem for stem in images if stem not in depths]
    if without:
        raise DataError(
            f"{root / settings.depth / without[0]}.png: missing, as is the depth of {len(without)}"
            f" of {len(images)} images; add it, or take the images away"
        )
    names = [f"{root.name}/{stem}" for stem in images]
    if settings.per_frame is None:
        lenses = [parse(LENS, document, str(path))] * len(images)
        scenes = settings.scene_of_frame or [settings.scene or root.name] * len(images)
    else:
        entries = [{"scene": root.name, **document, **entry} for entry in settings.per_frame]
        lenses = [parse(LENS, e, f"{path}: per_frame {i}") for i, e in enumerate(entries)]
        scenes = settings.scene_of_frame or [str(e["scene"]) for e in entries]
    for key, values in (("per_frame", lenses), ("scene_of_frame", scenes)):
        if len(values) != len(images):
            raise DataError(f"{path}: {key} has {len(values)} entries for {len(images)} images")
    return [
        Frame(name, scene, partial(read_pair, image, depth, settings.depth_scale, lens, name))
        for name, scene, image, depth, lens in zip(
            names, scenes, images.values(), [depths[stem] for stem in images], lenses, strict=True
        )
    ]
