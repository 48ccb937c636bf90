"""What is wrong with a running system: `Observation` -> `Finding`s."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mono_depth_ros.doctor import camera, clock, engine, graph, transport
from mono_depth_ros.doctor.finding import Claim, Finding
from mono_depth_ros.doctor.observation import DepthNode, Observation

_SYSTEM_CHECKS: tuple[Callable[[Observation], Iterator[Claim]], ...] = (
    graph.presence,
    transport.memory,
)
# From causes to effects.
_NODE_CHECKS: tuple[Callable[[DepthNode, Observation], Iterator[Claim]], ...] = (
    graph.state,
    graph.image_topic,
    graph.qos,
    transport.transport,
    camera.images,
    camera.calibration,
    camera.synchrony,
    camera.frames,
    clock.clock,
    engine.engine,
    engine.depth,
    engine.said,
)


def findings(seen: Observation) -> list[Finding]:
    """All findings, the worst first; those of one level from causes to effects."""
    found = [
        Finding(code, level, node.name, what, fix)
        for node in seen.nodes
        for check in _NODE_CHECKS
        for code, level, what, fix in check(node, seen)
    ]
    found += [
        Finding(code, level, "", what, fix)
        for check in _SYSTEM_CHECKS
        for code, level, what, fix in check(seen)
    ]
    return sorted(found, key=lambda finding: -finding.level)
