"""Accuracy figures against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mono_depth_ros.accuracy import Accuracy, mean, measure

NAN, INF = float("nan"), float("inf")


def figures(depth: list[float], truth: list[float]) -> Accuracy | None:
    return measure(np.array([depth], np.float32), np.array([truth], np.float32))


def test_worked_example() -> None:
    # errors 0.5/2, 1/4, 0, 4/2; ratios 1.25, 4/3, 1, 3
    result = figures([2.5, 3.0, 1.0, 6.0], [2.0, 4.0, 1.0, 2.0])
    assert result is not None
    assert result.abs_rel == pytest.approx((0.25 + 0.25 + 0 + 2) / 4)
    assert result.delta1 == 0.25  # 1.25 itself is not below 1.25
    assert result.scale == pytest.approx((1.0 + 1.25) / 2)
    assert result.coverage == 1.0


def test_too_near_and_too_far_count_alike_in_delta1() -> None:
    result = figures([1.0, 1.2, 1.0, 1.3], [1.2, 1.0, 1.3, 1.0])
    assert result is not None
    assert result.delta1 == 0.5


def test_invalid_pixels_do_not_count_but_lower_the_coverage() -> None:
    depth = [2.0, NAN, INF, -INF, 0.0, 5.0, 5.0, 5.0]
    truth = [2.0, 2.0, 2.0, 2.0, 2.0, NAN, 0.0, INF]
    assert figures(depth, truth) == Accuracy(abs_rel=0.0, delta1=1.0, scale=1.0, coverage=0.2)


def test_nothing_in_common_is_none() -> None:
    assert figures([NAN, 1.0], [1.0, NAN]) is None
    assert figures([1.0], [0.0]) is None


def test_mean_is_per_image_not_per_pixel() -> None:
    large, small = figures([1.0] * 99, [1.0] * 99), figures([3.0], [2.0])
    assert large is not None
    assert small is not None
    result = mean([large, small])
    assert result.abs_rel == pytest.approx(0.25)
    assert result.delta1 == 0.5
    assert result.scale == pytest.approx(1.25)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        measure(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="no image"):
        mean([])
