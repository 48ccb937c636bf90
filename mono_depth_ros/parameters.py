"""The parameters of the depth node: one table that declares, validates and documents them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mono_depth_ros.engines import ENGINES, PRECISIONS

Value = bool | int | float | str


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name, default, description: as declared; the default's type is the parameter's type.
        minimum, maximum: inclusive range of a number.
        choices: allowed strings; empty allows any.
        live: takes effect on the next frame. Others are read when the node is configured.
        reloadable: can be changed while the node is configured, and `~/reload_model` then takes it
            up; what is neither this nor live cannot be changed while it is.
    """

    name: str
    default: Value
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = True
    reloadable: bool = False

    def refusal(self, value: Any) -> str:
        """Why `value` cannot be set; empty if it can."""
        if self.choices and value not in self.choices:
            return f"{self.name}: '{value}' is not one of {', '.join(self.choices)}"
        if self.minimum is None or self.maximum is None:
            return ""
        if not math.isfinite(value) or not self.minimum <= value <= self.maximum:
            return f"{self.name}: {value} is not between {self.minimum} and {self.maximum}"
        return ""


PARAMETERS = (
    ParameterSpec(
        "model",
        "",
        "ONNX model file, or one with a model card beside it; empty takes the one that ships",
        live=False,
        reloadable=True,
    ),
    ParameterSpec(
        "engine",
        "auto",
        "inference runtime; auto is TensorRT where there is a GPU, else the first that loads."
        " Another one serves while TensorRT builds",
        choices=ENGINES,
        live=False,
        reloadable=True,
    ),
    ParameterSpec(
        "precision",
        "auto",
        "arithmetic of the network; auto takes the fastest that agrees with float32: int8 where"
        " build_engine --calibrate has been, else TensorRT's float16, and on a CPU float32 or what"
        " build_engine --engine openvino has found",
        choices=PRECISIONS,
        live=False,
        reloadable=True,
    ),
    ParameterSpec(
        "cache_dir",
        "",
        "folder for built engines; empty takes ~/.cache/mono_depth_ros",
        live=False,
    ),
    ParameterSpec(
        "image_transport",
        "raw",
        "raw subscribes to image_raw, compressed to image_raw/compressed (JPEG or PNG)",
        choices=("raw", "compressed"),
        live=False,
    ),
    ParameterSpec(
        "autostart",
        True,
        "configure and activate at start; false leaves that to a lifecycle manager",
        live=False,
    ),
    ParameterSpec(
        "depth_encoding",
        "32FC1",
        "encoding of depth/image_rect: 32FC1 metres, or 16UC1 millimetres with 0 for invalid",
        choices=("32FC1", "16UC1"),
    ),
    ParameterSpec("min_depth", 0.1, "metres; nearer depth becomes -Inf", 0.0, 1000.0),
    ParameterSpec("max_depth", 10.0, "metres; further depth becomes +Inf", 0.01, 1000.0),
    ParameterSpec("cloud.stride", 1, "takes every n-th row and column into points", 1, 64),
    ParameterSpec(
        "rectify",
        True,
        "undistort with the coefficients of camera_info; false if images are rectified already",
    ),
    ParameterSpec(
        "fallback_hfov_deg",
        0.0,
        "horizontal field of view in degrees to assume without a calibration; 0 assumes none and"
        " publishes no depth. Depth is as wrong as this number is",
        0.0,
        179.0,
    ),
    ParameterSpec(
        "disparity_baseline",
        0.0,
        "metres between the cameras of the virtual stereo pair on disparity; 0 publishes none",
        0.0,
        10.0,
    ),
)


def refusal(changes: Mapping[str, Any], current: Mapping[str, Any], configured: bool) -> str:
    """Why a set of changes cannot be applied as a whole; empty if it can.

    Args:
        changes: new values by name; names that are not in `PARAMETERS` are ignored.
        current: all present values by name.
        configured: whether the node has read its parameters already.
    """
    for spec in PARAMETERS:
        if spec.name not in changes:
            continue
        value = changes[spec.name]
        if reason := spec.refusal(value):
            return reason
        fixed = configured and not spec.live and not spec.reloadable
        if fixed and value != current[spec.name]:
            return f"{spec.name}: can only be changed while the node is unconfigured"
    merged = {**current, **changes}
    if not merged["min_depth"] < merged["max_depth"]:
        return f"min_depth: {merged['min_depth']} is not below max_depth {merged['max_depth']}"
    return ""
