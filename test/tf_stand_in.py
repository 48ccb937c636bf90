"""tf2_ros and tf2_msgs, as far as the node knows them, for machines that have neither.

Signatures as in https://github.com/ros2/geometry2 (tf2_ros_py). Transforms are looked up as they
were put in: nothing is chained.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from geometry_msgs.msg import TransformStamped


class TransformException(Exception):  # noqa: N818 - its name there
    pass


class LookupException(TransformException):
    pass


class Buffer:
    """Latest transforms by target and source frame."""

    # Of all buffers, since the code under test makes its own.
    transforms: dict[tuple[str, str], TransformStamped] = {}  # noqa: RUF012

    def __init__(self, cache_time: Any = None, node: Any = None) -> None:
        pass

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Any, timeout: Any = None
    ) -> TransformStamped:
        try:
            return self.transforms[target_frame, source_frame]
        except KeyError:
            raise LookupException(f'"{target_frame}" passed to lookupTransform') from None


class TransformListener:
    made: list[TransformListener] = []  # noqa: RUF012

    def __init__(self, buffer: Buffer, node: Any, *, spin_thread: bool = False) -> None:
        self.made.append(self)
        self.listens = True

    def unregister(self) -> None:
        self.listens = False


class TFMessage:
    def __init__(self, transforms: list[TransformStamped]) -> None:
        self.transforms = transforms


def install(patch: pytest.MonkeyPatch) -> None:
    """Puts the modules where they are imported from, with nothing known yet."""
    tf2_ros, tf2_msgs, msg = (ModuleType(n) for n in ("tf2_ros", "tf2_msgs", "tf2_msgs.msg"))
    for name in (TransformException, LookupException, Buffer, TransformListener):
        setattr(tf2_ros, name.__name__, name)
    msg.TFMessage = TFMessage  # type: ignore[attr-defined]
    for module in (tf2_ros, tf2_msgs, msg):
        patch.setitem(sys.modules, module.__name__, module)
    patch.setattr(Buffer, "transforms", {})
    patch.setattr(TransformListener, "made", [])


def uninstall(patch: pytest.MonkeyPatch) -> None:
    """Makes their import fail, wherever they may be installed."""
    for name in ("tf2_ros", "tf2_msgs", "tf2_msgs.msg"):
        patch.setitem(sys.modules, name, None)


def know(
    target: str, source: str, translation: Sequence[float], quaternion: Sequence[float]
) -> None:
    """Puts in the pose of `source` in `target`: x, y, z in metres and x, y, z, w."""
    message = TransformStamped(child_frame_id=source)
    message.header.frame_id = target
    to, turn = message.transform.translation, message.transform.rotation
    to.x, to.y, to.z = map(float, translation)
    turn.x, turn.y, turn.z, turn.w = map(float, quaternion)
    Buffer.transforms[target, source] = message
