"""Metrics against numbers worked out by hand, plain loops, and several processes against one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from mono_depth_ros import accuracy
from training.metrics import METRICS, DistanceBands, PerImageMetrics, PooledMetrics, depth_metrics

if TYPE_CHECKING:
    from torch import Tensor, dtype

    Accumulator = PerImageMetrics | PooledMetrics | DistanceBands

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def plain(pred: list[float], truth: list[float]) -> dict[str, float]:
    """Every metric as its definition reads, one pixel at a time."""
    pairs = list(zip(pred, truth, strict=True))

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    ratios = sorted(p / t for p, t in pairs)
    logs = [math.log(p) - math.log(t) for p, t in pairs]
    middle = len(ratios) // 2
    return {
        "delta1": mean([max(p / t, t / p) < 1.25 for p, t in pairs]),
        "delta2": mean([max(p / t, t / p) < 1.25**2 for p, t in pairs]),
        "delta3": mean([max(p / t, t / p) < 1.25**3 for p, t in pairs]),
        "abs_rel": mean([abs(p - t) / t for p, t in pairs]),
        "sq_rel": mean([(p - t) ** 2 / t for p, t in pairs]),
        "rmse": math.sqrt(mean([(p - t) ** 2 for p, t in pairs])),
        "rmse_log": math.sqrt(mean([d * d for d in logs])),
        "log10": mean([abs(math.log10(p) - math.log10(t)) for p, t in pairs]),
        "silog": 100 * math.sqrt(mean([(d - mean(logs)) ** 2 for d in logs])),
        "scale_bias": ratios[middle] if len(ratios) % 2 else sum(ratios[middle - 1 :][:2]) / 2,
    }


def image(seed: int, pixels: int, holes: int = 0) -> tuple[Tensor, Tensor]:
    """1xN prediction and truth, `holes` pixels of which have no truth."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.2, 9.5, pixels)
    pred = truth * np.exp(rng.normal(0.1, 0.4, pixels))
    truth[rng.permutation(pixels)[:holes]] = rng.choice([NAN, INF, -INF, 0.0, -1.0], holes)
    tensors = torch.tensor(np.stack((pred, truth)), dtype=torch.float32)
    return tensors[:1], tensors[1:]


def valid(pred: Tensor, truth: Tensor) -> tuple[list[float], list[float]]:
    pairs = [
        (p, t)
        for p, t in zip(pred.flatten().tolist(), truth.flatten().tolist(), strict=True)
        if math.isfinite(t) and t > 0
    ]
    return [p for p, _ in pairs], [t for _, t in pairs]


