"""Looks at a running system, and prints what is wrong with it and the command that mends it.

Changes nothing: it reads the ROS graph, listens to camera and diagnostics, and asks the depth nodes
for their state and parameters. It does not subscribe to depth, which would have it computed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mono_depth_ros.doctor.finding import Finding
from mono_depth_ros.doctor.findings import findings
from mono_depth_ros.doctor.host import is_elsewhere, process_of, read_host
from mono_depth_ros.doctor.launch_command import SETTINGS
from mono_depth_ros.doctor.observation import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    DepthNode,
    Endpoint,
    Observation,
    Picture,
    Status,
    Stream,
    Topic,
)
from mono_depth_ros.health import Level
from mono_depth_ros.image_encoding import compressed_to_rgb, image_to_rgb
from mono_depth_ros.json_file import write_json
from mono_depth_ros.ros_process import dds_environment
from mono_depth_ros.stamp_matching import stamp_of

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # then nothing is said of how frames are turned
    TFMessage = None

EXAMPLES = """examples:
  depth_doctor
  depth_doctor --node /front/mono_depth --seconds 10
  depth_doctor --json findings.json

Exit status: 0 without errors, 1 with one, 2 for a wrong command line.
docs/troubleshooting.md explains each finding by its name.
"""
# How long other processes may take to be found without it being at the cost of listening.
DISCOVERY_S, LEAST_DISCOVERY_S = 2.5, 0.5
GRAPH_S = 0.1
KINDS: dict[str, type] = {IMAGE: Image, COMPRESSED_IMAGE: CompressedImage, CAMERA_INFO: CameraInfo}
# Best effort and volatile hear every publisher. Deep, so that what is lost was not lost here.
_HEAR_ALL = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED = QoSProfile(
    depth=100,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


@dataclass
class _Recording:
    """What was heard on a topic; only the last message is kept whole.

    Attributes:
        latched: calibration that its camera latched. It may have been sent before we came, or be
            one of the others once more, so it is not counted.
        listens_to_latched: whether there is a subscription for that.
    """

    kind: str
    stamps_ns: list[int] = field(default_factory=list)
    wall_ns: list[int] = field(default_factory=list)
    clock_ns: list[int] = field(default_factory=list)
    last: bytes = b""
    latched: bytes = b""
    listens_to_latched: bool = False

    def message(self) -> Any:
        """The last message; None before the first."""
        raw = self.last or self.latched
        return deserialize_message(raw, KINDS[self.kind]) if raw else None


@dataclass
class _Interview:
    """What a depth node is asked; answers are taken when they are there."""

    clients: list[Any] = field(default_factory=list)
    state: Any = None
    parameters: Any = None

    def answered(self) -> bool:
        return all(f is not None and f.done() for f in (self.state, self.parameters))


class Observer:
    """Listens to a system; `observation` is what it has seen so far.

    Args:
        wanted: full name of the depth node to look at; empty looks at all.
        context: initialised.

    Attributes:
        node: to be spun.
    """

    def __init__(self, wanted: str, context: Context) -> None:
        name = f"depth_doctor_{os.getpid()}"
        self.node = Node(name, context=context, start_parameter_services=False)
        self._wanted = wanted
        self._recordings: dict[tuple[str, str], _Recording] = {}
        self._interviews: dict[str, _Interview] = {}
        self._statuses: dict[str, Status] = {}
        self._clock_ns: list[int] = []
        self._transforms: dict[str, tuple[str, tuple[float, float, float, float]]] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self.node.create_subscription(Clock, "/clock", self._on_clock, _HEAR_ALL)
        if TFMessage is not None:
            self.node.create_subscription(TFMessage, "/tf_static", self._on_transforms, _LATCHED)

    # Messages

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._statuses[f"/{status.name.partition(':')[0]}"] = Status(
                image_topic=status.hardware_id,
                level=Level(min(ord(status.level), Level.ERROR)),
                message=status.message,
                values={pair.key: pair.value for pair in status.values},
            )

    def _on_clock(self, message: Clock) -> None:
        self._clock_ns.append(message.clock.sec * 1_000_000_000 + message.clock.nanosec)

    def _on_transforms(self, message: Any) -> None:
        for transform in message.transforms:
            q = transform.transform.rotation
            parent = transform.header.frame_id
            self._transforms[transform.child_frame_id] = (parent, (q.x, q.y, q.z, q.w))

    def _recorder(self, recording: _Recording) -> Callable[[bytes], None]:
        def record(raw: bytes) -> None:
            recording.stamps_ns.append(stamp_of(raw))
            recording.wall_ns.append(time.time_ns())
            recording.clock_ns.append(self._clock_ns[-1] if self._clock_ns else 0)
            recording.last = raw

        return record

    # The graph

    def look(self) -> bool:
        """Turns to what is new on the graph.

        Returns:
            whether every depth node has answered and been heard, and every input that is published.
        """
        names = set(self._depth_nodes())
        for name in names:
            interview = self._interviews.setdefault(name, _Interview())
            self._ask(name, interview)
            image, info = self._inputs(name)
            for topic, kind in filter(None, (image, info)):
                if (topic, kind) not in self._recordings:
                    recording = self._recordings[topic, kind] = _Recording(kind)
                    self.node.create_subscription(
                        KINDS[kind], topic, self._recorder(recording), _HEAR_ALL, raw=True
                    )
            if info is not None:
                self._watch_for_latched(info[0], self._recordings[info])
        answered = all(self._interviews[n].answered() and n in self._statuses for n in names)
        heard = all(
            recording.last or recording.latched or not self.node.count_publishers(topic)
            for (topic, _), recording in self._recordings.items()
        )
        return bool(names) and answered and heard

    def _watch_for_latched(self, topic: str, recording: _Recording) -> None:
        """Subscribes to calibrations that were latched before we came, where a camera does that.

        Other cameras would log a QoS warning about such a subscription, so it waits for one.
        """

        def record(raw: bytes) -> None:
            recording.latched = raw

        if not recording.listens_to_latched and any(
            p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for p in self.node.get_publishers_info_by_topic(topic)
        ):
            recording.listens_to_latched = True
            self.node.create_subscription(CameraInfo, topic, record, _LATCHED, raw=True)

    def _ask(self, name: str, interview: _Interview) -> None:
        if not interview.clients:
            interview.clients = [
                self.node.create_client(GetState, f"{name}/get_state"),
                self.node.create_client(GetParameters, f"{name}/get_parameters"),
            ]
        state, parameters = interview.clients
        if interview.state is None and state.service_is_ready():
            interview.state = state.call_async(GetState.Request())
        if interview.parameters is None and parameters.service_is_ready():
            interview.parameters = parameters.call_async(GetParameters.Request(names=SETTINGS))

    def _names(self) -> list[str]:
        """Full names of all nodes but this one; a name may be there twice."""
        pairs = self.node.get_node_names_and_namespaces()
        return [_full_name(name, space) for name, space in pairs if name != self.node.get_name()]

    def _depth_nodes(self) -> list[str]:
        """Full names of the depth nodes that are to be looked at."""
        names = sorted(set(self._names()))
        return [
            name
            for name in names
            if self._wanted in ("", name)
            and f"{name}/reload_model"
            in self._by_node(self.node.get_service_names_and_types_by_node, name)
        ]

    def _by_node(self, query: Callable[[str, str], Any], full_name: str) -> dict[str, str]:
        """Type by name, of a node's topics or services; empty if the node is gone by now."""
        namespace, _, name = full_name.rpartition("/")
        try:
            return {topic: kinds[0] for topic, kinds in query(name, namespace or "/")}
        except rclpy.node.NodeNameNonExistentError:
            return {}

    def _inputs(self, node: str) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
        """Topic and type of a depth node's image and of its calibration."""
        topics = self._by_node(self.node.get_subscriber_names_and_types_by_node, node)
        image = [(t, k) for t, k in topics.items() if k in (IMAGE, COMPRESSED_IMAGE)]
        info = [(t, k) for t, k in topics.items() if k == CAMERA_INFO]
        if not image and (status := self._statuses.get(node)) and status.image_topic:
            # It listens to images only while somebody wants depth.
            compressed = self._parameters(node).get("image_transport") == "compressed"
            image = [(status.image_topic, COMPRESSED_IMAGE if compressed else IMAGE)]
        return image[0] if image else None, info[0] if info else None

    def _parameters(self, node: str) -> dict[str, Any]:
        """What a depth node has answered so far."""
        interview = self._interviews.get(node)
        answer = _result(interview.parameters) if interview is not None else None
        values = map(parameter_value_to_python, answer.values) if answer is not None else ()
        return dict(zip(SETTINGS, values, strict=False))

    def _endpoints(self, found: Sequence[TopicEndpointInfo]) -> tuple[Endpoint, ...]:
        own = self.node.get_publishers_info_by_topic("/rosout")
        gids = [e.endpoint_gid for e in own if e.node_name == self.node.get_name()]
        return tuple(
            Endpoint(
                node=_full_name(e.node_name, e.node_namespace),
                kind=e.topic_type,
                reliable=e.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
                latched=e.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
                process=process_of(e.endpoint_gid, gids[0]) if gids else None,
                elsewhere=bool(gids) and is_elsewhere(e.endpoint_gid, gids[0]),
            )
            for e in found
            if e.node_name != self.node.get_name()
        )

    # What was seen

    def observation(self) -> Observation:
        """Everything so far."""
        environment = dds_environment()
        variable = next(name for name in environment if name.endswith("PROFILES_FILE"))
        depth_nodes = self._depth_nodes()
        names = self._names()
        camera_topics = {
            topic: kind
            for topic, kinds in self.node.get_topic_names_and_types()
            for kind in kinds
            if kind in KINDS
            and any(
                _full_name(p.node_name, p.node_namespace) not in depth_nodes
                for p in self.node.get_publishers_info_by_topic(topic)
            )
        }
        return Observation(
            nodes=tuple(self._depth_node(name, names.count(name) - 1) for name in depth_nodes),
            other_nodes=tuple(sorted(set(names) - set(depth_nodes))),
            wanted=self._wanted,
            camera_topics=camera_topics,
            clock_publishers=self.node.count_publishers("/clock"),
            clock_ns=tuple(self._clock_ns),
            transforms=self._transforms,
            host=read_host(),
            rmw=rclpy.get_rmw_implementation_identifier(),
            profile=environment[variable],
            profile_variable=variable,
        )

    def _depth_node(self, name: str, namesakes: int) -> DepthNode:
        image, info = self._inputs(name)
        heard_info = self._recordings.get(info) if info else None
        heard_image = self._recordings.get(image) if image else None
        published = self._by_node(self.node.get_publisher_names_and_types_by_node, name)
        outputs = sorted(
            (t for t, k in published.items() if k.startswith(("sensor_msgs/", "stereo_msgs/"))),
            key=lambda topic: (published[topic] != IMAGE, "depth" not in topic, topic),
        )
        interview = self._interviews.get(name, _Interview())
        state = _result(interview.state)
        message = heard_info.message() if heard_info else None
        return DepthNode(
            name=name,
            namesakes=namesakes,
            state=state.current_state.label if state else "",
            parameters=self._parameters(name),
            image=self._stream(name, *image, heard_image) if image else None,
            info=self._stream(name, *info, heard_info) if info else None,
            picture=_picture(heard_image) if heard_image else None,
            calibration=message,
            outputs=tuple(
                Topic(
                    topic,
                    publishers=self._of(name, self.node.get_publishers_info_by_topic(topic)),
                    subscriptions=self._endpoints(self.node.get_subscriptions_info_by_topic(topic)),
                )
                for topic in outputs
            ),
            status=self._statuses.get(name),
        )

    def _of(self, node: str, found: Sequence[TopicEndpointInfo]) -> tuple[Endpoint, ...]:
        return tuple(e for e in self._endpoints(found) if e.node == node)

    def _stream(self, node: str, topic: str, kind: str, heard: _Recording | None) -> Stream:
        heard = heard or _Recording(kind)
        last = heard.message()
        return Stream(
            topic=Topic(
                topic,
                publishers=self._endpoints(self.node.get_publishers_info_by_topic(topic)),
                subscriptions=self._of(node, self.node.get_subscriptions_info_by_topic(topic)),
            ),
            kind=kind,
            stamps_ns=tuple(heard.stamps_ns),
            wall_ns=tuple(heard.wall_ns),
            clock_ns=tuple(heard.clock_ns),
            frame_id=last.header.frame_id if last is not None else "",
        )


