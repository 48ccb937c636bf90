"""The package as others meet it: built, installed, launched, and its files as declared."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from launch_rig import PROFILE_VARIABLES, STAND_IN, needs_launch

ROOT = Path(__file__).resolve().parent.parent
NAME = "mono_depth_ros"


def _setup_arguments() -> dict[str, Any]:
    """The keyword arguments of setup() that are literals."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    call = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "setup"
    )
    arguments = {}
    for keyword in call.keywords:
        try:
            arguments[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except ValueError:
            continue
    return arguments


SCRIPTS: list[str] = _setup_arguments()["entry_points"]["console_scripts"]
SCRIPT_NAMES = {script.split(" = ")[0] for script in SCRIPTS}


# --- Declarations


def test_package_xml_and_setup_agree() -> None:
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    setup = _setup_arguments()
    assert manifest.get("format") == "3"
    assert manifest.findtext("name") == NAME
    for tag in ("version", "description", "license", "maintainer"):
        assert manifest.findtext(tag) == setup[tag], tag
    maintainer = manifest.find("maintainer")
    assert maintainer is not None
    assert maintainer.get("email") == setup["maintainer_email"]
    assert manifest.findtext("export/build_type") == "ament_python"
    assert (ROOT / "resource" / NAME).is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_catkin_pkg_accepts_package_xml() -> None:
    catkin = pytest.importorskip("catkin_pkg.package")
    warnings: list[str] = []
    package = catkin.parse_package(str(ROOT), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings


def test_colcon_test_finds_a_runner() -> None:
    assert any("pytest" in item for item in _setup_arguments()["extras_require"]["test"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_console_script_has_its_function(script: str) -> None:
    module, function = script.split(" = ")[1].split(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("requirements/*.txt")), ids=lambda path: path.name
)
def test_requirements_are_pinned(path: Path) -> None:
    for line in path.read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if requirement.startswith("-r "):
            assert (path.parent / requirement.split()[1]).is_file(), line
        elif requirement:
            pinned = r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*(; python_version (<|>=) \"3\.\d+\")?"
            assert re.fullmatch(pinned, requirement), line


def test_runtime_requirements_have_neither_torch_nor_ros() -> None:
    assert not re.search(r"^(torch|ros-)", (ROOT / "requirements/run.txt").read_text(), re.M)


def test_fast_dds_profile_holds_images() -> None:
    root = ElementTree.parse(ROOT / "config/fastdds.xml").getroot()
    space = {"dds": "http://www.eprosima.com"}
    shared = [
        node
        for node in root.iterfind(".//dds:transport_descriptor", space)
        if node.findtext("dds:type", namespaces=space) == "SHM"
    ]
    assert len(shared) == 1
    assert int(shared[0].findtext("dds:segment_size", "0", space)) >= 32 * 2**20
    defined = {
        node.text for node in root.iterfind(".//dds:transport_descriptor/dds:transport_id", space)
    }
    used = {node.text for node in root.iterfind(".//dds:userTransports/*", space)}
    assert used == defined


def output_of(
    command: list[str], folder: Path, environment: Mapping[str, str] | None = None
) -> str:
    """What a command prints, which must succeed; None is the environment of the tests."""
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# rclpy's classes took no type arguments up to Jazzy: what is evaluated at import must not have any.
IMPORT_AS_ON_HUMBLE = """
import importlib, pkgutil, rclpy
from rclpy.client import Client
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.task import Future

def refuse(cls, item):
    raise TypeError(f"{cls.__name__} is not subscriptable")

import rclpy.executors, rclpy.lifecycle, rclpy.node, rclpy.qos_overriding_options
for kind in (Client, Future, Parameter, Publisher, Service, Subscription):
    kind.__class_getitem__ = classmethod(refuse)
import mono_depth_ros
for module in pkgutil.walk_packages(mono_depth_ros.__path__, "mono_depth_ros."):
    importlib.import_module(module.name)
"""


@pytest.mark.slow
def test_every_module_imports_where_rclpy_knows_no_generics() -> None:
    pytest.importorskip("rclpy")
    output_of([sys.executable, "-c", IMPORT_AS_ON_HUMBLE], ROOT)


def test_what_launch_files_import_of_ours_needs_the_standard_library_alone() -> None:
    """`ros2 launch` runs them with the system's Python, which need not have our requirements."""
    modules = {
        name.removeprefix("from ")
        for path in (ROOT / "launch").glob("*.launch.py")
        for name in re.findall(rf"^from {NAME}[\w.]*", path.read_text(), re.MULTILINE)
    }
    assert modules == {f"{NAME}.output_profiles"}
    # -S: without site-packages.
    output_of([sys.executable, "-S", "-c", f"import {', '.join(modules)}"], ROOT, {})


# --- Build


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--symlink-install"]], ids=["copy", "symlink"])
def test_colcon_builds_and_installs(tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("colcon_core")
    pytest.importorskip("colcon_ros")
    source = tmp_path / "src" / NAME
    # What a fresh checkout has: neither hidden folders nor what builds and runs leave behind.
    ignore = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "install", "log", "runs", "*_out"
    )
    shutil.copytree(ROOT, source, ignore=ignore)
    # Which `ros2 launch examples/...` leaves behind.
    (source / "examples/__pycache__").mkdir()
    build = [sys.executable, "-m", "colcon", "build", *options]
    output_of(build, tmp_path)

    prefix = tmp_path / "install" / NAME
    share = prefix / "share" / NAME
    assert (prefix / "share/ament_index/resource_index/packages" / NAME).is_file()
    assert (share / "package.xml").is_file()
    for folder, patterns in {
        "launch": ["*.launch.py"],
        "config": ["*.yaml", "*.xml", "*.rviz", "*.json"],
        "examples": ["*.py", "*.md"],
        "config/model_cards": ["*.yaml"],
        "models": ["*.onnx", "*.csv"],
        "models/parity": ["*"],
    }.items():
        expected = {path.name for pattern in patterns for path in (ROOT / folder).glob(pattern)}
        installed = {path.name for path in (share / folder).iterdir() if path.is_file()}
        assert installed == expected

    scripts = prefix / "lib" / NAME
    assert {path.name for path in scripts.iterdir()} == SCRIPT_NAMES
    assert all(os.access(path, os.X_OK) for path in scripts.iterdir())

    # As after sourcing install/setup.sh, and from a folder that is no checkout.
    packages = next(prefix.glob("lib/python*/site-packages"))
    folders = [packages, tmp_path / "build" / NAME] if options else [packages]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    output_of([str(scripts / "depth_video"), "--help"], tmp_path, environment)
    where = (
        "import importlib.util, mono_depth_ros.model as model;"
        "assert importlib.util.find_spec('training') is None or 'build' in model.__file__;"
        "print(model.default_model())"
    )
    found = output_of([sys.executable, "-c", where], tmp_path, environment)
    assert Path(found.strip()).is_relative_to(tmp_path)


# --- Launch files, run by the real launch system with stand-ins for the executables

Launch = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An install prefix with our launch and config files, and stand-ins for executables."""
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    for package, executables in {NAME: SCRIPT_NAMES, "rviz2": {"rviz2"}}.items():
        (index / package).touch()
        (tmp_path / "share" / package).mkdir()
        (tmp_path / "lib" / package).mkdir(parents=True)
        for executable in executables:
            path = tmp_path / "lib" / package / executable
            path.write_text(STAND_IN)
            path.chmod(0o755)
    for folder in ("launch", "config"):
        (tmp_path / "share" / NAME / folder).symlink_to(ROOT / folder)
    return tmp_path


@pytest.fixture
def launch(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Launches a file until `count` processes have reported; returns the reports by name."""
    from launch import LaunchDescription, LaunchService
    from launch.actions import (
        EmitEvent,
        IncludeLaunchDescription,
        RegisterEventHandler,
        TimerAction,
    )
    from launch.event_handlers import OnProcessIO
    from launch.events import Shutdown
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    monkeypatch.setenv("ROS_LOG_DIR", str(prefix / "log"))
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    for variable in PROFILE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)

    def run(file: str, count: int, **arguments: str) -> dict[str, dict[str, Any]]:
        reports: dict[str, dict[str, Any]] = {}

        def read(event: Any) -> Any:
            for line in event.text.decode().splitlines():
                if line.startswith("REPORT"):
                    report = json.loads(line.removeprefix("REPORT"))
                    reports[report["name"]] = report
            return EmitEvent(event=Shutdown()) if len(reports) == count else None

        source = PythonLaunchDescriptionSource(str(prefix / "share" / NAME / "launch" / file))
        service = LaunchService(noninteractive=True)
        service.include_launch_description(
            LaunchDescription(
                [
                    RegisterEventHandler(OnProcessIO(on_stdout=read)),
                    TimerAction(period=30.0, actions=[EmitEvent(event=Shutdown())]),
                    IncludeLaunchDescription(source, launch_arguments=arguments.items()),
                ]
            )
        )
        service.run()
        assert len(reports) == count, reports
        return reports

    return run


def _rules(report: dict[str, Any]) -> dict[str, str]:
    """Remappings by the name they replace; `__node` and `__ns` are among them."""
    arguments = report["arguments"]
    return dict(rule.split(":=") for flag, rule in pairwise(arguments) if flag == "-r")


def _parameters(texts: list[str]) -> dict[str, Any]:
    """Parameters in the files that launch wrote, whichever node names it put them under."""
    return {
        name: value
        for text in texts
        for node in yaml.safe_load(text).values()
        for name, value in node["ros__parameters"].items()
    }


def _overrides(report: dict[str, Any]) -> dict[str, Any]:
    """Parameters given after the parameter file, which must come first."""
    first, *others = report["parameters"]
    assert first == (ROOT / "config/depth.yaml").read_text()
    return _parameters(others)


@needs_launch
def test_depth_launch_leaves_the_parameter_file_alone(launch: Launch, prefix: Path) -> None:
    reports = launch("depth.launch.py", 1)
    depth = reports["depth_node"]
    assert _overrides(depth) == {}
    rules = _rules(depth)
    assert rules["__node"] == "mono_depth"
    assert rules.get("__ns", "/") == "/"
    assert rules["image_raw"] == "image_raw"
    assert rules["camera_info"] == "camera_info"
    profile = prefix / "share" / NAME / "config/fastdds.xml"
    assert depth["profiles"] == dict(zip(PROFILE_VARIABLES, (str(profile), None), strict=True))


@needs_launch
def test_depth_launch_passes_arguments_on(launch: Launch) -> None:
    reports = launch(
        "depth.launch.py",
        2,
        image_topic="/cam/image_raw",
        camera_info_topic="/cam/camera_info",
        image_transport="compressed",
        namespace="robot",
        model="7",
        engine="onnx",
        autostart="false",
        use_sim_time="True",
        log_level="debug",
        rviz="true",
    )
    depth, rviz = reports["depth_node"], reports["rviz2"]
    assert _overrides(depth) == {
        "model": "7",  # a file of that name, not a number
        "engine": "onnx",
        "image_transport": "compressed",
        "autostart": False,
        "use_sim_time": True,
    }
    topics = {
        "__ns": "/robot",
        "image_raw": "/cam/image_raw",
        "image_raw/compressed": "/cam/image_raw/compressed",
        "camera_info": "/cam/camera_info",
    }
    assert _rules(depth) == {"__node": "mono_depth", **topics}
    assert _rules(rviz) == topics
    level = depth["arguments"].index("--log-level")
    assert depth["arguments"][level + 1] == "debug"
    assert Path(rviz["arguments"][rviz["arguments"].index("-d") + 1]).is_file()
    assert _parameters(rviz["parameters"]) == {"use_sim_time": True}


@needs_launch
@pytest.mark.parametrize(
    ("distribution", "given", "seen"),
    [
        ("kilted", PROFILE_VARIABLES[0], {PROFILE_VARIABLES[0]: "/mine.xml"}),
        ("kilted", PROFILE_VARIABLES[1], dict.fromkeys(PROFILE_VARIABLES, "/mine.xml")),
        ("humble", PROFILE_VARIABLES[1], {PROFILE_VARIABLES[1]: "/mine.xml"}),
    ],
)
def test_depth_launch_keeps_the_users_profile(
    launch: Launch,
    monkeypatch: pytest.MonkeyPatch,
    distribution: str,
    given: str,
    seen: dict[str, str],
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.setenv(given, "/mine.xml")
    reports = launch("depth.launch.py", 1)
    profiles = reports["depth_node"]["profiles"]
    assert {name: value for name, value in profiles.items() if value} == seen


@needs_launch
def test_demo_launch_puts_the_camera_beside_the_node(launch: Launch, prefix: Path) -> None:
    reports = launch("demo.launch.py", 3, namespace="robot", seed="3", engine="onnx")
    assert set(reports) == {"virtual_camera", "depth_node", "rviz2"}
    assert {_rules(report)["__ns"] for report in reports.values()} == {"/robot"}
    profile = str(prefix / "share" / NAME / "config/fastdds.xml")
    assert {report["profiles"][PROFILE_VARIABLES[0]] for report in reports.values()} == {profile}
    assert _overrides(reports["depth_node"]) == {"engine": "onnx"}
    camera = _parameters(reports["virtual_camera"]["parameters"])
    assert camera == {"seed": 3, "hfov_deg": 60.0}
    assert isinstance(camera["hfov_deg"], float)


@needs_launch
@pytest.mark.parametrize("file", ["depth.launch.py", "demo.launch.py"])
def test_launch_arguments_are_described(
    prefix: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    from launch import LaunchContext
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix))
    path = prefix / "share" / NAME / "launch" / file
    description = PythonLaunchDescriptionSource(str(path)).get_launch_description(LaunchContext())
    arguments = description.get_launch_arguments()
    assert arguments
    assert all(argument.description for argument in arguments)
