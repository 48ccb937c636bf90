"""Nodes, topics and QoS: why nothing arrives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from mono_depth_ros.doctor.finding import Claim, Code
from mono_depth_ros.doctor.host import MEETING, Process
from mono_depth_ros.doctor.launch_command import launch_remedy, similar
from mono_depth_ros.doctor.observation import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    DepthNode,
    Endpoint,
    Observation,
    Stream,
)
from mono_depth_ros.health import Level


def presence(seen: Observation) -> Iterator[Claim]:
    """Whether there is a depth node at all."""
    if seen.nodes:
        return
    here, running = seen.host.environment, seen.host.depth_nodes
    domain = here.get("ROS_DOMAIN_ID", "0")
    what, fix = f"no depth node is on ROS domain {domain}", launch_remedy(seen, None)
    if seen.wanted:
        what = f"no depth node is called {seen.wanted} on ROS domain {domain}"
        fix = "look without --node for what is there"
    elif running:
        process = min(running, key=lambda process: len(_differing(process, here)))
        if differing := _differing(process, here):
            what += f"; one runs as process {process.pid} with {differing}"
            fix = f"export {differing}, and look again"
        else:
            what += f"; depth_node runs as process {process.pid}, but is still starting, or hangs"
            fix = "look again; if it stays so, see its log"
    else:
        what += f", where {len(seen.other_nodes)} other nodes are"
    yield Code.NO_NODE, Level.ERROR, what, fix


def _differing(process: Process, here: Mapping[str, str]) -> str:
    """What keeps a process from being seen from here, as shell assignments; empty if not known."""
    there = {name: process.environment.get(name, unset) for name, unset in MEETING.items()}
    if not process.environment:
        return ""
    return " ".join(f"{name}={value}" for name, value in there.items() if here.get(name) != value)


def state(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether the node is the only one of its name, answers, and is active."""
    if node.namesakes:
        yield (
            Code.TWO_NODES,
            Level.ERROR,
            f"{node.namesakes + 1} nodes are called {node.name}: services and parameters reach"
            " either, and both publish (one that was killed counts for 20 s more)",
            "stop one, or start each in a namespace of its own (namespace:=front)",
        )
    if not node.state:
        yield (
            Code.NODE_SILENT,
            Level.ERROR,
            "the node is on the graph, but does not answer: it hangs, or was killed less than 20 s"
            " ago",
            "look again in 20 s; if it is still there, stop and start it",
        )
    elif node.state != "active":
        steps = {"unconfigured": ("configure", "activate"), "inactive": ("activate",)}
        commands = [f"ros2 lifecycle set {node.name} {s}" for s in steps.get(node.state, ())]
        yield (
            Code.NOT_ACTIVE,
            Level.ERROR,
            f"the node is {node.state}, so it takes no images",
            " && ".join(commands) or f"stop {node.name}, and start it as it was started",
        )


