"""depth_view: what it logs is read back from the file that Rerun wrote."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow", reason="comes with Rerun")
rr = pytest.importorskip("rerun", reason="Rerun is not installed (requirements/view.txt)")
pytest.importorskip("rclpy")

from dds import Peer
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rerun.chunk import RrdReader
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from mono_depth_ros import depth_view
from mono_depth_ros.camera import CameraModel
from mono_depth_ros.frame_source import Frame, TruncatedError
from mono_depth_ros.messages import (
    camera_info_message,
    image_message,
)
from mono_depth_ros.rerun_recording import CameraRecording, layout, thinning
from mono_depth_ros.rerun_sink import Sink, SinkError
from mono_depth_ros.ros_process import RosProcess, process_environment
from mono_depth_ros.topic_view import TopicView, cloud_points, scan_points

DOMAIN = 93
WIDTH, HEIGHT = 12, 8
CAMERA = CameraModel(WIDTH, HEIGHT, 10.0, 11.0, 5.5, 3.25)
STAMP = 1_700_000_000_123_456_789

Rows = dict[str, list[dict[str, Any]]]


def read(path: Path) -> Rows:
    """Entity path -> its rows, each with time and component columns, in the order of frames."""
    rows: Rows = defaultdict(list)
    for chunk in RrdReader(str(path)).stream():
        batch = chunk.to_record_batch()
        for i, name in enumerate(batch.schema.names):
            if pa.types.is_timestamp(batch.schema.types[i]):
                # datetime.datetime has no nanoseconds.
                batch = batch.set_column(i, name, batch.column(i).cast(pa.int64()))
        rows[chunk.entity_path].extend(batch.to_pylist())
    for entity in rows.values():
        entity.sort(key=lambda row: row.get("frame") or 0)
    return rows


def image_of(row: dict[str, Any], what: str = "Image") -> npt.NDArray[Any]:
    """The pixels of an Image (HxWx3 uint8) or DepthImage (HxW float32)."""
    size = row[f"{what}:format"][0]
    shape = (size["height"], size["width"])
    data = np.array(row[f"{what}:buffer"][0], np.uint8)
    if what == "Image":
        return data.reshape(*shape, 3)
    return data.view(np.float32).reshape(shape)


def pictures(seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """An image, and depth with every kind of value."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.5, 9, (HEIGHT, WIDTH)).astype(np.float32)
    depth[0, :3] = np.nan, np.inf, -np.inf
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), depth


# --- Arrays -> Rerun


