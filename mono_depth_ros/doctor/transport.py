"""How messages travel: Fast DDS's shared memory, sockets."""

from __future__ import annotations

from collections.abc import Iterator

from mono_depth_ros.doctor.finding import Claim, Code
from mono_depth_ros.doctor.host import Process
from mono_depth_ros.doctor.observation import DepthNode, Observation
from mono_depth_ros.health import Level

# Each process that has the Fast DDS profile takes 64 MB of /dev/shm at most.
_SHM_BYTES = 256 << 20
# An image in a burst of fragments must fit the socket's buffer.
_RMEM_BYTES = 4 << 20
FAST_DDS, _CYCLONE = "rmw_fastrtps", "rmw_cyclonedds"
_SOCKETS = (
    "sudo sysctl -w net.core.rmem_max=2147483647 (and in /etc/sysctl.d to keep it); or"
    " image_transport:=compressed"
)


def _with_profile(seen: Observation, name: str) -> str:
    variable = f"{seen.profile_variable}={seen.profile}"
    return f"export {variable} where {name} is started, and start it again"


def remedy_for_loss(node: DepthNode, seen: Observation) -> str:
    """What to do where images are lost on their way from the camera.

    Shared memory may be too small only where the sender is on this machine, and is not known to
    have enough of it; else the images are lost in sockets.
    """
    _, _, size = _image_size(node)
    senders = node.image.topic.publishers if node.image is not None else ()
    if seen.rmw.startswith(FAST_DDS) and any(
        not sender.elsewhere and not _holds(sender.process, size) for sender in senders
    ):
        return _with_profile(seen, "the camera's driver")
    return _SOCKETS


def _holds(process: Process | None, size: int) -> bool:
    """Whether an image of so many bytes fits a process's shared memory; False if not known."""
    segment = process.segment_bytes if process is not None else None
    return segment is not None and 0 < size <= segment


def transport(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Publishers of images that have less shared memory than one image.

    Only the sender's segment counts; who receives maps it.
    """
    if node.image is None:
        return
    width, height, size = _image_size(node)
    if seen.rmw.startswith(FAST_DDS):
        senders = [(p, size) for p in node.image.topic.publishers]
        depth = 4 * width * height
        senders += [(p, depth) for topic in node.outputs[:1] for p in topic.publishers[:1]]
        for sender, needed in senders:
            process = sender.process
            if process and process.segment_bytes and process.segment_bytes < needed:
                has, needs = process.segment_bytes / 1e6, needed / 1e6
                yield (
                    Code.DDS_PROFILE,
                    Level.ERROR,
                    f"{sender.node} (process {process.pid}) has {has:.1f} MB of Fast DDS shared"
                    f" memory, and its images are {needs:.1f} MB: most best-effort ones are lost",
                    _with_profile(seen, sender.node),
                )
    rmem = seen.host.rmem_max_bytes
    by_network = seen.rmw.startswith(_CYCLONE) or any(
        p.elsewhere for p in node.image.topic.publishers
    )
    if by_network and rmem is not None and rmem < min(size, _RMEM_BYTES):
        yield (
            Code.RMEM_SMALL,
            Level.WARN,
            f"images of {size / 1e6:.1f} MB come over the network, and a socket may buffer"
            f" {rmem / 1e6:.1f} MB",
            _SOCKETS,
        )


def _image_size(node: DepthNode) -> tuple[int, int, int]:
    """Width, height and bytes of an image; where none came, what the calibration lets expect."""
    picture, info = node.picture, node.calibration
    if picture is not None:
        return picture.width, picture.height, picture.message_bytes
    if info is None:
        return 0, 0, 0
    return info.width, info.height, 3 * info.width * info.height


def memory(seen: Observation) -> Iterator[Claim]:
    """Whether /dev/shm has room."""
    host = seen.host
    if not seen.rmw.startswith(FAST_DDS):
        return
    if host.shm_bytes is not None and host.shm_free_bytes is not None:
        total, free = host.shm_bytes >> 20, host.shm_free_bytes >> 20
        if host.shm_free_bytes < _SHM_BYTES:
            yield (
                Code.SHM_SMALL,
                Level.WARN,
                f"{free} MB of the {total} MB of /dev/shm are free; each process with the Fast DDS"
                " profile takes up to 64 MB",
                "in a container: docker run --shm-size=1g (or --ipc=host); else: fastdds shm clean",
            )
    if host.stale_segments:
        yield (
            Code.SHM_STALE,
            Level.WARN if host.stale_segments > 20 else Level.OK,
            f"{host.stale_segments} Fast DDS segments in /dev/shm are of processes that are gone",
            "fastdds shm clean",
        )
