"""Runs the virtual camera and the depth node as processes, and records what comes over DDS."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from mono_depth_ros import accuracy
from mono_depth_ros.cloud import DTYPE
from mono_depth_ros.json_file import write_json
from mono_depth_ros.markdown_table import markdown_table
from mono_depth_ros.mp4 import mp4_writer
from mono_depth_ros.output_profiles import PROFILES, CloudLayout, Topic, profile_topics
from mono_depth_ros.panel import Panel, SideBySide
from mono_depth_ros.ply import write_ply
from mono_depth_ros.ros_process import RosProcess, dds_environment, private_domain
from mono_depth_ros.stamp_matching import stamp_of

if TYPE_CHECKING:
    from rclpy.node import Node
    from sensor_msgs.msg import PointCloud2

START_S = 60.0
NODE = "mono_depth"
# What every node has.
_OF_ROS = ("/rosout", "/parameter_events", f"/{NODE}/transition_event")
# Frames kept for pictures and accuracy; the rest is only counted.
KEEP_EVERY = 3
# Images and truths that wait for their depth.
PENDING = 40
MAX_DEPTH = 6.0


@dataclass
class Stream:
    """A topic that was subscribed to.

    Attributes:
        kind: class of its messages.
        arrivals: nanoseconds.
        last: the last message, serialised.
    """

    kind: type
    arrivals: list[int] = field(default_factory=list)
    last: bytes | None = None

    def rate_hz(self) -> float | None:
        """Messages a second; None before the second message."""
        if len(self.arrivals) < 2 or self.arrivals[-1] == self.arrivals[0]:
            return None
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0]) * 1e9


@dataclass(frozen=True)
class Offer:
    """A topic that the depth node has on the graph.

    Attributes:
        name, type, reliability: as the graph has them.
        format, frame, rate_hz: as the messages were; empty or None where nobody subscribed.
    """

    name: str
    type: str
    reliability: str
    format: str = ""
    frame: str = ""
    rate_hz: float | None = None


@dataclass
class Recording:
    """What was heard.

    Attributes:
        images: stamps of the camera's images.
        arrivals: stamp and time of arrival of each depth image.
        frames: every third image, its depth and its truth, serialised.
        cloud: the last cloud, serialised; `clouds` is their number.
        engine, engine_ms: what the node said of its network last.
        offers: what the node has on the graph.
    """

    images: list[int] = field(default_factory=list)
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    frames: list[tuple[bytes, bytes, bytes | None]] = field(default_factory=list)
    cloud: bytes | None = None
    clouds: int = 0
    engine: str = ""
    engine_ms: float = float("nan")
    offers: list[Offer] = field(default_factory=list)


def heard_topics(profile: str) -> list[Topic]:
    """The topics of a profile that the demo subscribes to: depth, its calibration, and last one
    cloud, since a second would only cost the cores that the node is measured on.
    """
    topics = profile_topics(PROFILES[profile])
    cloud = next(topic for topic in topics if topic.output == "points")
    return [topic for topic in topics if topic.output in ("depth", "depth_info")] + [cloud]


def _format(message: Any) -> str:
    """Size and layout of an Image, CameraInfo or PointCloud2."""
    kind = message.__class__.__name__
    size = f"{message.width}x{message.height}"
    if kind == "PointCloud2":
        fields = " ".join(point_field.name for point_field in message.fields)
        return f"{size} {fields}, {message.point_step} bytes"
    return f"{size} {message.encoding if kind == 'Image' else message.distortion_model}"


def offers(node: Node, profile: str, streams: dict[str, Stream]) -> list[Offer]:
    """What the depth node has on the graph, in the order of its profile.

    Args:
        streams: what was subscribed to, by full name.
    """
    from rclpy.serialization import deserialize_message

    own = [f"/{topic.name}" for topic in profile_topics(PROFILES[profile])]
    found = []
    for name, types in node.get_publisher_names_and_types_by_node(NODE, "/"):
        if name in _OF_ROS:
            continue
        publishers = node.get_publishers_info_by_topic(name)
        reliability = {p.qos_profile.reliability.name for p in publishers if p.node_name == NODE}
        offer = Offer(name, ", ".join(types), ", ".join(sorted(reliability)).lower())
        stream = streams.get(name)
        if stream is not None and stream.last is not None:
            message = deserialize_message(stream.last, stream.kind)
            rate = stream.rate_hz()
            offer = replace(
                offer,
                format=_format(message),
                frame=message.header.frame_id,
                rate_hz=None if rate is None else round(rate, 1),
            )
        found.append(offer)
    places = {name: place for place, name in enumerate(own)}
    return sorted(found, key=lambda offer: (places.get(offer.name, len(own)), offer.name))


def record(domain: int, seconds: float, processes: list[RosProcess], profile: str) -> Recording:
    """Listens to a camera and a depth node for `seconds` from the first depth on.

    Messages stay serialised: turning 8 MB a frame into Python objects would cost the cores that
    the node is measured on.

    Args:
        domain: ROS_DOMAIN_ID.
        seconds: how long.
        processes: camera and node; they must go on running.
        profile: of the node.

    Raises:
        RuntimeError: a process ended, or no depth came within a minute.
    """
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2

    os.environ.update(dds_environment())
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("demo_recorder", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard = Recording()
    kinds = {"depth": Image, "depth_info": CameraInfo, "points": PointCloud2}
    topics = heard_topics(profile)
    streams = {f"/{topic.name}": Stream(kinds[topic.output]) for topic in topics}
    # Backwards, so that of several topics of one output the first stays.
    first = {topic.output: f"/{topic.name}" for topic in reversed(topics)}
    pending: dict[str, OrderedDict[int, bytes]] = {"image": OrderedDict(), "truth": OrderedDict()}

    def keep(kind: str, serialised: bytes) -> None:
        pending[kind][stamp_of(serialised)] = serialised
        if len(pending[kind]) > PENDING:
            pending[kind].popitem(last=False)

    def on_image(serialised: bytes) -> None:
        keep("image", serialised)
        heard.images.append(stamp_of(serialised))

    def on_output(name: str, serialised: bytes) -> None:
        now, stream = node.get_clock().now().nanoseconds, streams[name]
        stream.arrivals.append(now)
        stream.last = serialised
        if name == first["depth"]:
            on_depth(serialised, now)

    def on_depth(serialised: bytes, now: int) -> None:
        stamp = stamp_of(serialised)
        heard.arrivals.append((stamp, now))
        if len(heard.arrivals) % KEEP_EVERY == 0 and stamp in pending["image"]:
            truth = pending["truth"].get(stamp)
            heard.frames.append((pending["image"][stamp], serialised, truth))

    def on_diagnostics(message: DiagnosticArray) -> None:
        values = {entry.key: entry.value for entry in message.status[0].values}
        heard.engine = values.get("engine", heard.engine)
        heard.engine_ms = float(values.get("engine_ms_p50", heard.engine_ms))

    qos = qos_profile_sensor_data
    node.create_subscription(Image, "image_raw", on_image, qos, raw=True)
    node.create_subscription(
        Image, "depth/ground_truth", lambda message: keep("truth", message), qos, raw=True
    )
    for name, stream in streams.items():
        node.create_subscription(stream.kind, name, partial(on_output, name), qos, raw=True)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
    try:
        waiting_since, began = time.monotonic(), 0.0
        total = round(seconds)
        bar = tqdm(total=total, unit="s", desc="recording", disable=None)
        while not began or time.monotonic() < began + seconds:
            executor.spin_once(timeout_sec=0.2)
            if heard.arrivals and not began:
                began = time.monotonic()
            elif not began and time.monotonic() > waiting_since + START_S:
                raise RuntimeError(f"no depth within {START_S:.0f} s")
            elif began:
                bar.update(min(int(time.monotonic() - began), total) - bar.n)
            for process in processes:
                if not process.running():
                    raise RuntimeError("a process ended early")
        bar.close()
        cloud = streams[first["points"]]
        heard.cloud, heard.clouds = cloud.last, len(cloud.arrivals)
        heard.offers = offers(node, profile, streams)
        return heard
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def summarise(heard: Recording, images: list[accuracy.Accuracy]) -> dict[str, Any]:
    """Rate, latency from acquisition stamp to arrival, and accuracy against the simulator."""
    stamps, arrivals = np.array(heard.arrivals, np.int64).T
    latency = (arrivals - stamps) * 1e-6
    quarter = max(len(latency) // 4, 1)
    span = (arrivals[-1] - arrivals[0]) * 1e-9
    figures = accuracy.mean(images) if images else None
    return {
        "rate_hz": round((len(arrivals) - 1) / span, 2) if span > 0 else 0.0,
        "latency_ms_p50": round(float(np.median(latency)), 1),
        "latency_ms_p95": round(float(np.percentile(latency, 95)), 1),
        "latency_ms_p50_first_quarter": round(float(np.median(latency[:quarter])), 1),
        "latency_ms_p50_last_quarter": round(float(np.median(latency[-quarter:])), 1),
        # Those before the first depth came while the node was starting.
        "frames_in": sum(stamp >= heard.arrivals[0][0] for stamp in heard.images),
        "frames_out": len(arrivals),
        "clouds_out": heard.clouds,
        "engine": heard.engine,
        "engine_ms_p50": round(heard.engine_ms, 1),
        "abs_rel": round(figures.abs_rel, 4) if figures else None,
        "delta1": round(figures.delta1, 4) if figures else None,
        "median_depth_to_truth": round(figures.scale, 4) if figures else None,
        "images_compared": len(images),
        "topics": [asdict(offer) for offer in heard.offers],
    }


def topics_table(topics: list[Offer]) -> str:
    """What the node offers, for the terminal."""
    header = ("topic", "type", "reliability", "format", "frame", "Hz")
    rows = [
        (
            offer.name,
            offer.type,
            offer.reliability,
            offer.format,
            offer.frame,
            "" if offer.rate_hz is None else f"{offer.rate_hz:.1f}",
        )
        for offer in topics
    ]
    return markdown_table(header, rows, "<<<<<>")


def optical_points(message: PointCloud2, layout: CloudLayout) -> npt.NDArray[np.void]:
    """The points of one of the node's clouds in the camera's optical frame.

    Args:
        message: in any of the layouts of the profiles.
        layout: says whether it is in a body frame.

    Returns:
        Array of the cloud's shape with the fields of `cloud.DTYPE`.
    """
    offsets = {point_field.name: point_field.offset for point_field in message.fields}
    names = DTYPE.names or ()
    dtype = np.dtype(
        {
            "names": names,
            "formats": [DTYPE[name] for name in names],
            "offsets": [offsets[name] for name in names],
            "itemsize": message.point_step,
        }
    )
    points = np.frombuffer(message.data, dtype).reshape(message.height, message.width)
    if layout.forward == "z":
        return points
    # From x forward, y left, z up to x right, y down, z forward (REP 103).
    turned = np.empty(points.shape, DTYPE)
    turned["x"], turned["y"], turned["z"] = -points["y"], -points["z"], points["x"]
    turned["rgb"] = points["rgb"]
    return turned


def write_pictures(heard: Recording, out: Path, layout: CloudLayout) -> list[accuracy.Accuracy]:
    """Writes side_by_side.mp4, panel.png and cloud.ply, and measures the kept frames.

    Args:
        layout: of the cloud.
    """
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image, PointCloud2

    from mono_depth_ros.messages import depth_to_array, image_to_rgb

    first = deserialize_message(heard.frames[0][0], Image)
    limits = (0.0, MAX_DEPTH)
    side_by_side = SideBySide(first.width, first.height, *limits)
    panel = Panel(first.width, first.height, *limits, with_truth=True)
    stamps = [stamp_of(depth) for _, depth, _ in heard.frames]
    seconds = (stamps[-1] - stamps[0]) * 1e-9
    fps = round((len(stamps) - 1) / seconds, 2) if seconds > 0 else 5.0
    images: list[accuracy.Accuracy] = []
    with mp4_writer(out / "side_by_side.mp4", fps, side_by_side.size) as write:
        for serialised, estimate, reference in tqdm(heard.frames, desc="pictures", disable=None):
            image = image_to_rgb(deserialize_message(serialised, Image))
            depth = depth_to_array(deserialize_message(estimate, Image))
            truth, figures = None, None
            if reference is not None:
                truth = depth_to_array(deserialize_message(reference, Image))
                figures = accuracy.measure(depth, truth)
                images += [figures] if figures else []
            write(side_by_side.draw(image, depth))
            label = f"{(stamp_of(estimate) - stamps[0]) * 1e-9:.1f} s"
            panel.add(label, image, depth, truth, figures)
    if not cv2.imwrite(str(out / "panel.png"), panel.draw()):
        raise OSError(f"{out / 'panel.png'}: cannot be written")
    if heard.cloud is not None:
        cloud = deserialize_message(heard.cloud, PointCloud2)
        write_ply(out / "cloud.ply", optical_points(cloud, layout))
    return images


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None takes the process's own."""
    parser = argparse.ArgumentParser(
        prog="python -m mono_depth_ros.demo",
        description=__doc__,
        epilog="examples:\n  python -m mono_depth_ros.demo --seconds 20 --out demo_out"
        "\n  python -m mono_depth_ros.demo --profile realsense",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the recording")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for the results")
    parser.add_argument("--rate", type=float, default=20.0, help="frames/s of the virtual camera")
    parser.add_argument("--seed", type=int, default=0, help="which room")
    parser.add_argument(
        "--profile", choices=PROFILES, default="generic", help="of the node's topics [generic]"
    )
    parser.add_argument("--model", default="", help="ONNX file; default: the one that ships")
    parser.add_argument("--engine", default="auto", help="inference runtime")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the demo and returns its summary.

    Raises:
        RuntimeError: no depth arrived.
        OSError: a result cannot be written.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    domain = private_domain()
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        camera = RosProcess(
            "mono_depth_ros.virtual_camera", domain, logs / "camera", rate=args.rate, seed=args.seed
        )
        stack.callback(camera.stop)
        node = RosProcess(
            "mono_depth_ros.node",
            domain,
            logs / "node",
            engine=args.engine,
            profile=args.profile,
            **({"model": args.model} if args.model else {}),
        )
        stack.callback(node.stop)
        try:
            heard = record(domain, args.seconds, [camera, node], args.profile)
        except RuntimeError as error:
            output = f"{camera.output()}{node.output()}".strip() or "nothing was printed"
            raise RuntimeError(f"{error}; the processes said:\n{output}") from None
    if not heard.frames:
        raise RuntimeError("depth arrived, but too few frames to show; record for longer")
    images = write_pictures(heard, args.out, heard_topics(args.profile)[-1].cloud)
    summary = summarise(heard, images)
    write_json(args.out / "summary.json", summary)
    return summary


def main(argv: list[str] | None = None) -> int:
    """The command; exit status 0 only if depth arrived and was recorded."""
    args = parse_args(argv)
    try:
        summary = run(args)
    except (RuntimeError, OSError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    topics = [Offer(**topic) for topic in summary.pop("topics")]
    print(topics_table(topics), end="\n\n")
    print("\n".join(f"{name:30}{value}" for name, value in summary.items()))
    print(f"{'written to':30}{args.out}/ side_by_side.mp4, panel.png, cloud.ply, summary.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
