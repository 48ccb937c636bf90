"""A camera in a simulated room: publishes its image, its calibration, the true depth, and tf."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import rclpy
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.messages import camera_info_message, image_message
from mono_depth_ros.sim.bake import quaternion
from mono_depth_ros.sim.mount import mounted, robot_frames
from mono_depth_ros.sim.pose import Pose, heading
from mono_depth_ros.sim.renderer import Renderer
from mono_depth_ros.sim.scene import Scene, build_room, build_wall
from mono_depth_ros.sim.trajectory import Trajectory

_EXAMPLES = """examples:
  virtual_camera
  virtual_camera --ros-args -p seed:=3 -p rate:=10.0
  virtual_camera --ros-args -p width:=1280 -p height:=720 -p hfov_deg:=90.0
  virtual_camera --ros-args -p scene:=wall -p wall_distance_m:=2.0 -p frames:=100
  virtual_camera --ros-args -p mount_height_m:=0.5 -p mount_pitch_deg:=10.0
  virtual_camera --ros-args -p rate:=30.0 -p prerender:=300
"""
_SIGNAL_S = 0.2  # Python sees a signal only once a wait in C has ended

_PRERENDERED_BYTES = 2**30

# Reliable: best-effort and reliable subscribers both match.
_QOS = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
# As tf2_ros publishes tf.
_TF_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)

# name: default, smallest, largest, description
_NUMBERS: dict[str, tuple[float | int, float | int, float | int, str]] = {
    "width": (640, 16, 4096, "image width in pixels"),
    "height": (480, 16, 4096, "image height in pixels"),
    "hfov_deg": (60.0, 5.0, 150.0, "horizontal field of view, unless fx is given"),
    "fx": (0.0, 0.0, 1e5, "horizontal focal length in pixels; 0: from hfov_deg"),
    "fy": (0.0, 0.0, 1e5, "vertical focal length in pixels; 0: same as fx"),
    "rate": (15.0, 0.1, 200.0, "frames per second"),
    "seed": (0, 0, 2**31 - 1, "which room, and which way through it"),
    "wall_distance_m": (2.0, 0.1, 50.0, "depth of the scene 'wall'"),
    "frames": (0, 0, 2**31 - 1, "stop after this many frames; 0: never"),
    "prerender": (
        *(0, 0, 2**31 - 1),
        "render this many frames before the start and play them to and fro, for machines that"
        " cannot render at 'rate'; 0: render while publishing",
    ),
    "mount_height_m": (
        *(0.0, 0.0, 3.0),
        "height above the floor of a camera on a robot in the scene 'room'; 0: held by hand, at"
        " changing height and pitch",
    ),
    "mount_pitch_deg": (
        *(0.0, -80.0, 80.0),
        "pitch of that camera; positive looks down",
    ),
}


@dataclass(frozen=True)
class _Frame:
    """What is seen from a pose.

    Attributes:
        pose: of the camera.
        image, depth: make the messages, without a header.
    """

    pose: Pose
    image: Callable[[], Image]
    depth: Callable[[], Image]

    def rendered(self) -> _Frame:
        """The same with its messages made."""
        image, depth = self.image(), self.depth()
        return _Frame(self.pose, lambda: image, lambda: depth)


def to_and_fro(tick: int, count: int) -> int:
    """Which of `count` frames is due at a tick, when they are played forwards and backwards."""
    period = max(2 * count - 2, 1)
    return min(tick % period, period - tick % period)


def transform_messages(pose: Pose, header: Header) -> list[TransformStamped]:
    """The tf of a camera: odom to base_footprint, and base_footprint to its optical frame.

    Args:
        pose: of the camera; odom is the simulator's world, as odometry does not drift here.
        header: of its images.
    """
    messages = []
    frames = ("odom", "base_footprint", header.frame_id)
    for (parent, child), found in zip(pairwise(frames), robot_frames(pose), strict=True):
        message = TransformStamped(child_frame_id=child)
        message.header = Header(stamp=header.stamp, frame_id=parent)
        to, turn = message.transform.translation, message.transform.rotation
        to.x, to.y, to.z = map(float, found.translation)
        turn.w, turn.x, turn.y, turn.z = map(float, quaternion(found.rotation))
        messages.append(message)
    return messages


class VirtualCamera(Node):
    """Publishes `image_raw`, `camera_info`, `depth/ground_truth` and tf at `rate`."""

    def __init__(self) -> None:
        """Declares and checks the parameters.

        Raises:
            ParameterException, ValueError: a parameter has the wrong type or is out of range.
        """
        super().__init__("virtual_camera")
        self._values = {name: self._number(name) for name in _NUMBERS}
        self._frame_id = self._text("frame_id", "camera_optical_frame", "frame of the images")
        self._kind = self._text("scene", "room", "'room', furnished, or 'wall', flat")
        if self._kind not in ("room", "wall"):
            raise ValueError(f"parameter scene is '{self._kind}'; use 'room' or 'wall'")
        self._loop = self._switch("loop", "start over after each lap; false: stop after one")
        text = "publish the frames odom, base_footprint and frame_id; needs tf2_msgs"
        publish_tf = self._switch("publish_tf", text)
        self.camera = _camera(self._values)
        _check_memory(int(self._values["prerender"]), self.camera)
        self._image = self.create_publisher(Image, "image_raw", _QOS)
        self._info = self.create_publisher(CameraInfo, "camera_info", _QOS)
        self._depth = self.create_publisher(Image, "depth/ground_truth", _QOS)
        self._tf: Any = None
        if publish_tf:
            try:
                from tf2_msgs.msg import TFMessage
            except ImportError:
                self.get_logger().info("publishing no tf: tf2_msgs is not installed")
            else:
                self._tf_message = TFMessage
                self._tf = self.create_publisher(TFMessage, "/tf", _TF_QOS)

    def _number(self, name: str) -> float | int:
        default, low, high, text = _NUMBERS[name]
        descriptor = _describe(text)
        if isinstance(default, int):
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        value: float | int = self.declare_parameter(name, default, descriptor).value
        return value

    def _text(self, name: str, default: str, text: str) -> str:
        return str(self.declare_parameter(name, default, _describe(text)).value)

    def _switch(self, name: str, text: str) -> bool:
        return bool(self.declare_parameter(name, True, _describe(text)).value)

    def run(self) -> None:
        """Builds the scene, then renders and publishes until stopped or done.

        All in the calling thread, because a GL context belongs to one.

        Raises:
            RuntimeError: OpenGL cannot be loaded.
        """
        seed, frames = int(self._values["seed"]), int(self._values["frames"])
        path: Trajectory | None = None
        scene: Scene
        if self._kind == "room":
            self.get_logger().info(f"building room {seed}; takes some seconds")
            scene = room = build_room(seed)
            path = Trajectory(room.plan)
        else:
            scene = build_wall(self._values["wall_distance_m"], seed)
        with Renderer(scene, self.camera) as renderer:
            kept = self._prerender(renderer, path)
            lap = self._lap(path, len(kept))
            size = f"{self.camera.width}x{self.camera.height}"
            self.get_logger().info(f"publishing {size} at {self._values['rate']} Hz")
            for sent, tick in enumerate(self._ticks()):
                if self._time(tick) > lap or (frames and sent == frames):
                    break
                if kept:
                    self._publish(kept[to_and_fro(tick, len(kept))])
                else:
                    self._publish(self._frame(renderer, path, tick))
            for publisher in (self._image, self._info, self._depth):
                publisher.wait_for_all_acked(Duration(seconds=1))

    def _time(self, tick: int) -> float:
        return tick / float(self._values["rate"])

    def _lap(self, path: Trajectory | None, kept: int) -> float:
        """Seconds to publish for."""
        if self._loop:
            return math.inf
        if kept:
            return self._time(2 * kept - 2)
        return path.period if path else math.inf

    def _pose(self, path: Trajectory | None, tick: int) -> Pose:
        if path is None:
            return heading((0.0, 0.0, 0.0), 0.0)
        pose, height = path.pose(self._time(tick)), float(self._values["mount_height_m"])
        return mounted(pose, height, float(self._values["mount_pitch_deg"])) if height else pose

    def _frame(self, renderer: Renderer, path: Trajectory | None, tick: int) -> _Frame:
        pose = self._pose(path, tick)
        return _Frame(
            pose,
            lambda: image_message(renderer.rgb(pose), "rgb8", Header()),
            lambda: image_message(renderer.depth(pose), "32FC1", Header()),
        )

    def _prerender(self, renderer: Renderer, path: Trajectory | None) -> list[_Frame]:
        count = int(self._values["prerender"])
        if count:
            self.get_logger().info(f"rendering {count} frames beforehand; takes a while")
        return [self._frame(renderer, path, tick).rendered() for tick in range(count)]

    def _ticks(self) -> Iterator[int]:
        """Ticks since the start, at `rate` by the monotonic clock, until shutdown."""
        rate, start = float(self._values["rate"]), time.monotonic()
        tick = 0
        while rclpy.ok():
            yield tick
            # Deadlines that were missed are skipped, not made up for in a burst.
            tick = max(tick + 1, int((time.monotonic() - start) * rate))
            while rclpy.ok() and (left := start + tick / rate - time.monotonic()) > 0:
                rclpy.spin_once(self, timeout_sec=min(left, _SIGNAL_S))

    def _publish(self, frame: _Frame) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        if self._tf is not None:
            self._tf.publish(self._tf_message(transforms=transform_messages(frame.pose, header)))
        self._info.publish(camera_info_message(self.camera, header))
        for publisher, make in ((self._image, frame.image), (self._depth, frame.depth)):
            if publisher.get_subscription_count():
                message = make()
                message.header = header
                publisher.publish(message)


def _describe(text: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=text, read_only=True)


def _check_memory(frames: int, camera: CameraModel) -> None:
    """Holds what is rendered beforehand to a bound: 3 bytes of colour and 4 of depth a pixel."""
    most = _PRERENDERED_BYTES // (camera.width * camera.height * 7)
    if frames > most:
        raise ValueError(
            f"parameter prerender is {frames}, but only {most} frames of"
            f" {camera.width}x{camera.height} fit in {_PRERENDERED_BYTES >> 20} MB"
        )


def _camera(number: dict[str, float | int]) -> CameraModel:
    width, height = int(number["width"]), int(number["height"])
    if number["fx"] == 0:
        if number["fy"] != 0:
            raise ValueError("parameter fy is set but fx is not; set both, or only hfov_deg")
        return CameraModel.from_hfov(width, height, float(number["hfov_deg"]))
    fx, fy = float(number["fx"]), float(number["fy"] or number["fx"])
    return CameraModel(width, height, fx, fy, (width - 1) / 2, (height - 1) / 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Console script `virtual_camera`.

    Args:
        argv: arguments without the program's name; the process's own by default.

    Returns:
        exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="virtual_camera",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(remove_ros_args(["virtual_camera", *arguments])[1:])
    # Not rclpy's handlers: they shut the context down in the middle of a publish.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        VirtualCamera().run()
    except KeyboardInterrupt:
        pass
    except (ParameterException, ValueError, RuntimeError) as error:
        print(f"virtual_camera: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
