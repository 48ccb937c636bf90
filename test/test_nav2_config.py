"""The Nav2 parameter file: every name is one that Nav2 reads, and the numbers fit together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mono_depth_ros.parameters import PARAMETERS

FILE = Path(__file__).parents[1] / "config" / "nav2_costmap.yaml"
SECTIONS: dict[str, Any] = yaml.safe_load(FILE.read_text())
COSTMAPS = {
    name: SECTIONS[name][name]["ros__parameters"] for name in ("local_costmap", "global_costmap")
}
MONITOR = SECTIONS["collision_monitor"]["ros__parameters"]
DEFAULTS: dict[str, Any] = {spec.name: spec.default for spec in PARAMETERS}

# What each part of navigation2 declares, on its branches humble, jazzy, kilted and main alike. A
# name that nobody declares is ignored without a word.

# nav2_costmap_2d/src/costmap_2d_ros.cpp
COSTMAP = {
    *("always_send_full_costmap", "footprint", "footprint_padding", "global_frame", "height"),
    *("origin_x", "origin_y", "plugins", "publish_frequency", "resolution", "robot_base_frame"),
    *("robot_radius", "rolling_window", "track_unknown_space", "transform_tolerance"),
    *("update_frequency", "width"),
}
# nav2_costmap_2d/plugins/obstacle_layer.cpp
OBSTACLE_LAYER = {
    *("enabled", "footprint_clearing_enabled", "min_obstacle_height", "max_obstacle_height"),
    *("combination_method", "observation_sources"),
}
# The same file: of each source.
SOURCE = {
    *("topic", "sensor_frame", "observation_persistence", "expected_update_rate", "data_type"),
    *("min_obstacle_height", "max_obstacle_height", "inf_is_valid", "marking", "clearing"),
    *("obstacle_max_range", "obstacle_min_range", "raytrace_max_range", "raytrace_min_range"),
}
LAYERS = {
    "nav2_costmap_2d::ObstacleLayer": OBSTACLE_LAYER,
    # nav2_costmap_2d/plugins/voxel_layer.cpp, on top of the obstacle layer.
    "nav2_costmap_2d::VoxelLayer": OBSTACLE_LAYER
    | {"z_voxels", "origin_z", "z_resolution", "unknown_threshold", "mark_threshold"}
    | {"publish_voxel_map"},
    # nav2_costmap_2d/plugins/static_layer.cpp
    "nav2_costmap_2d::StaticLayer": {
        *("enabled", "subscribe_to_updates", "map_subscribe_transient_local", "map_topic"),
        *("transform_tolerance", "footprint_clearing_enabled"),
    },
    # nav2_costmap_2d/plugins/inflation_layer.cpp
    "nav2_costmap_2d::InflationLayer": {
        *("enabled", "inflation_radius", "cost_scaling_factor", "inflate_unknown"),
        *("inflate_around_unknown",),
    },
}
# nav2_collision_monitor/src/collision_monitor_node.cpp
COLLISION_MONITOR = {
    *("base_frame_id", "odom_frame_id", "cmd_vel_in_topic", "cmd_vel_out_topic"),
    *("transform_tolerance", "source_timeout", "base_shift_correction", "stop_pub_timeout"),
    *("polygons", "observation_sources"),
}
# nav2_collision_monitor/src/polygon.cpp; not `points`, whose type differs. humble lacks min_points.
POLYGON = {
    *("type", "action_type", "enabled", "min_points", "visualize", "polygon_pub_topic"),
    *("footprint_topic", "time_before_collision", "simulation_time_step", "slowdown_ratio"),
}
# nav2_collision_monitor/src/source.cpp, pointcloud.cpp, scan.cpp
MONITOR_SOURCES = {
    "scan": {"type", "topic", "enabled"},
    "pointcloud": {"type", "topic", "enabled", "min_height", "max_height"},
}


def layers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, costmap and parameters of each layer in the file, chosen by `plugins` or not."""
    for costmap in COSTMAPS.values():
        for name, value in costmap.items():
            if isinstance(value, dict):
                yield name, costmap, value


