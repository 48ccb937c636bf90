"""The whole node, a process of its own, at work on the virtual camera: latency, CPU, memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mono_depth_ros.output_profiles import OUTPUTS, PROFILES
from mono_depth_ros.ros_process import RosProcess, dds_environment, private_domain
from mono_depth_ros.stamp_matching import stamp_of

START_S = 120.0
# Uncounted: caches fill, clocks rise, the allocator settles.
WARM_UP_S = 10.0
IDLE_S = 10.0
# Parameters are asked for this often.
ASK_PERIOD_S = 0.5
# Rendered before the start, so that the renderer takes nothing from the node.
PRERENDERED = 90
WIDTH, HEIGHT = 640, 480
# What makes every output possible.
HELD = {"camera_height": 0.7, "disparity_baseline": 0.1, "publish_tf": False}
# What the node reports of itself, by what it means.
FIGURES = {
    "stamp to last publish": "latency_ms",
    "in the network": "engine_ms",
    "overhead (stamp to publish - network)": "overhead_ms",
}

Row = dict[str, "str | float"]


def bench_node(
    model: Path,
    seconds: float,
    *,
    cameras: int = 1,
    outputs: tuple[str, ...] = tuple(OUTPUTS),
    rate: float = 30.0,
) -> list[Row]:
    """Runs the virtual camera at 640x480 and the node, subscribes to outputs, and measures.

    Args:
        model: ONNX file.
        seconds: length of the measurement.
        cameras: that many nodes in one process, which all see what the virtual camera sees.
        outputs: kinds of topics to subscribe to, of `OUTPUTS`.
        rate: frames a second of the camera.

    Returns:
        Rows with `stage`, `camera`, and either `ms_p50` and `ms_p95` or `value` and `unit`.

    Raises:
        RuntimeError: ROS 2 is not there, or a process ended or published nothing.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f"the node needs ROS 2 ({error}); source it, or pip install -r requirements/ros.txt"
        ) from None
    os.environ.update(dds_environment())
    domain = private_domain()
    names = [f"camera{i}" for i in range(cameras)]
    remappings = {
        f"/{name}/{topic}": f"/{topic}" for name in names for topic in ("image_raw", "camera_info")
    }
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        camera = RosProcess(
            "mono_depth_ros.virtual_camera",
            domain,
            logs / "camera",
            rate=rate,
            prerender=PRERENDERED,
            width=WIDTH,
            height=HEIGHT,
        )
        stack.callback(camera.stop)
        node = RosProcess(
            "mono_depth_ros.node",
            domain,
            logs / "node",
            arguments=[word for name in names for word in ("--camera", name)],
            remappings=remappings,
            model=model,
            **HELD,
        )
        stack.callback(node.stop)
        listener = stack.enter_context(_Listener(domain, names, outputs, [camera, node]))
        listener.wait(listener.all_publish, START_S, "nothing was published")
        listener.spin(WARM_UP_S)
        listener.forget()
        memory, cpu = _resident_mb(node), _cpu_s(node)
        listener.spin(seconds, ask=True)
        memory = _resident_mb(node) - memory
        cpu = (_cpu_s(node) - cpu) / seconds
        rows = _frame_rows(listener, names, rate, seconds)
        rows += [
            _row("CPU", 100 * cpu, "% of a core"),
            _row("growth of resident memory", memory, f"MB in {seconds:.0f} s"),
            _times("parameter service, round trip", listener.answers_ms),
        ]
        listener.unsubscribe()
        listener.spin(IDLE_S)
        cpu = _cpu_s(node)
        listener.spin(IDLE_S)
        share = (_cpu_s(node) - cpu) / IDLE_S
        rows.append(_row("CPU, nobody subscribes", 100 * share, "% of a core"))
    return [{"camera": _camera_name(cameras, rate), **row} for row in rows]


def _camera_name(cameras: int, rate: float) -> str:
    of = "" if cameras == 1 else f"{cameras} cameras of "
    return f"{of}{WIDTH}x{HEIGHT} at {rate:g} Hz"


def _row(stage: str, value: float, unit: str) -> Row:
    return {"stage": f"node: {stage}", "value": round(value, 2), "unit": unit}


def _times(stage: str, times_ms: list[float]) -> Row:
    p50, p95 = np.percentile(times_ms, (50, 95)) if times_ms else (np.nan, np.nan)
    return {"stage": f"node: {stage}", "ms_p50": float(p50), "ms_p95": float(p95)}


