"""Every transition of the node, its parameters between them, and its end: over DDS."""

from __future__ import annotations

import ctypes
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import pytest
from dds import Peer
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_rig import OWN_DOMAIN, SHARED_DOMAIN, Rig, assert_depth, flat
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mono_depth_ros.engines import open_engine
from mono_depth_ros.messages import depth_to_array
from mono_depth_ros.node import DepthNode
from mono_depth_ros.parameters import PARAMETERS
from mono_depth_ros.ros_process import RosProcess

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
UNCONFIGURED, INACTIVE = State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE
ACTIVE, FINALIZED = State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_FINALIZED
# What a process that was taken apart from under a thread leaves in its output.
CRASHES = ("Traceback", "terminate called", "core dumped", "Segmentation", "Fatal Python")
# A signal ends the node within this long.
LEAVES_S = 2.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(networks.red_channel(tmp_path_factory.mktemp("model") / "red.onnx"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, model: str) -> Iterator[Rig]:
    log = tmp_path_factory.mktemp("node") / "log.txt"
    rig = Rig(log, SHARED_DOMAIN, model=model, max_depth=20.0, autostart=False)
    yield rig
    rig.close()


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    """A node that is unconfigured, and is left so."""
    assert shared.state() == UNCONFIGURED
    yield shared
    while (state := shared.state()) != UNCONFIGURED:
        assert shared.change_state({ACTIVE: DEACTIVATE, INACTIVE: CLEANUP}[state])


@pytest.fixture
def start(tmp_path: Path, model: str) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def made(**options: Any) -> Rig:
        options = {"model": model, "max_depth": 20.0, **options}
        rigs.append(Rig(tmp_path / f"log{len(rigs)}.txt", OWN_DOMAIN, **options))
        return rigs[-1]

    yield made
    for rig in rigs:
        rig.close()


# Transitions


def test_five_rounds_under_frames_and_another_transport_each(rig: Rig) -> None:
    ok, png = cv2.imencode(".png", flat(100)[..., ::-1])
    assert ok
    compressed = rig.peer.node.create_publisher(
        CompressedImage, "image_raw/compressed", qos_profile_sensor_data
    )

    def frame() -> None:
        rig.frame(flat(100))
        header = rig.header()
        header.stamp.sec -= 1  # that of the calibration
        compressed.publish(CompressedImage(header=header, format="png", data=png.tobytes()))

    camera = rig.peer.node.create_timer(1 / 30, frame)
    rig.peer.hear(Image, "depth/image_rect")
    heard = rig.peer.heard["depth/image_rect"]
    for i in range(5):
        transport = ("raw", "compressed")[i % 2]
        used, unused = (rig.image, compressed)[:: 1 if transport == "raw" else -1]
        assert rig.set(image_transport=transport) == (True, "")
        assert rig.change_state(CONFIGURE) and rig.state() == INACTIVE
        rig.peer.wait(lambda: rig.peer.node.count_publishers("depth/image_rect"), "publisher")
        assert heard == []
        assert rig.change_state(ACTIVATE) and rig.state() == ACTIVE
        rig.peer.wait(lambda: len(heard) > 3, "depth", rig.process)
        assert used.get_subscription_count() == 1 and unused.get_subscription_count() == 0
        assert_depth(heard[-1], 100)
        assert rig.change_state(DEACTIVATE) and rig.state() == INACTIVE
        for publisher in (used, rig.info):
            _wait_until_unheard(rig, publisher)
        heard.clear()
        assert rig.change_state(CLEANUP) and rig.state() == UNCONFIGURED
        rig.peer.wait(lambda: not rig.peer.node.count_publishers("depth/image_rect"), "silence")
        assert heard == []
    rig.peer.node.destroy_timer(camera)
    rig.peer.node.destroy_publisher(compressed)
    rig.peer.ignore("depth/image_rect")
    assert rig.set(image_transport="raw") == (True, "")


def _wait_until_unheard(rig: Rig, publisher: Any) -> None:
    rig.peer.wait(lambda: publisher.get_subscription_count() == 0, "end of a subscription")


def test_activate_and_deactivate_repeat_without_a_new_model(rig: Rig) -> None:
    rig.peer.hear(Image, "depth/image_rect")
    assert rig.change_state(CONFIGURE)
    loads = rig.process.output().count("model: ")
    for red in (60, 80, 100):
        assert rig.change_state(ACTIVATE)
        assert_depth(rig.see(flat(red)), red)
        assert rig.change_state(DEACTIVATE)
    assert rig.process.output().count("model: ") == loads
    rig.peer.ignore("depth/image_rect")


def test_transitions_that_a_state_does_not_have_are_refused_and_change_nothing(rig: Rig) -> None:
    every = {CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, 255}
    every |= {Transition.TRANSITION_INACTIVE_SHUTDOWN, Transition.TRANSITION_ACTIVE_SHUTDOWN}
    every |= {Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, Transition.TRANSITION_ON_ERROR_SUCCESS}
    for state, step, leaves in (
        (UNCONFIGURED, None, {CONFIGURE, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN}),
        (INACTIVE, CONFIGURE, {ACTIVATE, CLEANUP, Transition.TRANSITION_INACTIVE_SHUTDOWN}),
        (ACTIVE, ACTIVATE, {DEACTIVATE, Transition.TRANSITION_ACTIVE_SHUTDOWN}),
    ):
        assert step is None or rig.change_state(step)
        for transition in every - leaves:
            assert not rig.change_state(transition)
            assert rig.state() == state
    request = ChangeState.Request(transition=Transition(label="explode"))
    assert not rig.peer.call(ChangeState, "mono_depth/change_state", request).success
    rig.peer.hear(Image, "depth/image_rect")
    assert_depth(rig.see(flat(100)), 100)
    rig.peer.ignore("depth/image_rect")


def test_shutdown_from_every_state_ends_one_camera_and_no_other(start: Callable[..., Rig]) -> None:
    names = ("raw", "loaded", "running", "other")
    arguments = [word for name in names for word in ("--camera", name)]
    rig = start(arguments=arguments, autostart=False)

    def change(name: str, label: str) -> bool:
        request = ChangeState.Request(transition=Transition(label=label))
        answer = rig.peer.call(ChangeState, f"{name}/mono_depth/change_state", request)
        return bool(answer.success)

    for name, transitions in (
        ("loaded", ("configure",)),
        ("running", ("configure", "activate")),
        ("other", ("configure", "activate")),
    ):
        assert all(change(name, label) for label in transitions)
    for name in names[:3]:
        assert change(name, "shutdown")
        response = rig.peer.call(GetState, f"{name}/mono_depth/get_state", GetState.Request())
        assert response.current_state.id == FINALIZED
        assert not change(name, "configure")
    # They shared an engine with it, and a thread.
    rig.image = rig.peer.node.create_publisher(Image, "other/image_raw", qos_profile_sensor_data)
    rig.info = rig.peer.node.create_publisher(
        CameraInfo, "other/camera_info", qos_profile_sensor_data
    )
    rig.hear(Image, "other/depth/image_rect")
    assert_depth(rig.see(flat(100), "other/depth/image_rect"), 100)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"model": "/nowhere/red.onnx"}, ("/nowhere/red.onnx", "no such model file")),
        ({"profile": "zed", "camera_name": "1 bad"}, ("camera_name '1 bad'", "letter")),
        ({"model": "{log}"}, ("log.txt", "not an ONNX file")),
        ({"engine": "tensorrt", "precision": "int8", "model": "/"}, ("/", "model")),
        ({"cache_dir": "~nobody-of-this-name/cache"}, ("cache_dir", "~nobody-of-this-name")),
    ],
    ids=["no model", "camera name", "no onnx", "folder", "no such home"],
)
def test_a_configuration_that_fails_says_why_and_can_be_mended(
    rig: Rig, model: str, bad: dict[str, str], words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "log.txt").write_text("no network")
    values = {name: value.format(log=tmp_path / "log.txt") for name, value in bad.items()}
    assert rig.set(**values) == (True, "")
    before = len(rig.process.output())
    # Twice: the second time says it again, and nothing is left of the first.
    for _ in range(2):
        assert not rig.change_state(CONFIGURE)
        assert rig.state() == UNCONFIGURED
    reason = rig.status(DiagnosticStatus.ERROR, *words).message
    log = rig.process.output()[before:]
    assert log.count(reason) == 2 and "\n" not in reason and "rror processing" not in log
    assert rig.peer.node.count_publishers("points") == 0
    good = {"profile": "generic", "camera_name": "", "model": model, "cache_dir": ""}
    assert rig.set(**good, engine="auto", precision="auto") == (True, "")
    assert rig.change_state(CONFIGURE)
    rig.status(DiagnosticStatus.OK, "activate")


