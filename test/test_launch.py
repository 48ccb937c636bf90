"""Launch files for RViz, Nav2, several cameras, and our neighbours, with stand-in executables."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_rig import (
    NAME,
    PROFILE_VARIABLES,
    ROOT,
    LaunchRig,
    Report,
    needs_launch,
    parameters,
    rules,
)

from mono_depth_ros.interface_tables import launch_arguments

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


# --- RViz on one camera


def fixed_frame(report: Report) -> str | None:
    """What rviz2 is told with -f."""
    given = dict(pairwise(report["arguments"]))
    return given.get("-f")


@needs_launch
@pytest.mark.parametrize(("given", "frame"), [({}, None), ({"rviz_frame": "eye"}, "eye")])
def test_rviz_takes_the_frame_that_is_given(
    rig: LaunchRig, tmp_path: Path, given: dict[str, str], frame: str | None
) -> None:
    # RViz is not told of a profile in the parameter file.
    file = tmp_path / "mine.yaml"
    file.write_text("/**: {ros__parameters: {profile: oak}}\n")
    reports = rig.run(rig.ours("depth.launch.py"), 2, rviz="true", params_file=str(file), **given)
    assert fixed_frame(reports["rviz2"]) == frame
    names = rules(reports["rviz2"])
    assert not {"points", "image_rect", "depth/image_color"} & set(names)
    assert "-f" not in reports["depth_node"]["arguments"]


# As in test_output_profiles.py, from the drivers' documents; the rest is under its generic name.
RS, ZED_NODE = "camera/camera", "zed/zed_node"
IN_RVIZ = {
    "realsense": (
        "camera_depth_optical_frame",
        {
            "points": f"{RS}/depth/color/points",
            "image_rect": f"{RS}/color/image_raw",
            "image_rect/camera_info": f"{RS}/color/camera_info",
            "depth/image_rect": f"{RS}/depth/image_rect_raw",
            "depth/camera_info": f"{RS}/depth/camera_info",
        },
    ),
    "zed": (
        "zed_left_camera_frame_optical",
        {
            "points": f"{ZED_NODE}/point_cloud/cloud_registered",
            "image_rect": f"{ZED_NODE}/rgb/color/rect/image",
            "image_rect/camera_info": f"{ZED_NODE}/rgb/color/rect/camera_info",
            "depth/image_rect": f"{ZED_NODE}/depth/depth_registered",
            "depth/camera_info": f"{ZED_NODE}/depth/camera_info",
            "disparity": f"{ZED_NODE}/disparity/disparity_image",
            "right/camera_info": f"{ZED_NODE}/right/color/rect/camera_info",
            "confidence": f"{ZED_NODE}/confidence/confidence_map",
        },
    ),
    "oak": (
        "oak_rgb_camera_optical_frame",
        {
            # oak/points is best effort.
            "points": "oak/rgbd/points",
            "image_rect": "oak/rgb/image_raw",
            "image_rect/camera_info": "oak/rgb/camera_info",
            "depth/image_rect": "oak/stereo/image_raw",
            "depth/camera_info": "oak/stereo/camera_info",
        },
    ),
}


@needs_launch
@pytest.mark.parametrize("profile", IN_RVIZ)
def test_rviz_shows_a_profile_with_the_same_configuration(rig: LaunchRig, profile: str) -> None:
    reports = rig.run(rig.ours("depth.launch.py"), 2, rviz="true", profile=profile)
    frame, renamed = IN_RVIZ[profile]
    assert fixed_frame(reports["rviz2"]) == frame
    names = rules(reports["rviz2"])
    inputs = {"image_raw", "image_raw/compressed", "camera_info"}
    assert {k: v for k, v in names.items() if k not in inputs and k != "__ns"} == renamed
    # The node has these names already.
    assert not renamed.keys() & rules(reports["depth_node"]).keys()


@needs_launch
def test_rviz_takes_the_camera_s_name_but_a_frame_that_is_given_first(rig: LaunchRig) -> None:
    asked = {"rviz": "true", "profile": "realsense", "camera_name": "d435"}
    rviz = rig.run(rig.ours("depth.launch.py"), 2, **asked)["rviz2"]
    assert fixed_frame(rviz) == "d435_depth_optical_frame"
    assert rules(rviz)["points"] == "camera/d435/depth/color/points"
    rviz = rig.run(rig.ours("depth.launch.py"), 2, rviz_frame="base_link", **asked)["rviz2"]
    assert fixed_frame(rviz) == "base_link"


@needs_launch
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"profile": "relsense"}, "there is no profile 'relsense'; use generic, realsense, zed"),
        ({"profile": "oak", "camera_name": "2nd"}, "camera_name '2nd': use letters"),
    ],
)
def test_a_profile_that_is_none_is_named(rig: LaunchRig, given: dict[str, str], said: str) -> None:
    rig.run(rig.ours("depth.launch.py"), 0, **given)
    assert any(said in line for line in rig.errors), rig.errors


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


@needs_launch
@pytest.mark.parametrize("profile", ["realsense", "zed", "oak"])
def test_nav2_demo_refuses_frames_that_its_tf_does_not_lead_to(
    nav2: LaunchRig, profile: str
) -> None:
    nav2.run(nav2.ours("nav2_demo.launch.py"), 0, profile=profile)
    said = f"profile:={profile} has frames that this robot's tf does not lead to; leave it out"
    assert any(said in line for line in nav2.errors), nav2.errors


@needs_launch
@pytest.mark.parametrize("given", [{}, {"profile": "generic"}])
def test_nav2_demo_is_generic_whatever_the_parameter_file_says(
    nav2: LaunchRig, tmp_path: Path, given: dict[str, str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("/**: {ros__parameters: {profile: oak, max_depth: 5.0}}\n")
    asked = {"params_file": str(file), "image_topic": "/cam", "rviz_frame": "eye", **given}
    reports = nav2.run(nav2.ours("nav2_demo.launch.py"), 5, **asked)
    last: dict[str, Any] = {}
    for section in parameters(reports["depth_node"]).values():
        last |= section
    assert (last["profile"], last["max_depth"]) == ("generic", 5.0)
    assert rules(reports["depth_node"])["image_raw"] == "/cam"
    assert fixed_frame(reports["rviz2"]) is None


# Arguments of depth.launch.py that do nothing in nav2_demo.launch.py, or are refused there.
NOT_IN_NAV2_DEMO = {
    *("namespace", "base_frame", "camera_height", "camera_pitch_deg", "camera_roll_deg"),
    *("profile", "camera_name", "rviz_frame"),
}


def test_what_nav2_demo_does_not_take_is_listed_wherever_it_is_described() -> None:
    docstring = ast.get_docstring(ast.parse(OURS[0].read_text())) or ""
    interface = (ROOT / "docs/interface.md").read_text(encoding="utf-8")
    nav2 = (ROOT / "docs/nav2.md").read_text(encoding="utf-8")
    arguments = {name for name, _, _ in launch_arguments(ROOT / "launch/depth.launch.py")}
    for text, begin, end in (
        (docstring, "except", "Usage"),
        (interface.partition("### nav2_demo.launch.py")[2], "except", "<!--"),
        (nav2, "except `namespace`", "\n\n"),
    ):
        listed = (begin + text.partition(begin)[2]).partition(end)[0]
        assert arguments & set(re.findall(r"\w+", listed)) == NOT_IN_NAV2_DEMO


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
