"""What the node says of itself: which of several things is said, and that each names its remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mono_depth_ros.health import Level, Observation, assess

GOOD = Observation(
    name="/front/mono_depth",
    image_topic="/front/image_raw",
    silence_s=0.03,
    period_s=0.033,
    latency_s=0.05,
    invalid_share=0.1,
)


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({}, Level.OK, ("running",)),
        ({"error": "model x.onnx: gone"}, Level.ERROR, ("model x.onnx: gone",)),
        ({"namesakes": 1}, Level.WARN, ("2 nodes", "/front/mono_depth", "namespace")),
        ({"warning": "tensorrt: no"}, Level.WARN, ("tensorrt: no",)),
        ({"active": False}, Level.OK, ("not active", "lifecycle set /front/mono_depth activate")),
        (
            {"active": False, "configured": False},
            Level.OK,
            ("not active", "lifecycle set /front/mono_depth configure"),
        ),
        (
            {"active": False, "configured": False, "shut_down": True},
            Level.OK,
            ("shut down", "start the process again"),
        ),
        ({"wanted": False}, Level.OK, ("idle",)),
        ({"wanted": False, "image_publishers": 0}, Level.WARN, ("/front/image_raw", "remap")),
        ({"silence_s": None}, Level.WARN, ("/front/image_raw", "depth_doctor")),
        ({"silence_s": None, "image_publishers": 0}, Level.WARN, ("/front/image_raw", "remap")),
        ({"silence_s": 1.2}, Level.ERROR, ("/front/image_raw", "1.2 s", "camera")),
        ({"silence_s": 0.9}, Level.OK, ("running",)),
        # A camera of one image in two seconds has not stopped.
        ({"silence_s": 3.0, "period_s": 2.0}, Level.OK, ("running",)),
        ({"silence_s": 8.5, "period_s": 2.0}, Level.ERROR, ("8.5 s",)),
        ({"missing": "/scan: set camera_height"}, Level.WARN, ("set camera_height",)),
        ({"latency_s": 3600.0}, Level.WARN, ("3600 s", "set use_sim_time")),
        ({"latency_s": -3600.0}, Level.WARN, (" 3600 s after", "clock")),
        ({"latency_s": 1.8e9, "sim_time": True}, Level.WARN, ("unset use_sim_time",)),
        ({"invalid_share": 0.99}, Level.WARN, ("99%", "max_depth")),
    ],
)
def test_each_condition_has_its_level_and_its_remedy(
    change: dict[str, Any], level: Level, words: tuple[str, ...]
) -> None:
    said, text = assess(replace(GOOD, **change))
    assert said == level
    assert all(word in text for word in words), text


# From the most to the least urgent: what is further up hides what is below.
URGENCY: tuple[dict[str, Any], ...] = (
    {"error": "an error"},
    {"silence_s": 30.0},
    {"namesakes": 2},
    {"warning": "a warning"},
    {"missing": "an output is missing"},
    {"latency_s": 100.0},
    {"invalid_share": 1.0},
)


@pytest.mark.parametrize("first", range(len(URGENCY) - 1))
def test_the_most_urgent_is_said(first: int) -> None:
    everything: dict[str, Any] = {}
    for change in URGENCY[first:]:
        everything |= change
    assert assess(replace(GOOD, **everything)) == assess(replace(GOOD, **URGENCY[first]))


def test_a_node_that_is_not_active_does_not_complain_of_its_camera() -> None:
    silent = replace(GOOD, active=False, silence_s=100.0, image_publishers=0, invalid_share=1.0)
    assert assess(silent)[0] == Level.OK


SECONDS = st.one_of(st.none(), st.floats(-1e10, 1e10))
OBSERVATIONS = st.builds(
    Observation,
    name=st.just("/mono_depth"),
    image_topic=st.just("/image_raw"),
    configured=st.booleans(),
    active=st.booleans(),
    shut_down=st.just(False),
    wanted=st.booleans(),
    namesakes=st.integers(0, 3),
    image_publishers=st.integers(0, 2),
    error=st.sampled_from(("", "an error")),
    warning=st.sampled_from(("", "a warning")),
    missing=st.sampled_from(("", "missing")),
    silence_s=st.one_of(st.none(), st.floats(0, 1e6)),
    period_s=st.one_of(st.none(), st.floats(0, 100)),
    latency_s=SECONDS,
    invalid_share=st.one_of(st.none(), st.floats(0, 1)),
    sim_time=st.booleans(),
)


@given(OBSERVATIONS)
def test_whatever_is_seen_one_line_is_said_and_an_error_is_never_hidden(seen: Observation) -> None:
    level, text = assess(seen)
    assert text and "\n" not in text
    if seen.error:
        assert (level, text) == (Level.ERROR, seen.error)
    elif level == Level.ERROR:
        assert seen.active and seen.wanted and (seen.silence_s or 0) > 1
    if level == Level.OK:
        assert not (seen.error or seen.warning or seen.namesakes)
