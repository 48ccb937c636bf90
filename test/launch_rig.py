"""Runs launch files with the real launch system and stand-ins for the executables."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
NAME = "mono_depth_ros"
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
SECONDS = 30.0

# The folder launch/ could pass for the module `launch`; launch_ros has no such double.
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None, reason="launch_ros is not installed"
)

STAND_IN = f"""#!{sys.executable}
import json, os, sys, time
arguments = sys.argv[1:]
files = [b for a, b in zip(arguments, arguments[1:]) if a == "--params-file"]
report = {{
    "name": os.path.basename(sys.argv[0]),
    "arguments": arguments,
    "parameters": [open(name).read() for name in files],
    "profiles": {{name: os.environ.get(name) for name in {PROFILE_VARIABLES}}},
}}
print("REPORT" + json.dumps(report), flush=True)
time.sleep(60)
"""

Report = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Reads what launch writes for lists, as rcl does."""


def _list(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _list)


class _Errors(logging.Handler):
    """Keeps what launch logs as errors; it writes to the standard output of its first use."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class LaunchRig:
    """An install prefix with our launch and config files, and stand-ins for executables.

    Args:
        folder: for the prefix.
        monkeypatch: sets the environment.

    Attributes:
        errors: what launch said of the last run.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prefix = folder
        self.errors: list[str] = []
        for name in ("launch", "config"):
            share = folder / "share" / NAME
            share.mkdir(parents=True, exist_ok=True)
            (share / name).symlink_to(ROOT / name)
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(folder))
        monkeypatch.setenv("ROS_LOG_DIR", str(folder / "log"))
        for variable in ("ROS_DISTRO", *PROFILE_VARIABLES):
            monkeypatch.delenv(variable, raising=False)

    def install(self, package: str, executables: Iterable[str]) -> None:
        """Puts a package with stand-ins into the prefix."""
        index = self.prefix / "share/ament_index/resource_index/packages" / package
        index.parent.mkdir(parents=True, exist_ok=True)
        index.touch()
        (self.prefix / "share" / package).mkdir(exist_ok=True)
        for executable in executables:
            path = self.prefix / "lib" / package / executable
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(STAND_IN)
            path.chmod(0o755)

    def ours(self, name: str) -> Path:
        """One of our launch files, as installed."""
        return self.prefix / "share" / NAME / "launch" / name

    def run(self, file: Path, count: int, **arguments: str) -> dict[str, Report]:
        """Launches a file until `count` processes have reported; returns reports by executable."""
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

        reports: dict[str, Report] = {}

        def read(event: Any) -> Any:
            for line in event.text.decode().splitlines():
                if line.startswith("REPORT"):
                    report = json.loads(line.removeprefix("REPORT"))
                    reports[report["name"]] = report
            return EmitEvent(event=Shutdown()) if len(reports) == count else None

        source = PythonLaunchDescriptionSource(str(file))
        service = LaunchService(noninteractive=True)
        service.include_launch_description(
            LaunchDescription(
                [
                    RegisterEventHandler(OnProcessIO(on_stdout=read)),
                    TimerAction(period=SECONDS, actions=[EmitEvent(event=Shutdown())]),
                    IncludeLaunchDescription(source, launch_arguments=arguments.items()),
                ]
            )
        )
        errors, log = _Errors(), logging.getLogger("launch")
        log.addHandler(errors)
        try:
            service.run()
        finally:
            log.removeHandler(errors)
        self.errors = errors.messages
        assert len(reports) == count, (reports, self.errors)
        return reports


def rules(report: Report) -> dict[str, str]:
    """Remappings by the name they replace; `__node` and `__ns` are among them."""
    return dict(r.split(":=") for flag, r in pairwise(report["arguments"]) if flag == "-r")


def parameters(report: Report) -> dict[str, dict[str, Any]]:
    """Parameters in the files that the process was given, by node name; later files win."""
    merged: dict[str, dict[str, Any]] = {}
    for text in report["parameters"]:
        for node, section in yaml.load(text, _Loader).items():
            merged.setdefault(node, {}).update(section["ros__parameters"])
    return merged
