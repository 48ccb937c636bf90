"""How to start the depth node on the topics that are there."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping

from mono_depth_ros.doctor.observation import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    DepthNode,
    Observation,
    Topic,
)
from mono_depth_ros.parameters import PARAMETERS, ParameterSpec, Value

# Parameters of the node that are arguments of depth.launch.py. Without autostart: who starts a node
# by hand wants it started.
SETTINGS = (
    "model",
    "engine",
    "precision",
    "cache_dir",
    "image_transport",
    "profile",
    "camera_name",
    "rectify",
    "aspect",
    "base_frame",
    "camera_height",
    "camera_pitch_deg",
    "camera_roll_deg",
    "fallback_hfov_deg",
    "publish_tf",
    "use_sim_time",
)
_SPECS = {spec.name: spec for spec in (*PARAMETERS, ParameterSpec("use_sim_time", False, ""))}
_LAUNCH = "ros2 launch mono_depth_ros depth.launch.py"
# In a name, these say that a topic is not what a depth network wants to see.
_NOT_COLOUR = ("depth", "dispar", "infra", "confidence", "mask", "ground_truth", "thermal", "/ir/")


def similar(name: str, candidates: Mapping[str, str], *kinds: str) -> list[str]:
    """Topics of some types, the likeliest to be meant by `name` first.

    >>> topics = {"/cam/depth/image_raw": IMAGE, "/cam/color/image_raw": IMAGE, "/x": CAMERA_INFO}
    >>> similar("/image_raw", topics, IMAGE)
    ['/cam/color/image_raw', '/cam/depth/image_raw']
    """
    base = name.removesuffix("/compressed")

    def unlikeness(topic: str) -> tuple[bool, float, str]:
        other = any(word in topic for word in _NOT_COLOUR)
        alike = difflib.SequenceMatcher(None, base, topic.removesuffix("/compressed")).ratio()
        return other, -alike, topic

    return sorted((topic for topic, kind in candidates.items() if kind in kinds), key=unlikeness)


def launch_remedy(seen: Observation, node: DepthNode | None, **changes: str) -> str:
    """How to start a node on the topics that are there, or what is missing for that.

    One that runs already is to be stopped first, and keeps the settings that it has.

    Args:
        seen: the system.
        node: that is to be started otherwise; None for one that does not run.
        changes: launch arguments that are known.
    """
    image = node.image.topic if node is not None and node.image is not None else Topic("/image_raw")
    info = node.info.topic if node is not None and node.info is not None else Topic("/camera_info")
    settings = _settings(node) if node is not None else {}
    image_name, info_name = image.name, info.name
    if not image.publishers:
        images = similar(image.name, seen.camera_topics, IMAGE, COMPRESSED_IMAGE)
        if not images:
            start = "start the camera's driver"
            if node is not None:
                return f"{start}, and look again"
            return f"{start}; {_LAUNCH} image_topic:=... camera_info_topic:=..."
        image_name = images[0]
        compressed = seen.camera_topics[image_name] == COMPRESSED_IMAGE
        if compressed or "image_transport" in settings:
            changes = {"image_transport": "compressed" if compressed else "raw", **changes}
    image_name = image_name.removesuffix("/compressed")
    # Drivers publish a calibration beside its image; another camera's is worse than none.
    beside = image_name.rpartition("/")[0] + "/camera_info"
    if not image.publishers or not info.publishers:
        infos = similar(beside, seen.camera_topics, CAMERA_INFO)
        info_name = infos[0] if infos else beside
    topics = {"image_topic": image_name, "camera_info_topic": info_name}
    if node is not None and _has_cameras_file(node):
        entry = {**topics, **changes}
        words = [f"{name}: {value}" for name, value in entry.items() if name not in SETTINGS]
        if inner := ", ".join(f"{n}: {value}" for n, value in entry.items() if n in SETTINGS):
            words.append(f"parameters: {{{inner}}}")
        return (
            f"set {', '.join(words)} for {node.namespace} in the cameras_file of"
            " cameras.launch.py, then stop that and start it again"
        )
    if node is None:
        return _command({**topics, **changes})
    namespace = {"namespace": node.namespace.strip("/")} if node.namespace else {}
    command = _command({**namespace, **topics, **settings, **changes})
    return f"stop {node.name}, then {command}"


def _settings(node: DepthNode) -> dict[str, str]:
    """Launch arguments for what a node has otherwise than by default."""
    asked = [_SPECS[name] for name in SETTINGS if name in node.parameters]
    values = {spec: spec.value(node.parameters[spec.name]) for spec in asked}
    return {spec.name: _text(value) for spec, value in values.items() if value != spec.default}


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _command(arguments: Mapping[str, str]) -> str:
    words = (shlex.quote(f"{name}:={value}") for name, value in arguments.items())
    return " ".join([_LAUNCH, *words])


def _has_cameras_file(node: DepthNode) -> bool:
    """Whether a node is of cameras.launch.py, which makes one in each namespace that it is told."""
    processes = (p.process for topic in node.outputs for p in topic.publishers)
    return any(process and "--camera" in process.command.split() for process in processes)