def _frame_rows(listener: _Listener, names: list[str], rate: float, seconds: float) -> list[Row]:
    """What the nodes said of themselves, and what came of it; the worst of the cameras."""
    reports = [listener.reports[name] for name in names]
    rows: list[Row] = []
    for name, key in FIGURES.items():
        row: Row = {"stage": f"node: {name}"}
        for p in ("p50", "p95"):
            if all(f"{key}_{p}" in report for report in reports):
                row[f"ms_{p}"] = max(float(report[f"{key}_{p}"]) for report in reports)
        rows.append(row)
    stamps = [listener.stamps[name] for name in names]
    # A stamp that is not above the one before is of a frame published twice or too late.
    disordered = sum(int(np.count_nonzero(np.diff(s) <= 0)) for s in stamps)
    counts = [len(s) / seconds for s in stamps]
    rows.append(_row("frames published, slowest camera", min(counts), "Hz"))
    if len(names) > 1:
        rows.append(_row("frames published, fastest camera", max(counts), "Hz"))
    rows.append(_row("frames published twice or out of order", disordered, "frames"))
    return rows


class _Listener:
    """Subscribes to what the nodes publish, and keeps what is measured. Use in a `with` block."""

    def __init__(
        self, domain: int, names: list[str], outputs: tuple[str, ...], processes: list[RosProcess]
    ) -> None:
        import rclpy
        from diagnostic_msgs.msg import DiagnosticArray
        from rcl_interfaces.srv import GetParameters
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data

        from mono_depth_ros.node import MESSAGE_TYPES

        self._processes = processes
        self.reports: dict[str, dict[str, str]] = {}
        self.stamps: dict[str, list[int]] = {name: [] for name in names}
        self.answers_ms: list[float] = []
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node("bench_listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._subscriptions: list[Any] = []

        def note(name: str) -> Callable[[bytes], None]:
            return lambda serialised: self.stamps[name].append(stamp_of(serialised))

        def ignore(serialised: bytes) -> None:
            pass

        for name in names:
            for topic in PROFILES["generic"].topics:
                if topic.output in outputs:
                    subscription = self._node.create_subscription(
                        MESSAGE_TYPES[OUTPUTS[topic.output]],
                        f"{name}/{topic.name}",
                        note(name) if topic.output == "depth" else ignore,
                        qos_profile_sensor_data,
                        raw=True,
                    )
                    self._subscriptions.append(subscription)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 10)
        service = f"{names[0]}/mono_depth/get_parameters"
        self._client = self._node.create_client(GetParameters, service)
        self._request = GetParameters.Request(names=["max_depth"])

    def __enter__(self) -> _Listener:
        return self

    def __exit__(self, *error: object) -> None:
        import rclpy

        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _on_report(self, array: Any) -> None:
        name = array.status[0].name.partition("/")[0]
        self.reports[name] = {entry.key: entry.value for entry in array.status[0].values}

    def all_publish(self) -> bool:
        """Whether each camera has published."""
        return all(self.stamps.values())

    def forget(self) -> None:
        """Counts from here on."""
        for stamps in self.stamps.values():
            stamps.clear()

    def unsubscribe(self) -> None:
        """Ends all subscriptions to outputs."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def wait(self, condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
        """Spins until something is so.

        Raises:
            RuntimeError: it is not in time, or a process has ended.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            self._executor.spin_once(timeout_sec=0.2)
            for process in self._processes:
                if not process.running():
                    raise RuntimeError(f"a process ended early:\n{process.output()}")
            if time.monotonic() > end:
                said = "\n".join(process.output() for process in self._processes)
                raise RuntimeError(f"{failure}; the processes said:\n{said}")

    def spin(self, seconds: float, ask: bool = False) -> None:
        """Listens for a while, and asks for a parameter now and then.

        Raises:
            RuntimeError: a process has ended.
        """
        end = time.monotonic() + seconds
        self.wait(self._client.service_is_ready, START_S, "there is no parameter service")
        while (now := time.monotonic()) < end:
            if ask:
                started = time.perf_counter()
                future = self._client.call_async(self._request)
                self.wait(future.done, START_S, "the parameter service does not answer")
                self.answers_ms.append((time.perf_counter() - started) * 1e3)
            pause = min(now + ASK_PERIOD_S, end)
            self.wait(partial(_is_over, pause), START_S, "late")


def _is_over(end: float) -> bool:
    return time.monotonic() >= end


def _resident_mb(process: RosProcess) -> float:
    pages = int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _cpu_s(process: RosProcess) -> float:
    """User and system time of a process. See proc(5): fields 14 and 15, after the name in
    brackets.
    """
    fields = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
