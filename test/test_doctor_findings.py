"""Each finding with its cause, and none without."""

from __future__ import annotations

import ast
import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mono_depth_ros.camera_info import RegionOfInterest
from mono_depth_ros.doctor.finding import Code, Finding
from mono_depth_ros.doctor.findings import findings
from mono_depth_ros.doctor.host import MEETING, Host, Process, is_elsewhere, process_of
from mono_depth_ros.doctor.launch_command import SETTINGS, similar
from mono_depth_ros.doctor.observation import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    DepthNode,
    Endpoint,
    Observation,
    Picture,
    Status,
    Stream,
    Topic,
)
from mono_depth_ros.health import Level

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
PERIOD = SECOND // 30
STAMPS = tuple(START + i * PERIOD for i in range(60))
ARRIVALS = tuple(stamp + 20_000_000 for stamp in STAMPS)


@dataclass
class Region:
    x_offset: int = 0
    y_offset: int = 0
    width: int = 0
    height: int = 0


@dataclass
class Info:
    """The fields of sensor_msgs/CameraInfo."""

    width: int = 640
    height: int = 480
    distortion_model: str = "plumb_bob"
    d: Iterable[float] = (0.1, -0.05, 0.0, 0.0, 0.0)
    k: Iterable[float] = (500.0, 0, 320, 0, 500, 240, 0, 0, 1)
    r: Iterable[float] = (1.0, 0, 0, 0, 1, 0, 0, 0, 1)
    p: Iterable[float] = (500.0, 0, 320, 0, 0, 500, 240, 0, 0, 0, 1, 0)
    binning_x: int = 0
    binning_y: int = 0
    roi: RegionOfInterest = field(default_factory=Region)


CAMERA = Endpoint("/camera/driver", IMAGE, reliable=False)
INFO_CAMERA = Endpoint("/camera/driver", CAMERA_INFO, reliable=False)
IMAGE_INPUT = Topic("/image_raw", (CAMERA,), (Endpoint("/mono_depth", IMAGE, reliable=False),))
INFO_INPUT = Topic(
    "/camera_info", (INFO_CAMERA,), (Endpoint("/mono_depth", CAMERA_INFO, reliable=False),)
)
DEPTH = Topic("/depth/image_rect", (Endpoint("/mono_depth", IMAGE),), (Endpoint("/rviz", IMAGE),))
IMAGES = Stream(IMAGE_INPUT, IMAGE, STAMPS, ARRIVALS, (0,) * 60, "camera_optical_frame")
INFOS = Stream(INFO_INPUT, CAMERA_INFO, STAMPS, ARRIVALS, (0,) * 60, "camera_optical_frame")
VALUES = {
    "latency_ms_p95": "25.0",
    "rate_in_hz": "30",
    "rate_out_hz": "30",
    "frames_skipped": "0",
    "invalid_share": "0.1",
    "engine": "openvino 2026.4 CPU f32",
    "engines_not_taken": "tensorrt: no NVIDIA driver is installed",
}
NODE = DepthNode(
    name="/mono_depth",
    parameters={"use_sim_time": False, "engine": "auto", "fallback_hfov_deg": 0.0},
    image=IMAGES,
    info=INFOS,
    picture=Picture(640, 480, 921_648),
    calibration=Info(),
    outputs=(DEPTH,),
    status=Status(Level.OK, "running", VALUES),
)
HEALTHY = Observation(
    nodes=(NODE,),
    other_nodes=("/camera/driver", "/rviz"),
    camera_topics={"/image_raw": IMAGE, "/camera_info": CAMERA_INFO},
    host=Host(shm_bytes=8 << 30, shm_free_bytes=7 << 30, rmem_max_bytes=212_992),
)
SMALL = Process(71, "usb_cam", {}, segment_bytes=549_408)
LARGE = Process(72, "usb_cam", {}, segment_bytes=70_255_136)
# From body (x forward, z up) to optical (z forward, y down), as quaternion x, y, z, w.
TO_OPTICAL = (-0.5, 0.5, -0.5, 0.5)
NO_TURN = (0.0, 0.0, 0.0, 1.0)


def with_node(**changes: Any) -> Observation:
    return replace(HEALTHY, nodes=(replace(NODE, **changes),))


def with_image(**changes: Any) -> Observation:
    return with_node(image=replace(IMAGES, **changes))


def with_values(**changes: str) -> Observation:
    return with_node(status=Status(Level.OK, "running", {**VALUES, **changes}))


def with_camera(**changes: Any) -> Observation:
    """Its one image publisher."""
    return with_image(topic=replace(IMAGE_INPUT, publishers=(replace(CAMERA, **changes),)))


def sent_by(sender: Endpoint, **changes: Any) -> Stream:
    """Images of one publisher."""
    return replace(IMAGES, topic=replace(IMAGE_INPUT, publishers=(sender,)), **changes)


def with_info(**changes: Any) -> Observation:
    return with_node(calibration=replace(Info(), **changes))