def image_topic(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether one camera publishes what the node subscribes to."""
    if node.image is None:
        return
    topic = node.image.topic
    compressed = node.image.kind == COMPRESSED_IMAGE
    other = IMAGE if compressed else COMPRESSED_IMAGE
    if not topic.publishers:
        base = topic.name.removesuffix("/compressed")
        if seen.camera_topics.get(base if compressed else f"{base}/compressed") == other:
            transport = "raw" if compressed else "compressed"
            what = f"nobody publishes {topic.name}, but the {transport} images are there"
            fix = launch_remedy(seen, node, image_transport=transport)
            yield Code.IMAGE_TRANSPORT, Level.ERROR, what, fix
            return
        images = similar(topic.name, seen.camera_topics, IMAGE, COMPRESSED_IMAGE)
        what = f"nobody publishes {topic.name}"
        if images:
            what += f"; images are on {', '.join(images[:4])}"
            fix = launch_remedy(seen, node)
        else:
            what += ", nor any other image"
            fix = (
                "start the camera's driver; see ros2 node list, and that its ROS_DOMAIN_ID is ours"
            )
        yield Code.IMAGE_NO_PUBLISHER, Level.ERROR, what, fix
        return
    yield from kind(node, node.image, seen)
    if len(topic.publishers) > 1:
        names = ", ".join(sorted(p.node for p in topic.publishers))
        yield (
            Code.TWO_CAMERAS,
            Level.ERROR,
            f"{len(topic.publishers)} publishers share {topic.name} ({names}), so frames of both"
            " are mixed",
            "stop one, or start it in a namespace of its own (ros2 run ... --ros-args -r"
            " __ns:=/second)",
        )


def kind(node: DepthNode, stream: Stream, seen: Observation) -> Iterator[Claim]:
    """Whether an input that is published is of the type that the node takes."""
    wanted, kinds = stream.kind, {p.kind for p in stream.topic.publishers}
    if stream.topic.publishers and wanted not in kinds:
        candidates = similar(stream.topic.name, seen.camera_topics, wanted)
        argument = "camera_info_topic" if wanted == CAMERA_INFO else "image_topic"
        there = candidates[0].removesuffix("/compressed") if candidates else "..."
        yield (
            Code.WRONG_TYPE,
            Level.ERROR,
            f"{stream.topic.name} is {', '.join(sorted(kinds))}, and the node needs {wanted}",
            launch_remedy(seen, node, **{argument: there}),
        )


class Mismatch(NamedTuple):
    """Why a publisher and a subscription do not meet.

    Attributes:
        offered, asked: by the publisher, by the subscription.
        policy: as in `qos_overrides`.
        weaker, stronger: value of it that the subscription, or the publisher, should have.
    """

    offered: str
    asked: str
    policy: str
    weaker: str
    stronger: str


_RELIABILITY = Mismatch("best effort", "reliable", "reliability", "best_effort", "reliable")
_DURABILITY = Mismatch("volatile", "transient local", "durability", "volatile", "transient_local")


def mismatch(publisher: Endpoint, subscriptions: Sequence[Endpoint]) -> Mismatch | None:
    """Why none of some subscriptions hears a publisher; None if one does, or there is none.

    A subscription must not ask for more than the publisher offers:
    https://docs.ros.org/en/rolling/Concepts/Intermediate/About-Quality-of-Service-Settings.html
    """
    reason = None
    for subscription in subscriptions:
        if subscription.reliable and not publisher.reliable:
            reason = _RELIABILITY
        elif subscription.latched and not publisher.latched:
            reason = _DURABILITY
        else:
            return None
    return reason


def qos(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether QoS lets the node hear its camera, and others hear the node."""
    for stream in filter(None, (node.image, node.info)):
        topic = stream.topic
        for publisher in topic.publishers:
            # A calibration has two subscriptions, for cameras that latch it and for the others.
            if reason := mismatch(publisher, topic.subscriptions):
                fix = f"make {publisher.node} publish it {reason.asked}"
                # Only this of the node's inputs can be set: images have no durability to override,
                # and calibrations nothing.
                if stream is node.image and reason is _RELIABILITY:
                    override = f"qos_overrides.{topic.name}.subscription.{reason.policy}"
                    fix = _restart_with(node, f"{override}:={reason.weaker}")
                yield (
                    Code.QOS_MISMATCH,
                    Level.ERROR,
                    f"{publisher.node} publishes {topic.name} {reason.offered}, and the node asks"
                    f" for {reason.asked}, so nothing arrives",
                    fix,
                )
    for topic in node.outputs:
        for publisher in topic.publishers[:1]:
            for subscription in topic.subscriptions:
                if reason := mismatch(publisher, [subscription]):
                    override = f"qos_overrides.{topic.name}.publisher.{reason.policy}"
                    yield (
                        Code.QOS_MISMATCH,
                        Level.ERROR,
                        f"{subscription.node} asks for {topic.name} {reason.asked}, and the node"
                        f" publishes it {reason.offered}, so nothing arrives",
                        f"set the {reason.policy} of {subscription.node} to {reason.weaker} (RViz:"
                        " Topic, in the display), or"
                        f" {_restart_with(node, f'{override}:={reason.stronger}')}",
                    )


def _restart_with(node: DepthNode, parameter: str) -> str:
    return f"stop {node.name}, and start it with --ros-args -p {parameter}"
