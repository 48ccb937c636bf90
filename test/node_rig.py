"""A depth node in a process of its own, with a camera that can be made to misbehave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
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
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.messages import camera_info_message, depth_to_array, image_message, stamp_ns
from mono_depth_ros.ros_process import RosProcess

# The shared node keeps running while others are tested; two of one name must not meet.
SHARED_DOMAIN = 20 + os.getpid() % 20
OWN_DOMAIN = SHARED_DOMAIN + 20
WIDTH, HEIGHT = 320, 240
CAMERA = CameraModel(WIDTH, HEIGHT, 260.0, 260.0, 159.5, 119.5)
# The red-channel network is "trained" at 100 px on a 128 px wide input.
SCALE = 260.0 * networks.WIDTH / WIDTH / networks.FOCAL


class Rig:
    """A running node, and a camera that can be made to misbehave."""

    def __init__(self, log: Path, domain: int, **parameters: Any) -> None:
        self.peer = Peer(domain)
        self.process = RosProcess("mono_depth_ros.node", domain, log, **parameters)
        self.image = self.peer.node.create_publisher(Image, "image_raw", qos_profile_sensor_data)
        self.info = self.peer.node.create_publisher(
            CameraInfo, "camera_info", qos_profile_sensor_data
        )
        self.peer.hear(DiagnosticArray, "/diagnostics")
        self._second = 0

    def close(self) -> None:
        try:
            assert self.process.stop() == 0, self.process.output()
            assert "Traceback" not in self.process.output()
        finally:
            self.peer.__exit__(None, None, None)

    def active(self) -> None:
        self.peer.wait(
            lambda: self.image.get_subscription_count() and self.info.get_subscription_count(),
            "active node",
            self.process,
        )

    def header(self) -> Header:
        """A stamp of its own for every frame."""
        self._second += 1
        header = Header(frame_id="eye")
        header.stamp.sec = self._second
        header.stamp.nanosec = 123456789
        return header

    def hear(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> None:
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

        def answer() -> Any:
            header = self.header()
            info = camera_info_message(camera, header) if camera else None
            if info is not None and change is not None:
                change(info)
            self.send(image_message(pixels, "rgb8", header), info)
            self.peer.spin(0.2)
            sent = {(s, 123456789) for s in range(first, self._second + 1)}
            for message in self.peer.heard[topic]:
                if (message.header.stamp.sec, message.header.stamp.nanosec) in sent:
                    return message
            return None

        first = self._second + 1
        return self.peer.wait(answer, f"answer on {topic}", self.process)

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
        heard = self.peer.heard["depth/image_rect"]
        assert stamp not in {stamp_ns(message.header) for message in heard}
        assert_depth(self.see(flat(100)), 100)

    def set(self, **values: Any) -> tuple[bool, str]:
        kinds = {bool: "bool", int: "integer", float: "double", str: "string"}
        parameters = []
        for name, value in values.items():
            kind = kinds[type(value)]
            typed = ParameterValue(type=getattr(ParameterType, f"PARAMETER_{kind.upper()}"))
            setattr(typed, f"{kind}_value", value)
            parameters.append(Parameter(name=name.replace("__", "."), value=typed))
        request = SetParametersAtomically.Request(parameters=parameters)
        response = self.peer.call(
            SetParametersAtomically, "mono_depth/set_parameters_atomically", request
        )
        return response.result.successful, response.result.reason

    def get(self, name: str) -> ParameterValue:
        request = GetParameters.Request(names=[name])
        return self.peer.call(GetParameters, "mono_depth/get_parameters", request).values[0]

    def state(self) -> int:
        response = self.peer.call(GetState, "mono_depth/get_state", GetState.Request())
        return int(response.current_state.id)

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.peer.call(ChangeState, "mono_depth/change_state", request).success)


def flat(red: int, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    pixels = np.full((height, width, 3), 50, np.uint8)
    pixels[..., 0] = red
    return pixels


def assert_depth(message: Image, red: int) -> None:
    """A 32FC1 message that says what the red-channel network must say of `flat(red)`."""
    depth = depth_to_array(message)
    np.testing.assert_allclose(depth, red * networks.RED_SCALE * SCALE, rtol=1e-4)
