"""The parameter table, its file, the mailbox and the statistics: the node's parts without ROS."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mono_depth_ros.frame_statistics import FrameStatistics, FrameTiming
from mono_depth_ros.mailbox import Mailbox
from mono_depth_ros.parameters import PARAMETERS, ParameterSpec, refusal

FILE = Path(__file__).parent.parent / "config" / "depth.yaml"
DEFAULTS: dict[str, Any] = {spec.name: spec.default for spec in PARAMETERS}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def test_file_lists_every_parameter_at_its_default() -> None:
    document = yaml.safe_load(FILE.read_text())
    values = flatten(document["/**"]["ros__parameters"])
    assert values == DEFAULTS
    assert {name: type(value) for name, value in values.items()} == {
        name: type(value) for name, value in DEFAULTS.items()
    }


def test_every_parameter_in_the_file_has_a_comment_above() -> None:
    lines = FILE.read_text().splitlines()
    for i, line in enumerate(lines):
        key = line.strip().split(":")[0]
        if line.startswith("    ") and not line.strip().startswith("#") and key != "stride":
            assert lines[i - 1].strip().startswith("#") or key == "max_depth", line


def test_defaults_are_accepted() -> None:
    assert refusal(DEFAULTS, DEFAULTS, configured=True) == ""


@given(st.sampled_from([s for s in PARAMETERS if s.minimum is not None]), st.floats())
def test_a_number_is_accepted_exactly_within_its_range(spec: Any, value: float) -> None:
    accepted = spec.refusal(value) == ""
    assert accepted == (spec.minimum <= value <= spec.maximum)
    assert accepted or spec.name in spec.refusal(value)


def test_the_set_is_judged_as_a_whole() -> None:
    assert refusal({"min_depth": 12.0, "max_depth": 15.0}, DEFAULTS, True) == ""
    assert "min_depth" in refusal({"min_depth": 12.0}, DEFAULTS, True)
    assert "max_depth" in refusal({"max_depth": 0.05}, DEFAULTS, True)


OTHERS = {
    "autostart": False,
    "engine": "onnx",
    "precision": "float32",
    "image_transport": "compressed",
}


@pytest.mark.parametrize("spec", [s for s in PARAMETERS if not s.live], ids=lambda s: s.name)
def test_what_is_read_at_configure_cannot_change_later(spec: ParameterSpec) -> None:
    change = {spec.name: OTHERS.get(spec.name, "other")}
    assert refusal(change, DEFAULTS, configured=False) == ""
    assert refusal({spec.name: DEFAULTS[spec.name]}, DEFAULTS, configured=True) == ""
    reason = refusal(change, DEFAULTS, configured=True)
    assert spec.name in reason or spec.reloadable


def test_what_reload_model_takes_up_can_be_changed_before_it() -> None:
    changes = {"model": "other.onnx", "engine": "onnx", "precision": "float32"}
    assert refusal(changes, DEFAULTS, configured=True) == ""
    assert {spec.name for spec in PARAMETERS if spec.reloadable} == set(changes)


def test_mailbox_gives_the_newest_and_says_what_was_dropped() -> None:
    mailbox: Mailbox[int] = Mailbox()
    assert [mailbox.put(i) for i in (1, 2, 3)] == [False, True, True]
    assert mailbox.take() == 3
    assert mailbox.put(4) is False


def test_closing_the_mailbox_ends_a_waiting_reader() -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int | None] = []
    reader = threading.Thread(target=lambda: taken.append(mailbox.take()))
    reader.start()
    mailbox.close()
    reader.join(timeout=10)
    assert taken == [None]
    mailbox.put(1)
    assert mailbox.take() is None


def test_statistics_by_hand() -> None:
    statistics = FrameStatistics()
    assert statistics.seconds_since_publish(5.0) is None
    assert "latency_ms_p50" not in statistics.summary()
    for dropped in (False, True, False, False):
        statistics.on_received(dropped)
    statistics.on_failed()
    for published, latency, engine in ((10.0, 30.0, 20.0), (10.5, 50.0, 21.0), (11.0, 40.0, 25.0)):
        statistics.on_published(FrameTiming(published, latency, engine, invalid_share=0.25))
    summary = statistics.summary()
    assert (summary["frames_in"], summary["frames_out"]) == (4, 3)
    assert (summary["frames_dropped"], summary["frames_failed"]) == (1, 1)
    assert summary["rate_hz"] == pytest.approx(2.0)
    assert summary["latency_ms_p50"] == 40.0 and summary["engine_ms_p50"] == 21.0
    assert summary["overhead_ms_p50"] == 15.0  # of 10, 29 and 15
    assert summary["latency_ms_p95"] == pytest.approx(49.0)
    assert summary["invalid_share"] == 0.25
    assert statistics.seconds_since_publish(12.0) == 1.0