def test_everything_that_is_logged_is_in_the_file(tmp_path: Path) -> None:
    image, depth = pictures()
    sink = Sink(save=tmp_path / "a.rrd")
    sink.send_layout(layout(["front"], "stamp"))
    recording = CameraRecording(sink.stream, "front", max_depth=7.0)
    recording.set_time(4, stamp_ns=STAMP)
    recording.log_camera(CAMERA)
    recording.log_image(image)
    recording.log_depth(depth)
    recording.log_points(
        np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([0x102030, 0xFFEEDD], np.uint32)
    )
    recording.log_scan(np.array([2, 0], np.float32), np.array([0, 3], np.float32))
    recording.log_figures({"latency_ms_p50": 12.5, "rate_out_hz": 20.0, "frames_in": 3.0})
    recording.log_status("WARN", "no image")
    assert sink.delivered()
    sink.close()

    rows = read(tmp_path / "a.rrd")
    for entity, (row, *_) in rows.items():
        if "log_time" in row:
            assert row["frame"] == 4, entity
            assert row["stamp"] == STAMP, entity
    pinhole = rows["/front/camera"][0]
    # Rerun stores columns, and has pixel (0, 0) at its corner: half a pixel more.
    assert pinhole["Pinhole:image_from_camera"] == [[10, 0, 0, 0, 11, 0, 6.0, 3.75, 1]]
    assert pinhole["Pinhole:resolution"] == [[WIDTH, HEIGHT]]
    np.testing.assert_array_equal(image_of(rows["/front/camera/image"][0]), image)
    logged = rows["/front/camera/depth"][0]
    np.testing.assert_array_equal(image_of(logged, "DepthImage"), depth)
    assert logged["DepthImage:meter"] == [1.0]
    assert logged["DepthImage:depth_range"] == [[0, 7]]
    assert logged["DepthImage:colormap"] == [rr.components.Colormap.Plasma.value]
    points = rows["/front/points"][0]
    assert points["Points3D:positions"] == [[1, 2, 3], [4, 5, 6]]
    assert points["Points3D:colors"] == [0x102030FF, 0xFFEEDDFF]
    # Forward is z and left is -x in the optical frame.
    assert rows["/front/scan"][0]["Points3D:positions"] == [[0, 0, 2], [-3, 0, 0]]
    assert rows["/front/milliseconds/latency_ms_p50"][0]["Scalars:scalars"] == [12.5]
    assert rows["/front/hertz/rate_out_hz"][0]["Scalars:scalars"] == [20.0]
    assert not any("frames_in" in entity for entity in rows)
    status = rows["/front/status"][0]
    assert (status["TextLog:text"], status["TextLog:level"]) == (["no image"], ["WARN"])
    # Rerun's directions: right 3, down 2, forward 5.
    assert rows["/front"][0]["ViewCoordinates:xyz"] == [[3, 2, 5]]
    assert len(RrdReader(str(tmp_path / "a.rrd")).blueprints()) == 1


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 4000))
def test_thinning_leaves_as_many_points_as_fit(height: int, width: int, limit: int) -> None:
    stride = thinning(height, width, limit)
    grid = np.zeros((height, width))
    assert grid[::stride, ::stride].size <= limit
    if stride > 1:
        assert grid[:: stride - 1, :: stride - 1].size > limit


# --- Messages -> arrays


def cloud_message(
    points: npt.NDArray[np.float32],
    colours: npt.NDArray[np.uint32],
    step: int,
    padding: int,
    kind: int,
) -> PointCloud2:
    """Written field by field."""
    height, width = colours.shape
    message = PointCloud2(height=height, width=width, point_step=step)
    message.row_step = step * width + padding
    data = bytearray(message.row_step * height)
    for v in range(height):
        for u in range(width):
            at = v * message.row_step + u * step
            data[at : at + 12] = points[v, u].astype("<f4").tobytes()
            data[at + step - 4 : at + step] = int(colours[v, u]).to_bytes(4, "little")
    message.data = bytes(data)
    for i, name in enumerate("xyz"):
        message.fields.append(
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        )
    message.fields.append(PointField(name="rgb", offset=step - 4, datatype=kind, count=1))
    return message


@pytest.mark.parametrize("kind", [PointField.FLOAT32, PointField.UINT32])
@pytest.mark.parametrize(("step", "padding"), [(16, 0), (20, 0), (32, 24)])
def test_a_cloud_of_any_layout_gives_its_finite_points(kind: int, step: int, padding: int) -> None:
    rng = np.random.default_rng(step)
    points = rng.normal(size=(3, 4, 3)).astype(np.float32)
    points[1, 2] = np.nan
    points[2, 0, 1] = np.inf
    colours = rng.integers(0, 2**24, (3, 4), np.uint32)
    positions, rgb = cloud_points(cloud_message(points, colours, step, padding, kind), 100)
    kept = [
        (points[v, u], colours[v, u])
        for v in range(3)
        for u in range(4)
        if all(math.isfinite(c) for c in points[v, u])
    ]
    np.testing.assert_array_equal(positions, [p for p, _ in kept])
    np.testing.assert_array_equal(rgb, [c for _, c in kept])


def test_a_big_cloud_is_thinned_evenly() -> None:
    points = np.arange(10 * 10 * 3, dtype=np.float32).reshape(10, 10, 3)
    message = cloud_message(points, np.zeros((10, 10), np.uint32), 16, 0, PointField.UINT32)
    positions, _ = cloud_points(message, 25)
    np.testing.assert_array_equal(positions, points[::2, ::2].reshape(-1, 3))