def floats(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


# --- one image -----------------------------------------------------------------------------------


def test_metrics_worked_out_by_hand() -> None:
    pred = torch.tensor([1.0, 2.0, 4.0, 10.0])
    truth = torch.tensor([1.0, 2.6, 2.0, 1.0])  # ratios 1, 1 / 1.3, 2, 10
    result = depth_metrics(pred, truth)
    assert result["delta1"] == 0.25
    assert result["delta2"] == 0.5
    assert result["delta3"] == 0.5
    assert result["abs_rel"] == pytest.approx((0 + 0.6 / 2.6 + 1 + 9) / 4)
    assert result["sq_rel"] == pytest.approx((0 + 0.36 / 2.6 + 2 + 81) / 4)
    assert result["rmse"] == pytest.approx(math.sqrt((0.36 + 4 + 81) / 4))
    assert result["log10"] == pytest.approx(math.log10(1.3 * 2 * 10) / 4)
    assert result["scale_bias"] == pytest.approx(1.5)


@pytest.mark.parametrize("pixels", [1, 2, 7, 400])
@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_metrics_are_as_their_definitions_read_in_float64(pixels: int, kind: dtype) -> None:
    pred, truth = (x.to(kind) for x in image(pixels, pixels))
    result = depth_metrics(pred[0], truth[0])
    assert list(result) == [*METRICS, "scale_bias"]
    assert result == pytest.approx(plain(*valid(pred, truth)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_the_threshold_itself_is_not_within_delta(power: int) -> None:
    low, high = torch.tensor([1.0]), torch.tensor([1.25**power])
    inside = torch.tensor([1.25**power - 1e-6])
    for pair in ((low, high), (high, low)):
        assert depth_metrics(*pair)[f"delta{power}"] == 0
    assert depth_metrics(inside, low)[f"delta{power}"] == 1


def test_silog_ignores_a_common_scale_and_rmse_log_does_not() -> None:
    pred, truth = (x[0] for x in image(1, 50))
    once, doubled = depth_metrics(pred, truth), depth_metrics(2 * pred, truth)
    assert doubled["silog"] == pytest.approx(once["silog"])
    assert doubled["scale_bias"] == pytest.approx(2 * once["scale_bias"])
    assert doubled["rmse_log"] > once["rmse_log"] + 0.1


def test_an_image_without_pixels_has_no_metrics() -> None:
    with pytest.raises(ValueError, match="no valid pixel"):
        depth_metrics(torch.zeros(0), torch.zeros(0))


depths = st.floats(0.125, 20, width=32)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(depths, depths), min_size=1, max_size=40))
def test_the_robots_accuracy_is_the_same(pairs: list[tuple[float, float]]) -> None:
    pred, truth = np.array(pairs, np.float32).T.copy()
    robot = accuracy.measure(pred, truth)
    assert robot is not None
    ours = depth_metrics(torch.from_numpy(pred), torch.from_numpy(truth))
    assert ours["abs_rel"] == pytest.approx(robot.abs_rel, abs=1e-12)
    assert ours["scale_bias"] == pytest.approx(robot.scale)
    assert ours["delta1"] == robot.delta1


# --- several images ------------------------------------------------------------------------------


def test_per_image_metrics_are_averaged_over_images_and_pooled_ones_over_pixels() -> None:
    large = torch.full((1, 10), 2.0), torch.ones(1, 10)
    small = torch.full((1, 1), 1.5), torch.ones(1, 1)
    per_image, pooled = PerImageMetrics(), PooledMetrics()
    for metric in (per_image, pooled):
        metric.update(*large)
        metric.update(*small)
    assert float(per_image.compute()["abs_rel"]) == pytest.approx(0.75)
    assert float(per_image.compute()["rmse"]) == pytest.approx(0.75)
    assert float(pooled.compute()["abs_rel"]) == pytest.approx(10.5 / 11)
    assert float(pooled.compute()["rmse"]) == pytest.approx(math.sqrt(10.25 / 11))


IMAGES = [image(0, 12, 3), image(1, 30, 20), image(2, 5, 5), image(3, 8), image(4, 21, 1)]


def test_per_image_metrics_are_means_of_plain_loops_and_scale_bias_their_median() -> None:
    metric = PerImageMetrics()
    for pair in IMAGES:
        metric.update(*pair)
    rows = [plain(*pixels) for pixels in (valid(*pair) for pair in IMAGES) if pixels[0]]
    assert len(rows) == len(metric.rows) == 4
    expected = {name: math.fsum(row[name] for row in rows) / 4 for name in METRICS}
    expected["scale_bias"] = float(np.median([row["scale_bias"] for row in rows]))
    assert floats(metric.compute()) == pytest.approx(expected)


def test_pooled_metrics_are_those_of_all_pixels_as_one_image() -> None:
    metric = PooledMetrics()
    for pair in IMAGES:
        metric.update(*pair)
    together = [torch.cat(maps, dim=1) for maps in zip(*IMAGES, strict=True)]
    expected = plain(*valid(*together))
    assert floats(metric.compute()) == pytest.approx({name: expected[name] for name in METRICS})


def test_a_batch_counts_as_its_images() -> None:
    maps = [torch.stack([image(i, 35, 9)[k].reshape(1, 5, 7) for i in range(3)]) for k in (0, 1)]
    assert maps[0].shape == (3, 1, 5, 7)
    for kind in (PerImageMetrics, PooledMetrics, DistanceBands):
        together, apart = kind(), kind()
        together.update(*maps)
        for pred, truth in zip(*maps, strict=True):
            apart.update(pred[0], truth[0])
        assert floats(together.compute()) == pytest.approx(floats(apart.compute()), nan_ok=True)


def test_bands_count_pixels_by_the_distance_of_the_truth() -> None:
    truth = [0.5, 0.999, 1.0, 1.5, 3.0, 4.0, 9.999, 10.0, 12.0, NAN, 0.0]
    pred = [0.6, 0.999, 2.0, 1.5, 3.0, 5.5, 9.999, 99.0, 99.0, 1.0, 1.0]
    metric = DistanceBands()
    metric.update(torch.tensor([pred[:4]]), torch.tensor([truth[:4]]))
    metric.update(torch.tensor([pred[4:]]), torch.tensor([truth[4:]]))
    result = floats(metric.compute())
    for band, pixels, abs_rel, delta1 in (
        ("0_1m", 2, 0.2 / 2, 1.0),
        ("1_2m", 2, 1 / 2, 0.5),
        ("2_4m", 1, 0.0, 1.0),
        ("4_10m", 2, 0.375 / 2, 0.5),
    ):
        assert result[f"share_{band}"] == pytest.approx(pixels / 9)
        assert result[f"abs_rel_{band}"] == pytest.approx(abs_rel, abs=1e-6)
        assert result[f"delta1_{band}"] == pytest.approx(delta1)


def test_a_band_without_pixels_has_no_figures() -> None:
    metric = DistanceBands()
    metric.update(torch.ones(1, 1), torch.ones(1, 1))
    result = floats(metric.compute())
    assert math.isnan(result["abs_rel_2_4m"]) and math.isnan(result["delta1_2_4m"])
    assert result["share_2_4m"] == 0 and result["share_1_2m"] == 1


@pytest.mark.parametrize("kind", [PerImageMetrics, PooledMetrics])
def test_a_prediction_that_is_no_number_is_not_hidden(kind: type[Accumulator]) -> None:
    metric = kind()
    metric.update(torch.tensor([[1.0, NAN, NAN]]), torch.tensor([[1.0, 1.0, NAN]]))
    result = floats(metric.compute())
    assert math.isnan(result["abs_rel"]) and math.isnan(result["rmse"])
    assert result["delta1"] == 0.5


@pytest.mark.parametrize("kind", [PerImageMetrics, PooledMetrics, DistanceBands])
def test_images_without_valid_pixels_do_not_count(kind: type[Accumulator]) -> None:
    metric = kind()
    metric.update(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), NAN))
    with pytest.raises(ValueError, match="no image with valid pixels"):
        metric.compute()


