"""What networks predict, worked out by hand, and the way back to metres."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from training.targets import TARGETS


@pytest.mark.parametrize(
    ("name", "metres", "expected"),
    [
        ("log", 1.0, 0.0),
        ("log", 10.0, math.log(10)),
        ("reciprocal", 10.0, 1.0),
        ("reciprocal", 2.5, 4.0),
        ("reciprocal", 0.1, 100.0),
        ("reciprocal", 25.0, 1.0),  # beyond what the data set measures
        ("normalised", 10.0, 1.0),
        ("normalised", 2.5, 0.25),
        ("normalised", 25.0, 1.0),
    ],
)
def test_targets_worked_out_by_hand(name: str, metres: float, expected: float) -> None:
    assert float(TARGETS[name].encode(torch.tensor(metres))) == pytest.approx(expected)


@given(metres=st.floats(0.11, 9.9), name=st.sampled_from(sorted(TARGETS)))
def test_what_is_encoded_decodes_to_the_same_metres(metres: float, name: str) -> None:
    target = TARGETS[name]
    assert float(target.decode(target.encode(torch.tensor(metres)))) == pytest.approx(
        metres, rel=1e-4
    )


@given(y=st.floats(-1e6, 1e6), name=st.sampled_from(sorted(TARGETS)))
def test_any_output_decodes_to_metres_in_range(y: float, name: str) -> None:
    target = TARGETS[name]
    metres = float(target.decode(torch.tensor(y)))
    assert target.min_depth * 0.999 <= metres <= target.max_depth * 1.001


@pytest.mark.parametrize("name", TARGETS)
def test_untrained_networks_start_at_indoor_depth(name: str) -> None:
    assert 2 < float(TARGETS[name].decode(torch.tensor(TARGETS[name].initial))) < 3
