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
from mono_depth_ros.mailbox import Mailboxes
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
        if line.startswith("    ") and not line.strip().startswith("#"):
            # The upper limit of a range stands below the lower one.
            partner = line.strip().startswith("max_") and lines[i - 1].strip().startswith("min_")
            assert lines[i - 1].strip().startswith("#") or partner, line


def test_defaults_are_accepted() -> None:
    assert refusal(DEFAULTS, DEFAULTS, configured=True) == ""


@given(st.sampled_from([s for s in PARAMETERS if s.minimum is not None]), st.floats())
def test_a_number_is_accepted_exactly_within_its_range(spec: Any, value: float) -> None:
    accepted = spec.refusal(value) == ""
    assert accepted == (spec.minimum <= value <= spec.maximum)
    assert accepted or spec.name in spec.refusal(value)


@pytest.mark.parametrize(("given", "meant"), [(True, "on"), (False, "off"), ("auto", "auto")])
def test_the_words_on_and_off_may_come_as_yaml_reads_them(given: Any, meant: str) -> None:
    (spec,) = (spec for spec in PARAMETERS if spec.name == "rectify")
    assert refusal({"rectify": given}, DEFAULTS, configured=True) == ""
    assert spec.value(given) == meant
    assert "rectify" in refusal({"rectify": 1.5}, DEFAULTS, configured=True)
    assert "autostart" not in [spec.name for spec in PARAMETERS if spec.takes_switch]


def test_every_number_has_a_range_and_a_unit_or_is_a_count() -> None:
    for spec in PARAMETERS:
        if type(spec.default) in (int, float):
            assert spec.minimum is not None and spec.maximum is not None, spec.name
            assert spec.unit or type(spec.default) is int, spec.name


@pytest.mark.parametrize("group", ["cloud", "scan", "obstacles"])
def test_a_range_that_is_empty_is_refused(group: str) -> None:
    both = {f"{group}.min_height": 3.0, f"{group}.max_height": 3.0}
    assert f"{group}.min_height" in refusal(both, DEFAULTS, True)
    assert refusal({**both, f"{group}.max_height": 3.1}, DEFAULTS, True) == ""


def test_the_set_is_judged_as_a_whole() -> None:
    assert refusal({"min_depth": 12.0, "max_depth": 15.0}, DEFAULTS, True) == ""
    assert "min_depth" in refusal({"min_depth": 12.0}, DEFAULTS, True)
    assert "max_depth" in refusal({"max_depth": 0.05}, DEFAULTS, True)


OTHERS = {
    "autostart": False,
    "engine": "onnx",
    "precision": "float32",
    "image_transport": "compressed",
    "profile": "zed",
    "publish_tf": False,
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


def test_a_mailbox_gives_the_newest_and_says_what_was_dropped() -> None:
    mailboxes: Mailboxes[str, int] = Mailboxes()
    mailboxes.add("a")
    assert [mailboxes.put("a", i) for i in (1, 2, 3)] == [False, True, True]
    assert mailboxes.take() == ("a", 3)
    assert mailboxes.put("a", 4) is False


def test_senders_are_served_in_turn_however_fast_one_is() -> None:
    mailboxes: Mailboxes[str, int] = Mailboxes()
    for sender in "abc":
        mailboxes.add(sender)
        mailboxes.put(sender, 0)
    served = []
    for i in range(9):
        taken = mailboxes.take()
        assert taken is not None
        served.append(taken[0])
        # "a" has a new image after every piece of work, the others one each time they are served.
        mailboxes.put("a", i)
        mailboxes.put(taken[0], i)
    assert "".join(served) == "abcabcabc"


def test_a_sender_that_is_removed_leaves_nothing_and_waits_for_the_work_on_its_item() -> None:
    mailboxes: Mailboxes[str, int] = Mailboxes()
    mailboxes.add("a")
    mailboxes.add("b")
    mailboxes.put("a", 1)
    assert mailboxes.take() == ("a", 1)
    mailboxes.put("a", 2)
    remover = threading.Thread(target=mailboxes.remove, args=("a",))
    remover.start()
    remover.join(timeout=0.2)
    assert remover.is_alive()
    mailboxes.put("b", 3)
    assert mailboxes.take() == ("b", 3)
    remover.join(timeout=10)
    assert not remover.is_alive()
    assert mailboxes.put("a", 4) is False


def test_closing_the_mailboxes_ends_a_waiting_reader() -> None:
    mailboxes: Mailboxes[str, int] = Mailboxes()
    taken: list[object] = []
    reader = threading.Thread(target=lambda: taken.append(mailboxes.take()))
    reader.start()
    mailboxes.close()
    reader.join(timeout=10)
    assert taken == [None]
    mailboxes.add("a")
    mailboxes.put("a", 1)
    assert mailboxes.take() is None


def test_statistics_by_hand() -> None:
    statistics = FrameStatistics()
    assert statistics.seconds_since_publish(5.0) is None
    assert "latency_ms_p50" not in statistics.summary(5.0)
    for now, replaced in ((9.5, False), (10.0, True), (10.5, False), (11.0, False)):
        statistics.on_received(now, replaced)
    statistics.on_failed()
    for published, latency, engine in ((10.0, 30.0, 20.0), (10.5, 50.0, 21.0), (11.0, 40.0, 25.0)):
        statistics.on_published(FrameTiming(published, latency, engine, invalid_share=0.25))
    summary = statistics.summary(11.5)
    assert (summary["frames_in"], summary["frames_out"]) == (4, 3)
    assert (summary["frames_skipped"], summary["frames_failed"]) == (1, 1)
    assert summary["rate_in_hz"] == summary["rate_out_hz"] == pytest.approx(2.0)
    assert summary["latency_ms_p50"] == 40.0 and summary["engine_ms_p50"] == 21.0
    assert summary["overhead_ms_p50"] == 15.0  # of 10, 29 and 15
    assert summary["overhead_ms_p95"] == pytest.approx(27.6)
    assert summary["latency_ms_p95"] == pytest.approx(49.0)
    assert summary["invalid_share"] == 0.25
    assert statistics.seconds_since_publish(12.0) == summary["seconds_since_publish"] + 0.5 == 1.0
    assert statistics.arrival_period() == 0.5 and statistics.seconds_since_arrival(12.0) == 1.0


def test_a_rate_falls_when_frames_stop_and_forgets_the_pause_when_they_come_back() -> None:
    statistics = FrameStatistics()
    for i in range(100):
        statistics.on_received(i * 0.1, False)
    assert statistics.summary(10.0)["rate_in_hz"] == pytest.approx(10.0)
    assert statistics.summary(13.0)["rate_in_hz"] < 5
    assert statistics.summary(30.0)["rate_in_hz"] == 0
    for i in range(100):
        statistics.on_received(60 + i * 0.1, False)
    assert statistics.summary(70.0)["rate_in_hz"] == pytest.approx(10.0)
    statistics.on_idle()
    assert statistics.seconds_since_arrival(71.0) is None and statistics.arrival_period() is None
