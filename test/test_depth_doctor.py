"""`depth_doctor` as a process, beside a depth node and cameras that have a fault each."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from dds import Peer
from lifecycle_msgs.msg import Transition
from node_rig import CAMERA, HEIGHT, WIDTH, Rig
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mono_depth_ros import depth_doctor
from mono_depth_ros.doctor import host
from mono_depth_ros.messages import camera_info_message, image_message
from mono_depth_ros.ros_process import RosProcess, process_environment
from mono_depth_ros.stamp_matching import stamp_of

DOMAIN = 91 + os.getpid() % 3
EMPTY_DOMAIN, OTHER_DOMAIN = DOMAIN + 3, DOMAIN + 6
PERIOD_S = 1 / 15
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Camera:
    """Publishes images with their calibration from a thread, until closed.

    Args:
        node: publishes.
        change: makes a fault in a frame before it is sent; false keeps its image back.
    """

    def __init__(
        self,
        node: Any,
        image_topic: str = "image_raw",
        info_topic: str | None = "camera_info",
        qos: QoSProfile = qos_profile_sensor_data,
        frame: str = "camera_optical_frame",
        change: Callable[[Image, CameraInfo], None] = lambda image, info: None,
    ) -> None:
        self._node, self._frame, self._change = node, frame, change
        self._image = node.create_publisher(Image, image_topic, qos)
        self._info = node.create_publisher(CameraInfo, info_topic, qos) if info_topic else None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        pixels = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
        while not self._stopped.wait(PERIOD_S):
            now = self._node.get_clock().now()
            # Of their own, so that a fault of one is not the other's.
            headers = [Header(frame_id=self._frame, stamp=now.to_msg()) for _ in range(2)]
            image = image_message(pixels, "rgb8", headers[0])
            info = camera_info_message(CAMERA, headers[1])
            self._change(image, info)
            if self._info is not None:
                self._info.publish(info)
            self._image.publish(image)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()
        for publisher in filter(None, (self._image, self._info)):
            self._node.destroy_publisher(publisher)


def run(domain: int, tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, JSON document and output of the command."""
    result = tmp_path / "findings.json"
    command = [sys.executable, "-m", "mono_depth_ros.depth_doctor", "--json", str(result)]
    done = subprocess.run(
        [*command, *arguments],
        env=process_environment(domain),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.is_file(), done.stderr
    return done.returncode, json.loads(result.read_text()), done.stdout


def codes(document: dict[str, Any]) -> set[str]:
    """What is wrong: errors and warnings of a depth node."""
    return {f["code"] for f in document["findings"] if f["level"] != "OK" and f["node"]}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A node whose depth somebody wants, without a camera."""
    folder = tmp_path_factory.mktemp("doctor")
    model = networks.red_channel(folder / "red.onnx")
    made = Rig(folder / "log.txt", DOMAIN, model=model, max_depth=20.0)
    made.active()
    made.hear(Image, "depth/image_rect")
    for publisher in (made.image, made.info):
        made.peer.node.destroy_publisher(publisher)
    yield made
    made.close()


def examine(
    domain: int, tmp_path: Path, is_so: Callable[[set[str]], bool], *arguments: str
) -> tuple[int, dict[str, Any], str]:
    """Runs the command until its codes are so: discovery, and the node's own news, take a while."""
    for _ in range(5):
        status, document, output = run(domain, tmp_path, *arguments)
        if is_so(codes(document)):
            break
    assert is_so(codes(document)), output
    return status, document, output


def exactly(*wanted: str) -> Callable[[set[str]], bool]:
    """Nothing else, but for what the node says of it."""
    return lambda found: found - {"node_error", "node_warning"} == set(wanted)


@pytest.mark.slow
def test_a_healthy_system_has_no_findings(rig: Rig, tmp_path: Path) -> None:
    with Camera(rig.peer.node):
        rig.peer.wait(lambda: rig.peer.heard["depth/image_rect"], "depth", rig.process)
        status, document, output = examine(
            DOMAIN, tmp_path, lambda found: not found, "--seconds", "2"
        )
    assert status == 0
    (node,) = document["nodes"]
    assert node["name"] == "/mono_depth" and node["state"] == "active"
    assert (node["width"], node["height"]) == (WIDTH, HEIGHT)
    # Discovery may take most of the time.
    assert node["image_topic"] == "/image_raw" and node["images"] > 0
    assert "/mono_depth: active, /image_raw" in output
    # What killed processes have left on this machine is not this system's fault.
    assert {f["code"] for f in document["findings"] if f["level"] != "OK"} <= {"shm_stale"}


def no_calibration(image: Image, info: CameraInfo) -> None:
    info.k = [0.0] * 9


def other_size(image: Image, info: CameraInfo) -> None:
    info.width, info.height = 2 * WIDTH, 2 * HEIGHT


def other_stamps(image: Image, info: CameraInfo) -> None:
    info.header.stamp.sec -= 5
    info.header.stamp.nanosec = (info.header.stamp.nanosec + int(PERIOD_S * 0.5e9)) % 10**9


def zero_stamps(image: Image, info: CameraInfo) -> None:
    image.header.stamp.sec = image.header.stamp.nanosec = 0
    info.header.stamp = image.header.stamp


def unknown_encoding(image: Image, info: CameraInfo) -> None:
    image.encoding = "32FC3"


def since_boot(image: Image, info: CameraInfo) -> None:
    image.header.stamp.sec -= 1_000_000
    info.header.stamp = image.header.stamp


FAULTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "K is zero": ({"change": no_calibration}, {"info_zero"}),
    "another size": ({"change": other_size}, {"info_wrong_size"}),
    "other stamps": ({"change": other_stamps}, {"info_unsynchronised"}),
    "zero stamps": ({"change": zero_stamps}, {"stamps_zero"}),
    "stamps since boot": ({"change": since_boot}, {"stamps_old"}),
    "unknown encoding": ({"change": unknown_encoding}, {"image_unreadable"}),
    "no camera_info": ({"info_topic": None}, {"info_no_publisher"}),
    "a body's frame": ({"frame": "camera_link"}, {"frame_not_optical"}),
    "no frame": ({"frame": ""}, {"frame_empty"}),
    "another topic": (
        {"image_topic": "/cam/image_raw", "info_topic": "/cam/camera_info"},
        {"image_no_publisher", "info_no_publisher"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_camera_is_found(rig: Rig, tmp_path: Path, fault: str) -> None:
    arguments, wanted = FAULTS[fault]
    with Camera(rig.peer.node, **arguments):
        status, document, output = examine(DOMAIN, tmp_path, exactly(*wanted), "--seconds", "2")
    levels = {f["level"] for f in document["findings"]}
    assert status == int("ERROR" in levels)
    if fault == "another topic":
        assert (
            "ros2 launch mono_depth_ros depth.launch.py image_topic:=/cam/image_raw"
            " camera_info_topic:=/cam/camera_info" in output
        )


@pytest.mark.slow
def test_a_calibration_that_was_latched_once_is_examined(rig: Rig, tmp_path: Path) -> None:
    publisher = rig.peer.node.create_publisher(CameraInfo, "camera_info", LATCHED)
    info = camera_info_message(CAMERA, Header(frame_id="left_optical_frame"))
    other_size(Image(), info)
    publisher.publish(info)
    with Camera(rig.peer.node, info_topic=None):
        wanted = exactly("info_wrong_size", "frames_differ")
        _, _, output = examine(DOMAIN, tmp_path, wanted, "--seconds", "2")
    rig.peer.node.destroy_publisher(publisher)
    assert f"{2 * WIDTH}x{2 * HEIGHT}" in output and "left_optical_frame" in output


@pytest.mark.slow
@pytest.mark.parametrize("latches", [False, True])
def test_only_what_a_camera_latches_is_asked_for_and_it_counts_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, latches: bool
) -> None:
    asked: list[DurabilityPolicy] = []

    def look(image: Image, info: CameraInfo) -> None:
        found = rig.peer.node.get_subscriptions_info_by_topic("/camera_info")
        doctors = [e for e in found if e.node_name.startswith("depth_doctor")]
        asked.extend(e.qos_profile.durability for e in doctors)

    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    with Camera(rig.peer.node, qos=LATCHED if latches else RELIABLE, change=look):
        # Discovery may take most of the time.
        for _ in range(5):
            (node,) = depth_doctor.observe(2.0).nodes
            stamps = node.info.stamps_ns if node.info is not None else ()
            if len(stamps) > 10:
                break
    assert len(stamps) > 10 and len(set(stamps)) == len(stamps)
    assert node.calibration is not None
    volatile = {DurabilityPolicy.VOLATILE}
    assert set(asked) == (volatile | {DurabilityPolicy.TRANSIENT_LOCAL} if latches else volatile)


@pytest.mark.slow
def test_compressed_images_two_cameras_and_a_clock_are_found(rig: Rig, tmp_path: Path) -> None:
    node = rig.peer.node
    compressed = node.create_publisher(CompressedImage, "image_raw/compressed", 1)
    info = node.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1))
    info.publish(camera_info_message(CAMERA, Header()))
    _, document, _ = examine(
        DOMAIN, tmp_path, lambda found: "image_transport" in found, "--seconds", "1"
    )
    fixes = {f["code"]: f["fix"] for f in document["findings"]}
    # The node's own model comes along.
    start, _, end = fixes["image_transport"].partition(" model:=")
    assert start == (
        "stop /mono_depth, then ros2 launch mono_depth_ros depth.launch.py image_topic:=/image_raw"
        " camera_info_topic:=/camera_info"
    )
    assert end.endswith("red.onnx image_transport:=compressed")
    for publisher in (compressed, info):
        node.destroy_publisher(publisher)

    clock = node.create_publisher(Clock, "/clock", 1)
    second = node.create_publisher(Image, "image_raw", RELIABLE)
    with Camera(node):
        examine(DOMAIN, tmp_path, exactly("two_cameras", "clock_ignored"), "--seconds", "2")
    for publisher in (clock, second):
        node.destroy_publisher(publisher)