def test_a_cache_that_cannot_be_written_costs_the_cache_and_not_depth(
    rig: Rig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert rig.set(cache_dir=str(tmp_path / "file" / "cache")) == (True, "")
    assert rig.change_state(CONFIGURE) and rig.change_state(ACTIVATE)
    rig.peer.hear(Image, "depth/image_rect")
    assert_depth(rig.see(flat(100)), 100)
    rig.peer.ignore("depth/image_rect")
    assert rig.change_state(DEACTIVATE) and rig.change_state(CLEANUP)
    assert rig.set(cache_dir="") == (True, "")


# Parameters


def test_what_is_read_when_the_node_is_configured_changes_only_while_it_is_not(rig: Rig) -> None:
    fixed = [spec for spec in PARAMETERS if not (spec.live or spec.reloadable)]
    assert {"profile", "image_transport", "cache_dir"} <= {spec.name for spec in fixed}
    others: dict[str, Any] = {}
    for spec in fixed:
        other = next((choice for choice in spec.choices if choice != spec.default), "other")
        others[spec.name] = (not spec.default) if isinstance(spec.default, bool) else other
    assert rig.change_state(CONFIGURE)
    for name, value in others.items():
        ok, reason = rig.set(**{name.replace(".", "__"): value})
        # It stays out of the way where it says what is so already: autostart is false here.
        assert ok == (name == "autostart" and value is False)
        assert ok or (name in reason and "unconfigured" in reason)
    assert rig.change_state(CLEANUP)
    old = {name: rig.get(name) for name in others}
    assert rig.set(**others) == (True, "")
    kinds = {1: "bool_value", 4: "string_value"}
    assert rig.set(**{name: getattr(v, kinds[v.type]) for name, v in old.items()}) == (True, "")


def test_every_parameter_describes_what_it_takes(rig: Rig) -> None:
    request = DescribeParameters.Request(names=[spec.name for spec in PARAMETERS])
    answer = rig.peer.call(DescribeParameters, "mono_depth/describe_parameters", request)
    assert len(answer.descriptors) == len(PARAMETERS)
    for spec, descriptor in zip(PARAMETERS, answer.descriptors, strict=True):
        assert descriptor.name == spec.name and descriptor.description and not descriptor.read_only
        if isinstance(spec.default, str):
            for choice in spec.choices:
                assert choice in descriptor.additional_constraints
        elif not isinstance(spec.default, bool):
            ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
            assert [(r.from_value, r.to_value) for r in ranges] == [(spec.minimum, spec.maximum)]
            assert spec.unit == "" or f"[{spec.unit}]" in descriptor.description
        if not spec.live:
            assert "configured" in descriptor.additional_constraints
        assert ("reload_model" in descriptor.additional_constraints) == spec.reloadable
        # Only a switch may be given as a word or as a truth value.
        assert descriptor.dynamic_typing == (spec.name == "rectify")


def test_a_set_of_parameters_is_taken_as_a_whole_or_not_at_all(rig: Rig) -> None:
    assert rig.change_state(CONFIGURE) and rig.change_state(ACTIVATE)
    rig.peer.hear(Image, "depth/image_rect")
    names = ("min_depth", "max_depth", "cloud__min_range", "cloud__max_range", "aspect", "rectify")
    before = [rig.get(name.replace("__", ".")) for name in names]
    for change, words in (
        ({"max_depth": 0.2, "cloud__stride": 65}, ("cloud.stride",)),
        ({"max_depth": 0.2, "aspect": "squeeze"}, ("aspect", "letterbox")),
        ({"max_depth": 0.2, "cloud__min_range": 7.0, "cloud__max_range": 6.0}, ("min_range",)),
        ({"max_depth": 0.2, "rectify": 3}, ("rectify", "auto, on, off")),
        ({"max_depth": 0.2, "profile": "zed"}, ("profile", "unconfigured")),
        ({"max_depth": 0.2, "scan__max_height": 0.05}, ("scan.min_height",)),
        ({"max_depth": 0.2, "min_depth": "near"}, ("type",)),
        ({"max_depth": 0.2, "use_sim_time": "perhaps"}, ("type",)),
        ({"max_depth": 0.2, "no_such_parameter": 1}, ()),
    ):
        ok, reason = rig.set(**change)
        assert not ok and all(word in reason for word in words), (change, reason)
        assert [rig.get(name.replace("__", ".")) for name in names] == before
    # At 0.2 m it would all be +Inf.
    assert_depth(rig.see(flat(100)), 100)
    # Either alone would be refused.
    assert rig.set(min_depth=30.0, max_depth=40.0) == (True, "")
    assert np.isneginf(depth_to_array(rig.see(flat(100)))).all()
    assert rig.set(min_depth=0.1, max_depth=20.0) == (True, "")
    rig.peer.ignore("depth/image_rect")


def test_requests_that_make_no_sense_are_refused_and_the_node_goes_on(rig: Rig) -> None:
    refused = [
        ParameterValue(type=77),
        ParameterValue(type=ParameterType.PARAMETER_NOT_SET),
        ParameterValue(type=ParameterType.PARAMETER_DOUBLE_ARRAY, double_array_value=[1.0]),
        ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=float("inf")),
    ]
    client = rig.peer.node.create_client(SetParameters, "mono_depth/set_parameters")
    rig.peer.wait(client.service_is_ready, "service")
    for value in refused:
        for name in ("max_depth", "rectify", "cloud.stride", "", "no such \0 name"):
            client.call_async(SetParameters.Request(parameters=[Parameter(name=name, value=value)]))
    assert rig.get("max_depth").double_value == 20.0
    assert rig.get("rectify").string_value == "auto"
    assert rig.get("cloud.stride").integer_value == 1
    assert rig.state() == UNCONFIGURED
    rig.peer.node.destroy_client(client)


