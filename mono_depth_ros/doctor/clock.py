"""Stamps and clocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mono_depth_ros.doctor.finding import Claim, Code
from mono_depth_ros.doctor.observation import DepthNode, Observation
from mono_depth_ros.health import Level

# Age of an image on arrival in seconds: what tf and costmaps forgive, and what no clock that is
# only badly set explains.
_OLD_S, _EARLY_S, _OTHER_CLOCK_S = 1.0, 0.1, 10.0


def clock(node: DepthNode, seen: Observation) -> Iterator[Claim]:
    """Whether images are stamped by the clock that the node goes by, just before they come."""
    simulated = bool(node.parameters.get("use_sim_time", False))
    if simulated and not seen.clock_publishers:
        yield (
            Code.NO_CLOCK,
            Level.ERROR,
            "the node has use_sim_time, but nobody publishes /clock, so its time stands still",
            f"ros2 param set {node.name} use_sim_time false, or play the bag with --clock",
        )
    elif simulated and len(set(seen.clock_ns)) < 2:
        yield (
            Code.CLOCK_STOPPED,
            Level.WARN,
            f"/clock does not move ({len(seen.clock_ns)} messages)",
            "resume the simulator or the bag",
        )
    if node.image is None or not node.image.stamps_ns:
        return
    stamps = np.array(node.image.stamps_ns, np.int64)
    where = node.image.topic.name
    driver = node.image.topic.publishers[0].node if node.image.topic.publishers else "the driver"
    if not stamps.any():
        what, fix = f"images on {where} have stamp 0", f"make {driver} stamp its images"
        yield Code.STAMPS_ZERO, Level.ERROR, what, fix
        return
    back = int((np.diff(stamps) < 0).sum())
    if back:
        yield (
            Code.STAMPS_BACKWARDS,
            Level.WARN,
            f"stamps on {where} went backwards {back} times in {stamps.size} images",
            "a bag in a loop, or two publishers: ros2 topic info -v " + where,
        )
    wall = float(np.median(np.array(node.image.wall_ns, np.int64) - stamps)) * 1e-9
    simulation = np.array(node.image.clock_ns, np.int64)
    known = simulation > 0
    by_clock = float(np.median((simulation - stamps)[known])) * 1e-9 if known.any() else None
    if not simulated and seen.clock_publishers:
        foreign = abs(wall) > _OTHER_CLOCK_S
        yield (
            Code.CLOCK_IGNORED,
            Level.ERROR if foreign else Level.WARN,
            f"somebody publishes /clock, and the node does not take it; images are {wall:.1f} s"
            " from the system's time",
            f"ros2 param set {node.name} use_sim_time true"
            if foreign
            else "stop what publishes /clock, or give it and the cameras one clock",
        )
        if foreign:
            return
    age = by_clock if simulated else wall
    if age is not None:
        yield from _age(node, age, simulated)


def _age(node: DepthNode, age: float, simulated: bool) -> Iterator[Claim]:
    assert node.image is not None
    if -_EARLY_S <= age <= _OLD_S:
        return
    early = age < 0
    where, publishers = node.image.topic.name, node.image.topic.publishers
    if abs(age) > _OTHER_CLOCK_S and simulated:
        fix = f"ros2 param set {node.name} use_sim_time false: the images are not of the simulation"
    elif any(p.elsewhere for p in publishers):
        fix = "synchronise the clocks of both machines: sudo apt install chrony; chronyc tracking"
    elif abs(age) > _OTHER_CLOCK_S:
        fix = (
            "a bag needs ros2 bag play --clock and use_sim_time; a driver that stamps with its own"
            " clock needs its setting for system time (RealSense: global_time_enabled)"
        )
    elif early:
        fix = f"make {publishers[0].node if publishers else 'the driver'} stamp with system time"
    else:
        fix = "take queues, network links and slow nodes out between the camera and the node"
    yield (
        Code.STAMPS_FUTURE if early else Code.STAMPS_OLD,
        Level.ERROR if abs(age) > _OTHER_CLOCK_S else Level.WARN,
        f"images on {where} are stamped {abs(age):.2f} s {'after' if early else 'before'} they"
        " arrive",
        fix,
    )
