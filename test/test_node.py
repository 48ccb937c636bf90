"""The depth node as a process: a real image in over DDS, real messages out."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import numpy.typing as npt
import pytest
from dds import Peer
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from node_rig import (
    CAMERA,
    HEIGHT,
    OWN_DOMAIN,
    SCALE,
    SHARED_DOMAIN,
    WIDTH,
    Rig,
    assert_depth,
    flat,
)
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.engines import open_engine
from mono_depth_ros.messages import camera_info_message, depth_to_array, image_message, stamp_ns


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One node with the red-channel network for the tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("node")
    model = networks.red_channel(folder / "red.onnx")
    made = Rig(folder / "log.txt", SHARED_DOMAIN, model=model, max_depth=20.0)
    made.active()
    made.hear(Image, "depth/image_rect")
    yield made
    made.close()


def test_depth_keeps_stamp_frame_and_size_and_has_exact_values(rig: Rig) -> None:
    pixels = flat(0)
    pixels[:, : WIDTH // 2, 0], pixels[:, WIDTH // 2 :, 0] = 100, 200
    message = rig.see(pixels)
    assert message.header.frame_id == "eye" and message.header.stamp.nanosec == 123456789
    assert (message.width, message.height, message.step) == (WIDTH, HEIGHT, WIDTH * 4)
    assert message.encoding == "32FC1"
    truth = pixels[..., 0] * networks.RED_SCALE * SCALE
    np.testing.assert_allclose(depth_to_array(message), truth, rtol=1e-4)


def test_camera_info_and_cloud_agree_with_depth(rig: Rig) -> None:
    rig.hear(CameraInfo, "depth/camera_info")
    rig.hear(PointCloud2, "points", qos_profile_sensor_data)
    pixels = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    pixels[..., 0] = 80
    cloud = rig.see(pixels, "points")
    infos = {stamp_ns(m.header): m for m in rig.peer.heard["depth/camera_info"]}
    info = infos[stamp_ns(cloud.header)]
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), CAMERA.matrix())
    np.testing.assert_allclose(np.reshape(info.p, (3, 4))[:, :3], CAMERA.matrix())
    assert (info.width, info.height, info.header.frame_id) == (WIDTH, HEIGHT, "eye")
    assert not any(info.d) and info.binning_x == 0 and info.roi.width == 0
    assert (cloud.width, cloud.height, cloud.point_step) == (WIDTH, HEIGHT, 16)
    points = np.frombuffer(cloud.data, np.float32).reshape(HEIGHT, WIDTH, 4)
    z = 80 * networks.RED_SCALE * SCALE
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    np.testing.assert_allclose(points[..., 2], z, rtol=1e-4)
    np.testing.assert_allclose(points[..., 0], (u - CAMERA.cx) * z / CAMERA.fx, atol=1e-3)
    np.testing.assert_allclose(points[..., 1], (v - CAMERA.cy) * z / CAMERA.fy, atol=1e-3)
    bgr = np.frombuffer(cloud.data, np.uint8).reshape(HEIGHT, WIDTH, 16)[..., 12:15]
    np.testing.assert_array_equal(bgr[..., ::-1], pixels)
    rig.peer.ignore("points")
    rig.peer.ignore("depth/camera_info")


def test_infinities_beyond_the_range_and_zero_millimetres(rig: Rig) -> None:
    pixels = flat(100)
    pixels[: HEIGHT // 2, :, 0] = 200
    near, far = (red * networks.RED_SCALE * SCALE for red in (100, 200))
    assert rig.set(min_depth=0.1, max_depth=(near + far) / 2) == (True, "")
    depth = depth_to_array(rig.see(pixels))
    assert np.isposinf(depth[: HEIGHT // 2 - 8]).all() and np.isfinite(depth[-100:]).all()
    assert rig.set(min_depth=(near + far) / 2, max_depth=20.0) == (True, "")
    depth = depth_to_array(rig.see(pixels))
    assert np.isneginf(depth[-100:]).all() and np.isfinite(depth[: HEIGHT // 2 - 8]).all()
    assert rig.set(depth_encoding="16UC1") == (True, "")
    message = rig.see(pixels)
    millimetres = np.frombuffer(message.data, np.uint16).reshape(HEIGHT, WIDTH)
    assert (message.encoding, message.step) == ("16UC1", WIDTH * 2)
    assert (millimetres[-100:] == 0).all() and (millimetres[:100] == round(far * 1000)).all()
    assert rig.set(depth_encoding="32FC1", min_depth=0.1) == (True, "")


def test_stride_colour_and_disparity(rig: Rig) -> None:
    assert rig.set(cloud__stride=4, disparity_baseline=0.1) == (True, "")
    for kind, topic in ((PointCloud2, "points"), (DisparityImage, "disparity")):
        rig.hear(kind, topic)
    rig.hear(Image, "depth/image_color")
    cloud, disparity = rig.see(flat(90), "points"), rig.see(flat(90), "disparity")
    colour = rig.see(flat(90), "depth/image_color")
    assert (cloud.width, cloud.height) == (WIDTH // 4, HEIGHT // 4)
    z = 90 * networks.RED_SCALE * SCALE
    values = np.frombuffer(disparity.image.data, np.float32)
    np.testing.assert_allclose(values, CAMERA.fx * 0.1 / z, rtol=1e-4)
    assert disparity.f == CAMERA.fx and disparity.t == pytest.approx(0.1)
    assert (colour.encoding, colour.step) == ("bgr8", WIDTH * 3)
    assert len(np.unique(np.frombuffer(colour.data, np.uint8).reshape(-1, 3), axis=0)) == 1
    for topic in ("points", "disparity", "depth/image_color"):
        rig.peer.ignore(topic)
    assert rig.set(cloud__stride=1, disparity_baseline=0.0) == (True, "")


def test_distorted_images_are_rectified(rig: Rig) -> None:
    d = [-0.4, 0.12, 0.001, -0.002, 0.0]

    def distort(info: CameraInfo) -> None:
        info.d = d

    # A slope in x and y, gentle enough that no neighbours differ like two surfaces.
    pixels = flat(0)
    pixels[..., 0] = np.add.outer(np.linspace(60, 100, HEIGHT), np.linspace(0, 150, WIDTH))
    message = rig.see(pixels, change=distort)
    ideal = cv2.undistort(pixels, CAMERA.matrix(), np.array(d), newCameraMatrix=CAMERA.matrix())
    depth = depth_to_array(message)
    inside = np.isfinite(depth)
    truth = ideal[..., 0] * networks.RED_SCALE * SCALE
    assert inside.mean() > 0.5
    error = np.abs(depth - truth)[inside] / truth[inside]
    assert np.median(error) < 0.01 and error.max() < 0.03
    # What a node that ignored the distortion would have said is far from that.
    plain = pixels[..., 0] * networks.RED_SCALE * SCALE
    assert (np.abs(plain - truth)[inside] / truth[inside]).max() > 0.1


def test_another_calibration_halfway_is_used_from_its_first_frame(rig: Rig) -> None:
    assert_depth(rig.see(flat(100)), 100)
    twice = CameraModel(WIDTH, HEIGHT, 520.0, 520.0, 159.5, 119.5)
    depth = depth_to_array(rig.see(flat(100), camera=twice))
    np.testing.assert_allclose(depth, 2 * 100 * networks.RED_SCALE * SCALE, rtol=1e-4)


def test_resolution_change(rig: Rig) -> None:
    other = CAMERA.scaled(200, 150)
    message = rig.see(flat(100, 200, 150), camera=other)
    assert (message.width, message.height) == (200, 150)
    np.testing.assert_allclose(depth_to_array(message), 100 * networks.RED_SCALE * SCALE, rtol=1e-4)
    assert_depth(rig.see(flat(100)), 100)


def test_only_the_newest_frame_of_a_burst_is_answered_last(rig: Rig) -> None:
    rig.see(flat(100))
    rig.peer.heard["depth/image_rect"].clear()
    last = None
    for _ in range(40):
        last = rig.header()
        rig.send(image_message(flat(100), "rgb8", last), camera_info_message(CAMERA, last))
    assert last is not None
    heard = rig.peer.heard["depth/image_rect"]
    rig.peer.wait(
        lambda: heard and heard[-1].header.stamp == last.stamp, "newest frame", rig.process
    )
    stamps = [stamp_ns(message.header) for message in heard]
    assert stamps == sorted(set(stamps))


def test_nothing_is_listened_to_without_a_subscriber(rig: Rig) -> None:
    assert_depth(rig.see(flat(100)), 100)
    rig.peer.ignore("depth/image_rect")
    rig.peer.wait(lambda: rig.image.get_subscription_count() == 0, "silence", rig.process)
    rig.peer.heard["/diagnostics"].clear()
    status = rig.peer.wait(lambda: rig.peer.heard["/diagnostics"], "diagnostics")[-1].status[0]
    assert (status.level, "idle" in status.message) == (DiagnosticStatus.OK, True)
    assert rig.info.get_subscription_count() == 0
    rig.hear(Image, "depth/image_rect")
    assert_depth(rig.see(flat(100)), 100)


# Bad input


def good(rig: Rig) -> tuple[Image, CameraInfo]:
    header = rig.header()
    return image_message(flat(7), "rgb8", header), camera_info_message(CAMERA, header)


def test_unknown_encoding(rig: Rig) -> None:
    image, info = good(rig)
    image.encoding = "rgb9"
    rig.refuses(image, info, "encoding 'rgb9'", "supported")


def test_truncated_data(rig: Rig) -> None:
    image, info = good(rig)
    image.data = image.data[:-1]
    rig.refuses(image, info, "data has", "truncated")


def test_empty_data(rig: Rig) -> None:
    image, info = good(rig)
    image.data = []
    rig.refuses(image, info, "data has 0 bytes")


def test_wrong_step(rig: Rig) -> None:
    image, info = good(rig)
    image.step = WIDTH
    rig.refuses(image, info, "step")


def test_zero_size(rig: Rig) -> None:
    image, info = good(rig)
    image.width = image.height = 0
    rig.refuses(image, info, "image is 0x0")


def test_camera_info_with_zero_k(rig: Rig) -> None:
    image, info = good(rig)
    info.k = [0.0] * 9
    rig.refuses(image, info, "not calibrated", "fallback_hfov_deg")


def test_camera_info_for_another_size(rig: Rig) -> None:
    image, _ = good(rig)
    info = camera_info_message(CAMERA.scaled(640, 480), image.header)
    rig.refuses(image, info, "640x480", "320x240")


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"min_depth": -1.0}, "min_depth"),
        ({"max_depth": float("nan")}, "max_depth"),
        ({"min_depth": 5.0, "max_depth": 4.0}, "min_depth"),
        ({"cloud__stride": 0}, "cloud.stride"),
        ({"depth_encoding": "8UC1"}, "depth_encoding"),
        ({"fallback_hfov_deg": 180.0}, "fallback_hfov_deg"),
        ({"cache_dir": "elsewhere"}, "cache_dir"),
        ({"cloud__stride": 2, "max_depth": -3.0}, "max_depth"),
    ],
)
def test_refused_parameters_keep_their_old_values(
    rig: Rig, values: dict[str, Any], word: str
) -> None:
    before = [rig.get(name.replace("__", ".")) for name in values]
    ok, reason = rig.set(**values)
    assert not ok and word in reason
    assert [rig.get(name.replace("__", ".")) for name in values] == before


# Nodes of their own


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**parameters: Any) -> Rig:
        rigs.append(Rig(tmp_path / "log.txt", OWN_DOMAIN, **parameters))
        return rigs[-1]

    yield make
    for made in rigs:
        made.close()


def test_missing_camera_info_and_fallback(start: Callable[..., Rig], tmp_path: Path) -> None:
    rig = start(model=networks.red_channel(tmp_path / "red.onnx"))
    rig.active()
    rig.hear(Image, "depth/image_rect")
    rig.peer.heard["/diagnostics"].clear()

    def complaint() -> bool:
        rig.send(image_message(flat(50), "rgb8", rig.header()), None)
        rig.peer.spin(0.2)
        return any("no camera_info" in a.status[0].message for a in rig.peer.heard["/diagnostics"])

    rig.peer.wait(complaint, "error about camera_info", rig.process)
    assert rig.peer.heard["depth/image_rect"] == []
    assert rig.set(fallback_hfov_deg=60.0) == (True, "")
    depth = depth_to_array(rig.see(flat(50), camera=None))
    focal = networks.WIDTH / 2 / np.tan(np.radians(30))
    np.testing.assert_allclose(depth, 50 * networks.RED_SCALE * focal / networks.FOCAL, rtol=1e-4)


def test_depth_can_be_latched_for_who_comes_late(start: Callable[..., Rig], tmp_path: Path) -> None:
    override = {"qos_overrides./depth/image_rect.publisher.durability": "transient_local"}
    rig = start(model=networks.red_channel(tmp_path / "red.onnx"), **override)
    rig.active()
    rig.hear(Image, "depth/image_rect")
    stamp = rig.see(flat(100)).header.stamp
    rig.peer.ignore("depth/image_rect")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig.peer.heard["depth/image_rect"].clear()
    rig.hear(Image, "depth/image_rect", latched)
    heard = rig.peer.heard["depth/image_rect"]
    rig.peer.wait(heard.__len__, "the depth before", rig.process)
    assert heard[-1].header.stamp == stamp


def test_latched_camera_info_sent_before_the_node_started(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    with Peer(OWN_DOMAIN) as camera:
        latched = camera.node.create_publisher(
            CameraInfo,
            "camera_info",
            QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
        )
        latched.publish(camera_info_message(CAMERA, Header()))
        rig = start(model=networks.red_channel(tmp_path / "red.onnx"))
        rig.active()
        rig.hear(Image, "depth/image_rect")
        assert_depth(rig.see(flat(100), camera=None), 100)


def test_compressed_transport(start: Callable[..., Rig], tmp_path: Path) -> None:
    rig = start(model=networks.red_channel(tmp_path / "red.onnx"), image_transport="compressed")
    camera = rig.peer.node.create_publisher(
        CompressedImage, "image_raw/compressed", qos_profile_sensor_data
    )
    rig.active()
    rig.hear(Image, "depth/image_rect", QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
    ok, png = cv2.imencode(".png", flat(100)[..., ::-1])
    assert ok

    def answer() -> Any:
        header = rig.header()
        rig.info.publish(camera_info_message(CAMERA, header))
        broken = CompressedImage(header=header, format="jpeg", data=b"not a picture")
        camera.publish(broken)
        camera.publish(CompressedImage(header=header, format="png", data=png.tobytes()))
        rig.peer.spin(0.2)
        return rig.peer.heard["depth/image_rect"]

    assert_depth(rig.peer.wait(answer, "depth", rig.process)[0], 100)


def test_network_output_that_is_not_finite_becomes_nan(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = start(model=networks.not_finite(tmp_path / "nan.onnx"))
    rig.active()
    rig.hear(Image, "depth/image_rect")
    pixels = flat(100)
    pixels[:, : WIDTH // 2, 0] = 0
    depth = depth_to_array(rig.see(pixels))
    assert np.isnan(depth[:, : WIDTH // 2 - 8]).all()
    np.testing.assert_allclose(depth[:, WIDTH // 2 + 8 :], SCALE, rtol=1e-4)
    rig.peer.wait(
        lambda: any("non-finite" in a.status[0].message for a in rig.peer.heard["/diagnostics"]),
        "diagnostic",
        rig.process,
    )
    assert np.isfinite(depth_to_array(rig.see(flat(100)))).all()


def _no_metadata(folder: Path) -> Path:
    import onnx

    path = networks.red_channel(folder / "plain.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


def _not_onnx(folder: Path) -> Path:
    path = folder / "picture.onnx"
    path.write_bytes(b"\x89PNG\r\n" + bytes(range(256)))
    return path


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda folder: folder / "nowhere.onnx", "no such model file"),
        (_not_onnx, "not an ONNX file"),
        (_no_metadata, "metadata"),
    ],
)
def test_unusable_model_is_named_and_can_be_replaced(
    start: Callable[..., Rig], tmp_path: Path, make: Callable[[Path], Path], word: str
) -> None:
    path = make(tmp_path)
    rig = start(model=path)
    status = rig.peer.wait(
        lambda: next(
            (
                array.status[0]
                for array in rig.peer.heard["/diagnostics"]
                if array.status[0].level == DiagnosticStatus.ERROR
            ),
            None,
        ),
        "diagnostic",
        rig.process,
    )
    assert word in status.message and path.name in status.message
    assert rig.state() == State.PRIMARY_STATE_UNCONFIGURED
    ok, reason = rig.set(model=str(networks.red_channel(tmp_path / "red.onnx")))
    assert ok, reason
    assert rig.change_state(Transition.TRANSITION_CONFIGURE)
    assert rig.change_state(Transition.TRANSITION_ACTIVATE)
    rig.active()
    rig.hear(Image, "depth/image_rect")
    assert_depth(rig.see(flat(100)), 100)


def test_lifecycle_round_twice_without_autostart(start: Callable[..., Rig], tmp_path: Path) -> None:
    rig = start(model=networks.red_channel(tmp_path / "red.onnx"), autostart=False)
    assert rig.state() == State.PRIMARY_STATE_UNCONFIGURED
    for _ in range(2):
        assert rig.change_state(Transition.TRANSITION_CONFIGURE)
        assert rig.change_state(Transition.TRANSITION_ACTIVATE)
        rig.active()
        rig.hear(Image, "depth/image_rect")
        assert_depth(rig.see(flat(100)), 100)
        rig.peer.ignore("depth/image_rect")
        assert rig.change_state(Transition.TRANSITION_DEACTIVATE)
        rig.peer.wait(lambda: rig.image.get_subscription_count() == 0, "unsubscribing")
        assert rig.change_state(Transition.TRANSITION_CLEANUP)
        assert rig.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert rig.process.stop(signal.SIGTERM) == 0


def test_services_answer_while_the_network_runs(start: Callable[..., Rig], tmp_path: Path) -> None:
    trial = open_engine(networks.slow(tmp_path / "trial.onnx", 50))
    durations = []
    for _ in range(3):
        started = time.monotonic()
        trial.infer(np.zeros((networks.HEIGHT, networks.WIDTH, 3), np.uint8))
        durations.append(time.monotonic() - started)
    # As many as take three seconds on this machine.
    convolutions = round(50 * 3 / min(durations))
    rig = start(model=networks.slow(tmp_path / "slow.onnx", convolutions))
    rig.active()
    rig.hear(Image, "depth/image_rect")
    heard = rig.peer.heard["depth/image_rect"]
    assert_depth(rig.see(flat(100)), 100)
    last = rig.header()
    rig.send(image_message(flat(100), "rgb8", last), camera_info_message(CAMERA, last))
    rig.peer.wait(lambda: heard[-1].header.stamp == last.stamp, "last frame", rig.process)
    heard.clear()
    header = rig.header()
    rig.send(image_message(flat(100), "rgb8", header), camera_info_message(CAMERA, header))
    rig.peer.spin(0.3)
    assert rig.set(max_depth=19.0) == (True, "")
    assert rig.get("max_depth").double_value == 19.0
    assert rig.state() == State.PRIMARY_STATE_ACTIVE
    # All of that came while the network was still at work on the frame.
    assert heard == []
    rig.peer.wait(lambda: heard, "depth", rig.process)


def square(camera: CameraModel, side: float, distance: float) -> npt.NDArray[np.uint8]:
    """A white square of `side` metres on a black wall `distance` metres away, area-sampled."""

    def coverage(focal: float, centre: float, count: int) -> npt.NDArray[np.float64]:
        low = focal * -side / 2 / distance + centre
        high = focal * side / 2 / distance + centre
        i = np.arange(count)
        inside = np.minimum(high, i + 0.5) - np.maximum(low, i - 0.5)
        return np.asarray(np.clip(inside, 0, 1), np.float64)

    share = np.outer(
        coverage(camera.fy, camera.cy, camera.height), coverage(camera.fx, camera.cx, camera.width)
    )
    return np.repeat(np.rint(share * 255).astype(np.uint8)[..., None], 3, axis=2)


def test_a_topic_that_is_an_input_is_not_an_output(tmp_path: Path) -> None:
    model = networks.red_channel(tmp_path / "red.onnx")
    rig = Rig(tmp_path / "log.txt", OWN_DOMAIN, {"image_raw": "image_rect"}, model=model)
    try:
        rig.active()
        rig.hear(Image, "depth/image_rect")
        assert_depth(rig.see(flat(100)), 100)
        rig.peer.spin(1.0)
        rig.peer.heard["depth/image_rect"].clear()
        for _ in range(3):
            rig.frame(flat(100))
            rig.peer.spin(0.3)
        rig.peer.spin(1.0)
        stamps = [stamp_ns(message.header) for message in rig.peer.heard["depth/image_rect"]]
        assert len(stamps) == len(set(stamps)) == 3
        # The rig's own, which is the camera.
        assert rig.peer.node.count_publishers("image_rect") == 1
        assert "image_rect is not published: it is an input" in rig.process.output()
    finally:
        rig.close()


def test_the_raw_twin_of_a_compressed_input_is_the_camera_s(tmp_path: Path) -> None:
    model = networks.red_channel(tmp_path / "red.onnx")
    camera = {"image_raw/compressed": "image_rect/compressed"}
    options = {"model": model, "image_transport": "compressed"}
    rig = Rig(tmp_path / "log.txt", OWN_DOMAIN, camera, **options)
    try:
        rig.active()
        assert "/image_rect is not published: it is an input" in rig.process.output()
    finally:
        rig.close()


def test_two_focal_lengths_see_a_wall_at_two_metres(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = start(model=networks.apparent_size(tmp_path / "size.onnx", side=0.8))
    rig.active()
    rig.hear(Image, "depth/image_rect")
    for hfov in (50.0, 90.0):
        for size in ((320, 240), (640, 360)):
            camera = CameraModel.from_hfov(*size, hfov)
            depth = depth_to_array(rig.see(square(camera, 0.8, 2.0), camera=camera))
            np.testing.assert_allclose(depth, 2.0, atol=0.01)
