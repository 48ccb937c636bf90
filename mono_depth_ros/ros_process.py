"""Starts a module of this package as a ROS process of its own, on a ROS domain of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mono_depth_ros.shipped_file import shipped_file

STOP_S = 20.0


def dds_environment() -> dict[str, str]:
    """What every process that exchanges images must share: see `config/fastdds.xml`."""
    # Fast DDS 2, up to Jazzy, reads only the old name; Fast DDS 3 warns of it.
    old = os.environ.get("ROS_DISTRO") in ("humble", "iron", "jazzy")
    return {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        f"{'FASTRTPS' if old else 'FASTDDS'}_DEFAULT_PROFILES_FILE": str(
            shipped_file("config/fastdds.xml")
        ),
    }


def private_domain() -> int:
    """ROS_DOMAIN_ID if it is set, else one that no robot on the network is likely to use."""
    return int(os.environ.get("ROS_DOMAIN_ID") or 60 + os.getpid() % 25)


def process_environment(domain: int) -> dict[str, str]:
    """This process's environment for a child that runs a module of this package on `domain`."""
    root = str(Path(__file__).resolve().parent.parent)
    return {
        **os.environ,
        **dds_environment(),
        "ROS_DOMAIN_ID": str(domain),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
    }


class RosProcess:
    """A running module; its output goes to a file.

    Args:
        module: dotted name, run with `python -m`.
        domain: ROS_DOMAIN_ID.
        log: receives stdout and stderr.
        arguments: of the module itself.
        remappings: of ROS names.
        parameters: ROS parameters; `__` in a name stands for a dot.
    """

    def __init__(
        self,
        module: str,
        domain: int,
        log: Path,
        *,
        arguments: Sequence[str] = (),
        remappings: Mapping[str, str] = MappingProxyType({}),
        **parameters: Any,
    ) -> None:
        command = [sys.executable, "-m", module, *arguments, "--ros-args"]
        for old, new in remappings.items():
            command += ["-r", f"{old}:={new}"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name.replace('__', '.')}:={text}"]
        self._log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                command, env=process_environment(domain), stdout=file, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        """What the process has printed so far."""
        return self._log.read_text()

    def running(self) -> bool:
        return self.popen.poll() is None

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signals the process, waits, and returns its exit status; kills it if it will not end."""
        if self.running():
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()
