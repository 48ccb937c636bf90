"""The documentation against the code: tables, links, and the names that it mentions."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import networks
import pytest
import yaml
from launch_rig import needs_launch
from node_rig import Rig, flat
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from mono_depth_ros.interface_tables import (
    DIAGNOSTICS,
    INPUTS,
    SERVICES,
    console_scripts,
    launch_arguments,
    parameters_table,
    with_interface,
)
from mono_depth_ros.output_profiles import OUTPUTS, PROFILES, profile_frames, profile_topics
from mono_depth_ros.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), ROOT / "examples" / "README.md"]
DOMAIN = 90 + os.getpid() % 10

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def rows(table: str) -> list[list[str]]:
    """Cells of a table, without the header."""
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


# Tables


def test_the_tables_of_the_interface_are_up_to_date() -> None:
    page = (DOCS / "interface.md").read_text(encoding="utf-8")
    command = "python -m mono_depth_ros.interface_tables docs/interface.md"
    assert with_interface(page) == page, f"run {command}"
    for name in ("inputs", "outputs", "services", "parameters", "diagnostics", "commands"):
        assert f"<!-- table {name} -->" in page
    for path in (ROOT / "launch").glob("*.launch.py"):
        assert f"<!-- launch {path.name.partition('.')[0]} -->" in page


def test_a_table_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError):
        with_interface("<!-- table nothing --><!-- end -->")
    with pytest.raises(OSError, match=r"nothing\.launch\.py"):
        with_interface("<!-- launch nothing --><!-- end -->")


def test_parameter_rows_say_type_default_values_and_effect() -> None:
    table = {row[0]: row[1:5] for row in rows(parameters_table())}
    assert list(table) == [f"`{spec.name}`" for spec in PARAMETERS]
    assert table["`max_depth`"] == ["double", "`10.0`", "0.01 to 1000 m", "next frame"]
    assert table["`cloud.stride`"] == ["integer", "`1`", "1 to 64", "next frame"]
    assert table["`engine`"][1:4:2] == ["`auto`", "`~/reload_model`"]
    assert table["`autostart`"] == ["bool", "`true`", "", "configure"]
    assert table["`rectify`"] == ["string", "`auto`", "`auto`, `on`, `off`", "next frame"]
    assert table["`base_frame`"][:2] == ["string", '`""`']


def launch_file(name: str) -> Path:
    return ROOT / "launch" / f"{name}.launch.py"


def test_launch_arguments_are_read_with_their_defaults() -> None:
    depth = {name: default for name, default, _ in launch_arguments(launch_file("depth"))}
    assert depth["image_topic"] == "`image_raw`" and depth["rviz"] == "`false`"
    assert depth["params_file"] == "`config/depth.yaml`"
    assert depth["profile"] == depth["camera_height"] == "as in `params_file`"
    costmap = {name: default for name, default, _ in launch_arguments(launch_file("nav2_demo"))}
    assert costmap["mount_height_m"] == "`0.6`" and costmap["rviz"] == "`true`"
    assert costmap["costmap_file"] == "`config/nav2_costmap.yaml`"
    demo = [name for name, _, _ in launch_arguments(launch_file("demo"))]
    assert demo == ["rviz", "seed", "hfov_deg"]


@pytest.mark.parametrize("name", ["depth", "cameras", "demo", "nav2_demo"])
def test_every_launch_argument_that_a_file_uses_is_documented(name: str) -> None:
    source = launch_file(name).read_text()
    used = set(re.findall(r'(?:LaunchConfiguration|given)\(\s*"(\w+)"', source)) - {"namespace"}
    assert used and used <= {argument for argument, _, _ in launch_arguments(launch_file(name))}


@needs_launch
@pytest.mark.parametrize("name", ["depth", "cameras"])
def test_documented_launch_arguments_are_those_that_launch_finds(name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, launch_file(name))
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {
        argument.name for argument in module.generate_launch_description().get_launch_arguments()
    }
    assert found == {argument for argument, _, _ in launch_arguments(launch_file(name))}


# The running node

# Said only when there is something to say.
SOMETIMES = {"engines_not_taken", "engine_build"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("docs")
    made = Rig(folder / "log.txt", DOMAIN, model=networks.red_channel(folder / "red.onnx"))
    made.active()
    made.hear(Image, "depth/image_rect")
    made.see(flat(100))
    yield made
    made.close()


def test_the_node_has_the_documented_topics(rig: Rig) -> None:
    node = rig.peer.node
    published = dict(node.get_publisher_names_and_types_by_node("mono_depth", "/"))
    for topic in PROFILES["generic"].topics:
        assert published.pop(f"/{topic.name}") == [OUTPUTS[topic.output]]
    own = {"/diagnostics", "/tf_static", "/mono_depth/transition_event"}
    assert set(published) <= own | {"/rosout", "/parameter_events"}
    heard = dict(node.get_subscriber_names_and_types_by_node("mono_depth", "/"))
    for name, kind, _ in INPUTS:
        if name == "image_raw/compressed":
            assert f"/{name}" not in heard and kind.endswith(CompressedImage.__name__)
            continue
        assert heard.pop(f"/{name}") == [kind]
        (endpoint,) = node.get_subscriptions_info_by_topic(f"/{name}")
        assert endpoint.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert set(heard) <= {"/clock", "/parameter_events"}


def test_the_node_has_the_documented_services(rig: Rig) -> None:
    services = dict(rig.peer.node.get_service_names_and_types_by_node("mono_depth", "/"))
    for name, kind, _ in SERVICES:
        assert services.pop(name.replace("~", "/mono_depth")) == [kind]
    others = {kind.partition("/")[0] for kinds in services.values() for kind in kinds}
    assert others <= {"rcl_interfaces", "lifecycle_msgs", "type_description_interfaces"}


def test_the_node_publishes_the_documented_diagnostics(rig: Rig) -> None:
    def keys() -> set[str]:
        arrays = rig.peer.heard["/diagnostics"]
        return {entry.key for entry in arrays[-1].status[0].values} if arrays else set()

    rig.peer.wait(lambda: "invalid_share" in keys(), "figures of a frame", rig.process)
    assert keys() - SOMETIMES == set(DIAGNOSTICS) - SOMETIMES


# Links


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Relative targets of links and pictures."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_fences(page.read_text(encoding="utf-8")))
    return [target for target in found if "://" not in target]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", without_fences(page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and ROOT in target.parents, link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md", DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert set(PAGES) <= reached, f"put {set(PAGES) - reached} into docs/README.md"


# Names

# Names of other packages that the documentation mentions.
FOREIGN = {
    # camera drivers, and their parameters
    *("v4l2_camera", "usb_cam", "isaac_ros_argus_camera", "camera_calibration", "camera_info_url"),
    *("image_encoding", "output_encoding", "pixel_format", "left/image_raw"),
    *("camera/image_raw", "camera/image_raw/compressed", "jetson_clocks", "approx_sync"),
    # profiles.md: what the drivers have and we have not, or call otherwise
    *("publish_disparity", "publish_depth_confidence", "publish_left_right", "depth/depth_info"),
    *("disparity/image", "rgb/image_rect_color", "_left_camera_optical_frame"),
    *("zed_right_camera_frame_optical", "align_depth.enable", "pointcloud.enable"),
    *("camera.launch.py", "driver.launch.py"),
    # ROS and its tools
    *(
        "frame_id",
        "header.frame_id",
        "hardware_id",
        "cv_bridge",
        "foxglove_bridge",
        "qos_overrides",
    ),
    *("use_sim_time", "plumb_bob", "rational_polynomial", "base_link", "odom", "base_footprint"),
    *("depth_camera_info", "output_frame", "depthimage_to_laserscan", "base_frame_id"),
    *("depthimage_to_laserscan_node", "rtabmap_odom/rgbd_odometry", "rtabmap_slam/rtabmap"),
    *("collision_monitor", "expected_update_rate", "max_points", "camera_optical_frame"),
    # files that a user has or gets
    *("nyu_data.zip", "nyu_depth_v2_labeled.mat"),
    *("side_by_side.mp4", "panel.png", "cloud.ply", "summary.json"),
}


def keys_of(value: Any) -> Iterator[str]:
    """Keys of a YAML document, and strings in it, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from keys_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner)
    elif isinstance(value, str):
        yield value


