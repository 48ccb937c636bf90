"""Real ROS processes under test, and a peer that talks to them over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

ROOT = Path(__file__).parent.parent
# Discovery and a busy machine are slow; nothing here waits this long unless it has failed.
DEADLINE_S = 40.0


def environment(domain: int) -> dict[str, str]:
    """Both ends must use the same shared memory, on a domain of their own."""
    return os.environ | {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds.xml"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "1",
    }


class Process:
    """A module of the package, run as a process; its output goes to a file."""

    def __init__(self, module: str, domain: int, log: Path, *arguments: str, **parameters: Any):
        command = [sys.executable, "-m", module, *arguments, "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name.replace('__', '.')}:={text}"]
        self._log = log
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                command, env=environment(domain), stdout=file, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        return self._log.read_text()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signals the process, waits, and returns its exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise


class Peer:
    """A node of the test's own: publishes, keeps what it hears, calls services."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self._subscriptions: dict[str, Any] = {}

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def hear(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> None:
        """Subscribes to `topic`; messages gather in `heard[topic]`."""
        self._subscriptions[topic] = self.node.create_subscription(
            kind, topic, self.heard[topic].append, qos
        )

    def ignore(self, topic: str) -> None:
        """Ends a subscription and forgets what it heard."""
        self.node.destroy_subscription(self._subscriptions.pop(topic))
        self.heard[topic].clear()

    def wait(self, condition: Callable[[], Any], what: str, process: Process | None = None) -> Any:
        """Spins until `condition` is true and returns its value."""
        end = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            self.executor.spin_once(timeout_sec=0.05)
            output = process.output() if process else ""
            assert time.monotonic() < end, f"no {what}; {output}"
            assert process is None or process.popen.poll() is None, f"process ended; {output}"
        return value

    def spin(self, seconds: float) -> None:
        """Spins for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Calls a service and returns its response."""
        client = self.node.create_client(kind, service)
        try:
            self.wait(client.service_is_ready, f"service {service}")
            future = client.call_async(request)
            self.wait(future.done, f"answer of {service}")
            return future.result()
        finally:
            self.node.destroy_client(client)