def test_rectify_takes_words_and_truth_values(rig: Rig) -> None:
    assert rig.change_state(CONFIGURE) and rig.change_state(ACTIVATE)
    rig.peer.hear(Image, "depth/image_rect")

    def distort(info: CameraInfo) -> None:
        info.d = [0.4, 0.1, 0.0, 0.0, 0.0]

    # Rectified, this lens leaves corners without an image.
    for value, rectified in (
        ("off", False),
        (True, True),
        (False, False),
        ("auto", True),
        ("off", False),
        ("on", True),
    ):
        assert rig.set(rectify=value) == (True, "")
        depth = depth_to_array(rig.see(flat(100), change=distort))
        assert np.isnan(depth[0, 0]) == rectified and np.isfinite(depth[120, 160]), value
    for wrong in ("yes", "", 1, 1.0):
        ok, reason = rig.set(rectify=wrong)
        assert not ok and "auto, on, off" in reason
    assert rig.set(rectify="auto") == (True, "")
    rig.peer.ignore("depth/image_rect")


def test_a_parameter_file_with_wildcards_and_yaml_switches(
    start: Callable[..., Rig], tmp_path: Path
) -> None:
    file = tmp_path / "depth.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    rectify: off\n    scan: {max_height: 1.5}\n"
        "/**/mono_depth:\n  ros__parameters:\n    max_depth: 19.0\n"
        "/elsewhere/mono_depth:\n  ros__parameters:\n    max_depth: 3.0\n"
    )
    rig = start(arguments=("--ros-args", "--params-file", str(file), "--"), min_depth=0.2)
    rig.active()
    rectify = rig.get("rectify")
    assert rectify.type == ParameterType.PARAMETER_BOOL and not rectify.bool_value
    assert rig.get("scan.max_height").double_value == 1.5
    # Whose name says more comes first.
    assert rig.get("max_depth").double_value == 19.0
    assert rig.get("min_depth").double_value == 0.2

    def distort(info: CameraInfo) -> None:
        info.d = [0.4, 0.1, 0.0, 0.0, 0.0]

    rig.hear(Image, "depth/image_rect")
    assert_depth(rig.see(flat(100), change=distort), 100)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_depth": -1.0}, ("max_depth",)),
        ({"max_depth": 5}, ("max_depth", "DOUBLE")),
        ({"min_depth": 5.0, "max_depth": 2.0}, ("min_depth: 5.0", "max_depth 2.0")),
        ({"rectify": "maybe"}, ("rectify", "auto, on, off")),
        ({"arguments": ("--camera", "1bad")}, ("1bad",)),
        ({"arguments": ("--camera", "a", "--camera", "a")}, ("/a/mono_depth", "namespace")),
        ({"arguments": ("--ros-args", "--params-file", "/nowhere.yaml", "--")}, ("nowhere.yaml",)),
    ],
    ids=["range", "type", "order", "choice", "namespace", "namesakes", "file"],
)
def test_a_start_that_cannot_be_is_one_line_and_a_status(
    tmp_path: Path, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    process = RosProcess("mono_depth_ros.node", OWN_DOMAIN, tmp_path / "log.txt", **options)
    assert process.popen.wait(20) == 1
    output = process.output()
    (line,) = [line for line in output.splitlines() if line.startswith("depth_node: ")]
    assert all(word in line for word in words), line
    assert not any(crash in output for crash in CRASHES), output


# Signals


def test_a_refused_transition_is_answered_where_rclpy_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_humble(self: LifecycleNode, transition: int) -> TransitionCallbackReturn:
        self._state_machine.trigger_transition_by_id(transition, True)
        raise AssertionError("nothing leads from here")

    monkeypatch.setattr(LifecycleNode, "_LifecycleNodeMixin__change_state", of_humble)
    with Peer(OWN_DOMAIN) as peer:
        node = DepthNode(context=peer.context)
        try:
            peer.executor.add_node(node)
            request = ChangeState.Request()
            request.transition.id = ACTIVATE
            # The state of a node that was never configured has none.
            assert not peer.call(ChangeState, "mono_depth/change_state", request).success
        finally:
            node.destroy_node()


def _has_signal(task: Path, kind: str, number: signal.Signals) -> bool:
    """Whether a process or thread has a signal among those that it handles ("SigCgt"), or blocks
    ("SigBlk").
    """
    status = (task / "status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith(kind))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


def _end(process: RosProcess, *numbers: signal.Signals) -> float:
    """Signals a process; it must end with status 0 and without a crash. Returns how long it took,
    seconds.
    """
    started = time.monotonic()
    for number in numbers:
        if process.running():
            process.popen.send_signal(number)
            time.sleep(0.01)
    assert process.popen.wait(30) == 0, process.output()
    duration = time.monotonic() - started
    assert not any(crash in process.output() for crash in CRASHES), process.output()
    return duration


SIGNALS = [
    (signal.SIGINT,),
    (signal.SIGTERM,),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGINT, signal.SIGTERM, signal.SIGTERM),
]


@pytest.mark.parametrize("numbers", SIGNALS, ids=["INT", "TERM", "INT INT", "INT TERM TERM"])
def test_a_signal_while_everything_is_published(
    start: Callable[..., Rig], numbers: tuple[signal.Signals, ...]
) -> None:
    rig = start(disparity_baseline=0.1, camera_height=1.0)
    rig.hear_all()
    rig.stream(flat(100))
    heard = rig.peer.heard["points"]
    rig.peer.wait(lambda: len(heard) > 3, "points", rig.process)
    _end(rig.process, *numbers)


def test_a_signal_that_another_thread_gets(start: Callable[..., Rig]) -> None:
    rig = start()
    rig.active()
    pid = rig.process.popen.pid
    # Linux mostly gives the signals of a process to its main thread, but not always.
    other = next(
        int(task.name)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if int(task.name) != pid and not _has_signal(task, "SigBlk", signal.SIGTERM)
    )
    assert ctypes.CDLL(None).tgkill(pid, other, signal.SIGTERM) == 0
    _end(rig.process)


def _busy_network(folder: Path, seconds: float) -> Path:
    """A network that takes about so long on this machine."""
    trial = open_engine(networks.slow(folder / "trial.onnx", 50))
    durations = []
    for _ in range(3):
        started = time.monotonic()
        trial.infer(np.zeros((networks.HEIGHT, networks.WIDTH, 3), np.uint8))
        durations.append(time.monotonic() - started)
    return networks.slow(folder / "slow.onnx", round(50 * seconds / min(durations)))


@pytest.mark.slow
def test_a_signal_does_not_wait_for_a_long_frame(start: Callable[..., Rig], tmp_path: Path) -> None:
    rig = start(model=str(_busy_network(tmp_path, 4.0)))
    rig.active()
    rig.hear(Image, "depth/image_rect")
    heard = rig.peer.heard["depth/image_rect"]
    rig.peer.wait(lambda: rig.image.get_subscription_count(), "subscription", rig.process)
    stamp = rig.frame(flat(100))
    rig.peer.spin(0.5)
    _end(rig.process, signal.SIGTERM)
    rig.peer.spin(0.2)
    assert stamp not in [message.header.stamp.sec for message in heard]
    assert "without finishing" in rig.process.output()


@pytest.mark.slow
def test_signals_at_any_moment_while_it_is_configured(tmp_path: Path) -> None:
    # It takes some time to compile this one.
    model = networks.slow(tmp_path / "large.onnx", 200)
    rng = random.Random(0)
    durations = []
    for i in range(20):
        process = RosProcess("mono_depth_ros.node", OWN_DOMAIN, tmp_path / "log.txt", model=model)
        while not _has_signal(Path(f"/proc/{process.popen.pid}"), "SigCgt", signal.SIGTERM):
            assert process.running(), process.output()
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.8))
        durations.append(_end(process, *SIGNALS[i % 4]))
    assert max(durations) < LEAVES_S, durations


@pytest.mark.slow
@pytest.mark.parametrize(("listened_to", "times"), [(False, 8), (True, 20)], ids=["idle", "frames"])
def test_signals_at_any_moment_while_it_runs(
    tmp_path: Path, model: str, listened_to: bool, times: int
) -> None:
    rng = random.Random(listened_to)
    durations = []
    for i in range(times):
        options: dict[str, Any] = {"disparity_baseline": 0.1, "camera_height": 1.0}
        rig = Rig(tmp_path / "log.txt", OWN_DOMAIN, model=model, **options)
        rig.stream(flat(100))
        if listened_to:
            rig.hear_all()
            heard = rig.peer.heard["points"]
            rig.peer.wait(heard.__len__, "points", rig.process)
        else:
            rig.active()
        rig.peer.spin(rng.uniform(0, 0.3))
        durations.append(_end(rig.process, *SIGNALS[i % 4]))
        rig.close()
    assert max(durations) < LEAVES_S, durations