def _no_z(message: PointCloud2) -> None:
    message.fields = [field for field in message.fields if field.name != "z"]


def _double_z(message: PointCloud2) -> None:
    message.fields[2].datatype = PointField.FLOAT64


def _truncated(message: PointCloud2) -> None:
    message.data = message.data[:-1]


def _short_step(message: PointCloud2) -> None:
    message.point_step = 8


def _field_outside(message: PointCloud2) -> None:
    message.fields[3].offset = 4_000_000_000


@pytest.mark.parametrize("spoil", [_no_z, _double_z, _truncated, _short_step, _field_outside])
def test_a_cloud_that_does_not_fit_its_bytes_is_refused(
    spoil: Callable[[PointCloud2], None],
) -> None:
    message = cloud_message(
        np.ones((2, 2, 3), np.float32), np.ones((2, 2), np.uint32), 16, 0, PointField.FLOAT32
    )
    spoil(message)
    with pytest.raises(ValueError, match="cloud"):
        cloud_points(message, 10)


def test_a_scan_gives_the_points_of_its_valid_ranges() -> None:
    scan = LaserScan(angle_min=-1.0, angle_increment=0.5, range_min=0.2, range_max=5.0)
    scan.ranges = [0.1, 1.0, math.nan, math.inf, 5.0]
    x, y = scan_points(scan)
    expected = [(1.0, -0.5), (5.0, 1.0)]
    np.testing.assert_allclose(x, [r * math.cos(a) for r, a in expected], rtol=1e-6)
    np.testing.assert_allclose(y, [r * math.sin(a) for r, a in expected], rtol=1e-6)


# --- Topics


def messages_of(second: int) -> dict[str, Any]:
    """What a node publishes for one frame, by topic."""
    image, depth = pictures(second)
    header = Header(frame_id="eye")
    header.stamp.sec = second
    points = np.full((2, 3, 3), second, np.float32)
    cloud = cloud_message(points, np.full((2, 3), 0xA0B0C0, np.uint32), 16, 0, PointField.FLOAT32)
    cloud.header = header
    scan = LaserScan(header=header, angle_increment=1.0, range_max=10.0, ranges=[2.0])
    return {
        "depth/camera_info": camera_info_message(CAMERA, header),
        "image_rect": image_message(image, "rgb8", header),
        "depth/image_rect": image_message(depth, "32FC1", header),
        "points": cloud,
        "scan": scan,
    }


def diagnostics_of(node: str, level: bytes, text: str, **values: str) -> DiagnosticArray:
    status = DiagnosticStatus(name=f"{node}: depth", level=level, message=text)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(status=[status])


class Rig:
    """A view in this process, of topics that this process publishes, into a file."""

    def __init__(self, peer: Peer, path: Path, *namespaces: str) -> None:
        self.peer, self.path, self.warnings = peer, path, list[str]()
        self.sink = Sink(save=path)
        self.nodes = [Node("depth_view", namespace=n, context=peer.context) for n in namespaces]
        self.views = []
        self.publishers: dict[str, Any] = {}
        for node, namespace in zip(self.nodes, namespaces, strict=True):
            recording = CameraRecording(self.sink.stream, namespace)
            self.views.append(TopicView(node, recording, self.warnings.append, 100, True))
            peer.executor.add_node(node)
            for topic, message in messages_of(0).items():
                self.advertise(type(message), f"/{namespace}/{topic}")
        self.advertise(DiagnosticArray, "/diagnostics")

    def advertise(self, kind: type, topic: str) -> None:
        self.publishers[topic] = self.peer.node.create_publisher(kind, topic, QoSProfile(depth=2))

    def publish(self, topic: str, message: Any) -> None:
        publisher = self.publishers[topic]
        self.peer.wait(publisher.get_subscription_count, f"subscription of {topic}")
        publisher.publish(message)

    def read(self) -> Rows:
        """Ends the view."""
        for node in self.nodes:
            self.peer.executor.remove_node(node)
            node.destroy_node()
        self.sink.close()
        return read(self.path)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer(DOMAIN) as peer:
        yield peer


