"""The fit of the confidence, and its figures, against values known another way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mono_depth_ros.camera import CameraModel
from mono_depth_ros.confidence import COEFFICIENTS, FEATURES
from mono_depth_ros.estimator import DepthEstimator
from training.confidence import (
    COLUMNS,
    MODELS,
    Samples,
    auroc,
    calibration_error,
    figures,
    fit,
    fit_logistic,
    fit_views,
    logistic,
    main,
    sample,
    sparsification_error,
    whole_view,
)
from training.data.folder import read_folder, write_pair, write_settings
from training.data.pair import Pair

MODEL = Path(__file__).parents[1] / "models" / "compact.onnx"


def draw(coefficients: list[float], count: int, seed: int) -> Samples:
    """Pixels whose chance of being right is that of the coefficients, in frames of 100."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0.3, 1, (count, len(COLUMNS)))
    features[:, 0] = 1
    right = rng.random(count) < logistic(features, np.array(coefficients))
    error = np.where(right, 0.1, 0.5) * rng.uniform(0.5, 1, count)
    return Samples(features, error, right, np.arange(count) // 100)


def test_the_fit_finds_the_coefficients_that_the_data_was_drawn_with() -> None:
    rng = np.random.default_rng(5)
    coefficients = [*rng.normal(0, 0.8, len(COLUMNS))]
    sets = [draw(coefficients, 60_000, seed) for seed in (1, 2)]
    # Standard errors are about 0.01; the ridge takes off less than a percent.
    np.testing.assert_allclose(fit(sets)["all_and_flip"], coefficients, atol=0.05)


def test_the_fit_has_no_gradient_left_where_it_ends() -> None:
    samples, ridge = draw([0.5, -1, 2, *[0.0] * (len(COLUMNS) - 3)], 5000, 0), 0.02
    x, weights = samples.columns(COLUMNS), samples.weights()
    found = fit_logistic(x, samples.right, weights, ridge)
    scale = x.std(0)

    def loss(coefficients: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        p = logistic(x, coefficients)
        entropy = -np.mean(np.where(samples.right, np.log(p), np.log(1 - p)))
        return float(entropy + ridge / 2 * ((coefficients * scale)[1:] ** 2).sum())

    for i in range(len(COLUMNS)):
        aside = np.zeros(len(COLUMNS))
        aside[i] = 1e-3
        assert loss(found) < min(loss(found + aside), loss(found - aside))


def test_frames_weigh_the_same_however_many_pixels_have_truth() -> None:
    frame = np.repeat([0, 1], [900, 100])
    right = frame == 0
    samples = Samples(np.ones((1000, len(COLUMNS))), np.zeros(1000), right, frame)
    constant = fit_logistic(samples.columns(["constant"]), right, samples.weights())
    assert logistic(np.ones((1, 1)), constant)[0] == pytest.approx(0.5)


def test_the_constant_model_is_the_share_of_right_pixels() -> None:
    samples = draw([1.0, -1.0, *[0.0] * (len(COLUMNS) - 2)], 4000, 3)
    confidence = logistic(samples.columns(MODELS["constant"]), fit([samples])["constant"])
    row = figures(confidence, samples)
    assert row["confidence"] == pytest.approx(samples.right.mean(), abs=1e-6)
    assert row["ece"] == pytest.approx(0, abs=1e-6)
    assert row["auroc"] == row["auroc_frame"] == 0.5


def test_pixels_that_are_all_right_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="give more frames"):
        fit_logistic(np.ones((50, 1)), np.ones(50, bool), np.full(50, 0.02))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[int, bool]]) -> None:
    score, right = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    pairs = [(a > b) + (a == b) / 2 for a in score[right] for b in score[~right]]
    expected = np.mean(pairs) if pairs else np.nan
    assert auroc(score, right) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_is_that_of_a_loop_over_bins(rows: list[tuple[int, bool]]) -> None:
    confidence = np.array([(r[0] + 0.5) / 100 for r in rows])
    right = np.array([r[1] for r in rows])
    expected = 0.0
    for low in range(10):
        inside = [(c, r) for c, r in zip(confidence, right, strict=True) if int(c * 10) == low]
        if inside:
            gap = np.mean([c for c, _ in inside]) - np.mean([r for _, r in inside])
            expected += len(inside) / len(rows) * abs(gap)
    weights = np.full(len(rows), 1 / len(rows))
    assert calibration_error(confidence, right, weights, 10) == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(12)))
