"""A node of the tests' own that talks to processes under test over DDS."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from mono_depth_ros.ros_process import RosProcess

# Discovery and a busy machine are slow; nothing here waits this long unless it has failed.
DEADLINE_S = 40.0


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

    def wait(
        self, condition: Callable[[], Any], what: str, process: RosProcess | None = None
    ) -> Any:
        """Spins until `condition` is true and returns its value."""
        end = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            self.executor.spin_once(timeout_sec=0.05)
            output = process.output() if process else ""
            assert time.monotonic() < end, f"no {what}; {output}"
            assert process is None or process.running(), f"process ended; {output}"
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
