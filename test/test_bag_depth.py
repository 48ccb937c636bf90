"""`depth_video --bag` on bags that rosbags writes, with a network whose answer is known exactly."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rosbags")
from bags import (
    FRAME,
    HEIGHT,
    LATCHED,
    START,
    TYPES,
    WIDTH,
    Item,
    compressed,
    info,
    level,
    picture,
    qos,
    read,
    recording,
    red,
    stamp,
    write,
)
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import StoragePlugin

from mono_depth_ros.bag_images import is_bag
from mono_depth_ros.bag_reader import decode_image
from mono_depth_ros.calibrated_view import View
from mono_depth_ros.camera import Calibration, CameraModel
from mono_depth_ros.cloud import CloudBuilder
from mono_depth_ros.depth_video import main
from mono_depth_ros.estimator import Rectifier
from mono_depth_ros.image_topic import ImageTopic

REPOSITORY = Path(__file__).resolve().parent.parent
NEW = {
    "/camera/depth/image_rect": "sensor_msgs/msg/Image",
    "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/points": "sensor_msgs/msg/PointCloud2",
}
storages = pytest.mark.parametrize("storage", list(StoragePlugin), ids=lambda s: s.name)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.red_channel(tmp_path_factory.mktemp("network") / "red.onnx")


def argv(bag: Path | str, network: Path, *options: object) -> list[str]:
    return [str(o) for o in ("--bag", bag, "--model", network, "--engine", "onnx", *options)]


def run(bag: Path | str, network: Path, *options: object) -> dict[str, Any]:
    """Runs the command in this process; it must succeed. Gives its JSON."""
    path = Path(str(bag).partition(":/")[0])
    figures = path.parent / "figures.json"
    assert main(argv(bag, network, *options, "--json", figures)) == 0
    return dict(json.loads(figures.read_text()))


def fault(
    capfd: pytest.CaptureFixture[str], bag: Path | str, network: Path, *options: object
) -> str:
    """Runs the command, which must fail; the error, which must be one line."""
    capfd.readouterr()
    assert main(argv(bag, network, *options)) == 1
    lines = capfd.readouterr().err.splitlines()
    errors = [line for line in lines if not line.startswith("depth_video: warning: ")]
    assert len(errors) == 1, lines
    assert errors[0].startswith("depth_video: error: ")
    return errors[0]


def parse(found: list[tuple[str, int, bytes]], topic: str) -> list[Any]:
    kind = NEW[topic]
    return [TYPES.deserialize_cdr(raw, kind) for name, _, raw in found if name == topic]


def pixels(message: Any) -> npt.NDArray[Any]:
    dtype = {"32FC1": "<f4", "16UC1": "<u2"}[message.encoding]
    return np.asarray(message.data).view(dtype).reshape(message.height, message.width)


def depths(path: Path) -> list[float]:
    """The one depth of each depth image."""
    found = [pixels(m) for m in parse(read(path)[1], "/camera/depth/image_rect")]
    for depth in found:
        assert np.ptp(depth) < 1e-4
    return [float(depth[0, 0]) for depth in found]


# -- the copy --------------------------------------------------------------------------------------


@storages
@pytest.mark.parametrize("image", ["/camera/image_raw", "/camera/image_raw/compressed"])
@pytest.mark.parametrize("suffix", ["", ".mcap", ".db3"])
def test_the_copy_has_every_message_as_it_was_and_the_depth_of_every_image(
    tmp_path: Path, network: Path, storage: StoragePlugin, image: str, suffix: str
) -> None:
    # Neither rosbags nor anybody else knows this type, and these bytes are no message of it.
    strange = ("strange_msgs/msg/Thing", "int32 a\nstrange_msgs/Other b\n", b"\x00\x01\x00\x00xyz!")
    items = [*recording(3, image), ("/odd", strange, START + 11), ("/odd", strange, START - 7)]
    bag = write(tmp_path / "in", items, storage)
    out = tmp_path / f"out{suffix}"
    figures = run(bag, network, "--out", out)

    assert is_bag(out)
    assert out.is_file() == bool(suffix)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures.json", "in", out.name]
    topics, before = read(bag)
    copies, after = read(out)
    assert [item for item in after if item[0] not in NEW] == before
    assert set(copies) == {*topics, *NEW}
    for name, connection in topics.items():
        assert copies[name].msgtype == connection.msgtype
        assert copies[name].msgdef == connection.msgdef
        assert copies[name].msgcount == connection.msgcount
        assert qos(copies[name]) == [LATCHED]
    for name, kind in NEW.items():
        assert (copies[name].msgtype, copies[name].msgcount) == (kind, 3)
        assert [q.reliability for q in qos(copies[name])] == [QosReliability.RELIABLE]
        assert [q.durability for q in qos(copies[name])] == [QosDurability.VOLATILE]
        assert [at for topic, at, _ in after if topic == name] == [stamp(i) + 3 for i in range(3)]
        for i, message in enumerate(parse(after, name)):
            time_ = message.header.stamp
            assert time_.sec * 10**9 + time_.nanosec == stamp(i)
            assert message.header.frame_id == FRAME
    found = parse(after, "/camera/depth/image_rect")
    for i, message in enumerate(found):
        assert (message.width, message.height, message.step) == (WIDTH, HEIGHT, 4 * WIDTH)
        np.testing.assert_allclose(pixels(message), level(i) * networks.RED_SCALE, rtol=1e-5)
    assert (figures["frames"], figures["messages"]) == (3, len(items))
    assert figures["new_topics"] == list(NEW)


def test_the_cloud_is_every_pixel_seen_from_the_camera(tmp_path: Path, network: Path) -> None:
    bag = write(tmp_path / "in", recording(1))
    run(bag, network, "--out", tmp_path / "out", "--stride", 3)
    (cloud,) = parse(read(tmp_path / "out")[1], "/camera/points")
    rows, columns = range(0, HEIGHT, 3), range(0, WIDTH, 3)
    assert (cloud.height, cloud.width) == (len(rows), len(columns))
    assert (cloud.point_step, cloud.row_step, cloud.is_dense) == (16, 16 * len(columns), False)
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1),
    ]  # fmt: skip
    z = level(0) * networks.RED_SCALE
    points = iter(np.asarray(cloud.data).view("<f4").reshape(-1, 4))
    colour = (level(0) << 16) + (7 << 8)
    for v in rows:
        for u in columns:
            point = next(points)
            expected = [
                (u - (WIDTH - 1) / 2) * z / networks.FOCAL,
                (v - (HEIGHT - 1) / 2) * z / networks.FOCAL,
                z,
            ]
            assert point[:3].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert int(point[3:].view("<u4")[0]) == colour


def test_ros_reads_what_was_written(tmp_path: Path, network: Path) -> None:
    serialization = pytest.importorskip("rclpy.serialization")
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2

    from mono_depth_ros.messages import camera_info_message, depth_to_array

    bag = write(tmp_path / "in", recording(1))
    run(bag, network, "--out", tmp_path / "out.mcap")
    raw = {topic: data for topic, _, data in read(tmp_path / "out.mcap")[1]}
    depth, camera_info, cloud = (
        serialization.deserialize_message(raw[topic], kind)
        for topic, kind in zip(NEW, (Image, CameraInfo, PointCloud2), strict=True)
    )
    assert depth.encoding == "32FC1"
    metres = depth_to_array(depth)
    np.testing.assert_allclose(metres, level(0) * networks.RED_SCALE, rtol=1e-5)
    camera = CameraModel(WIDTH, HEIGHT, *(networks.FOCAL,) * 2, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    assert camera_info == camera_info_message(camera, depth.header)
    points = CloudBuilder(camera).build(metres, red(level(0)))
    assert cloud.header == depth.header
    assert (cloud.height, cloud.width, cloud.point_step) == (*points.shape, points.dtype.itemsize)
    offsets = {"x": 0, "y": 4, "z": 8, "rgb": 12}
    assert {field.name: field.offset for field in cloud.fields} == offsets
    assert cloud.data.tobytes() == points.tobytes()


@pytest.mark.parametrize("namespace", ["/m", "m/"])
def test_millimetres_and_another_namespace(tmp_path: Path, network: Path, namespace: str) -> None:
    bag = write(tmp_path / "in", recording(2))
    run(
        bag,
        network,
        "--out",
        tmp_path / "out",
        "--depth-encoding",
        "16UC1",
        "--namespace",
        namespace,
    )
    found = read(tmp_path / "out")[1]
    images = [TYPES.deserialize_cdr(raw, NEW["/camera/depth/image_rect"])
              for topic, _, raw in found if topic == "/m/depth/image_rect"]  # fmt: skip
    assert [np.unique(pixels(image)).tolist() for image in images] == [[1000], [1400]]
    assert {"/m/depth/camera_info", "/m/points"} < {topic for topic, _, _ in found}


def test_every_nth_image_has_depth_and_all_messages_are_copied(
    tmp_path: Path, network: Path
) -> None:
    bag = write(tmp_path / "in", recording(5))
    run(bag, network, "--out", tmp_path / "out", "--every", 2)
    assert depths(tmp_path / "out") == pytest.approx([level(i) / 25 for i in (0, 2, 4)], rel=1e-5)
    copied = [item for item in read(tmp_path / "out")[1] if item[0] not in NEW]
    assert copied == read(bag)[1]


def test_one_of_several_cameras_is_named(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    items = [
        item
        for i, side in enumerate(("left", "right"))
        for item in (
            (f"/{side}/image_raw", picture(stamp(0), red(50 * (i + 1))), stamp(0)),
            (f"/{side}/camera_info", info(stamp(0)), stamp(0)),
        )
    ]
    bag = write(tmp_path / "in", items)
    assert "name one as" in fault(capfd, bag, network, "--out", tmp_path / "out")
    run(f"{bag}:/right/image_raw", network, "--out", tmp_path / "out")
    (message,) = (
        TYPES.deserialize_cdr(raw, NEW["/camera/depth/image_rect"])
        for topic, _, raw in read(tmp_path / "out")[1]
        if topic == "/right/depth/image_rect"
    )
    np.testing.assert_allclose(pixels(message), 4.0, rtol=1e-5)


def test_an_image_that_cannot_be_decoded_is_copied_and_skipped(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    items = recording(2)
    items[0][1].step = 3
    bag = write(tmp_path / "in", items)
    figures = run(bag, network, "--out", tmp_path / "out")
    assert (figures["frames"], figures["skipped"]) == (1, 1)
    assert "/camera/image_raw 0: image step 3" in capfd.readouterr().err
    assert [item for item in read(tmp_path / "out")[1] if item[0] not in NEW] == read(bag)[1]
    assert depths(tmp_path / "out") == pytest.approx([level(1) / 25], rel=1e-5)


def test_images_at_the_root_have_depth_at_the_root(tmp_path: Path, network: Path) -> None:
    items = [(topic.removeprefix("/camera"), m, at) for topic, m, at in recording(1)]
    figures = run(write(tmp_path / "in", items), network, "--out", tmp_path / "out")
    assert figures["new_topics"] == ["/depth/image_rect", "/depth/camera_info", "/points"]


@pytest.mark.parametrize("compressed_", [False, True])
def test_a_message_that_is_cut_off_anywhere_is_a_value_error(compressed_: bool) -> None:
    pixels_ = np.zeros((2, 3, 3), np.uint8)
    message = compressed(START, pixels_) if compressed_ else picture(START, pixels_)
    raw = bytes(TYPES.serialize_cdr(message, message.__msgtype__))
    topic = ImageTopic("/eye", "rgb8", FRAME, compressed_)
    assert decode_image(raw, topic).shape == (2, 3, 3)
    for length in range(len(raw) - 8):  # PNG's last chunk, and padding, do not matter
        with pytest.raises(ValueError, match=r"."):
            decode_image(raw[:length], topic)


# -- the camera ------------------------------------------------------------------------------------


def test_depth_follows_a_calibration_that_changes(tmp_path: Path, network: Path) -> None:
    items: list[Item] = []
    for i, focal in enumerate((100, 100, 200, 50)):
        # As image_transport's camera publisher does it: the image, then its camera_info.
        items.append(("/camera/image_raw", picture(stamp(i), red(25)), stamp(i) + 3))
        items.append(("/camera/camera_info", info(stamp(i), focal), stamp(i) + 4))
    figures = run(write(tmp_path / "in", items), network, "--out", tmp_path / "out")
    assert depths(tmp_path / "out") == pytest.approx([1, 1, 2, 0.5], rel=1e-5)
    infos = parse(read(tmp_path / "out")[1], "/camera/depth/camera_info")
    assert [message.k[0] for message in infos] == [100, 100, 200, 50]
    assert figures["calibrations"] == 3


@pytest.mark.parametrize("when", [-5, 1, 900])
def test_one_camera_info_is_for_all_images_whenever_it_was_sent(
    tmp_path: Path, network: Path, when: int
) -> None:
    images = [item for item in recording(3) if item[0] == "/camera/image_raw"]
    one: Item = ("/camera/camera_info", info(START + when * 10**6, 200), START + when * 10**6)
    bag = write(tmp_path / "in", sorted([*images, one], key=lambda item: item[2]))
    run(bag, network, "--out", tmp_path / "out")
    assert depths(tmp_path / "out") == pytest.approx(
        [2 * level(i) / 25 for i in range(3)], rel=1e-5
    )


def test_distorted_images_are_rectified_and_what_the_lens_does_not_see_has_no_depth(
    tmp_path: Path, network: Path
) -> None:
    lens = (0.3, 0.05, 0.0, 0.0, 0.0)
    items: list[Item] = [
        ("/camera/image_raw", picture(START, red(50)), START),
        ("/camera/camera_info", info(START, d=lens), START),
    ]
    run(write(tmp_path / "in", items), network, "--out", tmp_path / "out")
    (message,) = parse(read(tmp_path / "out")[1], "/camera/depth/image_rect")
    k = (100.0, 0.0, (WIDTH - 1) / 2, 0.0, 100.0, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0)
    rectifier = Rectifier(Calibration(WIDTH, HEIGHT, k, lens, "plumb_bob"))
    assert rectifier.outside is not None
    expected = np.where(rectifier.outside, np.nan, 2.0)
    np.testing.assert_allclose(pixels(message), expected, rtol=1e-5)
    (camera_info,) = parse(read(tmp_path / "out")[1], "/camera/depth/camera_info")
    assert not np.any(camera_info.d)
    (cloud,) = parse(read(tmp_path / "out")[1], "/camera/points")
    z = np.asarray(cloud.data).view("<f4").reshape(HEIGHT, WIDTH, 4)[..., 2]
    np.testing.assert_array_equal(np.isnan(z), rectifier.outside)


def test_region_of_interest_and_binning_are_in_the_camera(tmp_path: Path, network: Path) -> None:
    calibration = info(START, 200, (400, 300), binning=(2, 2), roi=(40, 20, 256, 192))
    items: list[Item] = [
        ("/camera/image_raw", picture(START, red(25)), START),
        ("/camera/camera_info", calibration, START),
    ]
    figures = run(write(tmp_path / "in", items), network, "--out", tmp_path / "out")
    # Half of the pixels: f is 100, which is the network's.
    assert depths(tmp_path / "out") == pytest.approx([1.0], rel=1e-5)
    assert figures["camera"] == {
        "width": 128, "height": 96, "fx": 100.0, "fy": 100.0,
        "cx": (199.5 - 40 + 0.5) / 2 - 0.5, "cy": (149.5 - 20 + 0.5) / 2 - 0.5,
    }  # fmt: skip


def test_an_uncalibrated_camera_needs_an_option(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    items = [(t, info(START, 0.0) if "info" in t else m, at) for t, m, at in recording(1)]
    bag = write(tmp_path / "in", items)
    out = tmp_path / "out"
    text = fault(capfd, bag, network, "--out", out)
    assert "/camera/camera_info: K[0] = 0" in text
    assert "--camera-info FILE, or --hfov" in text
    hfov = 2 * np.degrees(np.arctan(WIDTH / 2 / 100))
    run(bag, network, "--out", out, "--hfov", hfov)
    assert depths(out) == pytest.approx([1.0], rel=1e-5)
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(
        f"image_width: {WIDTH}\nimage_height: {HEIGHT}\ncamera_matrix:\n"
        f"  data: [300, 0, {WIDTH / 2}, 0, 300, {HEIGHT / 2}, 0, 0, 1]\n"
    )
    run(bag, network, "--out", tmp_path / "other", "--camera-info", calibration)
    assert depths(tmp_path / "other") == pytest.approx([3.0], rel=1e-5)


def test_camera_info_elsewhere_is_named_and_one_of_another_size_is_refused(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    items: list[Item] = [
        ("/camera/image_raw", picture(START, red(25)), START),
        ("/elsewhere", info(START, 200), START),
        ("/wrong", info(START, 200, (640, 480)), START),
    ]
    bag = write(tmp_path / "in", items)
    out = tmp_path / "out"
    text = fault(capfd, bag, network, "--out", out)
    assert "no camera_info on /camera/camera_info" in text
    assert "--camera-info-topic (it has: /elsewhere, /wrong)" in text
    text = fault(capfd, bag, network, "--out", out, "--camera-info-topic", "/wrong")
    assert "is for images of 640x480, those on /camera/image_raw are 128x96" in text
    run(bag, network, "--out", out, "--camera-info-topic", "/elsewhere")
    assert depths(out) == pytest.approx([2.0], rel=1e-5)


# -- what cannot be done ---------------------------------------------------------------------------


def test_what_is_there_is_not_overwritten(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / "in", recording(1))
    out = tmp_path / "out.mcap"
    out.write_text("mine")
    assert "out.mcap: is there already; remove it" in fault(capfd, bag, network, "--out", out)
    assert out.read_text() == "mine"
    out.unlink()
    run(bag, network, "--out", out)
    text = fault(capfd, out, network, "--out", tmp_path / "again.mcap")
    assert "has /camera/depth/image_rect, /camera/depth/camera_info, /camera/points" in text
    assert "--namespace" in text
    assert not (tmp_path / "again.mcap").exists()


@pytest.mark.parametrize("content", [b"", b"no bag at all", None])
def test_inputs_that_are_no_bags(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    bag = tmp_path / "in.mcap"
    if content is not None:
        bag.write_bytes(content)
    text = fault(capfd, bag, network, "--out", tmp_path / "out.mcap")
    assert "in.mcap: " + ("not found" if content is None else "cannot be read as a ROS 2") in text
    assert not (tmp_path / "out.mcap").exists()


def test_a_bag_that_is_damaged_half_way_leaves_nothing(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "in", recording(40)) / "in.mcap"
    data = bytearray(file.read_bytes())
    # A length in the middle of the second chunk's records becomes absurd.
    at = data.index(b"\x05", len(data) * 2 // 3)
    while int.from_bytes(data[at + 1 : at + 9], "little") not in range(30_000, 40_000):
        at = data.index(b"\x05", at + 1)
    data[at + 1 : at + 9] = (1 << 60).to_bytes(8, "little")
    file.write_bytes(data)
    text = fault(capfd, file, network, "--out", tmp_path / "out.mcap", "--hfov", 60)
    assert "in.mcap: cannot be read as a ROS 2 bag" in text
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_bag_with_fewer_messages_than_its_metadata_promises_is_not_copied(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / "in", recording(2))
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 2", "message_count: 5"))
    text = fault(capfd, bag, network, "--out", tmp_path / "out")
    assert "has 4 of the 10 messages" in text
    assert "ros2 bag reindex" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def command(
    *arguments: str, limit: int | None = None
) -> subprocess.Popen[str]:  # started, not waited for
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "mono_depth_ros.depth_video", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        preexec_fn=limited,
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(
    tmp_path: Path, network: Path, suffix: str
) -> None:
    bag = write(tmp_path / "in", recording(30))
    process = command(*argv(bag, network, "--out", tmp_path / f"out{suffix}"), limit=3_000_000)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    lines = [line for line in errors.splitlines() if "message" not in line]
    assert len(lines) == 1, errors
    assert f"out{suffix}: cannot be written (" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, network: Path) -> None:
    bag = write(tmp_path / "in", recording(1000))
    process = command(*argv(bag, network, "--out", tmp_path / "out.mcap"))
    deadline = time.monotonic() + 30
    while not [path for path in tmp_path.glob(".out*/*/*.mcap") if path.stat().st_size > 10**6]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1].endswith("out.mcap was not written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bag", "b"], "--bag needs --out, --compare, or both"),
        (["video.mp4", "--bag", "b"], "give a source, or --bag"),
        ([], "give a source, or --bag"),
        (["video.mp4", "--compare", "/depth"], "--compare needs --bag"),
        (["--bag", "b", "--out", "o", "--depth-png"], "--depth-png is not for --bag"),
        (["--bag", "b", "--out", "o", "--stride", "0"], "0 is not at least 1"),
    ],
)
def test_options_that_make_no_sense(
    capfd: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(options)
    assert exit_.value.code == 2
    assert message in capfd.readouterr().err


# -- against measured depth ------------------------------------------------------------------------


def with_depth(
    true: list[float],
    kind: str = "16UC1",
    offset: int = 0,
    frame_id: str = FRAME,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    early: bool = False,
) -> list[Item]:
    """The recording, and depth of `true[i]` metres on /depth, before or after its image."""
    items = recording(len(true))
    for i, metres in enumerate(true):
        at = stamp(i) + offset
        mm = np.full(size[::-1], round(metres * 1000), np.uint16)
        if kind == "32FC1":
            message = picture(at, (mm / 1000).astype(np.float32), kind, frame_id)
        elif kind == "16UC1":
            message = picture(at, mm, kind, frame_id)
        else:
            message = compressed(at, mm, kind)
        items.append(("/depth", message, at + (1 if early else 250_000_000)))
    return sorted(items, key=lambda item: item[2])


@storages
@pytest.mark.parametrize("kind", ["16UC1", "32FC1", "16UC1; compressedDepth png"])
@pytest.mark.parametrize("early", [False, True])
def test_comparison_has_the_errors_of_each_band(
    tmp_path: Path,
    network: Path,
    capfd: pytest.CaptureFixture[str],
    storage: StoragePlugin,
    kind: str,
    early: bool,
) -> None:
    # Estimates are 1.0, 1.4, 1.8, 2.2 m.
    true = [0.8, 1.4, 1.2, 5.5]
    bag = write(tmp_path / "in", with_depth(true, kind, offset=3_000_000, early=early), storage)
    figures = run(bag, network, "--compare", "/depth")["comparison"]
    assert (figures["matched"], figures["compared"]) == (4, 4)
    assert figures["median_offset_ms"] == 3.0
    pixels_ = WIDTH * HEIGHT
    bands = {band["near"]: band for band in figures["bands"]}
    assert [band["pixels"] for band in bands.values()] == [pixels_, 2 * pixels_, 0, pixels_, 0, 0]
    near, middle, far = bands[0], bands[1], bands[4]
    assert near["abs_rel"] == pytest.approx(0.25, rel=1e-4)
    assert near["bias"] == pytest.approx(1.25, rel=1e-3)
    assert middle["abs_rel"] == pytest.approx(0.25, rel=1e-4)
    assert middle["rmse"] == pytest.approx((0.36 / 2) ** 0.5, rel=1e-4)
    assert middle["delta1"] == 0.5
    assert far["rmse"] == pytest.approx(3.3, rel=1e-4)
    assert bands[2]["bias"] is None
    assert figures["frames_scaled_by_median"]["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert figures["scale"]["median"] == pytest.approx((1.0 + 1.25) / 2, rel=1e-4)
    # Of the first three frames' sectors, those of the third are seen 0.6 m too far, and the
    # fourth's are seen at 2.2 m, where nothing is counted.
    obstacles = figures["obstacles"]
    assert (obstacles["real"], obstacles["missed"]) == (3 * 64, 64)
    assert (obstacles["estimated"], obstacles["false"]) == (3 * 64, 0)
    printed = capfd.readouterr().out
    assert "| 4 to 6 m " in printed
    assert "| 2 to 4 m " not in printed
    assert "64 of 192 (33.3%)" in printed
    assert "no single factor mends" in printed


def test_copy_and_comparison_in_one_run(tmp_path: Path, network: Path) -> None:
    bag = write(tmp_path / "in", with_depth([1.0, 1.4]))
    figures = run(bag, network, "--out", tmp_path / "out", "--compare", "/depth")
    assert figures["comparison"]["overall"]["abs_rel"] == pytest.approx(0, abs=1e-5)
    assert depths(tmp_path / "out") == pytest.approx([1.0, 1.4], rel=1e-5)


def test_smaller_depth_of_the_same_view_is_resampled(tmp_path: Path, network: Path) -> None:
    bag = write(tmp_path / "in", with_depth([1.0, 1.4], size=(WIDTH // 2, HEIGHT // 2)))
    figures = run(bag, network, "--compare", "/depth")["comparison"]
    assert figures["overall"]["pixels"] == 2 * WIDTH * HEIGHT
    assert figures["overall"]["abs_rel"] == pytest.approx(0, abs=1e-5)


def test_measured_depth_is_rectified_with_the_image(tmp_path: Path, network: Path) -> None:
    lens = (0.3, 0.05, 0.0, 0.0, 0.0)
    mm = np.full((HEIGHT, WIDTH), 1000, np.uint16)
    mm[: HEIGHT // 3] = 4000
    items: list[Item] = [
        ("/camera/image_raw", picture(START, red(25)), START),
        ("/camera/camera_info", info(START, d=lens), START),
        ("/depth", picture(START, mm, "16UC1"), START),
    ]
    # A single frame has no period, and only equal stamps match.
    figures = run(write(tmp_path / "in", items), network, "--compare", "/depth")["comparison"]
    k = (100.0, 0.0, (WIDTH - 1) / 2, 0.0, 100.0, (HEIGHT - 1) / 2, 0.0, 0.0, 1.0)
    view = View(Calibration(WIDTH, HEIGHT, k, lens, "plumb_bob"))
    truth = view.rectify_depth((mm / 1000).astype(np.float32))
    counts = [int(np.count_nonzero(truth == z)) for z in (1.0, 4.0)]
    bands = {band["near"]: band["pixels"] for band in figures["bands"]}
    assert [bands[1], bands[4]] == counts


def test_depth_of_another_camera_is_refused(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bag = write(tmp_path / "in", with_depth([1.0, 1.4], frame_id="depth_frame"))
    text = fault(capfd, bag, network, "--compare", "/depth")
    assert "in the frame 'depth_frame'" in text
    assert "align_depth.enable:=true" in text
    bag = write(tmp_path / "cut", with_depth([1.0, 1.4], size=(WIDTH, HEIGHT // 2)))
    text = fault(capfd, bag, network, "--compare", "/depth")
    assert "/camera/image_raw is 128x96, /depth 128x48, which is another view" in text
    text = fault(capfd, bag, network, "--compare", "/nothing")
    assert "has no images on /nothing; depth it has: /depth" in text
    text = fault(capfd, bag, network, "--compare", "/camera/image_raw")
    assert "/camera/image_raw (rgb8) is not depth" in text


def run_warnings(capfd: pytest.CaptureFixture[str], bag: Path, network: Path) -> str:
    capfd.readouterr()
    main(argv(bag, network, "--compare", "/depth"))
    return capfd.readouterr().err


def test_stamps_that_are_apart_are_told_with_the_remedy(
    tmp_path: Path, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    late = write(tmp_path / "late", with_depth([1.0] * 4, offset=40_000_000))
    text = run_warnings(capfd, late, network)
    assert "is stamped +40.0 ms from the images" in text
    assert "enable_sync:=true" in text
    never = write(tmp_path / "never", with_depth([1.0] * 4, offset=3 * 10**9))
    text = fault(capfd, never, network, "--compare", "/depth")
    assert "stamped within 50.0 ms of it" in text
    begins_late = write(tmp_path / "begins_late", with_depth([1.0] * 6, offset=3 * 10**8))
    assert "only 3 of 6 images" in run_warnings(capfd, begins_late, network)
    every_second = [
        item for item in with_depth([1.0] * 6) if item[0] != "/depth" or item[2] // 10**8 % 2
    ]
    half_rate = write(tmp_path / "half_rate", every_second)
    figures = run(half_rate, network, "--compare", "/depth")["comparison"]
    assert (figures["matched"], figures["depth_images"]) == (3, 3)
    assert "only" not in run_warnings(capfd, half_rate, network)
