"""Engines that change while the node runs: a real node, frames over DDS, real builds in processes
of their own, on the GPU of `host_tensorrt`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from gpu_fixture import gpu_environment
from node_rig import CAMERA, OWN_DOMAIN, SCALE, Rig, assert_depth, flat
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from mono_depth_ros.messages import camera_info_message, depth_to_array, image_message

PERIOD_S = 0.1


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def started(model: Path, **parameters: Any) -> Rig:
        log = tmp_path / f"log{len(rigs)}.txt"
        parameters = {"max_depth": 20.0, "cache_dir": tmp_path / "cache", **parameters}
        rigs.append(Rig(log, OWN_DOMAIN, model=model, **parameters))
        rigs[-1].active()
        rigs[-1].hear(Image, "depth/image_rect")
        return rigs[-1]

    yield started
    for rig in rigs:
        if rig.process.running():
            rig.close()


def gpu(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    for name, value in gpu_environment(**options).items():
        monkeypatch.setenv(name, value)


def status(rig: Rig) -> DiagnosticStatus | None:
    heard = rig.peer.heard["/diagnostics"]
    return heard[-1].status[0] if heard else None


def value(rig: Rig, key: str) -> str:
    found = status(rig)
    entries = {entry.key: entry.value for entry in found.values} if found else {}
    return str(entries.get(key, ""))


def stream(rig: Rig, until: Callable[[], Any], red: int = 100) -> list[Image]:
    """A camera at 10 Hz until something holds; returns the answers to all of its frames."""
    heard = rig.peer.heard["depth/image_rect"]
    assert_depth(rig.see(flat(red)), red)
    rig.peer.spin(0.5)
    heard.clear()
    sent = []
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end and rig.process.running(), rig.process.output()
        header = rig.header()
        sent.append(header.stamp.sec)
        rig.send(image_message(flat(red), "rgb8", header), camera_info_message(CAMERA, header))
        rig.peer.spin(PERIOD_S)
    rig.peer.wait(lambda: len(heard) >= len(sent), "the last answers", rig.process)
    # Every frame once, in order.
    assert [message.header.stamp.sec for message in heard] == sent
    return list(heard)


def test_depth_flows_while_tensorrt_builds_and_takes_over_without_a_lost_frame(
    start: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, build_s=4.0)
    rig = start(networks.red_channel(tmp_path / "red.onnx"))
    engines: list[str] = []
    builds: list[str] = []

    def taken_over() -> bool:
        engines.append(value(rig, "engine").split(" ")[0])
        builds.append(value(rig, "engine_build"))
        return engines[-1] == "tensorrt"

    answers = stream(rig, taken_over)
    for message in answers:
        assert_depth(message, 100)
    assert set(filter(None, engines)) == {"openvino", "tensorrt"} and len(answers) > 10
    assert any("building the TensorRT engine of red.onnx" in text for text in builds)
    found = status(rig)
    # The rig's stamps are of 1970; there is nothing else to warn of.
    assert found is not None and found.message.startswith("images are stamped")
    output = rig.process.output()
    assert "% (Measuring kernels)" in output and "takes over" in output
    assert_depth(rig.see(flat(150)), 150)
    rig.close()
    # The next start loads it at once.
    again = start(networks.red_channel(tmp_path / "red.onnx"))
    again.peer.wait(lambda: value(again, "engine"), "diagnostics", again.process)
    assert value(again, "engine").startswith("tensorrt 10.3.0 Host GPU")
    assert_depth(again.see(flat(150)), 150)


def test_a_build_that_fails_is_a_warning_with_its_cause(
    start: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, fail={"build_serialized_network": 0})
    rig = start(networks.red_channel(tmp_path / "red.onnx"))

    def warned() -> bool:
        found = status(rig)
        return (
            found is not None and found.level == DiagnosticStatus.WARN and "memory" in found.message
        )

    stream(rig, warned)
    assert "openvino" in value(rig, "engine")
    assert_depth(rig.see(flat(100)), 100)


def test_a_gpu_that_fails_at_work_costs_no_frame(
    start: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch)
    model = networks.red_channel(tmp_path / "red.onnx")
    rig = start(model)
    stream(rig, lambda: value(rig, "engine").startswith("tensorrt"))
    rig.close()
    gpu(monkeypatch, fail={"cudaGraphLaunch": 4})
    rig = start(model)
    answers = stream(rig, lambda: value(rig, "engine").startswith("openvino"))
    for message in answers:
        assert_depth(message, 100)
    found = status(rig)
    assert found is not None and found.level == DiagnosticStatus.WARN
    assert "cudaErrorIllegalAddress" in found.message and "serves" in found.message


def reload_model(rig: Rig) -> Trigger.Response:
    return rig.peer.call(Trigger, "mono_depth/reload_model", Trigger.Request())


def test_a_model_is_swapped_while_frames_flow(start: Callable[..., Rig], tmp_path: Path) -> None:
    rig = start(networks.red_channel(tmp_path / "red.onnx"))
    twice = networks.red_channel(tmp_path / "twice.onnx", 2 * networks.RED_SCALE)
    assert rig.set(model=str(twice)) == (True, "")
    # Not before it is asked for.
    assert_depth(rig.see(flat(50)), 50)
    response = reload_model(rig)
    assert response.success and "twice.onnx" in response.message
    answers = stream(rig, lambda: "takes over" in rig.process.output(), red=50)
    once = 50 * networks.RED_SCALE * SCALE
    means = [float(np.median(depth_to_array(message))) for message in answers]
    np.testing.assert_allclose(means[-1], 2 * once, rtol=1e-4)
    assert all(np.isclose(mean, once) or np.isclose(mean, 2 * once) for mean in means)


def test_a_model_that_cannot_be_used_is_refused_and_depth_goes_on(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = start(networks.red_channel(tmp_path / "red.onnx"))
    assert rig.set(model=str(tmp_path / "nowhere.onnx")) == (True, "")
    response = reload_model(rig)
    assert not response.success and "nowhere.onnx: no such model file" in response.message
    (tmp_path / "bad.onnx").write_bytes(b"no onnx")
    assert rig.set(model=str(tmp_path / "bad.onnx")) == (True, "")
    assert reload_model(rig).success

    def warned() -> bool:
        found = status(rig)
        return found is not None and "reload of bad.onnx is refused" in found.message

    for message in stream(rig, warned):
        assert_depth(message, 100)


def test_a_node_that_is_not_configured_reloads_nothing(
    tmp_path: Path, start: Callable[..., Rig]
) -> None:
    rig = Rig(tmp_path / "log.txt", OWN_DOMAIN, autostart=False)
    try:
        response = reload_model(rig)
        assert not response.success and "not configured" in response.message
    finally:
        rig.close()
