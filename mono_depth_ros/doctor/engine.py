"""What the node says of itself: engine, speed, depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mono_depth_ros.doctor.finding import Claim, Code
from mono_depth_ros.doctor.observation import DepthNode, Observation, Status
from mono_depth_ros.health import Level

_MOSTLY_INVALID = 0.5
# Depth a second, of images a second, below which frames are lost, and not only one now and then.
_LOST_SHARE = 0.9


def engine(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether the engine that was asked for serves."""
    if node.status is None:
        return
    values = node.status.values
    if building := values.get("engine_build", ""):
        yield (
            Code.ENGINE_BUILDING,
            Level.OK,
            f"{building}; {values.get('engine', 'another engine')} serves meanwhile",
            "wait, or build beforehand with build_engine",
        )
        return
    asked = node.parameters.get("engine", "auto")
    declined = [r for r in values.get("engines_not_taken", "").split("; ") if r]
    missing = [r for r in declined if r.startswith("tensorrt: ")]
    has_cause = asked == "tensorrt" or (asked == "auto" and seen.host.has_gpu)
    # The camera's first image tells what to build for.
    if missing and has_cause and "first image" not in missing[0]:
        yield (
            Code.ENGINE_FALLBACK,
            Level.WARN,
            f"{values.get('engine', 'another engine')} serves, since {'; '.join(declined)}",
            "docs/engines.md says what to install; then ros2 service call"
            f" {node.name}/reload_model std_srvs/srv/Trigger",
        )


def depth(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether depth is wanted, comes in time, and is depth."""
    if node.state == "active" and node.outputs and not any(t.subscriptions for t in node.outputs):
        yield (
            Code.NO_SUBSCRIBER,
            Level.OK,
            "nobody subscribes to depth or points, so none is computed",
            f"ros2 topic hz {node.outputs[0].name}",
        )
    if node.status is None:
        return
    yield from _speed(node, node.status)
    invalid = node.status.number("invalid_share")
    if invalid is not None and invalid > _MOSTLY_INVALID:
        yield (
            Code.MOSTLY_INVALID,
            Level.WARN,
            f"{invalid:.0%} of the pixels have no depth",
            f"ros2 param set {node.name} max_depth 20.0; check min_depth, and the lens",
        )


def _speed(node: DepthNode, status: Status) -> Iterator[Claim]:
    """Whether depth keeps up with the camera.

    Latency alone does not tell: it has the camera's own delay in it. Nor does the count of skipped
    frames, which is since the node was activated.
    """
    period, latency = _period_ms(node), status.number("latency_ms_p95")
    images, frames = status.number("rate_in_hz"), status.number("rate_out_hz")
    if period is None or latency is None or images is None or frames is None:
        return
    # Frames that failed were not too slow.
    if latency > period and frames < _LOST_SHARE * images and status.number("frames_skipped") != 0:
        yield (
            Code.TOO_SLOW,
            Level.WARN,
            f"depth comes at {frames:.1f} Hz of {images:.1f} Hz images, and takes {latency:.0f} ms"
            f" (p95) while they come every {period:.0f} ms: frames are skipped",
            f"ros2 param set {node.name} cloud.stride 4; build_engine --precision int8"
            " --calibrate PICTURES; a GPU; or a slower or smaller camera image",
        )


def _period_ms(node: DepthNode) -> float | None:
    """Median milliseconds between images; None if that is not known."""
    if node.image is None or len(node.image.stamps_ns) < 3:
        return None
    gaps = np.diff(np.unique(node.image.stamps_ns))
    return float(np.median(gaps)) * 1e-6 if gaps.size else None


def said(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """What the node complains of itself."""
    if node.status is None or node.status.level == Level.OK:
        return
    code = Code.NODE_ERROR if node.status.level == Level.ERROR else Code.NODE_WARNING
    what, _, fix = node.status.message.partition("; ")
    fix = fix or "see the node's log"
    yield code, node.status.level, f"the node says: {what}", fix
