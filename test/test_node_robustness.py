"""A camera, a clock, a network and users that misbehave: the node says so, and goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import pytest
from dds import Peer
from diagnostic_msgs.msg import DiagnosticStatus
from node_rig import CAMERA, HEIGHT, OWN_DOMAIN, WIDTH, Rig, assert_depth, flat
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from mono_depth_ros.messages import camera_info_message, image_message
from mono_depth_ros.output_profiles import PROFILES

ERROR, WARN, OK = DiagnosticStatus.ERROR, DiagnosticStatus.WARN, DiagnosticStatus.OK
HOUR = 3600
# What a run may keep of what passed through it.
GROWTH_KIB = 10 * 1024
EVERYTHING = {"disparity_baseline": 0.1, "camera_height": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(networks.red_channel(tmp_path_factory.mktemp("model") / "red.onnx"))


@pytest.fixture
def start(tmp_path: Path, model: str) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def made(**options: Any) -> Rig:
        options = {"model": model, "max_depth": 20.0, **options}
        rigs.append(Rig(tmp_path / f"log{len(rigs)}.txt", OWN_DOMAIN, **options))
        return rigs[-1]

    yield made
    for rig in rigs:
        if rig.process.running():
            rig.close()


@pytest.fixture
def rig(start: Callable[..., Rig]) -> Rig:
    made = start()
    made.active()
    made.hear(Image, "depth/image_rect")
    assert_depth(made.see(flat(100)), 100)
    return made


# The camera


def test_a_camera_that_stops_is_an_error_and_depth_goes_on_with_it(rig: Rig) -> None:
    camera = rig.stream(flat(100), 0.1)
    rig.status(WARN, "another clock")
    rig.peer.node.destroy_timer(camera)
    heard = rig.peer.heard["/diagnostics"]
    heard.clear()
    rig.peer.wait(
        lambda: any("no image on /image_raw for" in a.status[0].message for a in heard), "error"
    )
    # They come every second: it is in the second one at the latest.
    assert heard[-1].status[0].level == ERROR and len(heard) <= 2
    assert_depth(rig.see(flat(100)), 100)
    rig.stream(flat(100), 0.1)
    rig.status(WARN, "another clock")


def test_stamps_that_jump_backwards(rig: Rig) -> None:
    rig._second = 2 * HOUR
    assert_depth(rig.see(flat(100)), 100)
    rig._second = HOUR
    # Another lens as well: what is in the past is not older.
    twice = CAMERA.scaled(2 * WIDTH, 2 * HEIGHT).cropped(WIDTH // 2, HEIGHT // 2, WIDTH, HEIGHT)
    assert_depth(rig.see(flat(100), camera=twice), 200)
    rig._second = -HOUR
    assert_depth(rig.see(flat(100)), 100)


def test_a_clock_that_is_missing_stands_still_and_jumps_backwards(
    start: Callable[..., Rig],
) -> None:
    rig = start(use_sim_time=True)
    # Nobody publishes /clock: the node speaks and works all the same.
    rig.status(OK, "idle")
    rig.hear(Image, "depth/image_rect")
    assert_depth(rig.see(flat(100)), 100)
    rig._second = 5 * HOUR
    rig.stream(flat(100), 0.1)
    rig.status(WARN, "unset use_sim_time if nothing publishes /clock")
    clock = rig.peer.node.create_publisher(Clock, "/clock", 10)
    message = Clock()

    def tick() -> None:
        message.clock.sec = rig._second
        clock.publish(message)

    rig.peer.node.create_timer(0.05, tick)
    rig.status(OK, "running")
    rig._second -= HOUR
    rig.peer.heard["depth/image_rect"].clear()
    rig.peer.wait(lambda: len(rig.peer.heard["depth/image_rect"]) > 3, "depth", rig.process)
    rig.status(OK, "running")


def test_everything_changes_in_mid_stream(start: Callable[..., Rig]) -> None:
    rig = start(**EVERYTHING)
    topics = rig.hear_all()
    to = {"rgb8": None, "bgr8": cv2.COLOR_RGB2BGR, "rgba8": cv2.COLOR_RGB2RGBA}
    for width, height, encoding, zoom, frame_id in (
        (320, 240, "rgb8", 1, "eye"),
        (160, 120, "bgr8", 1, "eye"),
        (200, 300, "rgba8", 2, "nose"),
        (64, 48, "rgb8", 1, ""),
        (320, 240, "rgb8", 2, "ear_optical_frame"),
    ):
        x, y = width * (zoom - 1) // 2, height * (zoom - 1) // 2
        camera = CAMERA.scaled(width * zoom, height * zoom).cropped(x, y, width, height)
        pixels = flat(100 // zoom, width, height)
        code = to[encoding]
        data = pixels if code is None else cv2.cvtColor(pixels, code)
        for topic in topics:
            rig.peer.heard[topic].clear()

        def send(data: Any = data, camera: Any = camera, frame_id: str = frame_id) -> bool:
            header = rig.header()
            header.frame_id = frame_id
            message = image_message(data, "rgb8" if data.shape[2] == 3 else "rgba8", header)
            message.encoding = encoding  # noqa: B023
            rig.send(message, camera_info_message(camera, header))
            rig.peer.spin(0.1)
            return all(
                any(
                    message.header.frame_id == _frame(topic, frame_id)
                    for message in rig.peer.heard[topic]
                )
                for topic in topics
            )

        rig.peer.wait(send, f"{width}x{height} {encoding}", rig.process)
        depth = rig.peer.heard["depth/image_rect"][-1]
        focal = camera.scaled(networks.WIDTH, networks.HEIGHT).focal
        metres = 100 // zoom * networks.RED_SCALE * focal / networks.FOCAL
        assert (depth.width, depth.height) == (width, height)
        np.testing.assert_allclose(np.frombuffer(depth.data, np.float32), metres, rtol=1e-3)


def _frame(topic: str, frame_id: str) -> str:
    return f"{frame_id.removesuffix('_optical_frame')}_level_frame" if topic == "scan" else frame_id


def test_a_publisher_of_another_type_keeps_nobody_else_away(start: Callable[..., Rig]) -> None:
    rig = start()
    rig.active()
    rig.peer.node.destroy_publisher(rig.image)
    rig.hear(Image, "depth/image_rect")
    with Peer(OWN_DOMAIN) as stranger:
        wrong = stranger.node.create_publisher(PointCloud2, "image_raw", 10)
        rig.status(WARN, "/image_raw", "type", "depth_doctor")
        rig.image = rig.peer.node.create_publisher(Image, "image_raw", qos_profile_sensor_data)
        wrong.publish(PointCloud2())
        assert_depth(rig.see(flat(100)), 100)


# The network and the users


def test_two_nodes_of_one_name_are_a_warning_and_both_go_on(
    rig: Rig, start: Callable[..., Rig]
) -> None:
    other = start()
    other.active()
    rig.stream(flat(100), 0.1)
    for each in (rig, other):
        each.status(WARN, "2 nodes are called /mono_depth", "namespace")
    rig.peer.heard["depth/image_rect"].clear()
    rig.peer.wait(lambda: len(rig.peer.heard["depth/image_rect"]) > 3, "depth", rig.process)
    other.close()
    rig.status(WARN, "another clock")


def _killed_and_started_again(start: Callable[..., Rig], times: int) -> None:
    rig = start(**EVERYTHING)
    for i in range(times):
        rig.hear_all()
        rig.stream(flat(100), 0.02)
        heard = rig.peer.heard["points"]
        rig.peer.wait(heard.__len__, "points", rig.process)
        # At some moment of a frame.
        rig.peer.spin(0.013 * (i % 7))
        assert rig.process.stop(signal.SIGKILL) == -signal.SIGKILL
        rig.peer.__exit__(None, None, None)
        rig = start(**EVERYTHING)
    rig.hear(Image, "depth/image_rect")
    assert_depth(rig.see(flat(100)), 100)
    assert "[ERROR]" not in rig.process.output()


def test_a_node_that_was_killed_starts_again(start: Callable[..., Rig]) -> None:
    _killed_and_started_again(start, 1)


@pytest.mark.slow
def test_a_node_that_is_killed_again_and_again_starts_again(start: Callable[..., Rig]) -> None:
    _killed_and_started_again(start, 10)


def test_one_who_joins_and_leaves_gets_depth_each_time(rig: Rig) -> None:
    rig.stream(flat(100))
    for _ in range(10):
        rig.peer.ignore("depth/image_rect")
        rig.peer.hear(Image, "depth/image_rect")
        rig.peer.wait(lambda: rig.peer.heard["depth/image_rect"], "depth", rig.process)


@pytest.mark.slow
def test_a_thousand_subscribers_who_join_and_leave_leave_nothing_behind(rig: Rig) -> None:
    rig.stream(flat(100), 0.05)
    heard = rig.peer.heard["depth/image_rect"]
    before = 0
    for i in range(1200):
        if i == 200:
            before = rig.resident_kib()
        rig.peer.ignore("depth/image_rect")
        rig.peer.executor.spin_once(timeout_sec=0.005)
        rig.peer.hear(Image, "depth/image_rect")
        rig.peer.executor.spin_once(timeout_sec=0.005)
        if i % 10 == 0:
            rig.peer.wait(lambda: heard, "depth", rig.process)
    assert rig.resident_kib() - before < GROWTH_KIB
    assert_depth(rig.see(flat(100)), 100)


# Messages


@pytest.mark.parametrize("profile", PROFILES)
def test_every_message_passes_the_checks_of_its_fields(
    start: Callable[..., Rig], profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_PYTHON_CHECK_FIELDS", "1")
    rig = start(profile=profile, **EVERYTHING)
    topics = rig.hear_all(profile)
    rig.stream(flat(100), 0.1)
    rig.peer.wait(lambda: all(rig.peer.heard[topic] for topic in topics), "all", rig.process)
    rig.status(WARN, "another clock")
    assert "[ERROR]" not in rig.process.output()


def test_bytes_that_are_no_message(rig: Rig) -> None:
    rng = np.random.default_rng(0)
    header = rig.header()
    for publisher, message in (
        (rig.info, camera_info_message(CAMERA, header)),
        (rig.image, image_message(flat(1), "rgb8", header)),
    ):
        whole = bytes(serialize_message(message))
        for size in (0, 1, 4, 5, 8, 11, 12, 16, 20, 40, len(whole) // 2, len(whole) - 1):
            publisher.publish(whole[:size])
        rig.peer.spin(0.1)
        for _ in range(100):
            changed = bytearray(whole[:400])
            for at in rng.integers(4, len(changed), 4):
                changed[at] = rng.integers(256)
            publisher.publish(bytes(changed))
            rig.peer.spin(0.002)
    assert_depth(rig.see(flat(100)), 100)


def test_errors_that_alternate_do_not_fill_the_log(rig: Rig) -> None:
    started, number = time.monotonic(), count()

    def bad() -> None:
        message = image_message(flat(1), "rgb8", rig.header())
        message.encoding = f"no encoding {next(number)}"
        rig.image.publish(message)

    timer = rig.peer.node.create_timer(0.02, bad)
    rig.peer.wait(lambda: next(number) > 300, "bad images", rig.process)
    rig.peer.node.destroy_timer(timer)
    rig.status(ERROR, "no encoding")
    logged = rig.process.output().count("[ERROR]")
    assert 1 <= logged <= time.monotonic() - started + 1


NUMBERS = (0.0, -1.0, 1.0, 260.0, 1e-300, 1e300, float("nan"), float("inf"), 159.5)
SIZES = (0, 1, 2, 3, 31, 64, 320, 2**15, 2**31, 2**32 - 1)
ENCODINGS = ("rgb8", "bgr8", "mono8", "mono16", "bgra8", "bayer_rggb8", "nv12", "nv24", "yuv422")
NAMES = ("", "eye", "x" * 5000, "a\nb", "\u2603", "no such thing")


class Noise:
    """Messages as a broken camera, or somebody with bad intentions, might send them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def any(self, values: Any) -> Any:
        return values[self._rng.integers(len(values))]

    def numbers(self, length: int) -> list[float]:
        return [self.any(NUMBERS) for _ in range(length)]

    def header(self) -> Header:
        header = Header(frame_id=self.any(NAMES))
        header.stamp.sec = int(self._rng.integers(-(2**31), 2**31))
        header.stamp.nanosec = int(self._rng.integers(2**32))
        return header

    def bytes(self, size: int) -> bytes:
        return self._rng.bytes(size)

    def image(self, header: Header) -> Image:
        """Half of them have all of their pixels, in some size."""
        if self._rng.random() < 0.5:
            width, height = (int(n) for n in self._rng.integers(1, 70, 2))
            message = Image(header=header, width=width, height=height)
            message.encoding = self.any(ENCODINGS)
            message.step = int(width * 4 + self._rng.integers(0, 9))
            message.data = self.bytes(message.step * height * 2)
            return message
        message = Image(header=header, width=self.any(SIZES), height=self.any(SIZES))
        message.encoding = self.any((*ENCODINGS, *NAMES))
        message.is_bigendian = self.any((0, 1, 255))
        message.step = self.any((*SIZES, min(3 * message.width, 2**32 - 1)))
        message.data = self.bytes(int(self._rng.integers(0, 20_000)))
        return message

    def info(self, header: Header, width: int, height: int) -> CameraInfo:
        """A third of them are right, a third nearly, a third not at all."""
        kind = self._rng.integers(3)
        focal = float(self._rng.uniform(50, 500))
        message = CameraInfo(header=header, width=width, height=height)
        message.k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
        message.distortion_model = self.any(("plumb_bob", "equidistant", "rational_polynomial"))
        if kind >= 1:
            message.d = list(self._rng.uniform(-0.5, 0.5, self._rng.integers(0, 15)))
            message.binning_x, message.binning_y = (self.any(SIZES[:3]) for _ in range(2))
        if kind == 2:
            message.width, message.height = self.any(SIZES), self.any(SIZES)
            message.k, message.r, message.p = map(self.numbers, (9, 9, 12))
            message.d = self.numbers(int(self._rng.integers(0, 20)))
            message.distortion_model = self.any(NAMES)
            message.roi.width, message.roi.height = self.any(SIZES), self.any(SIZES)
            message.roi.x_offset, message.roi.y_offset = self.any(SIZES), self.any(SIZES)
        return message

    def compressed(self, header: Header) -> CompressedImage:
        width, height = (int(n) for n in self._rng.integers(1, 70, 2))
        pixels = np.frombuffer(self.bytes(width * height * 3), np.uint8).reshape(height, width, 3)
        _, encoded = cv2.imencode(self.any((".png", ".jpg")), pixels)
        data = bytearray(encoded.tobytes())
        for at in self._rng.integers(0, len(data), self._rng.integers(0, 4)):
            data[at] = self._rng.integers(256)
        del data[self.any((len(data), len(data), len(data) // 2, 0)) :]
        return CompressedImage(header=header, format=self.any(("png", *NAMES)), data=bytes(data))


def _malformed(rig: Rig, times: int, compressed: bool = False) -> None:
    """Sends malformed messages, and a good frame now and then that must be answered."""
    noise = Noise(times)
    images = rig.peer.node.create_publisher(
        CompressedImage, "image_raw/compressed", qos_profile_sensor_data
    )
    before, started = 0, time.monotonic()
    for i in range(times):
        header = noise.header()
        if compressed:
            image, width, height = noise.compressed(header), 64, 48
        else:
            image = noise.image(header)
            width, height = image.width, image.height
        rig.info.publish(noise.info(header, width, height))
        (images if compressed else rig.image).publish(image)
        rig.peer.executor.spin_once(timeout_sec=0.005)
        if (i + 1) % (times // 10) == 0:
            assert rig.process.running(), rig.process.output()
            _answers(rig, images if compressed else None)
            # What is kept for each size and encoding is there by now.
            before = before or rig.resident_kib()
    _answers(rig, images if compressed else None)
    assert rig.resident_kib() - before < GROWTH_KIB
    entries = {v.key: v.value for v in rig.peer.heard["/diagnostics"][-1].status[0].values}
    # Many of them came so far that they were worked on.
    worked_on = sum(float(entries[key]) for key in ("frames_failed", "frames_out"))
    assert worked_on > 0.2 * times
    log = rig.process.output()
    assert log.count("[ERROR]") <= time.monotonic() - started + 1
    assert "Traceback" not in log and "unexpected" not in log, log


def _answers(rig: Rig, compressed: Any) -> None:
    if compressed is None:
        assert_depth(rig.see(flat(100)), 100)
        return
    _, png = cv2.imencode(".png", flat(100)[..., ::-1])
    heard = rig.peer.heard["depth/image_rect"]
    heard.clear()

    def answer() -> Any:
        header = rig.header()
        rig.info.publish(camera_info_message(CAMERA, header))
        compressed.publish(CompressedImage(header=header, format="png", data=png.tobytes()))
        rig.peer.spin(0.1)
        return [m for m in heard if (m.width, m.height) == (WIDTH, HEIGHT)]

    assert_depth(rig.peer.wait(answer, "depth", rig.process)[-1], 100)


@pytest.mark.parametrize("times", [100, pytest.param(8000, marks=pytest.mark.slow)])
def test_malformed_images_and_calibrations(start: Callable[..., Rig], times: int) -> None:
    rig = start(**EVERYTHING)
    rig.hear_all()
    _malformed(rig, times)


@pytest.mark.parametrize("times", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_malformed_compressed_images(start: Callable[..., Rig], times: int) -> None:
    rig = start(image_transport="compressed", **EVERYTHING)
    rig.hear_all()
    _malformed(rig, times, compressed=True)