def shifted(stream: Stream, seconds: float) -> Stream:
    """The same messages, stamped so much later."""
    return replace(stream, stamps_ns=tuple(s + int(seconds * SECOND) for s in stream.stamps_ns))


def only(seen: Observation, code: Code, level: Level) -> Finding:
    """The one finding of a system; all others would be false."""
    found = findings(seen)
    assert [(f.code, f.level) for f in found] == [(code, level)], found
    assert found[0].what and found[0].fix
    return found[0]


def test_nothing_is_wrong_with_a_healthy_system() -> None:
    assert findings(HEALTHY) == []


# One line a finding: the system with its cause, its level, and what its text must name.
NOBODY = replace(IMAGE_INPUT, publishers=())
CAUSES: dict[str, tuple[Code, Observation, Level, tuple[str, ...]]] = {
    "no node": (
        Code.NO_NODE,
        replace(HEALTHY, nodes=()),
        Level.ERROR,
        ("image_topic:=/image_raw camera_info_topic:=/camera_info",),
    ),
    "no node of the name that was asked for": (
        Code.NO_NODE,
        replace(HEALTHY, nodes=(), wanted="/rear/mono_depth"),
        Level.ERROR,
        ("/rear/mono_depth", "--node"),
    ),
    "a node on another domain": (
        Code.NO_NODE,
        replace(
            HEALTHY,
            nodes=(),
            host=replace(
                HEALTHY.host,
                environment=MEETING,
                depth_nodes=(Process(9, "depth_node", {"ROS_DOMAIN_ID": "7", "HOME": "/"}),),
            ),
        ),
        Level.ERROR,
        ("process 9", "export ROS_DOMAIN_ID=7"),
    ),
    "a node on another domain and one that has not come up": (
        Code.NO_NODE,
        replace(
            HEALTHY,
            nodes=(),
            host=replace(
                HEALTHY.host,
                environment=MEETING,
                depth_nodes=(
                    Process(8, "depth_node", {"HOME": "/"}),
                    Process(9, "depth_node", {"ROS_DOMAIN_ID": "7"}),
                ),
            ),
        ),
        Level.ERROR,
        ("process 8", "starting"),
    ),
    "a node that has not come up": (
        Code.NO_NODE,
        replace(
            HEALTHY,
            nodes=(),
            host=replace(
                HEALTHY.host,
                environment=MEETING,
                depth_nodes=(Process(9, "depth_node", {"HOME": "/"}),),
            ),
        ),
        Level.ERROR,
        ("process 9", "starting"),
    ),
    "two nodes": (Code.TWO_NODES, with_node(namesakes=1), Level.ERROR, ("2 nodes", "namespace:=")),
    "shut down": (
        Code.NOT_ACTIVE,
        with_node(state="finalized"),
        Level.ERROR,
        ("stop /mono_depth, and start it as it was started",),
    ),
    "no answer": (Code.NODE_SILENT, with_node(state=""), Level.ERROR, ("20 s",)),
    "inactive": (
        Code.NOT_ACTIVE,
        with_node(state="inactive"),
        Level.ERROR,
        ("ros2 lifecycle set /mono_depth activate",),
    ),
    "unconfigured": (
        Code.NOT_ACTIVE,
        with_node(state="unconfigured"),
        Level.ERROR,
        ("ros2 lifecycle set /mono_depth configure && ros2 lifecycle set /mono_depth activate",),
    ),
    "no image publisher": (
        Code.IMAGE_NO_PUBLISHER,
        replace(
            with_image(topic=NOBODY, stamps_ns=()),
            camera_topics={
                "/cam/depth/image_raw": IMAGE,
                "/cam/color/image_raw": IMAGE,
                "/cam/depth/camera_info": CAMERA_INFO,
                "/cam/color/camera_info": CAMERA_INFO,
            },
        ),
        Level.ERROR,
        (
            "nobody publishes /image_raw",
            "image_topic:=/cam/color/image_raw camera_info_topic:=/cam/color/camera_info",
        ),
    ),
    "only compressed images": (
        Code.IMAGE_TRANSPORT,
        replace(
            with_image(topic=NOBODY, stamps_ns=()),
            camera_topics={
                "/image_raw/compressed": COMPRESSED_IMAGE,
                "/camera_info": CAMERA_INFO,
            },
        ),
        Level.ERROR,
        ("image_topic:=/image_raw camera_info_topic:=/camera_info image_transport:=compressed",),
    ),
    "only raw images": (
        Code.IMAGE_TRANSPORT,
        with_image(
            topic=replace(NOBODY, name="/image_raw/compressed"),
            kind=COMPRESSED_IMAGE,
            stamps_ns=(),
        ),
        Level.ERROR,
        ("image_topic:=/image_raw camera_info_topic:=/camera_info image_transport:=raw",),
    ),
    "another type": (
        Code.WRONG_TYPE,
        with_camera(kind="sensor_msgs/msg/PointCloud2"),
        Level.ERROR,
        ("sensor_msgs/msg/PointCloud2", IMAGE),
    ),
    "a reliable subscription to a best-effort camera": (
        Code.QOS_MISMATCH,
        with_image(
            topic=replace(IMAGE_INPUT, subscriptions=(Endpoint("/mono_depth", IMAGE),)),
            stamps_ns=(),
        ),
        Level.ERROR,
        (
            "stop /mono_depth, and start it with --ros-args"
            " -p qos_overrides./image_raw.subscription.reliability:=best_effort",
        ),
    ),
    "a reliable subscriber of best-effort depth": (
        Code.QOS_MISMATCH,
        with_node(
            outputs=(replace(DEPTH, publishers=(replace(DEPTH.publishers[0], reliable=False),)),)
        ),
        Level.ERROR,
        ("/rviz", "qos_overrides./depth/image_rect.publisher.reliability:=reliable"),
    ),
    "a latched subscriber of volatile depth": (
        Code.QOS_MISMATCH,
        with_node(
            outputs=(replace(DEPTH, subscriptions=(Endpoint("/rviz", IMAGE, latched=True),)),)
        ),
        Level.ERROR,
        (
            "set the durability of /rviz to volatile",
            "-p qos_overrides./depth/image_rect.publisher.durability:=transient_local",
        ),
    ),
    "two cameras": (
        Code.TWO_CAMERAS,
        with_image(topic=replace(IMAGE_INPUT, publishers=(CAMERA, replace(CAMERA, node="/b")))),
        Level.ERROR,
        ("/b, /camera/driver",),
    ),
    "a silent camera": (
        Code.IMAGE_SILENT,
        with_node(image=replace(IMAGES, stamps_ns=()), info=replace(INFOS, stamps_ns=STAMPS[:3])),
        Level.ERROR,
        ("/camera/driver", "ros2 topic hz /image_raw"),
    ),
    "images that do not get through": (
        Code.IMAGE_SILENT,
        with_image(stamps_ns=()),
        Level.ERROR,
        ("60 camera_info", "FASTDDS_DEFAULT_PROFILES_FILE="),
    ),
    "images of a camera with shared memory that do not get through": (
        Code.IMAGE_SILENT,
        with_node(image=sent_by(replace(CAMERA, process=LARGE), stamps_ns=()), picture=None),
        Level.ERROR,
        ("60 camera_info", "net.core.rmem_max", "image_transport:=compressed"),
    ),
    "images that are lost": (
        Code.IMAGES_LOST,
        with_image(stamps_ns=STAMPS[::4], wall_ns=ARRIVALS[::4], clock_ns=(0,) * 15),
        Level.ERROR,
        ("15 images", "60 camera_info", "FASTDDS_DEFAULT_PROFILES_FILE="),
    ),
    "an unknown encoding": (
        Code.IMAGE_UNREADABLE,
        with_node(picture=Picture(0, 0, 921_648, "image encoding 'x' is not supported")),
        Level.ERROR,
        ("encoding 'x'",),
    ),
    "no calibration": (
        Code.INFO_NO_PUBLISHER,
        replace(
            with_node(
                info=replace(INFOS, topic=replace(INFO_INPUT, publishers=()), stamps_ns=()),
                calibration=None,
            ),
            camera_topics={"/image_raw": IMAGE},
        ),
        Level.ERROR,
        ("camera_calibration", "ros2 param set /mono_depth fallback_hfov_deg"),
    ),
    "a calibration under another name": (
        Code.INFO_NO_PUBLISHER,
        replace(
            with_node(
                info=replace(INFOS, topic=replace(INFO_INPUT, publishers=()), stamps_ns=()),
                calibration=None,
            ),
            camera_topics={"/image_raw": IMAGE, "/usb/camera_info": CAMERA_INFO},
        ),
        Level.ERROR,
        ("image_topic:=/image_raw camera_info_topic:=/usb/camera_info",),
    ),
    "a silent calibration": (
        Code.INFO_SILENT,
        with_node(info=replace(INFOS, stamps_ns=()), calibration=None),
        Level.ERROR,
        ("ros2 topic echo /camera_info",),
    ),
    "K is zero": (
        Code.INFO_ZERO,
        with_info(k=(0.0,) * 9),
        Level.ERROR,
        ("K[0] = 0", "cameracalibrator"),
    ),
    "K is zero, with a guess of the field of view": (
        Code.INFO_ZERO,
        with_node(
            calibration=Info(k=(0.0,) * 9),
            parameters={**NODE.parameters, "fallback_hfov_deg": 60.0},
        ),
        Level.WARN,
        ("K[0] = 0",),
    ),
    "another size": (
        Code.INFO_WRONG_SIZE,
        with_info(width=1280, height=720),
        Level.ERROR,
        ("1280x720", "640x480"),
    ),
    "a binned calibration of whole images": (
        Code.INFO_WRONG_SIZE,
        with_info(binning_x=2, binning_y=2),
        Level.ERROR,
        ("320x240", "640x480"),
    ),
    "an unknown distortion model": (
        Code.INFO_BROKEN,
        with_info(distortion_model="banana"),
        Level.ERROR,
        ("banana",),
    ),
    "too many coefficients": (
        Code.INFO_BROKEN,
        with_info(d=(0.1,) * 7),
        Level.ERROR,
        ("/camera_info",),
    ),
    "not a number": (Code.INFO_BROKEN, with_info(d=(math.nan,) * 5), Level.ERROR, ("finite",)),
    "a principal point in the corner": (
        Code.INFO_IMPLAUSIBLE,
        with_info(k=(500.0, 0, 600, 0, 500, 240, 0, 0, 1), p=(0.0,) * 12),
        Level.WARN,
        ("(600, 240)",),
    ),
    "fx and fy of different cameras": (
        Code.INFO_IMPLAUSIBLE,
        with_info(k=(500.0, 0, 320, 0, 900, 240, 0, 0, 1), p=(0.0,) * 12),
        Level.WARN,
        ("fx 500 and fy 900",),
    ),
    "stamps half a period apart": (
        Code.INFO_UNSYNCHRONISED,
        with_node(
            image=replace(
                IMAGES,
                stamps_ns=STAMPS[::2],
                wall_ns=ARRIVALS[::2],
                clock_ns=(0,) * 30,
            ),
            # 40 ms late at a period of 67 ms, so 27 ms from the next.
            info=shifted(replace(INFOS, stamps_ns=STAMPS[::2]), -60),
        ),
        Level.WARN,
        ("67 ms",),
    ),
    "no frame": (
        Code.FRAME_EMPTY,
        with_node(image=replace(IMAGES, frame_id=""), info=replace(INFOS, frame_id="")),
        Level.ERROR,
        ("/camera/driver",),
    ),
    "a name that is not optical": (
        Code.FRAME_NOT_OPTICAL,
        with_node(
            image=replace(IMAGES, frame_id="camera_link"),
            info=replace(INFOS, frame_id="camera_link"),
        ),
        Level.WARN,
        ("--frame-id camera_link --child-frame-id camera_optical_frame",),
    ),
    "a body frame": (
        Code.FRAME_NOT_OPTICAL,
        replace(
            with_node(
                image=replace(IMAGES, frame_id="camera_link"),
                info=replace(INFOS, frame_id="camera_link"),
            ),
            transforms={"camera_link": ("base_link", NO_TURN)},
        ),
        Level.ERROR,
        ("z axis up",),
    ),
    "an optical name on a frame that is not turned": (
        Code.FRAME_NOT_OPTICAL,
        replace(
            HEALTHY,
            transforms={
                "camera_optical_frame": ("camera_link", NO_TURN),
                "camera_link": ("base_link", NO_TURN),
            },
        ),
        Level.ERROR,
        ("--frame-id camera_link --child-frame-id camera_optical_frame",),
    ),
    "two frames": (
        Code.FRAMES_DIFFER,
        with_node(info=replace(INFOS, frame_id="left_optical_frame")),
        Level.WARN,
        ("camera_optical_frame", "left_optical_frame"),
    ),
    "stamps of zero": (
        Code.STAMPS_ZERO,
        with_node(
            image=replace(IMAGES, stamps_ns=(0,) * 60), info=replace(INFOS, stamps_ns=(0,) * 60)
        ),
        Level.ERROR,
        ("/camera/driver",),
    ),
    "images that come late": (
        Code.STAMPS_OLD,
        with_node(image=shifted(IMAGES, -3), info=shifted(INFOS, -3)),
        Level.WARN,
        ("3.02 s before",),
    ),
    "stamps since boot": (
        Code.STAMPS_OLD,
        with_node(image=shifted(IMAGES, -1.6e9), info=shifted(INFOS, -1.6e9)),
        Level.ERROR,
        ("global_time_enabled",),
    ),
    "stamps of the future": (
        Code.STAMPS_FUTURE,
        with_node(image=shifted(IMAGES, 2), info=shifted(INFOS, 2)),
        Level.WARN,
        ("1.98 s after",),
    ),
    "a camera on a machine with another clock": (
        Code.STAMPS_FUTURE,
        replace(
            with_node(
                image=replace(
                    shifted(IMAGES, 2),
                    topic=replace(IMAGE_INPUT, publishers=(replace(CAMERA, elsewhere=True),)),
                ),
                info=shifted(INFOS, 2),
            ),
            host=replace(HEALTHY.host, rmem_max_bytes=None),
        ),
        Level.WARN,
        ("chrony",),
    ),
    "stamps that go back": (
        Code.STAMPS_BACKWARDS,
        with_image(stamps_ns=(*STAMPS[:30], STAMPS[3], *STAMPS[31:])),
        Level.WARN,
        ("1 times",),
    ),
    "simulated time without a clock": (
        Code.NO_CLOCK,
        with_node(parameters={**NODE.parameters, "use_sim_time": True}),
        Level.ERROR,
        ("ros2 param set /mono_depth use_sim_time false",),
    ),
    "a paused simulator": (
        Code.CLOCK_STOPPED,
        replace(
            with_node(parameters={**NODE.parameters, "use_sim_time": True}),
            clock_publishers=1,
            clock_ns=(START,) * 9,
        ),
        Level.WARN,
        ("resume",),
    ),
    "a bag whose clock is not taken": (
        Code.CLOCK_IGNORED,
        replace(
            with_node(image=shifted(IMAGES, -9e6), info=shifted(INFOS, -9e6)), clock_publishers=1
        ),
        Level.ERROR,
        ("ros2 param set /mono_depth use_sim_time true",),
    ),
    "a clock beside a real camera": (
        Code.CLOCK_IGNORED,
        replace(HEALTHY, clock_publishers=1),
        Level.WARN,
        ("stop what publishes /clock",),
    ),
    "a real camera on simulated time": (
        Code.STAMPS_FUTURE,
        replace(
            with_node(
                image=replace(IMAGES, clock_ns=tuple(range(SECOND, 61 * SECOND, SECOND))),
                parameters={**NODE.parameters, "use_sim_time": True},
            ),
            clock_publishers=1,
            clock_ns=tuple(range(SECOND, 61 * SECOND, SECOND)),
        ),
        Level.ERROR,
        ("use_sim_time false",),
    ),
    "a camera without the profile": (
        Code.DDS_PROFILE,
        with_camera(process=SMALL),
        Level.ERROR,
        ("process 71", "0.9 MB", "export FASTDDS_DEFAULT_PROFILES_FILE=config/fastdds.xml"),
    ),
    "a depth node without the profile": (
        Code.DDS_PROFILE,
        with_node(
            outputs=(replace(DEPTH, publishers=(replace(DEPTH.publishers[0], process=SMALL),)),)
        ),
        Level.ERROR,
        ("/mono_depth (process 71)", "1.2 MB"),
    ),
    "a small /dev/shm": (
        Code.SHM_SMALL,
        replace(HEALTHY, host=replace(HEALTHY.host, shm_bytes=64 << 20, shm_free_bytes=60 << 20)),
        Level.WARN,
        ("60 MB of the 64 MB", "--shm-size"),
    ),
    "segments of killed processes": (
        Code.SHM_STALE,
        replace(HEALTHY, host=replace(HEALTHY.host, stale_segments=3)),
        Level.OK,
        ("3 Fast DDS", "fastdds shm clean"),
    ),
    "small socket buffers under Cyclone": (
        Code.RMEM_SMALL,
        replace(HEALTHY, rmw="rmw_cyclonedds_cpp"),
        Level.WARN,
        ("0.2 MB", "net.core.rmem_max"),
    ),
    "small socket buffers and a camera on another machine": (
        Code.RMEM_SMALL,
        with_camera(elsewhere=True),
        Level.WARN,
        ("net.core.rmem_max",),
    ),
    "a GPU that is not used": (
        Code.ENGINE_FALLBACK,
        replace(HEALTHY, host=replace(HEALTHY.host, has_gpu=True)),
        Level.WARN,
        ("openvino 2026.4 CPU f32", "no NVIDIA driver", "/mono_depth/reload_model"),
    ),
    "TensorRT was asked for": (
        Code.ENGINE_FALLBACK,
        with_node(parameters={**NODE.parameters, "engine": "tensorrt"}),
        Level.WARN,
        ("no NVIDIA driver",),
    ),
    "an engine that is built": (
        Code.ENGINE_BUILDING,
        replace(
            with_values(engine_build="building the TensorRT engine of a.onnx: 40% (kernels)"),
            host=replace(HEALTHY.host, has_gpu=True),
        ),
        Level.OK,
        ("40%",),
    ),
    "depth that takes longer than a frame": (
        Code.TOO_SLOW,
        with_values(latency_ms_p95="80", frames_skipped="12", rate_out_hz="26.9"),
        Level.WARN,
        ("26.9 Hz of 30.0 Hz", "80 ms", "33 ms"),
    ),
    "hardly any depth": (
        Code.MOSTLY_INVALID,
        with_values(invalid_share="0.9"),
        Level.WARN,
        ("90%", "max_depth"),
    ),
    "nobody listens": (
        Code.NO_SUBSCRIBER,
        with_node(outputs=(replace(DEPTH, subscriptions=()),)),
        Level.OK,
        ("ros2 topic hz /depth/image_rect",),
    ),
    "the node's own error": (
        Code.NODE_ERROR,
        with_node(status=Status(Level.ERROR, "the network failed; try onnx", VALUES)),
        Level.ERROR,
        ("the network failed", "try onnx"),
    ),
    "the node's own warning": (
        Code.NODE_WARNING,
        with_node(status=Status(Level.WARN, "reload is refused", VALUES)),
        Level.WARN,
        ("reload is refused", "log"),
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_gives_its_finding_and_no_other(cause: str) -> None:
    code, seen, level, words = CAUSES[cause]
    finding = only(seen, code, level)
    for word in words:
        assert word in f"{finding.what}\n{finding.fix}"


def test_every_code_has_a_cause() -> None:
    assert {code for code, *_ in CAUSES.values()} == set(Code)


# /clock at each arrival, of a simulation that began long ago.
SIMULATED = tuple(arrival - 1_600_000_000 * SECOND for arrival in ARRIVALS)
FINE = {
    "a segment that holds the image": with_camera(process=LARGE),
    "a process of which nothing is known": with_camera(process=Process(3, "x")),
    "a reliable camera": with_camera(reliable=True),
    "a guess of the field of view and a calibration": with_node(
        parameters={**NODE.parameters, "fallback_hfov_deg": 60.0}
    ),
    "region and binning that give the image's size": with_info(
        width=1600,
        height=1200,
        binning_x=2,
        binning_y=2,
        roi=Region(160, 120, 1280, 960),
        k=(1000.0, 0, 800, 0, 1000, 600, 0, 0, 1),
        p=(1000.0, 0, 800, 0, 0, 1000, 600, 0, 0, 0, 1, 0),
    ),
    "no distortion and no model": with_info(distortion_model="", d=()),
    "an unknown model of images that are not to be rectified": with_node(
        calibration=Info(distortion_model="banana"),
        parameters={**NODE.parameters, "rectify": "off"},
    ),
    "a calibration that came once": with_node(info=replace(INFOS, stamps_ns=(START - SECOND,))),
    "calibrations some milliseconds off": with_node(info=shifted(INFOS, 0.005)),
    "a frame that is optical by another name": replace(
        with_node(image=replace(IMAGES, frame_id="eye"), info=replace(INFOS, frame_id="eye")),
        transforms={"eye": ("neck", TO_OPTICAL), "neck": ("base_link", NO_TURN)},
    ),
    "a camera that looks straight down": replace(
        HEALTHY,
        # Half a turn about x: z down.
        transforms={"camera_optical_frame": ("base_link", (1.0, 0.0, 0.0, 0.0))},
    ),
    "a loop in tf": replace(
        HEALTHY,
        transforms={
            "camera_optical_frame": ("base_link", TO_OPTICAL),
            "base_link": ("camera_optical_frame", NO_TURN),
        },
    ),
    "simulated time": replace(
        with_node(
            image=replace(
                shifted(IMAGES, -1.6e9), clock_ns=tuple(s - 1600000000 * SECOND for s in ARRIVALS)
            ),
            info=shifted(INFOS, -1.6e9),
            parameters={**NODE.parameters, "use_sim_time": True},
        ),
        clock_publishers=1,
        clock_ns=SIMULATED,
    ),
    "a camera that is slow itself, and one frame that was skipped once": with_values(
        latency_ms_p95="80", frames_skipped="1", rate_out_hz="29.8"
    ),
    "late depth of which the rates are not known": with_node(
        status=Status(Level.OK, "running", {"latency_ms_p95": "80", "frames_skipped": "12"})
    ),
    "frames that failed, and were not too slow": with_values(latency_ms_p95="80", rate_out_hz="12"),
    "a slow rate without latency": with_values(frames_skipped="12", rate_out_hz="12"),
    "a calibration that was latched before we came": with_node(
        info=replace(INFOS, stamps_ns=(), wall_ns=(), clock_ns=())
    ),
    "a GPU engine": replace(
        with_values(engine="tensorrt 10.3 Orin float16", engines_not_taken=""),
        host=replace(HEALTHY.host, has_gpu=True),
    ),
    "a CPU engine that was asked for": replace(
        with_node(parameters={**NODE.parameters, "engine": "openvino"}),
        host=replace(HEALTHY.host, has_gpu=True),
    ),
    "an engine that waits for the first image": replace(
        with_values(engines_not_taken="tensorrt: waits for the camera's first image, to build"),
        host=replace(HEALTHY.host, has_gpu=True),
    ),
    "an idle node, which does not listen": with_image(topic=replace(IMAGE_INPUT, subscriptions=())),
    "a calibration with a latched and a volatile subscription": with_node(
        info=replace(
            INFOS,
            topic=replace(
                INFO_INPUT,
                subscriptions=(
                    Endpoint("/mono_depth", CAMERA_INFO, latched=True),
                    Endpoint("/mono_depth", CAMERA_INFO, reliable=False),
                ),
            ),
        )
    ),
    "large buffers under Cyclone": replace(
        HEALTHY,
        rmw="rmw_cyclonedds_cpp",
        host=replace(HEALTHY.host, rmem_max_bytes=64 << 20),
    ),
}


@pytest.mark.parametrize("case", FINE)
def test_what_is_fine_is_not_found(case: str) -> None:
    assert findings(FINE[case]) == []


def test_errors_come_first_and_every_node_is_named() -> None:
    rear = replace(NODE, name="/rear/mono_depth", state="inactive")
    seen = replace(with_values(invalid_share="0.9"), host=replace(HEALTHY.host, stale_segments=1))
    found = findings(replace(seen, nodes=(*seen.nodes, rear)))
    assert [(f.node, f.code) for f in found] == [
        ("/rear/mono_depth", Code.NOT_ACTIVE),
        ("/mono_depth", Code.MOSTLY_INVALID),
        ("", Code.SHM_STALE),
    ]


def test_a_command_names_the_namespace_of_the_node() -> None:
    node = replace(
        NODE, name="/front/mono_depth", image=replace(IMAGES, topic=NOBODY, stamps_ns=())
    )
    seen = replace(HEALTHY, nodes=(node,), camera_topics={"/front/cam/image": IMAGE})
    fix = only(seen, Code.IMAGE_NO_PUBLISHER, Level.ERROR).fix
    assert fix == (
        "stop /front/mono_depth, then ros2 launch mono_depth_ros depth.launch.py"
        " namespace:=front image_topic:=/front/cam/image"
        " camera_info_topic:=/front/cam/camera_info"
    )


def test_a_command_can_say_all_that_the_launch_file_takes() -> None:
    tree = ast.parse((Path(__file__).parent.parent / "launch/depth.launch.py").read_text())
    (overrides,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "OVERRIDES"
    )
    assert isinstance(overrides, ast.Dict)
    names = [ast.literal_eval(key) for key in overrides.keys if key is not None]
    assert set(SETTINGS) == set(names) - {"autostart"} and len(names) == len(SETTINGS) + 1


# What `config/depth.yaml` has, and use_sim_time as of every node.
DEFAULTS = {
    **yaml.safe_load((Path(__file__).parent.parent / "config/depth.yaml").read_text())["/**"][
        "ros__parameters"
    ],
    "use_sim_time": False,
}


def lost_calibration(**changes: Any) -> str:
    """The remedy for a node with these parameters, whose calibration is on another topic."""
    info = replace(INFOS, topic=replace(INFO_INPUT, publishers=()), stamps_ns=())
    parameters = {name: DEFAULTS[name] for name in SETTINGS} | changes.pop("parameters", {})
    seen = with_node(info=info, calibration=None, parameters=parameters, **changes)
    topics = {"/image_raw": IMAGE, "/usb/camera_info": CAMERA_INFO}
    found = findings(replace(seen, camera_topics=topics))
    return next(f.fix for f in found if f.code == Code.INFO_NO_PUBLISHER)


RESTART = (
    "stop /mono_depth, then ros2 launch mono_depth_ros depth.launch.py image_topic:=/image_raw"
    " camera_info_topic:=/usb/camera_info"
)


def test_a_command_says_nothing_of_what_is_by_default() -> None:
    assert lost_calibration() == RESTART


@pytest.mark.parametrize(
    ("name", "value", "argument"),
    [
        ("model", "/my models/a.onnx", "model:=/my models/a.onnx"),
        ("engine", "onnx", "engine:=onnx"),
        ("precision", "int8", "precision:=int8"),
        ("cache_dir", "~/engines", "cache_dir:=~/engines"),
        ("image_transport", "compressed", "image_transport:=compressed"),
        ("profile", "realsense", "profile:=realsense"),
        ("camera_name", "front", "camera_name:=front"),
        ("rectify", "off", "rectify:=off"),
        # As a parameter file is read that does not quote the word.
        ("rectify", False, "rectify:=off"),
        ("rectify", True, "rectify:=on"),
        ("aspect", "crop", "aspect:=crop"),
        ("base_frame", "base_footprint", "base_frame:=base_footprint"),
        ("camera_height", 0.3, "camera_height:=0.3"),
        ("camera_pitch_deg", -12.5, "camera_pitch_deg:=-12.5"),
        ("camera_roll_deg", 180.0, "camera_roll_deg:=180.0"),
        ("fallback_hfov_deg", 60.0, "fallback_hfov_deg:=60.0"),
        ("publish_tf", False, "publish_tf:=false"),
        ("use_sim_time", True, "use_sim_time:=true"),
    ],
)
def test_a_command_keeps_a_setting_of_the_node(name: str, value: object, argument: str) -> None:
    words = shlex.split(lost_calibration(parameters={name: value}))
    assert words == [*RESTART.split(), argument]


def test_a_command_changes_the_transport_to_that_of_the_images_that_are_there() -> None:
    def fix(transport: str, kind: str, topics: dict[str, str]) -> str:
        name = "/image_raw" + ("/compressed" if kind == COMPRESSED_IMAGE else "")
        image = replace(IMAGES, topic=replace(NOBODY, name=name), kind=kind, stamps_ns=())
        seen = with_node(image=image, parameters={"image_transport": transport})
        return findings(replace(seen, camera_topics=topics))[0].fix

    there = {"/usb/image_raw/compressed": COMPRESSED_IMAGE, "/usb/camera_info": CAMERA_INFO}
    base = "depth.launch.py image_topic:=/usb/image_raw camera_info_topic:=/usb/camera_info"
    assert fix("raw", IMAGE, there).endswith(f"{base} image_transport:=compressed")
    assert fix("compressed", COMPRESSED_IMAGE, there).endswith(
        f"{base} image_transport:=compressed"
    )
    there = {"/usb/image_raw": IMAGE, "/usb/camera_info": CAMERA_INFO}
    assert fix("raw", IMAGE, there).endswith(base)
    assert fix("compressed", COMPRESSED_IMAGE, there).endswith(f"{base} image_transport:=raw")


def test_a_node_without_any_camera_is_not_to_be_started_anew_before_there_is_one() -> None:
    nobody = replace(IMAGES, topic=NOBODY, stamps_ns=())
    seen = with_node(image=nobody, info=replace(INFOS, topic=replace(INFO_INPUT, publishers=())))
    found = findings(replace(seen, camera_topics={"/usb/camera_info": CAMERA_INFO}))
    fixes = {f.code: f.fix for f in found}
    assert fixes[Code.INFO_NO_PUBLISHER] == "start the camera's driver, and look again"


@pytest.mark.parametrize("camera", ["front", "robot/front"])
def test_a_node_of_several_cameras_is_mended_in_their_file(camera: str) -> None:
    command = f"python3 depth_node --camera {camera} --camera rear --ros-args -r x:=y"
    sender = Endpoint(f"/{camera}/mono_depth", IMAGE, process=Process(9, command))
    node = replace(
        NODE,
        name=f"/{camera}/mono_depth",
        image=replace(IMAGES, topic=NOBODY, stamps_ns=()),
        outputs=(replace(DEPTH, publishers=(sender,)),),
        parameters={"camera_height": 0.3, "image_transport": "raw"},
    )
    there = {"/image_raw/compressed": COMPRESSED_IMAGE, "/camera_info": CAMERA_INFO}
    seen = replace(HEALTHY, nodes=(node,), camera_topics=there)
    fix = only(seen, Code.IMAGE_TRANSPORT, Level.ERROR).fix
    before, _, rest = fix.partition("image_topic: ")
    assert before == "set " and rest == (
        "/image_raw, camera_info_topic: /camera_info, parameters: {image_transport: compressed}"
        f" for /{camera} in the cameras_file of cameras.launch.py, then stop that and start it"
        " again"
    )
    entry = yaml.safe_load("{image_topic: " + rest.partition(" for ")[0] + "}")
    assert entry["parameters"] == {"image_transport": "compressed"}


SOCKETS = "sudo sysctl -w net.core.rmem_max=2147483647"
PROFILE = "export FASTDDS_DEFAULT_PROFILES_FILE="


@pytest.mark.parametrize(
    ("sender", "size", "start"),
    [
        (CAMERA, 921_648, PROFILE),
        (replace(CAMERA, process=SMALL), 921_648, PROFILE),
        (replace(CAMERA, process=SMALL), 400_000, SOCKETS),
        (replace(CAMERA, process=LARGE), 921_648, SOCKETS),
        (replace(CAMERA, process=Process(3, "x")), 921_648, PROFILE),
        (replace(CAMERA, elsewhere=True), 921_648, SOCKETS),
    ],
)
def test_the_profile_is_for_a_sender_that_lacks_shared_memory(
    sender: Endpoint, size: int, start: str
) -> None:
    few = sent_by(sender, stamps_ns=STAMPS[::4], wall_ns=ARRIVALS[::4], clock_ns=(0,) * 15)
    found = findings(with_node(image=few, picture=Picture(640, 480, size)))
    (fix,) = (f.fix for f in found if f.code == Code.IMAGES_LOST)
    assert fix.startswith(start)


@pytest.mark.parametrize("input_name", ["image", "info"])
@pytest.mark.parametrize("policy", ["reliable", "latched"])
def test_only_overrides_that_the_node_takes_are_promised(input_name: str, policy: str) -> None:
    stream = getattr(NODE, input_name)
    asks = replace(stream.topic.subscriptions[0], **{policy: True})
    deaf = replace(stream, topic=replace(stream.topic, subscriptions=(asks,)), stamps_ns=())
    found = findings(with_node(**{input_name: deaf}))
    (fix,) = (f.fix for f in found if f.code == Code.QOS_MISMATCH)
    if (input_name, policy) == ("image", "reliable"):
        assert fix.endswith("-p qos_overrides./image_raw.subscription.reliability:=best_effort")
    else:
        wanted = {"reliable": "reliable", "latched": "transient local"}[policy]
        assert fix == f"make /camera/driver publish it {wanted}"


@given(st.sets(st.text("abc/_", max_size=8), max_size=6), st.text("abc/_", max_size=8))
def test_candidates_are_all_topics_of_the_type_and_an_equal_name_is_first(
    names: set[str], wanted: str
) -> None:
    candidates = dict.fromkeys(names, IMAGE) | {"/info": CAMERA_INFO}
    found = similar(wanted, candidates, IMAGE)
    assert sorted(found) == sorted(names)
    assert wanted not in names or found[0] == wanted


def test_an_endpoint_of_another_machine_or_another_dds_has_no_process_here() -> None:
    own = [1, 15, 7, 7, 0, 0, *[0] * 10]
    there, other_dds = [1, 15, 8, 7, *own[4:]], [1, 16, *own[2:]]
    assert is_elsewhere(there, own) and process_of(there, own) is None
    assert not is_elsewhere(other_dds, own) and process_of(other_dds, own) is None
    assert not is_elsewhere(own, own)


def test_every_code_has_a_section_in_the_documentation_and_no_section_is_left_over() -> None:
    page = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
    lines = page.read_text().splitlines()
    sections = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    assert sorted(sections) == sorted(code.value for code in Code)