def test_sparsification_error_is_that_of_a_loop_over_shares(order: list[int]) -> None:
    error = np.random.default_rng(0).random(12)
    confidence = np.array(order, float)
    ranked = [error[i] for i in np.argsort(-confidence)]
    gaps = [np.mean(ranked[: 12 - k]) - np.mean(sorted(error)[: 12 - k]) for k in (0, 3, 6, 9)]
    assert sparsification_error(confidence, error, 4) == pytest.approx(np.mean(gaps))


def test_crops_are_views_of_longer_lenses_up_to_the_narrowest() -> None:
    estimator = DepthEstimator.open(MODEL)
    height, width = 240, 320
    ramp = np.arange(height * width).reshape(height, width) / 1000 + 1
    depth = ramp.astype(np.float32)
    image = np.repeat((depth * 3).astype(np.uint8)[..., None], 3, 2)
    for hfov, sizes in ((90.0, {(240, 320), (180, 240), (144, 192)}), (40.0, {(240, 320)})):
        focal = CameraModel.from_hfov(width, height, hfov).fx
        views = list(fit_views(Pair(image, depth, focal, focal, "a"), estimator))
        assert {view.depth.shape for view in views} == sizes
        for view in views:
            assert view.image.shape[:2] == view.depth.shape
            assert (view.fx, view.fy) == (focal, focal)
            # The same middle.
            assert np.median(view.depth) == pytest.approx(np.median(depth), rel=1e-3)


def write_scene(folder: Path, frames: int) -> Path:
    """Textured walls; a network judges their distance badly, each its own way."""
    camera = CameraModel.from_hfov(160, 120, 60)
    for i in range(frames):
        rng = np.random.default_rng(i)
        image = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        depth = np.full((120, 160), 1.0 + i / 2, np.float32)
        depth[:30] = np.nan
        write_pair(folder, f"{i:04d}", image, depth)
    write_settings(folder, 1e-3, camera)
    return folder


def test_samples_are_pixels_with_truth_and_say_how_wrong_each_is(tmp_path: Path) -> None:
    frames = read_folder(write_scene(tmp_path / "walls", 3))
    estimator = DepthEstimator.open(MODEL)
    samples = sample(estimator, frames, whole_view)
    # Every fourth row and column from the third on, without the 30 rows that have no truth.
    np.testing.assert_array_equal(np.bincount(samples.frame), [40 * 23] * 3)
    pair = frames[1].read()
    camera = CameraModel(160, 120, pair.fx, pair.fy, 79.5, 59.5)
    ratio = estimator.estimate(pair.image, camera).depth[30::4, 2::4] / np.float32(1.5)
    inside = samples.frame == 1
    np.testing.assert_allclose(samples.error[inside], np.abs(ratio - 1).ravel(), rtol=1e-3)
    right = (ratio < 1.25) & (ratio > 0.8)
    np.testing.assert_array_equal(samples.right[inside], right.ravel())


@pytest.mark.slow
def test_the_command_prints_coefficients_and_writes_the_same_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_scene(tmp_path / "walls", 6))
    options = [str(MODEL), "--fit", folder, "train", "--test", folder, "validation", "--limit", "4"]
    documents = []
    for name in ("a.json", "b.json"):
        assert main([*options, "--json", str(tmp_path / name)]) == 0
        documents.append(json.loads((tmp_path / name).read_text()))
        assert "relief_wide" in capsys.readouterr().out
    for document in documents:
        assert list(document["coefficients"]["confidence"]) == list(FEATURES)
        assert document.pop("command").startswith("python -m training.confidence")
        assert len(document["data"]) == 3
    assert documents[0] == documents[1]


def test_the_command_names_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(MODEL), "--fit", str(tmp_path / "none"), "train"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("training.confidence: ") and str(tmp_path / "none") in error


def test_there_is_a_coefficient_for_every_feature() -> None:
    assert len(COEFFICIENTS) == len(FEATURES)
