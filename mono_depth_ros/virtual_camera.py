"""A camera in a simulated room: publishes its image, its calibration, and the true depth."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence

import rclpy
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
from mono_depth_ros.sim.pose import Pose, heading
from mono_depth_ros.sim.renderer import Renderer
from mono_depth_ros.sim.scene import Scene, build_room, build_wall
from mono_depth_ros.sim.trajectory import Trajectory

_EXAMPLES = """examples:
  virtual_camera
  virtual_camera --ros-args -p seed:=3 -p rate:=10.0
  virtual_camera --ros-args -p width:=1280 -p height:=720 -p hfov_deg:=90.0
  virtual_camera --ros-args -p scene:=wall -p wall_distance_m:=2.0 -p frames:=100
"""
_SIGNAL_S = 0.2  # Python sees a signal only once a wait in C has ended

# Reliable: best-effort and reliable subscribers both match.
_QOS = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)

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
}


class VirtualCamera(Node):
    """Publishes `image_raw`, `camera_info` and `depth/ground_truth` at `rate`."""

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
        text = "start over after each lap; false: stop after one"
        self._loop = bool(self.declare_parameter("loop", True, _describe(text)).value)
        self.camera = _camera(self._values)
        self._image = self.create_publisher(Image, "image_raw", _QOS)
        self._info = self.create_publisher(CameraInfo, "camera_info", _QOS)
        self._depth = self.create_publisher(Image, "depth/ground_truth", _QOS)

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
        lap = path.period if path and not self._loop else math.inf
        with Renderer(scene, self.camera) as renderer:
            size = f"{self.camera.width}x{self.camera.height}"
            self.get_logger().info(f"publishing {size} at {self._values['rate']} Hz")
            for sent, elapsed in enumerate(self._ticks()):
                if elapsed > lap or (frames and sent == frames):
                    break
                pose = path.pose(elapsed) if path else heading((0.0, 0.0, 0.0), 0.0)
                self._publish(renderer, pose)
            for publisher in (self._image, self._info, self._depth):
                publisher.wait_for_all_acked(Duration(seconds=1))

    def _ticks(self) -> Iterator[float]:
        """Seconds since the start, at `rate` by the monotonic clock, until shutdown."""
        rate, start = float(self._values["rate"]), time.monotonic()
        tick = 0
        while rclpy.ok():
            yield tick / rate
            # Deadlines that were missed are skipped, not made up for in a burst.
            tick = max(tick + 1, int((time.monotonic() - start) * rate))
            while rclpy.ok() and (left := start + tick / rate - time.monotonic()) > 0:
                rclpy.spin_once(self, timeout_sec=min(left, _SIGNAL_S))

    def _publish(self, renderer: Renderer, pose: Pose) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        self._info.publish(camera_info_message(self.camera, header))
        if self._image.get_subscription_count():
            self._image.publish(image_message(renderer.rgb(pose), "rgb8", header))
        if self._depth.get_subscription_count():
            self._depth.publish(image_message(renderer.depth(pose), "32FC1", header))


def _describe(text: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=text, read_only=True)


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