@lru_cache
def topics() -> set[str]:
    """Topics and services, without a leading slash or tilde."""
    names = {name for name, *_ in (*INPUTS, *SERVICES)} | {"diagnostics", "tf_static"}
    names |= {topic.name for p in PROFILES.values() for topic in profile_topics(p)}
    # Below the driver's namespace, as its own documentation has them.
    names |= {n.split("/", 1)[1] for n in names if n.startswith(("camera/", "zed/", "oak/"))}
    return {name.removeprefix("~/") for name in names}


@lru_cache
def launch_names() -> set[str]:
    files = (ROOT / "launch").glob("*.launch.py")
    return {name for file in files for name, _, _ in launch_arguments(file)}


@lru_cache
def strings(module: str) -> set[str]:
    """Those in the source of a module: among them names of parameters or keys."""
    tree = ast.parse((ROOT / "mono_depth_ros" / f"{module}.py").read_text())
    return {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}


@lru_cache
def known() -> set[str]:
    """Every name with an underscore or a dot that documentation may use."""
    frames = {f for p in PROFILES.values() for s in profile_frames(p) for f in (s.parent, s.child)}
    frames |= {topic.frame for p in PROFILES.values() for topic in profile_topics(p)}
    yamls = [
        *(ROOT / "config").rglob("*.yaml"),
        *(ROOT / "training" / "configs").glob("*.yaml"),
    ]
    keys = {key for file in yamls for key in keys_of(yaml.safe_load(file.read_text()))}
    names = {spec.name for spec in PARAMETERS} | launch_names() | set(DIAGNOSTICS) | set(OUTPUTS)
    names |= {"mono_depth", "mono_depth_ros"} | strings("model_card")
    return names | topics() | set(console_scripts()) | frames | keys | FOREIGN