@pytest.mark.slow
def test_incompatible_qos_two_nodes_and_an_inactive_one_are_found(tmp_path: Path) -> None:
    model = networks.red_channel(tmp_path / "red.onnx")
    overrides: dict[str, Any] = {
        "qos_overrides./image_raw.subscription.reliability": "reliable",
        "qos_overrides./depth/image_rect.publisher.reliability": "best_effort",
    }
    made = Rig(tmp_path / "log.txt", OTHER_DOMAIN, model=model, **overrides)
    try:
        made.active()
        made.hear(Image, "depth/image_rect", RELIABLE)
        made.peer.hear(Image, "depth/image_color", RELIABLE)
        _, document, output = examine(
            OTHER_DOMAIN, tmp_path, lambda found: "qos_mismatch" in found, "--seconds", "2"
        )
        texts = [f["what"] for f in document["findings"] if f["code"] == "qos_mismatch"]
        assert len(texts) == 2, output
        assert any("/image_raw best effort" in text for text in texts)
        assert any("/peer asks for /depth/image_rect reliable" in text for text in texts)

        second = RosProcess(
            "mono_depth_ros.node", OTHER_DOMAIN, tmp_path / "second.txt", autostart=False
        )
        try:
            names = made.peer.node.get_node_names
            made.peer.wait(lambda: names().count("mono_depth") == 2, "second node", second)
            examine(OTHER_DOMAIN, tmp_path, lambda found: "two_nodes" in found, "--seconds", "1")
        finally:
            second.stop()
        made.peer.wait(lambda: names().count("mono_depth") == 1, "one node")
        assert made.change_state(Transition.TRANSITION_DEACTIVATE)
        _, _, output = examine(
            OTHER_DOMAIN, tmp_path, lambda found: "not_active" in found, "--seconds", "1"
        )
        assert "ros2 lifecycle set /mono_depth activate" in output
    finally:
        made.close()