def test_messages_of_two_cameras_arrive_unchanged(peer: Peer, tmp_path: Path) -> None:
    rig = Rig(peer, tmp_path / "a.rrd", "front", "rear")
    sent = {"front": messages_of(7), "rear": messages_of(9)}
    for namespace, messages in sent.items():
        for topic, message in messages.items():
            rig.publish(f"/{namespace}/{topic}", message)
    peer.wait(lambda: all(all(v.counts.values()) for v in rig.views), "all messages")
    for text in ("no image", "no image", "running"):
        level = DiagnosticStatus.OK if text == "running" else DiagnosticStatus.ERROR
        values = {"latency_ms_p50": "12.5", "engine": "onnx"}
        rig.publish("/diagnostics", diagnostics_of("rear/mono_depth", level, text, **values))
        peer.spin(0.1)
    rows = rig.read()
    assert rig.warnings == []
    for namespace, second in (("front", 7), ("rear", 9)):
        image, depth = pictures(second)
        for entity, row in ((e, r) for e, rs in rows.items() for r in rs if "log_time" in r):
            if entity.startswith(f"/{namespace}/"):
                assert (row["frame"], row["stamp"]) == (0, second * 10**9), entity
        pinhole = rows[f"/{namespace}/camera"][0]["Pinhole:image_from_camera"]
        assert pinhole == [[10, 0, 0, 0, 11, 0, 6.0, 3.75, 1]]
        np.testing.assert_array_equal(image_of(rows[f"/{namespace}/camera/image"][0]), image)
        logged = image_of(rows[f"/{namespace}/camera/depth"][0], "DepthImage")
        np.testing.assert_array_equal(logged, depth)
        points = rows[f"/{namespace}/points"][0]
        assert points["Points3D:positions"] == [[second] * 3] * 6
        assert points["Points3D:colors"] == [0xA0B0C0FF] * 6
        assert rows[f"/{namespace}/scan"][0]["Points3D:positions"] == [[0, 0, 2]]
    # Only the camera that they are of, and a status only when it changes.
    figures = rows["/rear/milliseconds/latency_ms_p50"]
    assert [row["Scalars:scalars"] for row in figures] == [[12.5]] * 3
    assert not any(entity.startswith("/front/milliseconds") for entity in rows)
    levels = [(row["TextLog:level"], row["TextLog:text"]) for row in rows["/rear/status"]]
    assert sorted(levels) == [(["ERROR"], ["no image"]), (["INFO"], ["running"])]


def test_topics_of_one_stamp_are_one_frame_whatever_their_order(peer: Peer, tmp_path: Path) -> None:
    rig = Rig(peer, tmp_path / "a.rrd", "eye")
    order = [(1, "depth/image_rect"), (2, "depth/image_rect"), (1, "scan"), (2, "scan")]
    shown: list[str] = []
    for second, topic in order:
        rig.publish(f"/eye/{topic}", messages_of(second)[topic])
        shown.append(topic)
        peer.wait(lambda: sum(rig.views[0].counts.values()) == len(shown), "message")
    rows = rig.read()
    for entity in ("/eye/camera/depth", "/eye/scan"):
        frames = [(row["frame"], row["stamp"]) for row in rows[entity]]
        assert frames == [(0, 1 * 10**9), (1, 2 * 10**9)]


def test_bad_messages_are_told_of_once_and_the_next_good_one_is_shown(
    peer: Peer, tmp_path: Path
) -> None:
    rig = Rig(peer, tmp_path / "a.rrd", "eye")
    bad = messages_of(1)["depth/image_rect"]
    bad.encoding = "64FC1"
    uncalibrated = messages_of(1)["depth/camera_info"]
    uncalibrated.k = [0.0] * 9
    for _ in range(2):
        rig.publish("/eye/depth/image_rect", bad)
        rig.publish("/eye/depth/camera_info", uncalibrated)
        peer.spin(0.1)
    peer.wait(lambda: len(rig.warnings) == 2, "warnings")
    assert rig.views[0].counts == dict.fromkeys(rig.views[0].counts, 0)
    rig.publish("/eye/depth/image_rect", messages_of(2)["depth/image_rect"])
    peer.wait(lambda: rig.views[0].counts["depth/image_rect"], "depth")
    assert len(rig.warnings) == 2
    assert any("64FC1" in text and "depth/image_rect" in text for text in rig.warnings)
    assert [row["stamp"] for row in rig.read()["/eye/camera/depth"]] == [2 * 10**9]


