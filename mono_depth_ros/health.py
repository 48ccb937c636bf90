"""What the node says of itself in one line: OK, or what is wrong and what to do about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

# A camera that has been silent for this long, or for this many of its periods, has stopped.
SILENCE_S, SILENCE_PERIODS = 1.0, 4.0
# Stamps that are further from the node's clock are of another clock.
CLOCK_S = 10.0
MOSTLY_INVALID = 0.95


class Level(enum.IntEnum):
    """The levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Observation:
    """What is known of a node at one moment.

    Attributes:
        name: of the node, fully qualified.
        image_topic: resolved.
        configured, active: between configure and cleanup, between activate and deactivate.
        shut_down: finalized, from where no transition leads.
        wanted: somebody subscribes to an output.
        namesakes: other nodes of the same name.
        image_publishers: on `image_topic`.
        error: why the last frame was not published; empty if it was.
        warning: why what serves is not what was asked for; empty if it is.
        missing: why outputs that somebody subscribes to are not published; empty if all are.
        silence_s: seconds since the last image; None before the first.
        period_s: median seconds between images; None if not known.
        latency_s: acquisition stamp to publish of the last frames, median; None before the first.
        invalid_share: of the last frame; None before the first.
        sim_time: the node takes its time from /clock.
    """

    name: str
    image_topic: str
    configured: bool = True
    active: bool = True
    shut_down: bool = False
    wanted: bool = True
    namesakes: int = 0
    image_publishers: int = 1
    error: str = ""
    warning: str = ""
    missing: str = ""
    silence_s: float | None = None
    period_s: float | None = None
    latency_s: float | None = None
    invalid_share: float | None = None
    sim_time: bool = False


def assess(seen: Observation) -> tuple[Level, str]:
    """The most urgent of what can be said, with the remedy."""
    if seen.error:
        return Level.ERROR, seen.error
    if seen.active and seen.wanted and _has_stopped(seen):
        return Level.ERROR, (
            f"no image on {seen.image_topic} for {seen.silence_s:.1f} s; check the camera and its"
            " driver; depth goes on when images do"
        )
    if seen.shut_down:
        return Level.OK, "shut down; start the process again to use it"
    if seen.namesakes:
        return Level.WARN, (
            f"{seen.namesakes + 1} nodes are called {seen.name}, and services reach either;"
            " give each a namespace (namespace:=...) or stop one"
        )
    if seen.warning:
        return Level.WARN, seen.warning
    if not seen.active:
        step = "activate" if seen.configured else "configure"
        return Level.OK, f"not active; ros2 lifecycle set {seen.name} {step}"
    if not seen.wanted:
        if not seen.image_publishers:
            return Level.WARN, _no_publisher(seen.image_topic)
        return Level.OK, "idle: nobody subscribes to an output"
    return _assess_frames(seen)


def _has_stopped(seen: Observation) -> bool:
    limit = max(SILENCE_S, SILENCE_PERIODS * (seen.period_s or 0.0))
    return seen.silence_s is not None and seen.silence_s > limit


def _assess_frames(seen: Observation) -> tuple[Level, str]:
    if seen.silence_s is None:
        if not seen.image_publishers:
            return Level.WARN, _no_publisher(seen.image_topic)
        return Level.WARN, (
            f"no image on {seen.image_topic} yet, though somebody publishes there; depth_doctor"
            " tells whether QoS, type or the Fast DDS profile keeps them away"
        )
    if seen.missing:
        return Level.WARN, seen.missing
    if seen.latency_s is not None and abs(seen.latency_s) > CLOCK_S:
        remedy = (
            "unset use_sim_time if nothing publishes /clock"
            if seen.sim_time
            else "set use_sim_time where a simulator or bag publishes /clock, or synchronise clocks"
        )
        return Level.WARN, (
            f"images are stamped {abs(seen.latency_s):.0f} s"
            f" {'before' if seen.latency_s > 0 else 'after'} they are published: another clock;"
            f" {remedy}"
        )
    if seen.invalid_share is not None and seen.invalid_share > MOSTLY_INVALID:
        return Level.WARN, (
            f"{seen.invalid_share:.0%} of the pixels have no depth; check min_depth, max_depth and"
            " the calibration"
        )
    return Level.OK, "running"


def _no_publisher(topic: str) -> str:
    return f"no image on {topic} yet; remap image_raw to the camera's topic"
