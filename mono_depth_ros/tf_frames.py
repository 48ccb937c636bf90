"""What the node takes from tf and gives to it; does without where tf2_ros is not installed."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from mono_depth_ros.mounting import Mounting
from mono_depth_ros.output_profiles import StaticFrame

# What is computed from a mounting is computed anew when it has changed by more than this.
TURN_RAD, RISE_M = math.radians(0.25), 0.005
# More than any robot has; a camera whose frame_id is always another must not fill /tf_static.
MOST_FRAMES = 100
_OPTICAL = re.compile("_(optical_frame|frame_optical)$")
# Late listeners get the last message of every node.
_STATIC_QOS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def level_frame(camera_frame: str, mounting: Mounting) -> StaticFrame:
    """The level frame of a mounting as tf sees it: a child of the camera's optical frame.

    `front_camera_optical_frame` gets `front_camera_level_frame`.
    """
    return StaticFrame(
        parent=camera_frame,
        child=f"{_OPTICAL.sub('', camera_frame)}_level_frame",
        rotation=mounting.level_quaternion(),
    )


def _alike(one: Mounting, other: Mounting) -> bool:
    # The trace of a rotation by an angle a is 1 + 2 cos a.
    cosine = (float(np.sum(one.matrix() * other.matrix())) - 1) / 2
    return abs(one.height - other.height) < RISE_M and cosine > math.cos(TURN_RAD)


class TfFrames:
    """Listens to tf once it is asked something, and broadcasts static frames. Thread-safe.

    Args:
        node: whose executor serves the subscriptions.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._buffer: Any = None
        self._listener: Any = None
        self._publisher: Any = None
        self._lock = threading.Lock()
        self._sent: dict[str, StaticFrame] = {}
        self._mountings: dict[str, Mounting] = {}

    def mounting(self, base_frame: str, camera_frame: str) -> Mounting:
        """How a camera is held above a frame on the ground, as tf knows it now; the same object as
        before while it has hardly changed.

        Raises:
            ValueError: tf does not know, or tf2_ros is not installed.
        """
        try:
            import tf2_ros
        except ImportError:
            raise ValueError(
                f"base_frame {base_frame} needs tf2_ros, which is not installed; set camera_height,"
                " camera_pitch_deg and camera_roll_deg instead"
            ) from None
        with self._lock:
            if self._buffer is None:
                self._buffer = tf2_ros.Buffer()
                self._listener = tf2_ros.TransformListener(self._buffer, self._node)
            buffer = self._buffer
        try:
            found = buffer.lookup_transform(base_frame, camera_frame, Time())
        except tf2_ros.TransformException as error:
            raise ValueError(
                f"tf does not connect base_frame {base_frame} to the camera's {camera_frame}"
                f" ({error}); publish it, or set camera_height instead of base_frame"
            ) from None
        t, q = found.transform.translation, found.transform.rotation
        now = Mounting.from_transform((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
        key = f"{base_frame} {camera_frame}"
        if key not in self._mountings or not _alike(self._mountings[key], now):
            self._mountings[key] = now
        return self._mountings[key]

    def broadcast(self, frames: Sequence[StaticFrame]) -> None:
        """Sends static frames that have not been sent as they are; nothing without tf2_msgs.

        All that were sent before go with them, since /tf_static keeps one message a node. tf2_ros's
        StaticTransformBroadcaster will not do: in Python it either forgets what came before or
        never changes a frame, depending on its version.
        """
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            return
        with self._lock:
            new = {frame.child: frame for frame in frames if self._sent.get(frame.child) != frame}
            if not new or len(self._sent | new) > MOST_FRAMES:
                return
            self._sent |= new
            if self._publisher is None:
                self._publisher = self._node.create_publisher(TFMessage, "/tf_static", _STATIC_QOS)
            transforms = [self._message(frame) for frame in self._sent.values()]
            self._publisher.publish(TFMessage(transforms=transforms))

    def stop_listening(self) -> None:
        """Ends the subscriptions, which cost much where much moves, until somebody asks again."""
        with self._lock:
            if self._listener is not None:
                self._listener.unregister()
                self._buffer = self._listener = None

    def forget(self) -> None:
        """Takes back what was sent."""
        with self._lock:
            self._sent = {}
            if self._publisher is not None:
                self._node.destroy_publisher(self._publisher)
                self._publisher = None

    def _message(self, frame: StaticFrame) -> TransformStamped:
        message = TransformStamped(child_frame_id=frame.child)
        message.header.frame_id = frame.parent
        message.header.stamp = self._node.get_clock().now().to_msg()
        to, turn = message.transform.translation, message.transform.rotation
        to.x, to.y, to.z = frame.translation
        turn.x, turn.y, turn.z, turn.w = frame.rotation
        return message
