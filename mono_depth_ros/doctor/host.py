"""What this machine says of its ROS processes: environments, Fast DDS's shared memory, limits.

Everything is read from /proc, /sys and /dev. What belongs to another user or another container is
not seen, and then nothing is claimed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROC, SHM = Path("/proc"), Path("/dev/shm")
# Which processes see each other is decided by these; an unset one means what is given here.
MEETING = {
    "ROS_DOMAIN_ID": "0",
    "RMW_IMPLEMENTATION": "",
    "ROS_LOCALHOST_ONLY": "0",
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
}
# Present on a PC with NVIDIA's driver, and on Jetsons before and after JetPack 6.
_GPU_FILES = ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0/ctrl")
# Fast DDS 3 says fastdds, Fast DDS 2 fastrtps; the owner of a segment holds a lock on its file _el.
_SEGMENT_LOCK = re.compile(r"fast(?:dds|rtps)_[0-9a-f]{16}_el")
# Younger files may be between being made and being locked.
_SETTLED_S = 10.0
_VENDOR_FAST_DDS = b"\x01\x0f"


@dataclass(frozen=True)
class Process:
    """A process of this machine.

    Attributes:
        pid: process id.
        command: its command line.
        environment: as it was started with; empty if it cannot be read.
        segment_bytes: its shared-memory segment of Fast DDS; None if it has none.
    """

    pid: int
    command: str
    environment: Mapping[str, str] = field(default_factory=dict)
    segment_bytes: int | None = None


@dataclass(frozen=True)
class Host:
    """This machine, and the environment of this process.

    Attributes:
        environment: of this process: what `MEETING` names.
        has_gpu: an NVIDIA GPU is here.
        shm_bytes, shm_free_bytes: size of /dev/shm, and what is left of it; None without one.
        stale_segments: shared-memory segments of Fast DDS whose process is gone.
        rmem_max_bytes: the largest socket buffer that a process may ask for; None if not known.
        depth_nodes: processes that run `depth_node`.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    has_gpu: bool = False
    shm_bytes: int | None = None
    shm_free_bytes: int | None = None
    stale_segments: int = 0
    rmem_max_bytes: int | None = None
    depth_nodes: tuple[Process, ...] = ()


def read_host() -> Host:
    """Looks at this machine; takes some milliseconds."""
    try:
        usage = shutil.disk_usage(SHM)
    except OSError:
        usage = None
    try:
        rmem = int((PROC / "sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        rmem = None
    return Host(
        environment={name: os.environ.get(name, unset) for name, unset in MEETING.items()},
        has_gpu=any(Path(name).exists() for name in _GPU_FILES),
        shm_bytes=usage.total if usage else None,
        shm_free_bytes=usage.free if usage else None,
        stale_segments=sum(map(_is_stale, _entries(SHM))),
        rmem_max_bytes=rmem,
        depth_nodes=tuple(
            process
            for entry in _entries(PROC)
            if entry.name.isdigit()
            and _runs_depth_node(_words(entry))
            and (process := read_process(int(entry.name))) is not None
        ),
    )


def read_process(pid: int) -> Process | None:
    """A process of this machine; None if it is gone or a kernel thread."""
    folder = PROC / str(pid)
    words = _words(folder)
    if not words:
        return None
    try:
        text = (folder / "environ").read_bytes().decode(errors="replace")
    except OSError:
        text = ""
    pairs = (item.partition("=") for item in text.split("\0") if "=" in item)
    sizes = [size for name in _owned_segments(folder) if (size := _size(SHM / name)) is not None]
    return Process(
        pid=pid,
        command=" ".join(words),
        environment={name: value for name, _, value in pairs},
        segment_bytes=max(sizes, default=None),
    )


def process_of(gid: Iterable[int], own_gid: Iterable[int]) -> Process | None:
    """The process that an endpoint of Fast DDS belongs to; None on another machine or if unseen.

    Bytes 2 and 3 of a GUID of Fast DDS are of the machine, 4 and 5 are the process id's lower half,
    little end first: `GuidUtils` in https://github.com/eProsima/Fast-DDS,
    src/cpp/rtps/common/GuidUtils.hpp.

    Args:
        gid: of the endpoint.
        own_gid: of any endpoint of this process.
    """
    wanted, own = bytes(gid), bytes(own_gid)
    if wanted[:2] != _VENDOR_FAST_DDS or wanted[:4] != own[:4]:
        return None
    low = int.from_bytes(wanted[4:6], "little")
    for entry in _entries(PROC):
        if entry.name.isdigit() and int(entry.name) & 0xFFFF == low and _owned_segments(entry):
            return read_process(int(entry.name))
    return None


def is_elsewhere(gid: Iterable[int], own_gid: Iterable[int]) -> bool:
    """Whether an endpoint of Fast DDS is on another machine; False if that cannot be told."""
    wanted, own = bytes(gid), bytes(own_gid)
    both_fast_dds = wanted[:2] == own[:2] == _VENDOR_FAST_DDS
    return both_fast_dds and wanted[2:4] != own[2:4]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _words(process: Path) -> list[str]:
    try:
        text = (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.rstrip("\0").split("\0") if text else []


def _runs_depth_node(words: list[str]) -> bool:
    """Whether a command line is that of `depth_node`, in whatever way it was started."""
    # A script of Python is the second word; `ros2 run` and `ros2 launch` stay as parents, and are
    # not the node.
    return any(Path(word).name == "depth_node" for word in words[:2]) or words[1:3] == [
        "-m",
        "mono_depth_ros.node",
    ]


def _owned_segments(process: Path) -> list[str]:
    """Names of the shared-memory segments that a process has made; other processes map them too."""
    names = []
    for link in _entries(process / "fd"):
        try:
            name = link.readlink().name
        except OSError:
            continue
        if _SEGMENT_LOCK.fullmatch(name):
            names.append(name.removesuffix("_el"))
    return names


def _is_stale(path: Path) -> bool:
    """Whether a file is the lock of a segment whose owner is gone: nobody holds it any more.

    This is how `fastdds shm clean` tells.
    """
    if not _SEGMENT_LOCK.fullmatch(path.name):
        return False
    try:
        if time.time() - path.stat().st_mtime < _SETTLED_S:
            return False
        with path.open("rb") as file:
            # Shared, and let go when the file is closed: it takes nothing from anybody.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