@pytest.mark.parametrize("kind", [PerImageMetrics, PooledMetrics, DistanceBands])
def test_an_accumulator_starts_anew_after_reset(kind: type[Accumulator]) -> None:
    metric, fresh = kind(), kind()
    metric.update(*IMAGES[0])
    metric.compute()
    metric.reset()
    for accumulator in (metric, fresh):
        accumulator.update(*IMAGES[1])
    assert floats(metric.compute()) == pytest.approx(floats(fresh.compute()), nan_ok=True)


@pytest.mark.parametrize("kind", [PerImageMetrics, PooledMetrics, DistanceBands])
def test_maps_of_different_sizes_are_a_one_line_error(kind: type[Accumulator]) -> None:
    # As many pixels, but not the same ones.
    with pytest.raises(ValueError, match=r"^[^\n]*\(2, 3\)[^\n]*\(3, 2\)[^\n]*$"):
        kind().update(torch.ones(2, 3), torch.ones(3, 2))


# --- several processes ---------------------------------------------------------------------------

ACCUMULATORS = (PerImageMetrics, PooledMetrics, DistanceBands)
# Which of IMAGES each of two processes gets.
SHARES = (((0, 1, 3), (2, 4)), ((0, 1, 2, 3, 4), ()), ((), (1,)), ((2,), (1,)))


def measured(indices: tuple[int, ...]) -> list[Accumulator]:
    metrics: list[Accumulator] = [kind() for kind in ACCUMULATORS]
    for metric in metrics:
        for index in indices:
            metric.update(*IMAGES[index])
    return metrics


def reduce_in_process(rank: int, folder: str) -> None:
    """One process of two: takes its shares, and writes what `compute` says of each."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    results = [[metric.compute() for metric in measured(share[rank])] for share in SHARES]
    torch.save(results, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(reduce_in_process, (str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for share, result in zip(SHARES, results, strict=True):
            for reduced, metric in zip(result, measured(share[0] + share[1]), strict=True):
                expected = floats(metric.compute())
                assert floats(reduced) == pytest.approx(expected, rel=1e-12, nan_ok=True), share
