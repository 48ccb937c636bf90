"""Several cameras in one process: each with its own node, all with one engine, and in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from dds import Peer
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from node_rig import CAMERA, HEIGHT, OWN_DOMAIN, SCALE, SHARED_DOMAIN, WIDTH, Camera, flat
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from mono_depth_ros.messages import (
    camera_info_message,
    depth_to_array,
    image_message,
    stamp_ns,
)
from mono_depth_ros.ros_process import RosProcess, process_environment

PARAMETERS = """
/**:
  ros__parameters:
    model: {model}
    max_depth: 20.0
/front/mono_depth:
  ros__parameters:
    cloud.stride: 2
/rear/mono_depth:
  ros__parameters:
    cloud.stride: 4
    depth_encoding: 16UC1
"""


@dataclass(frozen=True)
class Pair:
    """A process with two cameras."""

    process: RosProcess
    peer: Peer
    front: Camera
    rear: Camera

    def status(self, camera: str) -> DiagnosticStatus:
        """What the node of a camera says next."""
        self.peer.heard["/diagnostics"].clear()

        def said() -> Any:
            for array in self.peer.heard["/diagnostics"]:
                if array.status[0].name == f"{camera}/mono_depth: depth":
                    return array.status[0]
            return None

        status: DiagnosticStatus = self.peer.wait(said, f"diagnostics of {camera}", self.process)
        return status


@contextmanager
def start(folder: Path, domain: int, model: Path) -> Iterator[Pair]:
    parameters = folder / "cameras.yaml"
    parameters.write_text(PARAMETERS.format(model=model))
    with Peer(domain) as peer:
        process = RosProcess(
            "mono_depth_ros.node",
            domain,
            folder / "log.txt",
            arguments=(
                *("--camera", "front", "--camera", "rear"),
                *("--ros-args", "--params-file", str(parameters), "--"),
            ),
        )
        peer.hear(DiagnosticArray, "/diagnostics")
        pair = Pair(process, peer, Camera(peer, process, "front"), Camera(peer, process, "rear"))
        try:
            for camera in (pair.front, pair.rear):
                camera.active()
                camera.hear(Image, "depth/image_rect")
            yield pair
        finally:
            assert process.stop() == 0, process.output()
            assert "Traceback" not in process.output()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two cameras that look at walls; tests leave them as they found them."""
    folder = tmp_path_factory.mktemp("cameras")
    with start(folder, SHARED_DOMAIN, networks.red_channel(folder / "red.onnx")) as made:
        yield made


def assert_metres(message: Image, red: int, scale: float = networks.RED_SCALE) -> None:
    depth = depth_to_array(message)
    assert depth.shape == (HEIGHT, WIDTH)
    np.testing.assert_allclose(depth, red * scale * SCALE, atol=0.001)


def send(camera: Camera, red: int, header: Header | None = None) -> Header:
    header = header or camera.header()
    camera.send(image_message(flat(red), "rgb8", header), camera_info_message(CAMERA, header))
    return header


def test_each_camera_gets_the_depth_of_its_own_images(pair: Pair) -> None:
    for red in (50, 100, 150):
        assert_metres(pair.front.see(flat(red)), red)
        assert_metres(pair.rear.see(flat(red + 20)), red + 20)
    nodes = pair.peer.node.get_node_names_and_namespaces()
    assert {("mono_depth", "/front"), ("mono_depth", "/rear")} <= set(nodes)


def test_a_parameter_file_sets_each_camera_apart(pair: Pair) -> None:
    assert pair.front.see(flat(50)).encoding == "32FC1"
    assert pair.rear.see(flat(50)).encoding == "16UC1"
    for camera, columns in ((pair.front, WIDTH // 2), (pair.rear, WIDTH // 4)):
        camera.hear(PointCloud2, "points")
        assert camera.see(flat(50), "points").width == columns
        camera.peer.ignore(("front/" if camera is pair.front else "rear/") + "points")


def test_a_parameter_of_one_camera_is_not_the_others(pair: Pair) -> None:
    assert pair.front.set(max_depth=2.0) == (True, "")
    try:
        assert np.isposinf(depth_to_array(pair.front.see(flat(100)))).all()
        assert_metres(pair.rear.see(flat(100)), 100)
    finally:
        assert pair.front.set(max_depth=20.0) == (True, "")
    assert_metres(pair.front.see(flat(100)), 100)


def test_each_image_of_one_camera_goes_with_its_own_calibration(pair: Pair) -> None:
    twice = CAMERA.scaled(WIDTH * 2, HEIGHT * 2).cropped(WIDTH // 2, HEIGHT // 2, WIDTH, HEIGHT)
    depth = depth_to_array(pair.front.see(flat(100), camera=twice))
    np.testing.assert_allclose(depth, 2 * 100 * networks.RED_SCALE * SCALE, rtol=1e-4)
    assert_metres(pair.rear.see(flat(100)), 100)


def test_the_newest_image_of_each_camera_is_answered_last(pair: Pair) -> None:
    for camera in (pair.front, pair.rear):
        camera.see(flat(100))
        camera.heard().clear()
    for _ in range(30):
        last = {camera: send(camera, 100) for camera in (pair.front, pair.rear)}
    for camera, header in last.items():

        def newest(camera: Camera = camera, stamp: int = stamp_ns(header)) -> bool:
            heard = camera.heard()
            return bool(heard) and stamp_ns(heard[-1].header) == stamp

        pair.peer.wait(newest, "newest image", pair.process)
        stamps = [stamp_ns(message.header) for message in camera.heard()]
        assert stamps == sorted(set(stamps))


def test_one_camera_goes_on_while_the_other_is_not_active(pair: Pair) -> None:
    assert_metres(pair.front.see(flat(60)), 60)
    assert pair.front.change_state(Transition.TRANSITION_DEACTIVATE)
    pair.peer.wait(lambda: pair.front.image.get_subscription_count() == 0, "silence")
    pair.front.heard().clear()
    for red in (70, 80, 90):
        send(pair.front, red)
        assert_metres(pair.rear.see(flat(red)), red)
    assert pair.front.heard() == []
    assert "not active" in pair.status("front").message
    assert pair.front.change_state(Transition.TRANSITION_CLEANUP)
    assert pair.front.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert_metres(pair.rear.see(flat(100)), 100)
    assert pair.front.change_state(Transition.TRANSITION_CONFIGURE)
    assert pair.front.change_state(Transition.TRANSITION_ACTIVATE)
    assert_metres(pair.front.see(flat(110)), 110)


def test_bad_images_of_one_camera_are_its_own_trouble(pair: Pair) -> None:
    assert_metres(pair.front.see(flat(60)), 60)
    pair.peer.heard["/diagnostics"].clear()

    def complaint() -> bool:
        header = pair.front.header()
        image = image_message(flat(60), "rgb8", header)
        image.encoding = "rgb9"
        pair.front.send(image, camera_info_message(CAMERA, header))
        assert_metres(pair.rear.see(flat(120)), 120)
        return any(
            array.status[0].name == "front/mono_depth: depth"
            and array.status[0].level == DiagnosticStatus.ERROR
            and "rgb9" in array.status[0].message
            for array in pair.peer.heard["/diagnostics"]
        )

    pair.peer.wait(complaint, "error of front", pair.process)
    for array in pair.peer.heard["/diagnostics"]:
        if array.status[0].name.startswith("rear"):
            assert array.status[0].level != DiagnosticStatus.ERROR, array.status[0].message
    assert_metres(pair.front.see(flat(60)), 60)


def test_a_camera_without_calibration_does_not_keep_the_other_from_its_depth(pair: Pair) -> None:
    """It waits a moment for one, in the thread that both share."""
    other = CAMERA.scaled(200, 150)
    for red in (100, 110, 120):
        pair.front.image.publish(image_message(flat(60, 200, 150), "rgb8", pair.front.header()))
        assert_metres(pair.rear.see(flat(red)), red)
    message = pair.front.see(flat(60, 200, 150), camera=other)
    assert (message.width, message.height) == (200, 150)
    assert_metres(pair.front.see(flat(60)), 60)


def test_cameras_of_two_sizes_and_shapes_take_turns(pair: Pair) -> None:
    wide = CAMERA.cropped(0, 30, WIDTH, HEIGHT - 60)
    assert pair.front.set(aspect="crop") == (True, "")
    try:
        for red in (60, 70, 80):
            depth = depth_to_array(pair.front.see(flat(red, WIDTH, HEIGHT - 60), camera=wide))
            # 4:3 of 180 rows are 240 columns, resized by 128 / 240.
            scale = networks.RED_SCALE * 260 * networks.WIDTH / 240 / networks.FOCAL
            np.testing.assert_allclose(depth[:, 40:280], red * scale, rtol=1e-4)
            assert np.isnan(depth[:, :40]).all() and np.isnan(depth[:, 280:]).all()
            assert_metres(pair.rear.see(flat(red)), red)
    finally:
        assert pair.front.set(aspect="stretch") == (True, "")


def test_a_slow_camera_gets_its_turn_beside_a_fast_one(tmp_path: Path) -> None:
    with start(tmp_path, OWN_DOMAIN, networks.slow(tmp_path / "slow.onnx", 12)) as pair:
        for camera in (pair.front, pair.rear):
            camera.see(flat(100))
        before = []
        for _ in range(8):
            pair.front.heard().clear()
            stamp = stamp_ns(send(pair.rear, 100))

            def flood(stamp: int = stamp) -> bool:
                send(pair.front, 100)
                return any(stamp_ns(message.header) == stamp for message in pair.rear.heard())

            pair.peer.wait(flood, f"answer to {stamp}", pair.process)
            before.append(len(pair.front.heard()))
        # One that is at work as the image comes, one that is put before it arrives, and one that is
        # heard before the answer.
        assert sorted(before)[len(before) // 2] <= 3 and sum(before) > 0
        stamps = [stamp_ns(message.header) for message in pair.front.heard()]
        assert stamps == sorted(set(stamps))


def reload(camera: Camera) -> tuple[bool, str]:
    answer = camera.call(Trigger, "reload_model", Trigger.Request())
    return answer.success, answer.message


def test_a_shared_engine_is_only_reloaded_for_all_who_share_it(tmp_path: Path) -> None:
    first = networks.red_channel(tmp_path / "red.onnx")
    second = networks.red_channel(tmp_path / "double.onnx", 2 * networks.RED_SCALE)
    with start(tmp_path, OWN_DOMAIN, first) as pair:
        assert pair.front.set(model=str(second)) == (True, "")
        ok, reason = reload(pair.front)
        assert not ok and "/rear/mono_depth" in reason
        for camera in (pair.front, pair.rear):
            assert_metres(camera.see(flat(100)), 100)
        assert pair.rear.set(model=str(second)) == (True, "")
        ok, reason = reload(pair.front)
        assert ok, reason
        for camera in (pair.front, pair.rear):

            def taken_over(camera: Camera = camera) -> bool:
                depth = depth_to_array(camera.see(flat(100)))
                return bool(np.allclose(depth, 200 * networks.RED_SCALE * SCALE, atol=0.001))

            pair.peer.wait(taken_over, "the other model", pair.process)


def test_a_camera_that_is_configured_again_gets_a_model_of_its_own(tmp_path: Path) -> None:
    first = networks.red_channel(tmp_path / "red.onnx")
    second = networks.red_channel(tmp_path / "double.onnx", 2 * networks.RED_SCALE)
    with start(tmp_path, OWN_DOMAIN, first) as pair:
        assert pair.front.set(model=str(second)) == (True, "")
        for transition in (
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
        ):
            assert pair.front.change_state(transition)
        for _ in range(2):
            assert_metres(pair.front.see(flat(100)), 100, 2 * networks.RED_SCALE)
            assert_metres(pair.rear.see(flat(100)), 100)
        # Nobody shares it any more.
        assert pair.front.set(model=str(first)) == (True, "")
        ok, reason = reload(pair.front)
        assert ok, reason


# One engine


def _resident_mib(folder: Path, parameters: Mapping[str, Mapping[str, str]]) -> float:
    """Memory of a process with these cameras, after a frame of each."""
    folder.mkdir()
    file = folder / "cameras.yaml"
    file.write_text(
        json.dumps(
            {f"/{name}/mono_depth": {"ros__parameters": p} for name, p in parameters.items()}
        )
    )
    cameras = [word for name in parameters for word in ("--camera", name)]
    with Peer(OWN_DOMAIN) as peer:
        process = RosProcess(
            "mono_depth_ros.node",
            OWN_DOMAIN,
            folder / "log.txt",
            arguments=(*cameras, "--ros-args", "--params-file", str(file), "--"),
        )
        try:
            for name in parameters:
                camera = Camera(peer, process, name)
                camera.active()
                camera.hear(Image, "depth/image_rect")
                camera.see(flat(100))
            status = Path(f"/proc/{process.popen.pid}/status").read_text()
        finally:
            assert process.stop() == 0, process.output()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_more_cameras_take_no_more_networks_into_memory(tmp_path: Path) -> None:
    names = ("front", "rear", "left", "right")
    # An engine is shared by those whose engines are kept in one folder.
    shared = _resident_mib(tmp_path / "shared", {name: {"engine": "onnx"} for name in names})
    apart = _resident_mib(
        tmp_path / "apart",
        {name: {"engine": "onnx", "cache_dir": str(tmp_path / name)} for name in names},
    )
    one = _resident_mib(tmp_path / "one", {"front": {"engine": "onnx"}})
    print(f"one camera {one:.0f} MiB, four {shared:.0f} MiB, with engines apart {apart:.0f} MiB")
    assert shared - one < (apart - one) / 2


# Names


def failure(*arguments: str) -> str:
    """What the node says as it refuses to start."""
    done = subprocess.run(
        [sys.executable, "-m", "mono_depth_ros.node", *arguments],
        check=False,
        env=process_environment(OWN_DOMAIN),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    # rclpy may have warned of the name before.
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("depth_node: ") and "Traceback" not in done.stderr, done.stderr
    return last


@pytest.mark.parametrize(
    "arguments",
    [
        ("--camera", "front", "--camera", "front"),
        ("--camera", "front", "--camera", "/front"),
        ("--camera", "front", "--camera", "rear", "--ros-args", "-r", "__ns:=/robot"),
    ],
)
def test_two_cameras_of_one_name_are_refused(arguments: tuple[str, ...]) -> None:
    assert "several cameras would be /" in failure(*arguments)


@pytest.mark.parametrize("name", ["a b", "9lives", "front//rear", "front/"])
def test_a_name_that_is_no_namespace_is_refused(name: str) -> None:
    assert name in failure("--camera", name)
