"""The YAML file that ROS camera_calibration writes and camera_info_manager reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mono_depth_ros.camera import Calibration


class CameraFileError(ValueError):
    """A calibration file that cannot be used; the message names it and the remedy."""


def read_camera_file(path: Path) -> Calibration:
    """Reads a calibration file.

    Args:
        path: YAML with image_width, image_height, camera_matrix.data and, optionally,
            distortion_model, distortion_coefficients.data, rectification_matrix.data,
            projection_matrix.data.

    Raises:
        CameraFileError: the file is missing, is not YAML, or is not such a file.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CameraFileError(
            f"{path}: {error.strerror}; set --camera-info to the YAML file of camera_calibration"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise CameraFileError(f"{path}: not a YAML file; camera_calibration writes one") from None
    if not isinstance(document, dict):
        raise CameraFileError(f"{path}: not a camera calibration; camera_calibration writes one")
    try:
        k = _numbers(document, "camera_matrix", 9)
        if not k:
            raise KeyError("camera_matrix")
        calibration = Calibration(
            width=int(document["image_width"]),
            height=int(document["image_height"]),
            k=k,
            d=_numbers(document, "distortion_coefficients", None),
            model=str(document.get("distortion_model", "plumb_bob")),
            r=_numbers(document, "rectification_matrix", 9) or Calibration.r,
            p=_numbers(document, "projection_matrix", 12) or Calibration.p,
        )
        calibration.rectify_maps()  # refuses what is no camera's, while the file's name is known
    except KeyError as error:
        raise CameraFileError(
            f"{path}: has no {error.args[0]}; calibrate with ros2 run camera_calibration"
            " cameracalibrator"
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise CameraFileError(f"{path}: not a camera calibration ({error})") from None
    return calibration


def _numbers(document: dict[str, Any], name: str, count: int | None) -> tuple[float, ...]:
    """The entry `data` of a matrix; empty if the matrix is not there."""
    if name not in document:
        return ()
    data = tuple(float(value) for value in document[name]["data"])
    if count is not None and len(data) != count:
        raise ValueError(f"{name} has {len(data)} numbers, not {count}")
    return data