def observing() -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Costmap, layer and parameters of each observation source."""
    for _, costmap, layer in layers():
        for name in layer.get("observation_sources", "").split():
            yield costmap, layer, layer[name]


def names(parameters: dict[str, Any]) -> set[str]:
    return {name for name, value in parameters.items() if not isinstance(value, dict)}


def groups(parameters: dict[str, Any]) -> set[str]:
    return set(parameters) - names(parameters)


def test_every_name_is_a_parameter_of_nav2() -> None:
    for costmap in COSTMAPS.values():
        assert names(costmap) <= COSTMAP
        assert set(costmap["plugins"]) <= groups(costmap)
    for name, _, layer in layers():
        assert names(layer) - {"plugin"} <= LAYERS[layer["plugin"]], name
        # Listed sources have parameters, and parameters are of listed sources.
        assert groups(layer) == set(layer.get("observation_sources", "").split()), name
    for _, _, source in observing():
        assert set(source) <= SOURCE
    assert names(MONITOR) <= COLLISION_MONITOR
    assert set(MONITOR["polygons"]) | set(MONITOR["observation_sources"]) <= groups(MONITOR)
    for name in groups(MONITOR):
        known = POLYGON if name in MONITOR["polygons"] else MONITOR_SOURCES[MONITOR[name]["type"]]
        assert set(MONITOR[name]) <= known, name


def test_types_are_those_that_nav2_declares() -> None:
    """An integer where a double is declared is refused, and the node does not start."""
    integers = {"width", "height", "z_voxels", "mark_threshold", "min_points"}

    def check(parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            if isinstance(value, dict):
                check(value)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                assert isinstance(value, int) == (name in integers), name

    for section in (*COSTMAPS.values(), MONITOR):
        check(section)


def test_topics_are_those_that_the_node_publishes() -> None:
    topics = {"PointCloud2": {"/points/obstacles", "/points/clearing"}, "LaserScan": {"/scan"}}
    for _, _, source in observing():
        assert source["topic"] in topics[source["data_type"]]
    kinds = {"pointcloud": "/points/obstacles", "scan": "/scan"}
    for name in groups(MONITOR) - set(MONITOR["polygons"]):
        assert MONITOR[name]["topic"] == kinds[MONITOR[name]["type"]]


def test_obstacles_mark_only_and_the_ends_of_rays_clear_only() -> None:
    use = {
        (source["topic"], source["marking"], source["clearing"])
        for _, _, source in observing()
        if source["data_type"] == "PointCloud2"
    }
    assert use == {("/points/obstacles", True, False), ("/points/clearing", False, True)}


def test_every_layer_that_marks_also_clears() -> None:
    for name, _, layer in layers():
        sources = [layer[source] for source in layer.get("observation_sources", "").split()]
        if sources:
            assert any(source["clearing"] for source in sources), name
            assert any(source["marking"] for source in sources), name


def test_height_limits_let_the_clouds_through() -> None:
    for _, layer, source in observing():
        # The source's own default is 0.0, which lets nothing through.
        low, high = source["min_obstacle_height"], source["max_obstacle_height"]
        if source["topic"] == "/points/obstacles":
            assert max(low, layer["min_obstacle_height"]) < DEFAULTS["obstacles.min_height"]
            assert high > DEFAULTS["obstacles.max_height"]
            assert layer["max_obstacle_height"] >= DEFAULTS["obstacles.max_height"]
        elif source["topic"] == "/points/clearing":
            # Rays end between the ground and the top of the band. Nodding by 5 degrees moves their
            # ends up and down.
            nod = np.tan(np.deg2rad(5)) * DEFAULTS["obstacles.max_range"]
            assert low < -nod
            assert high > DEFAULTS["obstacles.max_height"] + nod
    cloud = MONITOR["camera_obstacles"]
    assert cloud["min_height"] < DEFAULTS["obstacles.min_height"]
    assert cloud["max_height"] >= DEFAULTS["obstacles.max_height"]


def test_voxels_hold_the_obstacle_band() -> None:
    grids = [layer for _, _, layer in layers() if layer["plugin"].endswith("VoxelLayer")]
    assert len(grids) == 2
    for layer in grids:
        assert layer["z_voxels"] <= 16  # bits in nav2_voxel_grid
        assert layer["origin_z"] < 0
        top = layer["origin_z"] + layer["z_voxels"] * layer["z_resolution"]
        assert top > DEFAULTS["obstacles.max_height"]


def test_whatever_is_marked_can_be_cleared() -> None:
    """A voxel layer's rays end two cells before their point, or at raytrace_max_range."""
    for costmap, layer, source in observing():
        if not source["marking"]:
            continue
        clearing = [
            layer[name] for name in layer["observation_sources"].split() if layer[name]["clearing"]
        ]
        reach = min(
            *(other["raytrace_max_range"] for other in clearing), DEFAULTS["obstacles.max_range"]
        )
        assert source["obstacle_max_range"] + 2 * costmap["resolution"] < reach
        # What is out of range is not stored either, if the map rolls with the robot.
        if costmap.get("rolling_window"):
            assert min(costmap["width"], costmap["height"]) / 2 > source["obstacle_max_range"]


def test_old_clouds_count_only_where_a_lidar_clears() -> None:
    for _, layer, source in observing():
        lidar = "lidar" in layer["observation_sources"]
        if source["data_type"] == "PointCloud2":
            assert (source["observation_persistence"] > 0) == lidar


def test_costmaps_notice_that_the_camera_is_gone() -> None:
    for _, _, source in observing():
        if source["data_type"] == "PointCloud2":
            assert source["expected_update_rate"] > 0


def test_only_the_lidar_does_not_take_infinity_for_free() -> None:
    """Ours says +Inf where it sees that nothing is there; lidars say it of black things, too."""
    scans = {
        name: layer[name]["inf_is_valid"]
        for _, _, layer in layers()
        for name in layer.get("observation_sources", "").split()
        if layer[name]["data_type"] == "LaserScan"
    }
    assert scans == {"camera_scan": True, "lidar": False}


@pytest.mark.parametrize("height", [0.2, 0.6, 1.4])
def test_cameras_at_usual_heights_are_inside_the_voxels(height: float) -> None:
    """A voxel layer does not clear for a sensor outside its grid."""
    for _, _, layer in layers():
        if layer["plugin"].endswith("VoxelLayer"):
            top = layer["origin_z"] + layer["z_voxels"] * layer["z_resolution"]
            assert layer["origin_z"] <= height < top