def is_file(name: str) -> bool:
    """Whether something of that path or name is in the repository."""
    if (ROOT / name).exists():
        return True
    folders = ("", "docs", "config", "launch", "models", "requirements", "config/model_cards")
    return any((ROOT / folder / name).exists() for folder in folders)


def is_known_topic(name: str) -> bool:
    """Whether it is a topic of ours, in whatever namespace."""
    bare = name.strip("/")
    return any(bare == topic or bare.endswith(f"/{topic}") for topic in topics())


def texts(page: Path) -> tuple[list[str], list[str]]:
    """Code spans of a page, and lines of its blocks of code with continuations joined."""
    text = page.read_text(encoding="utf-8")
    if page.name == "migration.md":
        # In its tables of four columns, the first three are what the drivers call their parameters.
        text = re.sub(r"^\|(?:[^|\n]*\|){3}([^|\n]*\|)$", r"|\1", text, flags=re.MULTILINE)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return re.findall(r"`([^`\n]+)`", without_fences(text)), lines


def is_misspelt(span: str) -> bool:
    """Whether a code span looks like a name of ours, and is none."""
    # NAME:=VALUE and NAME: VALUE
    name = re.sub(r"^([\w.]+)(:=|: )\S+$", r"\1", span).removeprefix("~/")
    if name in known() or is_file(name):
        return False
    if re.fullmatch(r"/?[a-z]\w*(/\w[\w.]*)+", name):
        return not is_known_topic(name)
    if not re.fullmatch(r"[a-z_]\w*(\.\w+)*", name) or not re.search("[_.]", name):
        return False
    first, *rest = name.split(".")
    if first in {spec.name.partition(".")[0] for spec in PARAMETERS}:
        return True
    # `input.width` stands for the key width below input.
    return not rest or not {first, *rest} <= known()


@pages
def test_every_name_in_backticks_exists(page: Path) -> None:
    unknown = [span for span in texts(page)[0] if is_misspelt(span)]
    assert not unknown, "misspelt, gone, or another package's (then add it to FOREIGN)"


def module_of(words: list[str]) -> str | None:
    """The module that a command of ours runs."""
    words = [word.rpartition("/")[2] if word.startswith("ENV/") else word for word in words]
    if words[:2] in (["python", "-m"], ["python3", "-m"]) and len(words) > 2:
        return words[2] if words[2].startswith(("mono_depth_ros.", "training.")) else None
    if words[:3] == ["ros2", "run", "mono_depth_ros"] and len(words) > 3:
        words = words[3:]
    return console_scripts().get(words[0]) if words else None


def option_exists(option: str, source: str) -> bool:
    name = option.partition("=")[0]
    by_name = 'f"--{name}"' in source and f'"{name[2:]}"' in source
    return f'"{name}"' in source or by_name or name in ("--help", "--ros-args")


@pages
def test_every_command_and_its_options_exist(page: Path) -> None:
    spans, lines = texts(page)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in (part for text in (*spans, *lines) for part in re.split(r"&&|;|\|", text)):
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # half of a quotation is no command
            continue
        if words[:1] == ["make"] and len(words) > 1:
            assert words[1] in targets, command
        if words[:3] == ["ros2", "launch", "mono_depth_ros"] and words[3] != "FILE":
            assert (ROOT / "launch" / words[3]).is_file(), command
            given = {word.partition(":=")[0] for word in words[4:] if ":=" in word}
            assert given <= launch_names(), command
        module = module_of(words)
        if module is None:
            assert words[:3] != ["ros2", "run", "mono_depth_ros"] or words[3] == "NAME", command
            continue
        path = ROOT / f"{module.replace('.', '/')}.py"
        assert path.is_file(), command
        source = path.read_text()
        own = words[: words.index("--ros-args")] if "--ros-args" in words else words
        assert all(option_exists(w, source) for w in own if w.startswith("--")), command
        ros = [w.partition(":=")[0] for w in words[len(own) :] if ":=" in w]
        assert set(ros) <= known() | strings("virtual_camera"), command


def test_misspelt_names_are_found(tmp_path: Path) -> None:
    """The checks above would see them."""
    for right, wrong in (
        ("cloud.stride", "cloud.height"),
        ("camera_height:=0.3", "camera_hight:=0.3"),
        ("/front/depth/image_rect", "/front/depth/image_rectt"),
        ("~/reload_model", "~/reload_models"),
        ("depth_doctor", "depth_docter"),
        ("config/depth.yaml", "config/depths.yaml"),
    ):
        assert is_misspelt(wrong) and not is_misspelt(right), (right, wrong)
    source = (ROOT / "mono_depth_ros" / "depth_video.py").read_text()
    assert option_exists("--hfov", source) and not option_exists("--fov", source)
    page = tmp_path / "page.md"
    page.write_text(
        "# Some: heading\n`a_b`\n```\nbuild_engine \\\n  --list\n```\n[x](#some-heading)\n"
    )
    assert texts(page) == (["a_b"], ["build_engine    --list"])
    assert anchors(page) == {"some-heading"} and links(page) == ["#some-heading"]
