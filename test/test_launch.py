"""Launch files for Nav2, for several cameras, and for our neighbours, with stand-in executables."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_rig import NAME, PROFILE_VARIABLES, ROOT, LaunchRig, needs_launch, parameters, rules

EXAMPLES = sorted((ROOT / "examples").glob("*.launch.py"))
OURS = [ROOT / "launch" / name for name in ("nav2_demo.launch.py", "cameras.launch.py")]
# Topics that the node publishes under the profile `generic`.
TOPICS = {"image_rect", "depth/image_rect", "depth/camera_info", "points", "scan"}


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaunchRig:
    made = LaunchRig(tmp_path, monkeypatch)
    made.install(NAME, ["depth_node", "virtual_camera"])
    made.install("rviz2", ["rviz2"])
    return made


@pytest.fixture
def nav2(rig: LaunchRig) -> LaunchRig:
    rig.install("nav2_costmap_2d", ["nav2_costmap_2d"])
    rig.install("nav2_lifecycle_manager", ["lifecycle_manager"])
    return rig


@pytest.mark.parametrize("path", [*EXAMPLES, *OURS], ids=lambda path: path.name)
def test_launch_file_is_python_with_a_usage_and_a_description(path: Path) -> None:
    tree = ast.parse(path.read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "generate_launch_description" in functions
    assert f"{path.name}" in (ast.get_docstring(tree) or "")


@needs_launch
@pytest.mark.parametrize("path", [*EXAMPLES, *OURS], ids=lambda path: path.name)
def test_launch_arguments_are_described(rig: LaunchRig, path: Path) -> None:
    from launch import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    description = PythonLaunchDescriptionSource(str(path)).get_launch_description(LaunchContext())
    arguments = description.get_launch_arguments()
    assert arguments
    assert all(argument.description for argument in arguments)


# --- Nav2

LOCAL = yaml.safe_load((ROOT / "config/nav2_costmap.yaml").read_text())["local_costmap"]
COSTMAP = LOCAL["local_costmap"]["ros__parameters"]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= (
            flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return found


@needs_launch
def test_nav2_demo_feeds_a_costmap_from_a_robot_s_camera(nav2: LaunchRig) -> None:
    reports = nav2.run(nav2.ours("nav2_demo.launch.py"), 5, engine="onnx")
    assert set(reports) == {
        *("depth_node", "virtual_camera", "nav2_costmap_2d", "lifecycle_manager", "rviz2"),
    }
    depth = parameters(reports["depth_node"])
    overrides = {k: v for node in depth.values() for k, v in node.items() if k in ("engine",)}
    assert overrides == {"engine": "onnx"}
    assert {node.get("base_frame") for node in depth.values()} >= {"base_footprint"}

    camera = next(iter(parameters(reports["virtual_camera"]).values()))
    assert camera["mount_height_m"] > 0 and camera["prerender"] == 0
    assert isinstance(camera["mount_pitch_deg"], float) and isinstance(camera["seed"], int)

    # The same name on Humble, which chooses it itself, and later, where it is given.
    names = rules(reports["nav2_costmap_2d"])
    assert (names["__ns"], names["__node"]) == ("/costmap", "costmap")
    (costmap,) = parameters(reports["nav2_costmap_2d"]).values()
    given = flat(costmap)
    assert given.pop("initial_transform_timeout") > 60
    assert given == flat(COSTMAP)
    assert given["plugins"] == ["camera_layer", "inflation_layer"]
    (manager,) = parameters(reports["lifecycle_manager"]).values()
    assert manager["node_names"] == ["costmap/costmap"] and manager["autostart"] is True

    shown = reports["rviz2"]["arguments"]
    assert Path(shown[shown.index("-d") + 1]).name == "nav2_demo.rviz"
    profile = str(nav2.prefix / "share" / NAME / "config/fastdds.xml")
    assert {report["profiles"][PROFILE_VARIABLES[0]] for report in reports.values()} == {profile}


@needs_launch
def test_nav2_demo_can_leave_clearing_to_a_lidar(nav2: LaunchRig) -> None:
    arguments = {"mark_only": "true", "rviz": "false", "mount_height_m": "0.3", "seed": "4"}
    reports = nav2.run(nav2.ours("nav2_demo.launch.py"), 4, **arguments)
    assert "rviz2" not in reports
    (costmap,) = parameters(reports["nav2_costmap_2d"]).values()
    assert costmap["plugins"] == ["lidar_layer", "inflation_layer"]
    camera = next(iter(parameters(reports["virtual_camera"]).values()))
    assert (camera["mount_height_m"], camera["seed"]) == (0.3, 4)


@needs_launch
def test_nav2_demo_names_a_file_without_a_costmap(nav2: LaunchRig, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("controller_server:\n  ros__parameters: {}\n")
    nav2.run(nav2.ours("nav2_demo.launch.py"), 0, costmap_file=str(file))
    assert any(f"{file} has no parameters of a local_costmap" in line for line in nav2.errors)


def test_rviz_shows_the_costmap_and_what_it_is_made_of() -> None:
    manager = yaml.safe_load((ROOT / "config/nav2_demo.rviz").read_text())["Visualization Manager"]
    topics = {
        display["Topic"]["Value"]: display["Topic"]
        for display in manager["Displays"]
        if "Topic" in display
    }
    assert set(topics) == {
        *("/costmap/costmap", "points", "points/obstacles", "points/clearing", "scan"),
        *("image_raw", "depth/image_color"),
    }
    # A latched map: without this, RViz shows nothing until the map changes.
    assert topics["/costmap/costmap"]["Durability Policy"] == "Transient Local"
    assert manager["Global Options"]["Fixed Frame"] == COSTMAP["global_frame"]


# --- Several cameras


def cameras_file(folder: Path, **cameras: Any) -> str:
    path = folder / "cameras.yaml"
    path.write_text(yaml.safe_dump(cameras))
    return str(path)


@needs_launch
def test_one_process_serves_the_cameras_that_are_named(rig: LaunchRig, tmp_path: Path) -> None:
    file = cameras_file(
        tmp_path,
        front={
            "image_topic": "/usb_cam_front/image_raw",
            "parameters": {"camera_height": 0.4, "cloud": {"stride": 2}},
        },
        rear={"image_topic": "/rear_cam/color", "camera_info_topic": "/calibration"},
        unused={"image_topic": "/nothing"},
    )
    (depth,) = rig.run(
        rig.ours("cameras.launch.py"), 1, cameras="front, rear,top", cameras_file=file
    ).values()
    arguments = depth["arguments"]
    before = arguments[: arguments.index("--ros-args")]
    assert before == ["--camera", "front", "--camera", "rear", "--camera", "top"]
    # No __node or __ns, which every node in the process would take.
    assert rules(depth) == {
        "/front/image_raw": "/usb_cam_front/image_raw",
        "/front/image_raw/compressed": "/usb_cam_front/image_raw/compressed",
        "/front/camera_info": "/usb_cam_front/camera_info",
        "/rear/image_raw": "/rear_cam/color",
        "/rear/image_raw/compressed": "/rear_cam/color/compressed",
        "/rear/camera_info": "/calibration",
    }
    assert depth["parameters"][0] == (ROOT / "config/depth.yaml").read_text()
    given = parameters(depth)
    assert given.pop("/**")
    assert given == {"/front/mono_depth": {"camera_height": 0.4, "cloud": {"stride": 2}}}
    assert depth["profiles"][PROFILE_VARIABLES[0]].endswith("config/fastdds.xml")


@needs_launch
def test_a_namespace_goes_before_those_of_the_cameras(rig: LaunchRig, tmp_path: Path) -> None:
    file = cameras_file(tmp_path, front={"image_topic": "usb", "parameters": {"engine": "onnx"}})
    (depth,) = rig.run(
        rig.ours("cameras.launch.py"), 1, namespace="/robot/", cameras_file=file
    ).values()
    arguments = depth["arguments"]
    assert arguments[:2] == ["--camera", "robot/front"]
    # Relative names are in the camera's namespace.
    assert rules(depth) == {
        "/robot/front/image_raw": "usb",
        "/robot/front/image_raw/compressed": "usb/compressed",
        "/robot/front/camera_info": "camera_info",
    }
    assert parameters(depth)["/robot/front/mono_depth"] == {"engine": "onnx"}


@needs_launch
def test_the_shipped_cameras_are_all_started(rig: LaunchRig) -> None:
    (depth,) = rig.run(rig.ours("cameras.launch.py"), 1).values()
    shipped = yaml.safe_load((ROOT / "config/cameras.yaml").read_text())
    named = [b for a, b in zip(depth["arguments"], depth["arguments"][1:], strict=False)
             if a == "--camera"]  # fmt: skip
    assert named == list(shipped)
    assert {f"/{name}/mono_depth" for name in shipped} < set(parameters(depth))


@needs_launch
@pytest.mark.parametrize(
    ("text", "cameras", "said"),
    [
        ("front: {image_topics: /a}", "", "camera front has unknown image_topics"),
        ("front: /a", "", "camera front is no mapping"),
        ("[front]", "", "is no mapping of camera names"),
        ("", "", "there is no camera in"),
        ("{", "", "cannot be read"),
        ("front:", "front,front", "camera 'front' is no namespace of its own"),
        ("front:", "2nd", "camera '2nd' is no namespace of its own"),
    ],
)
def test_mistakes_about_cameras_are_named(
    rig: LaunchRig, tmp_path: Path, text: str, cameras: str, said: str
) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(text)
    rig.run(rig.ours("cameras.launch.py"), 0, cameras=cameras, cameras_file=str(file))
    assert any(said in line for line in rig.errors), rig.errors


# --- Neighbours


@needs_launch
def test_rtabmap_takes_the_pixels_that_depth_belongs_to(rig: LaunchRig) -> None:
    rig.install("rtabmap_odom", ["rgbd_odometry"])
    rig.install("rtabmap_slam", ["rtabmap"])
    reports = rig.run(ROOT / "examples/rtabmap.launch.py", 2, frame_id="base_link")
    common = {"frame_id": "base_link", "subscribe_depth": True, "approx_sync": False}
    for name, report in reports.items():
        names = {k: v for k, v in rules(report).items() if not k.startswith("__")}
        # rtabmap_sync/src/impl/CommonDataSubscriberDepth.cpp, rtabmap_odom/.../rgbd_odometry.cpp
        assert names == {
            "rgb/image": "image_rect",
            "rgb/camera_info": "depth/camera_info",
            "depth/image": "depth/image_rect",
        }
        assert set(names.values()) <= TOPICS
        own = {"odom_frame_id": ""} if name == "rtabmap" else {}
        (given,) = parameters(report).values()
        assert given == common | own
    # An odometry topic without the images' stamps would keep exact synchronisation from any frame.
    alone = rig.run(
        ROOT / "examples/rtabmap.launch.py", 1, visual_odometry="false", odom_frame_id="odom"
    )
    assert set(alone) == {"rtabmap"}
    (given,) = parameters(alone["rtabmap"]).values()
    assert given["odom_frame_id"] == "odom"


@needs_launch
def test_depthimage_to_laserscan_takes_depth_and_leaves_our_scan_alone(rig: LaunchRig) -> None:
    rig.install("depthimage_to_laserscan", ["depthimage_to_laserscan_node"])
    (report,) = rig.run(
        ROOT / "examples/depthimage_to_laserscan.launch.py", 1, namespace="front"
    ).values()
    names = rules(report)
    assert names.pop("__node") and names.pop("__ns") == "/front"
    # src/DepthImageToLaserScanROS.cpp
    assert names.pop("scan") not in TOPICS
    assert names == {"depth": "depth/image_rect", "depth_camera_info": "depth/camera_info"}
    (given,) = parameters(report).values()
    assert set(given) <= {"scan_time", "range_min", "range_max", "scan_height", "output_frame"}
    assert isinstance(given["range_max"], float) and isinstance(given["scan_height"], int)