@pytest.mark.slow
def test_a_frame_that_tf_says_is_a_body_s_is_an_error(rig: Rig, tmp_path: Path) -> None:
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is only in a ROS install")
    from geometry_msgs.msg import TransformStamped

    transform = TransformStamped(header=Header(frame_id="base_link"), child_frame_id="camera_link")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = rig.peer.node.create_publisher(tf2_msgs.TFMessage, "/tf_static", latched)
    publisher.publish(tf2_msgs.TFMessage(transforms=[transform]))
    with Camera(rig.peer.node, frame="camera_link"):
        status, _, output = examine(
            DOMAIN, tmp_path, exactly("frame_not_optical"), "--seconds", "2"
        )
    assert status == 1 and "z axis up" in output
    rig.peer.node.destroy_publisher(publisher)


BARE_CAMERA = """
import sys, time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
rclpy.init()
node = rclpy.create_node("usb_cam")
node.create_publisher(Image, "image_raw", qos_profile_sensor_data)
info = node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
message = CameraInfo(width=1280, height=720)
print("ready", flush=True)
while True:
    info.publish(message)
    time.sleep(0.1)
"""


@pytest.mark.slow
def test_a_camera_process_without_the_profile_is_named(rig: Rig, tmp_path: Path) -> None:
    environment = process_environment(DOMAIN)
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        environment.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", BARE_CAMERA], env=environment, stdout=subprocess.PIPE, text=True
    ) as camera:
        try:
            assert camera.stdout is not None and camera.stdout.readline() == "ready\n"
            _, document, output = examine(
                DOMAIN, tmp_path, lambda found: "dds_profile" in found, "--seconds", "2"
            )
        finally:
            camera.kill()
    (finding,) = (f for f in document["findings"] if f["code"] == "dds_profile")
    # The wheels start Python a second time, in the same process.
    assert f"/usb_cam (process {camera.pid})" in finding["what"], output
    assert "PROFILES_FILE=" in finding["fix"] and "fastdds.xml" in finding["fix"]