@pytest.mark.slow
def test_the_command_records_a_running_node_until_it_is_interrupted(tmp_path: Path) -> None:
    """A real node with the red-channel network, looked at from a process of its own."""
    model = networks.red_channel(tmp_path / "red.onnx")
    node = RosProcess(
        "mono_depth_ros.node", DOMAIN, tmp_path / "node.log", model=model, engine="onnx"
    )
    view = subprocess.Popen(
        [sys.executable, "-m", "mono_depth_ros.depth_view", "--save", tmp_path / "a.rrd"],
        env=process_environment(DOMAIN),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pixels = np.full((240, 320, 3), 50, np.uint8)
    pixels[..., 0] = 100
    camera = CameraModel(320, 240, 260.0, 260.0, 159.5, 119.5)
    try:
        with Peer(DOMAIN) as peer:
            image = peer.node.create_publisher(Image, "image_raw", QoSProfile(depth=1))
            info = peer.node.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1))
            peer.wait(lambda: peer.node.count_subscribers("points"), "view", node)
            peer.wait(image.get_subscription_count, "node", node)
            for second in range(1, 21):
                header = Header(frame_id="eye")
                header.stamp.sec = second
                info.publish(camera_info_message(camera, header))
                image.publish(image_message(pixels, "rgb8", header))
                peer.spin(0.1)
    finally:
        view.send_signal(signal.SIGINT)
        out, err = view.communicate(timeout=30)
        status = node.stop()
    assert view.returncode == 0, err
    assert status == 0
    assert "depth/image_rect" in out
    rows = read(tmp_path / "a.rrd")
    expected = 100 * networks.RED_SCALE * 260.0 * networks.WIDTH / 320 / networks.FOCAL
    depth = image_of(rows["/camera/camera/depth"][-1], "DepthImage")
    np.testing.assert_allclose(depth, expected, rtol=1e-4)
    positions = np.array(rows["/camera/points"][-1]["Points3D:positions"])
    assert len(positions) == 320 * 240
    np.testing.assert_allclose(positions[:, 2], expected, rtol=1e-4)
    np.testing.assert_array_equal(image_of(rows["/camera/camera/image"][-1]), pixels)
    stamps = [row["stamp"] for row in rows["/camera/camera/depth"]]
    assert stamps == sorted(set(stamps))


# --- Without ROS


def test_a_folder_is_shown_as_the_network_sees_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, red in enumerate((60, 120)):
        bgr = np.full((16, 24, 3), (10, 20, red), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), bgr)
    model = networks.red_channel(tmp_path / "red.onnx")
    options = ["--model", str(model), "--engine", "onnx", "--hfov", "90", "--max-points", "100"]
    saved = tmp_path / "a.rrd"
    assert depth_view.main(["--source", str(folder), "--save", str(saved), *options]) == 0
    assert "2 frames" in capsys.readouterr().out
    rows = read(saved)
    # 90 degrees across 24 pixels: 12 pixels; at the network's input 64 by 72.
    focal = math.sqrt(64 * 72)
    assert (networks.WIDTH, networks.HEIGHT) == (128, 96)
    for i, red in enumerate((60, 120)):
        rgb = image_of(rows["/camera/camera/image"][i])
        assert (rgb == (red, 20, 10)).all()
        depth = image_of(rows["/camera/camera/depth"][i], "DepthImage")
        metres = red * networks.RED_SCALE * focal / networks.FOCAL
        np.testing.assert_allclose(depth, metres, rtol=1e-4)
        points = np.array(rows["/camera/points"][i]["Points3D:positions"])
        assert 0 < len(points) <= 100
        np.testing.assert_allclose(points[:, 2], metres, rtol=1e-4)
        # The first point is the first pixel: its centre is half a pixel from the corner.
        np.testing.assert_allclose(points[0, :2], np.array([-11.5, -7.5]) * metres / 12, rtol=1e-4)
        assert rows["/camera/points"][i]["Points3D:colors"][0] == (red << 24 | 0x140AFF)
    assert len(rows["/camera/milliseconds/engine_ms"]) == 2
    assert [row["frame"] for row in rows["/camera/camera"]] == [0, 1]


