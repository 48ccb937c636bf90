"""Protocols against crops, clips and averages worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from training.metrics import METRICS
from training.protocols import PROTOCOLS, Protocol

Map = npt.NDArray[np.float32]
NAN, INF = math.nan, math.inf
EIGEN, DENSEDEPTH, NATIVE = (PROTOCOLS[name] for name in ("eigen", "densedepth", "native"))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def wall(metres: float, shape: tuple[int, int] = (480, 640)) -> Map:
    return np.full(shape, metres, np.float32)


def patch(metres: float) -> Map:
    """A map that knows only four pixels, which every protocol looks at."""
    truth = wall(NAN)
    truth[200:202, 300:302] = metres
    return truth


def row(*metres: float) -> Map:
    return np.array([metres], np.float32)


def test_protocols_are_listed_by_their_names() -> None:
    assert {name: protocol.name for name, protocol in PROTOCOLS.items()} == {
        name: name for name in ("eigen", "densedepth", "native")
    }


@pytest.mark.parametrize(
    ("protocol", "top", "bottom", "left", "right"),
    [(EIGEN, 45, 470, 41, 600), (DENSEDEPTH, 20, 459, 24, 615)],
)
def test_only_the_pixels_of_the_crop_count(
    protocol: Protocol, top: int, bottom: int, left: int, right: int
) -> None:
    truth, pred = wall(2), wall(3)
    pred[top : bottom + 1, left : right + 1] = 2
    inside, outside = truth.copy(), truth.copy()
    result = protocol.evaluation().add(pred, truth)
    assert result is not None
    assert result["abs_rel"] == 0
    for v in (top, bottom):
        for u in (left, right):
            inside[v, u] = 1
            # One pixel further out, in both directions.
            outside[v + (1 if v == bottom else -1), u] = 1
            outside[v, u + (1 if u == right else -1)] = 1
    result = protocol.evaluation().add(pred, inside)
    assert result is not None
    assert result["abs_rel"] == pytest.approx(4 / ((bottom - top + 1) * (right - left + 1)))
    result = protocol.evaluation().add(pred, outside)
    assert result is not None
    assert result["abs_rel"] == 0


def test_whole_frames_of_any_size_count_natively() -> None:
    truth = wall(2, (6, 5))
    truth[0, 0] = truth[5, 4] = truth[0, 4] = truth[5, 0] = 1
    result = NATIVE.evaluation().add(wall(2, (6, 5)), truth)
    assert result is not None
    assert result["abs_rel"] == pytest.approx(4 / 30)


@pytest.mark.parametrize(
    ("protocol", "counting", "left_out"),
    [
        (EIGEN, [0.0011, 0.5, 9.999], [0.001, 0.0, -1, 10.0, 12, NAN, INF, -INF]),
        (NATIVE, [0.101, 0.5, 9.999], [0.1, 0.05, 0.0, -1, 10.0, 12, NAN, INF, -INF]),
        (DENSEDEPTH, [1e-4, 0.5, 9.999, 10.0, 10.02, 40], [0.0, -1, NAN, INF, -INF]),
    ],
)
def test_only_truth_in_range_counts(
    protocol: Protocol, counting: list[float], left_out: list[float]
) -> None:
    for metres in (*counting, *left_out):
        evaluation = protocol.evaluation()
        result = evaluation.add(wall(1), patch(metres))
        assert (result is not None) == (len(evaluation) == 1) == (metres in counting), metres


@pytest.mark.parametrize(
    ("protocol", "low", "high"), [(EIGEN, 1e-3, 10), (DENSEDEPTH, 0.1, 10), (NATIVE, 0.1, 10)]
)
def test_predictions_are_clipped(protocol: Protocol, low: float, high: float) -> None:
    for pred, clipped in ((50, high), (INF, high), (0, low), (-2, low), (-INF, low), (5, 5)):
        result = protocol.evaluation().add(wall(pred), patch(4))
        assert result is not None
        assert result["scale_bias"] == pytest.approx(clipped / 4), pred
        assert result["coverage"] == 1


def test_a_prediction_of_nan_is_none_and_lowers_the_coverage() -> None:
    evaluation = NATIVE.evaluation()
    first = evaluation.add(row(2, NAN, 3, NAN), row(2, 2, 2, NAN))
    assert first is not None
    assert first["abs_rel"] == pytest.approx(0.25)
    assert first["coverage"] == pytest.approx(2 / 3)
    assert evaluation.add(row(NAN, NAN, NAN, 1), row(2, 2, NAN, NAN)) is None
    assert len(evaluation) == 1
    assert evaluation.compute()["coverage"] == pytest.approx(2 / 5)


def test_neither_map_is_changed() -> None:
    pred, truth = row(50, NAN, 2), row(12, 2, 2)
    before = pred.copy(), truth.copy()
    NATIVE.evaluation().add(pred, truth)
    np.testing.assert_array_equal((pred, truth), before)


def test_views_that_are_mirrored_or_read_only_are_taken() -> None:
    pred, truth = row(1, 2, 4)[:, ::-1], row(4, 2, 1)
    truth.flags.writeable = False
    result = NATIVE.evaluation().add(pred, truth)
    assert result is not None
    assert result["abs_rel"] == 0


# Errors 0.5 on three pixels of the first image, and 0.1 on one pixel of the second.
UNEVEN = (
    (row(1.5, 1.5, 1.5, 9), row(1, 1, 1, NAN)),
    (row(9, 9, 9, 1.1), row(NAN, 0, 11, 1)),
    (row(9, 9, 9, 9), row(NAN, NAN, NAN, NAN)),
)


def test_images_weigh_the_same_in_a_per_image_protocol() -> None:
    evaluation = NATIVE.evaluation()
    results = [evaluation.add(*pair) for pair in UNEVEN]
    assert [None if r is None else round(r["abs_rel"], 6) for r in results] == [0.5, 0.1, None]
    assert len(evaluation) == 2
    result = evaluation.compute()
    assert result["abs_rel"] == pytest.approx((0.5 + 0.1) / 2)
    assert result["delta1"] == pytest.approx(0.5)
    assert result["rmse"] == result["rmse_per_image"] == pytest.approx(0.3)
    assert result["rmse_pooled"] == pytest.approx(math.sqrt((3 * 0.25 + 0.01) / 4))
    assert result["scale_bias"] == pytest.approx((1.5 + 1.1) / 2)
    assert result["coverage"] == 1


def test_pixels_weigh_the_same_in_a_pooled_protocol() -> None:
    evaluation = DENSEDEPTH.evaluation()
    for pred, truth in UNEVEN:
        large, unknown = wall(1), wall(NAN)
        large[100, 100:104], unknown[100, 100:104] = pred, truth
        evaluation.add(large, unknown)
    # Nothing is masked for being far: the 11 m of the second image count, too.
    result = evaluation.compute()
    assert len(evaluation) == 2
    assert result["abs_rel"] == pytest.approx((3 * 0.5 + 0.1 + 2 / 11) / 5)
    rmse = math.sqrt((3 * 0.25 + 0.01 + 4) / 5)
    assert result["rmse"] == result["rmse_pooled"] == pytest.approx(rmse)
    assert result["rmse_per_image"] == pytest.approx((0.5 + math.sqrt(4.01 / 2)) / 2)


def test_rel_is_divided_by_the_truth() -> None:
    result = DENSEDEPTH.evaluation().add(wall(4), patch(2))
    assert result is not None
    assert result["abs_rel"] == 1.0  # 0.5 if divided by the prediction


def test_errors_are_given_by_distance() -> None:
    evaluation = NATIVE.evaluation()
    evaluation.add(row(0.6, 1.5, 2), row(0.5, 1.5, 1.6))
    evaluation.add(row(6, 9), row(8, 9))
    result = evaluation.compute()
    shares = [result[f"share_{band}"] for band in ("0_1m", "1_2m", "2_4m", "4_10m")]
    assert shares == pytest.approx([0.2, 0.4, 0, 0.4])
    assert result["abs_rel_0_1m"] == pytest.approx(0.2)
    assert result["abs_rel_1_2m"] == pytest.approx(0.25 / 2)
    assert math.isnan(result["abs_rel_2_4m"])
    assert result["delta1_4_10m"] == 0.5


def test_all_figures_are_plain_numbers_under_flat_names() -> None:
    evaluation = NATIVE.evaluation()
    image = evaluation.add(row(1, 2), row(1, 3))
    assert image is not None
    result = evaluation.compute()
    assert set(image) == {*METRICS, "scale_bias", "coverage"}
    assert {*METRICS, "scale_bias", "coverage", "rmse_pooled", "rmse_per_image"} < set(result)
    assert all(type(value) is float for value in (*image.values(), *result.values()))


@pytest.mark.parametrize("protocol", [EIGEN, DENSEDEPTH])
def test_frames_of_another_size_than_the_crop_is_for_are_a_one_line_error(
    protocol: Protocol,
) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*\(240, 320\)[^\n]*\(480, 640\)[^\n]*$"):
        protocol.evaluation().add(wall(2, (240, 320)), wall(2, (240, 320)))


def test_maps_of_different_sizes_are_a_one_line_error() -> None:
    for protocol in PROTOCOLS.values():
        with pytest.raises(ValueError, match=r"^[^\n]*\(240, 320\)[^\n]*\(480, 640\)[^\n]*$"):
            protocol.evaluation().add(wall(2, (240, 320)), wall(2))


def test_an_evaluation_without_images_has_no_figures() -> None:
    evaluation = EIGEN.evaluation()
    evaluation.add(wall(2), wall(NAN))
    with pytest.raises(ValueError, match=r"^protocol eigen: [^\n]*no image[^\n]*$"):
        evaluation.compute()