@pytest.mark.slow
def test_without_any_node_it_says_so_and_ends(tmp_path: Path) -> None:
    start = time.monotonic()
    status, document, output = run(EMPTY_DOMAIN, tmp_path, "--seconds", "0.1")
    assert status == 1 and [f["code"] for f in document["findings"] if f["level"] == "ERROR"] == [
        "no_node"
    ]
    assert f"ROS domain {EMPTY_DOMAIN}" in output
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seconds", "x"], ["--colour"]])
def test_a_wrong_command_line_ends_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        depth_doctor.main(arguments)
    assert end.value.code == 2


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        depth_doctor.main(["--help"])
    assert end.value.code == 0
    assert "depth_doctor --node /front/mono_depth" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [Image, CameraInfo, CompressedImage])
def test_the_stamp_is_read_from_a_serialised_message(kind: type) -> None:
    message = kind(header=Header(frame_id="abc"))
    message.header.stamp.sec, message.header.stamp.nanosec = -3, 4_000_000_000
    raw = serialize_message(message)
    assert stamp_of(raw) == -3 * 10**9 + 4_000_000_000
    big_endian = b"\x00\x00\x00\x00" + struct.pack(">iI", 7, 8)
    assert stamp_of(big_endian) == 7_000_000_008


def test_an_endpoint_is_traced_to_this_process_and_its_segment() -> None:
    with Peer(EMPTY_DOMAIN) as peer:
        peer.node.create_publisher(Image, "image_raw", 1)
        own = peer.wait(lambda: peer.node.get_publishers_info_by_topic("/image_raw"), "endpoint")
        gid = own[0].endpoint_gid
        process = host.process_of(gid, gid)
        assert process is not None and process.pid == os.getpid()
        assert process.environment["PATH"]
        # Of config/fastdds.xml; the rest is what Fast DDS keeps its books in.
        assert process.segment_bytes is not None and process.segment_bytes >= 64 << 20
        assert own[0].qos_profile.durability == DurabilityPolicy.VOLATILE


def test_a_segment_is_stale_when_nobody_holds_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "SHM", tmp_path)
    names = ("held", "left", "young", "port")
    files = {n: tmp_path / f"fastdds_{i:016x}_el" for i, n in enumerate(names)}
    files["port"] = tmp_path / "fastdds_port7000_el"
    for name, path in files.items():
        path.touch()
        if name != "young":
            os.utime(path, (0, 0))
    with files["held"].open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert host.read_host().stale_segments == 1
    assert host.read_host().stale_segments == 2
    assert all(path.exists() for path in files.values())


@pytest.mark.parametrize(
    ("command", "is_node"),
    [
        (["python3", "/opt/ros/lib/mono_depth_ros/depth_node", "--ros-args"], True),
        (["/usr/bin/python3", "-m", "mono_depth_ros.node", "--ros-args"], True),
        (["depth_node"], True),
        (["python3", "/opt/ros/bin/ros2", "run", "mono_depth_ros", "depth_node"], False),
        (["vim", "notes", "depth_node"], False),
        ([], False),
    ],
)
def test_a_depth_node_is_known_by_its_command(command: list[str], is_node: bool) -> None:
    assert host._runs_depth_node(command) == is_node