def _full_name(name: str, namespace: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"


def _result(future: Any) -> Any:
    """What a service has answered; None if it has not."""
    return future.result() if future is not None and future.done() else None


def _picture(heard: _Recording) -> Picture | None:
    message = heard.message()
    if message is None:
        return None
    try:
        decode = image_to_rgb if heard.kind == IMAGE else compressed_to_rgb
        height, width = decode(message).shape[:2]
    except ValueError as error:
        return Picture(0, 0, len(heard.last), str(error))
    return Picture(width, height, len(heard.last))


def observe(seconds: float, wanted: str = "") -> Observation:
    """Looks at a system, for this long after its nodes were found.

    Raises:
        RuntimeError: ROS cannot be initialised.
    """
    context = Context()
    rclpy.init(context=context)
    observer = Observer(wanted, context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(observer.node)
    try:
        start = next_look = time.monotonic()
        found, end = False, start + DISCOVERY_S + seconds
        while (now := time.monotonic()) < end:
            if now >= next_look:
                known, next_look = observer.look(), now + GRAPH_S
                if known and not found and now - start >= LEAST_DISCOVERY_S:
                    found, end = True, min(now, start + DISCOVERY_S) + seconds
            executor.spin_once(timeout_sec=min(0.05, end - now))
        return observer.observation()
    finally:
        executor.shutdown()
        observer.node.destroy_node()
        rclpy.try_shutdown(context=context)


def report(found: Sequence[Finding], seen: Observation) -> str:
    """Findings for reading, and what works."""
    lines = []
    for finding in found:
        level = {Level.ERROR: "ERROR", Level.WARN: "WARN ", Level.OK: "note "}[finding.level]
        about = f" {finding.node}" if finding.node else ""
        lines += [f"{level} {finding.code.value}{about}: {finding.what}", f"  fix: {finding.fix}"]
    lines += [_line(node) for node in seen.nodes]
    errors = sum(finding.level == Level.ERROR for finding in found)
    warnings = sum(finding.level == Level.WARN for finding in found)
    lines.append(f"{errors} errors, {warnings} warnings")
    return "\n".join(lines)


def _line(node: DepthNode) -> str:
    summary = _summary(node)
    text = f"{node.name}: {summary['state'] or 'no answer'}"
    if summary["image_topic"]:
        text += f", {summary['image_topic']} at {summary['image_hz']:.1f} Hz"
    if summary["width"]:
        text += f", {summary['width']}x{summary['height']}"
    values = node.status.values if node.status is not None else {}
    shown = ("rate_out_hz", "latency_ms_p50", "latency_ms_p95", "engine")
    return ", ".join([text, *(f"{key} {values[key]}" for key in shown if key in values)])


def _summary(node: DepthNode) -> dict[str, Any]:
    stamps = node.image.wall_ns if node.image is not None else ()
    span = (stamps[-1] - stamps[0]) * 1e-9 if len(stamps) > 1 else 0.0
    return {
        "name": node.name,
        "state": node.state,
        "image_topic": node.image.topic.name if node.image is not None else "",
        "camera_info_topic": node.info.topic.name if node.info is not None else "",
        "images": len(stamps),
        "image_hz": (len(stamps) - 1) / span if span > 0 else 0.0,
        "width": node.picture.width if node.picture is not None else 0,
        "height": node.picture.height if node.picture is not None else 0,
        "diagnostics": dict(node.status.values) if node.status is not None else {},
    }


def document(found: Sequence[Finding], seen: Observation) -> Mapping[str, object]:
    """Findings and the system in short, for machines."""
    return {
        "findings": [
            {
                "code": finding.code.value,
                "level": finding.level.name,
                "node": finding.node,
                "what": finding.what,
                "fix": finding.fix,
            }
            for finding in found
        ],
        "nodes": [_summary(node) for node in seen.nodes],
        "other_nodes": list(seen.other_nodes),
        "rmw": seen.rmw,
        "environment": dict(seen.host.environment),
    }


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 600")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="depth_doctor",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--node", default="", help="full name of one depth node (default: all)")
    parser.add_argument(
        "--seconds", type=_seconds, default=5.0, help="how long to listen (default: 5)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there, too")
    args = parser.parse_args(remove_ros_args(["depth_doctor", *arguments])[1:])
    wanted = f"/{args.node.strip('/')}" if args.node else ""
    try:
        seen = observe(args.seconds, wanted)
        found = findings(seen)
        print(report(found, seen))
        if args.json is not None:
            write_json(args.json, document(found, seen))
    except (KeyboardInterrupt, ExternalShutdownException):
        print("depth_doctor: stopped", file=sys.stderr)
        return 1
    except (RuntimeError, OSError) as error:
        print(f"depth_doctor: {error}", file=sys.stderr)
        return 1
    return int(any(finding.level == Level.ERROR for finding in found))


if __name__ == "__main__":
    raise SystemExit(main())
