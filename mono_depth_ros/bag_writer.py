"""New ROS 2 bags that appear whole or not at all."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

from mono_depth_ros.bag_reader import TYPES

SUFFIXES = {".mcap": StoragePlugin.MCAP, ".db3": StoragePlugin.SQLITE3}
# The last whose QoS profiles Humble and Jazzy can read; Kilted reads both.
_VERSION: Literal[8] = 8
# rosbags wants a hash of each type, and reads none from a bare MCAP file.
_NO_HASH = f"RIHS01_{0:064}"
_FOREVER = QosTime(9223372036, 854775807)
#: What the node publishes with.
RELIABLE = Qos(
    QosHistory.KEEP_LAST,
    5,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    _FOREVER,
    _FOREVER,
    QosLiveliness.AUTOMATIC,
    _FOREVER,
    False,
)


class BagWriteError(ValueError):
    """A bag that cannot be written; the message names it and the remedy."""


class BagWriter:
    """Writes messages that are serialised already.

    Attributes:
        written: number of messages so far.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._copies: dict[int, Connection] = {}
        self.written = 0

    def copy_topic(self, connection: Connection) -> None:
        """Announces a topic of another bag, with its type's definition and its QoS.

        The definition is copied as text, so the type need not be known; that of a known type is
        added where the other bag has none (sqlite3 before Iron).
        """
        definition = connection.msgdef.data
        if not definition and connection.msgtype in TYPES.fielddefs:
            definition, _ = TYPES.generate_msgdef(connection.msgtype, ros_version=2)
        ext = cast(ConnectionExtRosbag2, connection.ext)
        for known in self._writer.connections:
            # Several publishers of one topic: MCAP tells them apart, rosbags' writer does not.
            if (known.topic, known.msgtype, known.ext) == (
                connection.topic,
                connection.msgtype,
                connection.ext,
            ):
                self._copies[connection.id] = known
                return
        self._copies[connection.id] = self._writer.add_connection(
            connection.topic,
            connection.msgtype,
            msgdef=definition,
            rihs01=connection.digest or _NO_HASH,
            serialization_format=ext.serialization_format,
            offered_qos_profiles=ext.offered_qos_profiles,
        )

    def copy(self, connection: Connection, received: int, raw: bytes) -> None:
        """Writes a message of a topic that was given to `copy_topic`."""
        self.write(self._copies[connection.id], received, raw)

    def add_topic(self, topic: str, msgtype: str) -> Connection:
        """Announces a new topic of a known type."""
        return self._writer.add_connection(
            topic, msgtype, typestore=TYPES, offered_qos_profiles=[RELIABLE]
        )

    def write(self, connection: Connection, received: int, raw: bytes | memoryview) -> None:
        """Writes a message of what `add_topic` gave."""
        self._writer.write(connection, received, raw)
        self.written += 1


def rehearse(out: Path) -> None:
    """Finds out whether a bag can be made before an hour of work depends on it.

    Raises:
        BagWriteError: something is there, or its folder cannot be written to.
    """
    if out.exists():
        raise BagWriteError(f"{out}: is there already; remove it, or set another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.stem}.", dir=out.parent):
            pass
    except OSError as error:
        raise BagWriteError(
            f"{out}: cannot be written ({error.strerror}); set another --out"
        ) from None


@contextmanager
def new_bag(out: Path, storage: StoragePlugin) -> Iterator[BagWriter]:
    """Gives a writer; the bag appears under its name when the block succeeds.

    Args:
        out: a file that ends in .mcap or .db3, else a folder; see `rehearse`.
        storage: of a folder; a file's is that of its suffix.

    Raises:
        BagWriteError: it cannot be written.
    """
    is_file = out.suffix in SUFFIXES
    name = out.stem if is_file else out.name
    try:
        # Beside the result, so that it can be renamed; the file's name is in the metadata too.
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=out.parent) as folder:
            bag = Path(folder) / name
            plugin = SUFFIXES.get(out.suffix, storage)
            with Writer(bag, version=_VERSION, storage_plugin=plugin) as writer:
                yield BagWriter(writer)
            (bag / f"{name}{out.suffix}" if is_file else bag).rename(out)
    except (OSError, sqlite3.Error, WriterError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BagWriteError(
            f"{out}: cannot be written ({reason}); make room, or set another --out"
        ) from error
