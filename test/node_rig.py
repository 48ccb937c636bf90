"""A depth node in a process of its own, with a camera that can be made to misbehave."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
from dds import Peer
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.messages import camera_info_message, depth_to_array, image_message, stamp_ns
from mono_depth_ros.node import MESSAGE_TYPES
from mono_depth_ros.output_profiles import OUTPUTS, PROFILES, profile_topics
from mono_depth_ros.ros_process import RosProcess

# The shared node keeps running while others are tested; two of one name must not meet.
SHARED_DOMAIN = 20 + os.getpid() % 20
OWN_DOMAIN = SHARED_DOMAIN + 20
WIDTH, HEIGHT = 320, 240
CAMERA = CameraModel(WIDTH, HEIGHT, 260.0, 260.0, 159.5, 119.5)
# The red-channel network is "trained" at 100 px on a 128 px wide input.
SCALE = 260.0 * networks.WIDTH / WIDTH / networks.FOCAL


class Camera:
    """A camera that can be made to misbehave, and the node that looks through it.

    Args:
        peer: publishes the camera's messages.
        process: the node's.
        namespace: of camera and node.
        image_topic: relative to it.
    """

    def __init__(
        self, peer: Peer, process: RosProcess, namespace: str = "", image_topic: str = "image_raw"
    ) -> None:
        self.peer, self.process = peer, process
        self._prefix = f"{namespace}/" if namespace else ""
        self.image = peer.node.create_publisher(
            Image, self._prefix + image_topic, qos_profile_sensor_data
        )
        self.info = peer.node.create_publisher(
            CameraInfo, f"{self._prefix}camera_info", qos_profile_sensor_data
        )
        self._second = 0

    def heard(self, topic: str = "depth/image_rect") -> list[Any]:
        """What came on one of the node's topics."""
        return self.peer.heard[self._prefix + topic]

    def active(self) -> None:
        """Waits for the node to be active.

        It then listens to calibrations, and to images as soon as somebody wants depth.
        """
        self.peer.wait(self.info.get_subscription_count, "active node", self.process)

    def header(self) -> Header:
        """A stamp of its own for every frame."""
        self._second += 1
        header = Header(frame_id="eye")
        header.stamp.sec = self._second
        header.stamp.nanosec = 123456789
        return header

    def hear(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> None:
        topic = self._prefix + topic
        self.peer.hear(kind, topic, qos)
        self.peer.wait(lambda: self.peer.node.count_publishers(topic), topic, self.process)

    def send(self, image: Image, info: CameraInfo | None) -> None:
        if info is not None:
            self.info.publish(info)
        self.image.publish(image)

    def see(
        self,
        pixels: npt.NDArray[np.uint8],
        topic: str = "depth/image_rect",
        camera: CameraModel | None = CAMERA,
        change: Callable[[CameraInfo], None] | None = None,
    ) -> Any:
        """Sends frames with these pixels until `topic` answers one of them."""

        def send(header: Header) -> None:
            info = camera_info_message(camera, header) if camera else None
            if info is not None and change is not None:
                change(info)
            self.send(image_message(pixels, "rgb8", header), info)

        return self.answer(send, topic)

    def answer(self, send: Callable[[Header], None], *topics: str) -> Any:
        """Calls `send` with new headers until all `topics` have answered the same one.

        Returns:
            The message of one topic, or a list.
        """
        first = self._second + 1

        def found() -> list[Any] | None:
            send(self.header())
            self.peer.spin(0.2)
            for second in range(first, self._second + 1):
                answers = [
                    next((m for m in self.heard(t) if m.header.stamp.sec == second), None)
                    for t in topics
                ]
                if None not in answers:
                    return answers
            return None

        answers = self.peer.wait(found, f"answer on {topics}", self.process)
        return answers[0] if len(topics) == 1 else answers

    def stream(self, pixels: npt.NDArray[np.uint8], period: float = 1 / 30) -> Timer:
        """A camera that sends these pixels while the peer spins, until the timer is destroyed."""
        return self.peer.node.create_timer(period, lambda: self.frame(pixels))

    def frame(self, pixels: npt.NDArray[np.uint8]) -> int:
        """Sends one good frame; returns its stamp in seconds."""
        header = self.header()
        self.send(image_message(pixels, "rgb8", header), camera_info_message(CAMERA, header))
        return int(header.stamp.sec)

    def hear_all(self, profile: str = "generic") -> list[str]:
        """Subscribes to every output of a profile; returns their topics."""
        topics = profile_topics(PROFILES[profile])
        for topic in topics:
            best_effort = topic.qos.reliability == "best_effort"
            qos = qos_profile_sensor_data if best_effort else 10
            self.hear(MESSAGE_TYPES[OUTPUTS[topic.output]], topic.name, qos)
        return [topic.name for topic in topics]

    def status(self, level: bytes, *words: str) -> DiagnosticStatus:
        """Waits for a diagnostic of this level, with these words, that is sent from now on."""
        heard = self.peer.heard["/diagnostics"]
        heard.clear()

        def said() -> Any:
            for array in heard:
                for status in array.status:
                    if status.level == level and all(word in status.message for word in words):
                        return status
            return None

        return self.peer.wait(said, f"diagnostic with {words}", self.process)

    def resident_kib(self) -> int:
        """Memory of the node's process."""
        statm = Path(f"/proc/{self.process.popen.pid}/statm").read_text().split()
        return int(statm[1]) * resource.getpagesize() // 1024

    def refuses(self, image: Image, info: CameraInfo | None, *words: str) -> None:
        """The input gives an ERROR diagnostic with `words` and no depth; then a good frame does."""
        self.peer.heard["/diagnostics"].clear()
        stamp = stamp_ns(image.header)

        def complaint() -> bool:
            self.send(image, info)
            self.peer.spin(0.2)
            return any(
                status.level == DiagnosticStatus.ERROR and all(w in status.message for w in words)
                for array in self.peer.heard["/diagnostics"]
                for status in array.status
            )

        self.peer.wait(complaint, f"error about {words}", self.process)
        heard = self.heard()
        assert stamp not in {stamp_ns(message.header) for message in heard}
        assert_depth(self.see(flat(100)), 100)

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Calls a service of the node."""
        return self.peer.call(kind, f"{self._prefix}mono_depth/{service}", request)

    def set(self, **values: Any) -> tuple[bool, str]:
        kinds = {bool: "bool", int: "integer", float: "double", str: "string"}
        parameters = []
        for name, value in values.items():
            kind = kinds[type(value)]
            typed = ParameterValue(type=getattr(ParameterType, f"PARAMETER_{kind.upper()}"))
            setattr(typed, f"{kind}_value", value)
            parameters.append(Parameter(name=name.replace("__", "."), value=typed))
        request = SetParametersAtomically.Request(parameters=parameters)
        response = self.call(SetParametersAtomically, "set_parameters_atomically", request)
        return response.result.successful, response.result.reason

    def get(self, name: str) -> ParameterValue:
        request = GetParameters.Request(names=[name])
        return self.call(GetParameters, "get_parameters", request).values[0]

    def state(self) -> int:
        return int(self.call(GetState, "get_state", GetState.Request()).current_state.id)

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)


class Rig(Camera):
    """A running node of its own, and its camera.

    Args:
        log: receives what the process prints.
        domain: ROS_DOMAIN_ID.
        remappings: of ROS names.
        parameters: of the node.
    """

    def __init__(
        self,
        log: Path,
        domain: int,
        remappings: Mapping[str, str] = MappingProxyType({}),
        /,
        **parameters: Any,
    ) -> None:
        peer = Peer(domain)
        process = RosProcess(
            "mono_depth_ros.node", domain, log, remappings=remappings, **parameters
        )
        super().__init__(peer, process, image_topic=remappings.get("image_raw", "image_raw"))
        self.peer.hear(DiagnosticArray, "/diagnostics")

    def close(self) -> None:
        try:
            assert self.process.stop() == 0, self.process.output()
            assert "Traceback" not in self.process.output()
        finally:
            self.peer.__exit__(None, None, None)


def flat(red: int, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    pixels = np.full((height, width, 3), 50, np.uint8)
    pixels[..., 0] = red
    return pixels


def assert_depth(message: Image, red: int) -> None:
    """A 32FC1 message that says what the red-channel network must say of `flat(red)`."""
    depth = depth_to_array(message)
    np.testing.assert_allclose(depth, red * networks.RED_SCALE * SCALE, rtol=1e-4)
