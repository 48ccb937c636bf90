"""The parameters of the depth node: one table that declares, validates and documents them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mono_depth_ros.aspect import ASPECTS
from mono_depth_ros.engines import ENGINES, PRECISIONS
from mono_depth_ros.output_profiles import PROFILES

Value = bool | int | float | str

# What YAML 1.1, and with it a ROS parameter file, makes of the words on and off.
_SWITCH = {True: "on", False: "off"}
_RECTIFY = ("auto", "on", "off")


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter.

    Attributes:
        name, default, description: as declared; the default's type is the parameter's type.
        unit: of a number; empty for counts and the like.
        minimum, maximum: inclusive range of a number.
        choices: allowed strings; empty allows any. Where "on" and "off" are among them, so are true
            and false, since YAML reads those words so.
        live: takes effect on the next frame. Others are read when the node is configured.
        reloadable: can be changed while the node is configured, and `~/reload_model` then takes it
            up; what is neither this nor live cannot be changed while it is.
    """

    name: str
    default: Value
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = True
    reloadable: bool = False

    @property
    def takes_switch(self) -> bool:
        """Whether a boolean is a value, too."""
        return "on" in self.choices

    def value(self, given: Any) -> Any:
        """The value that a given one stands for."""
        return _SWITCH[given] if self.takes_switch and isinstance(given, bool) else given

    def refusal(self, given: Any) -> str:
        """Why a value cannot be set; empty if it can."""
        value = self.value(given)
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
        "profile",
        "generic",
        "topic names, encodings, QoS and frames: this package's own, or those of a depth camera's"
        " driver",
        choices=tuple(PROFILES),
        live=False,
    ),
    ParameterSpec(
        "camera_name",
        "",
        "the name that a driver's profile puts into topics and frames; empty takes the driver's"
        " default",
        live=False,
    ),
    ParameterSpec(
        "publish_tf",
        True,
        "publish the static frames of the profile, and the level frame that scan is in",
        live=False,
    ),
    ParameterSpec(
        "depth_encoding",
        "32FC1",
        "encoding of depth/image_rect, where the profile leaves the choice: 32FC1 metres, or 16UC1"
        " millimetres with 0 for invalid",
        choices=("32FC1", "16UC1"),
    ),
    ParameterSpec("min_depth", 0.1, "nearer depth becomes -Inf (REP 117)", "m", 0.0, 1000.0),
    ParameterSpec("max_depth", 10.0, "further depth becomes +Inf", "m", 0.01, 1000.0),
    ParameterSpec(
        "rectify",
        "auto",
        "undistort images with the coefficients of camera_info; auto does so unless the name of the"
        " image topic says that it is done, as image_rect",
        choices=_RECTIFY,
    ),
    ParameterSpec(
        "aspect",
        "stretch",
        "how an image of another shape than the network's input gets into it: stretch, letterbox"
        " (keeps the shape, pads), crop (the middle only; no depth at the sides)",
        choices=ASPECTS,
    ),
    ParameterSpec(
        "fallback_hfov_deg",
        0.0,
        "horizontal field of view to assume without a calibration; 0 assumes none and publishes no"
        " depth. Depth is as wrong as this number is",
        "deg",
        0.0,
        179.0,
    ),
    ParameterSpec(
        "base_frame",
        "",
        "tf frame on the ground, z up, that tells how the camera is held; empty takes the next"
        " three",
    ),
    ParameterSpec(
        "camera_height", 0.0, "of the lens above the ground; 0 means unknown", "m", 0.0, 100.0
    ),
    ParameterSpec("camera_pitch_deg", 0.0, "positive looks down (REP 103)", "deg", -89.0, 89.0),
    ParameterSpec("camera_roll_deg", 0.0, "positive leans to the right", "deg", -180.0, 180.0),
    ParameterSpec("cloud.stride", 1, "points takes every n-th row and column", "", 1, 64),
    ParameterSpec("cloud.min_range", 0.0, "nearer points are left out of points", "m", 0.0, 1000.0),
    ParameterSpec(
        "cloud.max_range", 1000.0, "further points are left out of points", "m", 0.0, 1000.0
    ),
    ParameterSpec(
        "cloud.min_height", -100.0, "lower points are left out of points", "m", -100.0, 100.0
    ),
    ParameterSpec(
        "cloud.max_height", 100.0, "higher points are left out of points", "m", -100.0, 100.0
    ),
    ParameterSpec(
        "scan.min_height", 0.1, "above ground; scan sees nothing lower", "m", -100.0, 100.0
    ),
    ParameterSpec(
        "scan.max_height", 1.0, "above ground; scan sees nothing higher", "m", -100.0, 100.0
    ),
    ParameterSpec("obstacles.min_height", 0.1, "above ground; lower is floor", "m", -100.0, 100.0),
    ParameterSpec(
        "obstacles.max_height", 2.0, "above ground; the robot passes below", "m", -100.0, 100.0
    ),
    ParameterSpec(
        "obstacles.max_range", 4.0, "of points/obstacles and points/clearing", "m", 0.1, 1000.0
    ),
    ParameterSpec("obstacles.stride", 4, "they take every n-th row and column", "", 1, 64),
    ParameterSpec(
        "disparity_baseline",
        0.0,
        "between the cameras of the virtual stereo pair on disparity and right/camera_info; 0"
        " publishes neither",
        "m",
        0.0,
        10.0,
    ),
)

# The first of each pair must be below the second.
_ORDERED = (
    ("min_depth", "max_depth"),
    ("cloud.min_range", "cloud.max_range"),
    ("cloud.min_height", "cloud.max_height"),
    ("scan.min_height", "scan.max_height"),
    ("obstacles.min_height", "obstacles.max_height"),
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
        if fixed and spec.value(value) != spec.value(current[spec.name]):
            return f"{spec.name}: can only be changed while the node is unconfigured"
    merged = {**current, **changes}
    for low, high in _ORDERED:
        if not merged[low] < merged[high]:
            return f"{low}: {merged[low]} is not below {high} {merged[high]}"
    return ""