def test_of_a_live_camera_only_the_newest_frame_is_taken() -> None:
    released = threading.Semaphore(0)
    picture = np.zeros((2, 2, 3), np.uint8)

    def frames() -> Iterator[Frame]:
        for index in range(10):
            # Frames 1 to 8 come while the first one is being looked at.
            if index in (1, 9):
                assert released.acquire(timeout=20)
            yield Frame(index, str(index), picture)
            if index == 8:
                released.release(2)
        raise TruncatedError("unplugged")

    live = depth_view._newest(frames())
    first, stamp = next(live)
    released.release()
    seen = [first.index]

    def take_the_rest() -> None:
        for frame, later in live:
            assert later >= stamp
            seen.append(frame.index)

    with pytest.raises(TruncatedError, match="unplugged"):
        take_the_rest()
    assert seen == sorted(set(seen))


# --- What goes wrong


@pytest.mark.parametrize(
    "options",
    [
        ["--hfov", "70"],
        ["--source", "0", "--camera", "front"],
        ["--source", "0", "--hfov", "180"],
        ["--source", "0", "--hfov", "70", "--camera-info", "cam.yaml"],
        ["--save", "a.rrd", "--serve"],
        ["--serve", "70000"],
        ["--memory-limit", "lots"],
        ["--max-points", "-1"],
        ["--seconds", "0"],
    ],
)
def test_options_that_make_no_sense_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        depth_view.main(options)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--save", "nowhere/a.rrd"], ("nowhere/a.rrd", "--save")),
        (["--connect", "192.168.1.5"], ("192.168.1.5", "rerun+http://")),
        ([], ("DISPLAY", "--serve")),
    ],
)
def test_what_keeps_it_from_showing_is_told_in_one_line(
    options: list[str],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    cv2.imwrite("a.png", np.zeros((8, 8, 3), np.uint8))
    model = str(networks.red_channel(tmp_path / "red.onnx"))
    source = ["--source", "a.png", "--hfov", "60", "--model", model, "--engine", "onnx"]
    assert depth_view.main([*source, *options]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("depth_view: error: ")
    assert all(word in err for word in words), err


def test_a_port_that_is_taken_is_named() -> None:
    import socket

    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SinkError, match=f"{port}.*--serve"):
            Sink(serve=port)


def test_without_rerun_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [n for n in sys.modules if n.startswith("mono_depth_ros.rerun_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert depth_view.main(["--source", "0"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "requirements/view.txt" in err


@pytest.mark.slow
def test_a_viewer_that_is_not_there_is_told_of() -> None:
    sink = Sink(connect="rerun+http://127.0.0.1:9/proxy")
    CameraRecording(sink.stream, "eye").log_camera(CAMERA)

    def deliver() -> None:
        while not sink.delivered():
            pass

    with pytest.raises(SinkError, match="no viewer"):
        deliver()


@pytest.mark.slow
def test_nothing_to_see_ends_with_an_error_that_names_the_topic(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mono_depth_ros.depth_view", "--camera", "front"]
    done = subprocess.run(
        [*command, "--save", tmp_path / "a.rrd", "--seconds", "6"],
        env=process_environment(DOMAIN),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    warning, error = done.stderr.splitlines()
    assert "warning" in warning and "/front/depth/image_rect" in warning
    assert "no depth came on /front/depth/image_rect" in error
