"""The files for RViz and Foxglove: what the node publishes, in terms that the viewers know."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mono_depth_ros.frame_statistics import FrameStatistics, FrameTiming
from mono_depth_ros.output_profiles import OUTPUTS, PROFILES, profile_topics

CONFIG = Path(__file__).resolve().parent.parent / "config"
# Topic -> type, of the profile that the files are for.
PUBLISHED = {
    topic.name: OUTPUTS[topic.output].rpartition("/")[2] for topic in PROFILES["generic"].topics
}

# rviz_default_plugins/plugins_description.xml of Humble to Kilted, and the type each display shows.
RVIZ_TYPES = {"PointCloud2": "PointCloud2", "LaserScan": "LaserScan", "Image": "Image"}
RVIZ_WITHOUT_TOPIC = {"Grid", "TF"}
# Properties of the displays' constructors, and of the transformers that are chosen here
# (rviz_default_plugins/displays, rviz_common/display.cpp and properties/qos_profile_property.cpp).
# A property that RViz does not know is ignored without a word.
_CLOUD = {"Alpha", "Color Transformer", "Position Transformer", "Decay Time", "Selectable"}
_CLOUD |= {"Size (Pixels)", "Style", "Use Fixed Frame", "Color"}
RVIZ_PROPERTIES = {
    "PointCloud2": _CLOUD,
    "LaserScan": _CLOUD,
    "Image": {"Normalize Range", "Min Value", "Max Value"},
    "Grid": {
        *("Alpha", "Cell Size", "Color", "Line Style", "Normal Cell Count", "Plane"),
        *("Plane Cell Count", "Offset", "Reference Frame"),
    },
    "TF": {
        *("Show Names", "Show Axes", "Show Arrows", "Marker Scale", "Frame Timeout"),
        "Update Interval",
    },
}
QOS_KEYS = {"Value", "Depth", "History Policy", "Reliability Policy", "Durability Policy"}
COLOUR = re.compile(r"\d{1,3}; \d{1,3}; \d{1,3}")


def _rviz(name: str) -> dict[str, Any]:
    manager = yaml.safe_load((CONFIG / name).read_text())["Visualization Manager"]
    assert isinstance(manager, dict)
    return manager


def _shown(manager: dict[str, Any], enabled: bool) -> dict[str, str]:
    return {
        display["Topic"]["Value"]: display["Topic"]["Reliability Policy"]
        for display in manager["Displays"]
        if "Topic" in display and display["Enabled"] is enabled
    }


@pytest.mark.parametrize("name", ["mono_depth.rviz", "cameras.rviz"])
def test_rviz_knows_every_display_and_property(name: str) -> None:
    for display in _rviz(name)["Displays"]:
        package, _, kind = display["Class"].partition("/")
        assert package == "rviz_default_plugins"
        assert kind in RVIZ_PROPERTIES, kind
        assert display["Enabled"] is display["Value"], display["Name"]
        own = display.keys() - {"Class", "Name", "Enabled", "Value", "Topic"}
        assert own <= RVIZ_PROPERTIES[kind], display["Name"]
        assert "Color" not in own or COLOUR.fullmatch(display["Color"])
        assert ("Color" in own) == (
            display.get("Color Transformer") == "FlatColor" or kind == "Grid"
        )
        if kind in RVIZ_WITHOUT_TOPIC:
            assert "Topic" not in display
        else:
            filtered = {"Filter size"} if kind in ("PointCloud2", "LaserScan") else set()
            assert display["Topic"].keys() == QOS_KEYS | filtered


@pytest.mark.parametrize(("name", "cameras"), [("mono_depth.rviz", 0), ("cameras.rviz", 2)])
def test_rviz_shows_topics_of_the_node_as_their_type(name: str, cameras: int) -> None:
    namespaces = set()
    for display in _rviz(name)["Displays"]:
        if "Topic" not in display:
            continue
        topic = display["Topic"]["Value"]
        if cameras:
            namespace, _, topic = topic.partition("/")
            namespaces.add(namespace)
        assert PUBLISHED[topic] == RVIZ_TYPES[display["Class"].partition("/")[2]]
    assert len(namespaces) == cameras


def test_rviz_of_the_node_shows_the_cloud_and_two_images_and_leaves_the_rest_off() -> None:
    manager = _rviz("mono_depth.rviz")
    # Not image_raw, of which there may be compressed images alone.
    assert _shown(manager, True) == dict.fromkeys(
        ("points", "image_rect", "depth/image_color"), "Reliable"
    )
    assert _shown(manager, False) == dict.fromkeys(
        ("scan", "points/obstacles", "points/clearing", "confidence"), "Reliable"
    )
    assert manager["Global Options"]["Fixed Frame"] == "camera_optical_frame"


def test_rviz_of_several_cameras_shows_the_same_of_each_from_the_robot() -> None:
    manager = _rviz("cameras.rviz")
    both = {f"{camera}/{topic}" for camera in ("front", "rear") for topic in PUBLISHED}
    shown = _shown(manager, True)
    assert set(shown) <= both
    assert {t.replace("front/", "rear/") for t in shown} == {t for t in shown if "rear/" in t}
    assert set(_shown(manager, False)) == {"front/scan", "rear/scan"}
    assert manager["Global Options"]["Fixed Frame"] == "base_link"
    # The launch file that this is for starts cameras of these names.
    assert yaml.safe_load((CONFIG / "cameras.yaml").read_text()).keys() == {"front", "rear"}


# --- Foxglove

LAYOUT: dict[str, Any] = json.loads((CONFIG / "foxglove_layout.json").read_text())
PANELS: dict[str, dict[str, Any]] = LAYOUT["configById"]
# Those of the panel types of Foxglove and Lichtblick that the layout needs.
PANEL_TYPES = {"3D", "Image", "Plot", "DiagnosticSummary"}


def _leaves(node: str | dict[str, Any]) -> Iterator[str]:
    """Panel ids of a layout tree, after checking its inner nodes."""
    if isinstance(node, str):
        yield node
        return
    assert node.keys() == {"direction", "splitPercentage", "first", "second"}
    assert node["direction"] in ("row", "column")
    assert 0 < node["splitPercentage"] < 100
    yield from _leaves(node["first"])
    yield from _leaves(node["second"])


def test_foxglove_layout_has_the_keys_that_its_import_wants() -> None:
    assert LAYOUT.keys() == {
        *("configById", "globalVariables", "userNodes", "playbackConfig", "layout")
    }


def test_foxglove_layout_places_every_configured_panel_once() -> None:
    leaves = list(_leaves(LAYOUT["layout"]))
    assert sorted(leaves) == sorted(PANELS)
    assert {leaf.partition("!")[0] for leaf in leaves} == PANEL_TYPES


def test_foxglove_images_are_images_of_the_node_with_their_calibration() -> None:
    topics = []
    for name, panel in PANELS.items():
        if name.startswith("Image!"):
            mode = panel["imageMode"]
            topics.append(mode["imageTopic"])
            assert PUBLISHED[mode["imageTopic"].removeprefix("/")] == "Image"
            assert PUBLISHED[mode["calibrationTopic"].removeprefix("/")] == "CameraInfo"
    assert sorted(topics) == ["/depth/image_color", "/image_rect"]


def test_the_documented_command_makes_a_layout_for_a_realsense(tmp_path: Path) -> None:
    page = (CONFIG.parent / "docs" / "seeing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (command,) = (block for block in blocks if "realsense_layout.json" in block)
    (tmp_path / "foxglove_layout.json").symlink_to(CONFIG / "foxglove_layout.json")
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True)
    panels = json.loads((tmp_path / "realsense_layout.json").read_text())["configById"]
    images = [p["imageMode"] for name, p in panels.items() if name.startswith("Image!")]
    shown = {mode[key] for mode in images for key in ("imageTopic", "calibrationTopic")}
    shown |= set(panels["3D!mono_depth"]["topics"])
    # The generic ones that are left have no counterpart in the driver.
    driver = {f"/{topic.name}" for topic in profile_topics(PROFILES["realsense"]) if topic.source}
    assert shown & driver == {
        "/camera/camera/depth/color/points",
        "/camera/camera/color/image_raw",
        "/camera/camera/depth/camera_info",
    }
    assert shown - driver == {
        *("/depth/image_color", "/scan", "/points/obstacles", "/points/clearing")
    }
    assert shown <= {f"/{topic.name}" for topic in profile_topics(PROFILES["realsense"])}


def test_foxglove_scene_shows_cloud_scan_and_camera_of_the_node() -> None:
    scene = PANELS["3D!mono_depth"]
    topics = scene["topics"]
    assert {topic.removeprefix("/") for topic in topics} <= PUBLISHED.keys()
    visible = {topic for topic, settings in topics.items() if settings["visible"]}
    # The others make a node that does not know how its camera is held warn of that.
    assert visible == {"/points", "/depth/camera_info"}
    assert set(topics) - visible == {"/scan", "/points/obstacles", "/points/clearing"}
    assert topics["/points"]["colorField"] == "rgb"
    # From behind and above an optical frame (z forward, y down): the eye is at
    # (0, -r sin(phi), r cos(phi)) from what it looks at.
    camera = scene["cameraState"]
    assert camera["thetaOffset"] == 0
    assert 90 < camera["phi"] < 180


def test_foxglove_plots_figures_that_the_diagnostics_have() -> None:
    statistics = FrameStatistics()
    statistics.on_received(0.0, False)
    statistics.on_published(FrameTiming(0.1, 20.0, 10.0, 0.0))
    keys = set(statistics.summary(0.2))
    path = re.compile(
        r'/diagnostics\.status\[:\]\{name=="mono_depth: depth"\}'
        r'\.values\[:\]\{key=="(\w+)"\}\.value'
    )
    plotted = set()
    for name, panel in PANELS.items():
        if name.startswith("Plot!"):
            for line in panel["paths"]:
                match = path.fullmatch(line["value"])
                assert match, line
                plotted.add(match[1])
    assert {"latency_ms_p50", "latency_ms_p95", "rate_out_hz"} <= plotted <= keys
    assert PANELS["DiagnosticSummary!all"]["topicToRender"] == "/diagnostics"
