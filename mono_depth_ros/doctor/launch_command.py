"""The command that starts the depth node on the topics that are there."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from mono_depth_ros.doctor.observation import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    DepthNode,
    Observation,
    Topic,
)

LAUNCH = "ros2 launch mono_depth_ros depth.launch.py"
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


def launch_command(seen: Observation, node: DepthNode | None, **changes: str) -> str:
    """The command that starts a node on the topics that are there, or says what is missing.

    Args:
        seen: the system.
        node: that is to be started otherwise; None for one that does not run.
        changes: launch arguments that are known.
    """
    image = node.image.topic if node is not None and node.image is not None else Topic("/image_raw")
    info = node.info.topic if node is not None and node.info is not None else Topic("/camera_info")
    arguments, image_name, info_name = {}, image.name, info.name
    if node is not None and node.namespace:
        arguments["namespace"] = node.namespace.strip("/")
    if not image.publishers:
        images = similar(image.name, seen.camera_topics, IMAGE, COMPRESSED_IMAGE)
        if not images:
            return f"start the camera's driver; {LAUNCH} image_topic:=... camera_info_topic:=..."
        image_name = images[0]
        if seen.camera_topics[image_name] == COMPRESSED_IMAGE:
            changes = {"image_transport": "compressed", **changes}
    image_name = image_name.removesuffix("/compressed")
    # Drivers publish a calibration beside its image; another camera's is worse than none.
    beside = image_name.rpartition("/")[0] + "/camera_info"
    if not image.publishers or not info.publishers:
        infos = similar(beside, seen.camera_topics, CAMERA_INFO)
        info_name = infos[0] if infos else beside
    arguments |= {"image_topic": image_name, "camera_info_topic": info_name, **changes}
    return " ".join([LAUNCH, *(f"{name}:={value}" for name, value in arguments.items())])
