"""Losses against plain loops and reference libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
ndimage = pytest.importorskip("scipy.ndimage")
distance = pytest.importorskip("scipy.spatial.distance")
image_metrics = pytest.importorskip("torchmetrics.functional.image")

from training.losses import LOSSES, article, log_depth, paper
from training.losses.ssim import WINDOW, dissimilarity
from training.targets import TARGETS

if TYPE_CHECKING:
    from torch import Tensor, dtype

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def batch(height: int = 19, width: int = 23) -> tuple[Array, Array, Mask]:
    """A prediction of two images, its truth, and where the truth is known."""
    rng = np.random.default_rng(5)
    pred = rng.normal(0.8, 0.5, (2, height, width))
    truth = pred + rng.normal(0.1, 0.3, pred.shape)
    mask = rng.random(pred.shape) < 0.7
    mask[0, :8, :8] = False
    return pred, truth, mask


def call(
    part: Callable[..., Tensor], pred: Array, truth: Array, mask: Mask, **more: float
) -> float:
    """The part of a loss; what is outside the mask is replaced by rubbish first."""
    spoilt = np.where(mask, truth, 77.0)
    tensors = (torch.tensor(a[:, None], dtype=torch.float64) for a in (pred, spoilt, mask))
    return float(part(*tensors, **more))


# --- every loss ----------------------------------------------------------------------------------


def example(name: str, height: int = 24, width: int = 28) -> tuple[Tensor, Tensor]:
    """A prediction and a target of two images in the space of the loss, from random metres."""
    torch.manual_seed(3)
    encode = TARGETS[LOSSES[name].target].encode
    metres = torch.rand(2, 1, height, width) * 6 + 0.3
    return encode(metres * (1 + 0.2 * torch.randn_like(metres)).clamp(0.5, 2)), encode(metres)


@pytest.mark.parametrize(("name", "loss"), LOSSES.items())
def test_a_loss_is_listed_by_its_name_and_has_a_target(name: str, loss: object) -> None:
    assert LOSSES[name].name == name
    assert LOSSES[name].target in TARGETS


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("log", {"l1": 0.5, "silog": 1, "gradient": 0.5, "ssim": 1}),
        ("paper", {"l1": 0.1, "gradient": 1, "ssim": 1}),
        ("article", {"ssim": 1, "edges": 1, "cosine": 1}),
    ],
)
def test_the_total_is_the_weighted_sum_of_the_parts(name: str, weights: dict[str, float]) -> None:
    pred, target = example(name)
    parts = {k: float(v) for k, v in LOSSES[name](pred, target, torch.ones_like(pred)).items()}
    assert set(parts) == {*weights, "total"}
    assert all(parts[part] > 0 for part in weights)
    assert parts["total"] == pytest.approx(sum(w * parts[part] for part, w in weights.items()))


@pytest.mark.parametrize("name", LOSSES)
def test_equal_inputs_cost_nothing(name: str) -> None:
    _, target = example(name)
    for part, value in LOSSES[name](target, target, torch.ones_like(target)).items():
        assert abs(float(value)) < 1e-3, part


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1e30, 1e30])
def test_what_is_outside_the_mask_changes_nothing(name: str, bad: float) -> None:
    pred, target = example(name)
    mask = torch.ones_like(pred)
    mask[0, :, 4:9, 3:12] = 0
    results = []
    for value in (1.0, bad):
        leaf = pred.clone().requires_grad_()
        total = LOSSES[name](leaf, torch.where(mask > 0, target, value), mask)["total"]
        total.backward()
        assert leaf.grad is not None
        results.append((total.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert torch.isfinite(results[0][1]).all()


@pytest.mark.parametrize("part", ["l1", "gradient", "ssim", "edges", "cosine"])
def test_pixels_outside_the_mask_have_no_gradient(part: str) -> None:
    name = "article" if part in ("edges", "cosine") else "paper"
    pred, target = example(name)
    mask = torch.ones_like(pred)
    mask[0, :, 4:9, 3:12] = 0
    pred.requires_grad_()
    LOSSES[name](pred, target, mask)[part].backward()
    assert pred.grad is not None
    assert (pred.grad[mask == 0] == 0).all()
    assert pred.grad[1].abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_without_any_depth_costs_nothing_and_breaks_nothing(name: str) -> None:
    pred, target = example(name)
    pred.requires_grad_()
    nowhere = torch.zeros_like(target)
    parts = LOSSES[name](pred, torch.full_like(target, math.nan), nowhere)
    parts["total"].backward()
    assert pred.grad is not None
    assert all(abs(float(value.detach())) < 1e-3 for value in parts.values())
    assert (pred.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("pred_value", [0.0, 0.5, 1.0, 40.0, -3.0])
@pytest.mark.parametrize("target_value", [0.0, 0.5, 1.0])
def test_constant_maps_have_finite_gradients(
    name: str, pred_value: float, target_value: float
) -> None:
    pred = torch.full((2, 1, 16, 20), pred_value, requires_grad=True)
    target = torch.full((2, 1, 16, 20), target_value)
    parts = LOSSES[name](pred, target, torch.ones_like(target))
    parts["total"].backward()
    assert pred.grad is not None
    assert all(math.isfinite(value.detach()) for value in parts.values())
    assert torch.isfinite(pred.grad).all()
    # Nor is any so steep that a step from it would lead far away.
    assert pred.grad.abs().sum() < 200


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_compared_in_float32(name: str, kind: dtype) -> None:
    pred, target = (x.to(kind) for x in example(name))
    mask = torch.ones_like(target)
    plain = LOSSES[name](pred.float(), target.float(), mask.float())
    with torch.autocast("cpu", torch.bfloat16):
        result = LOSSES[name](pred, target, mask)
    for part, value in result.items():
        assert value.dtype == torch.float32
        assert float(value) == float(plain[part]), part


@pytest.mark.parametrize("name", LOSSES)
def test_a_small_step_down_the_gradient_lowers_the_loss_as_much_as_it_says(name: str) -> None:
    pred, target = (x.double() for x in example(name))
    pred.requires_grad_()
    mask = torch.ones_like(pred)
    before = LOSSES[name].function(pred, target, mask)["total"]
    before.backward()
    assert pred.grad is not None
    slope = float(pred.grad.norm())
    step = 1e-7
    after = LOSSES[name].function(pred.detach() - step * pred.grad / slope, target, mask)["total"]
    assert slope > 0
    assert float(before.detach() - after) / step == pytest.approx(slope, rel=1e-3)


# --- log depth -----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [log_depth, paper])
def test_l1_is_the_mean_over_the_mask(module: object) -> None:
    pred, truth, mask = batch()
    errors = [abs(pred[i] - truth[i]) for i in np.ndindex(mask.shape) if mask[i]]
    result = call(module.l1, pred, truth, mask)  # type: ignore[attr-defined]
    assert result == pytest.approx(sum(errors) / len(errors))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_scale_invariant_loss_is_averaged_over_images(weight: float) -> None:
    pred, truth, mask = batch()
    each = []
    for n in range(2):
        d = [pred[n][i] - truth[n][i] for i in np.ndindex(mask[n].shape) if mask[n][i]]
        mean, square = sum(d) / len(d), sum(v * v for v in d) / len(d)
        each.append(math.sqrt(square - weight * mean * mean))
    result = call(log_depth.scale_invariant, pred, truth, mask, weight=weight)
    assert result == pytest.approx(sum(each) / 2)


def test_the_scale_invariant_loss_of_weight_one_ignores_a_common_scale() -> None:
    pred, truth, mask = batch()

    def loss(shift: float, weight: float) -> float:
        return call(log_depth.scale_invariant, pred + shift, truth, mask, weight=weight)

    assert loss(0.7, 1.0) == pytest.approx(loss(0, 1.0))
    assert loss(0.7, 0.5) > loss(0, 1.0) + 0.1


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_the_gradient_loss_compares_neighbours_at_every_stride(scales: int) -> None:
    pred, truth, mask = batch()
    _, height, width = pred.shape
    error, total = pred - truth, 0.0
    for stride in (2**i for i in range(scales)):
        for down, right in ((stride, 0), (0, stride)):
            changes = [
                abs(error[n, v + down, u + right] - error[n, v, u])
                for n in range(2)
                for v in range(0, height - down, stride)
                for u in range(0, width - right, stride)
                if mask[n, v, u] and mask[n, v + down, u + right]
            ]
            total += sum(changes) / len(changes)
    result = call(log_depth.gradient, pred, truth, mask, scales=scales)
    assert result == pytest.approx(total / scales)


def test_ssim_of_log_depth_uses_windows_of_seven_by_seven() -> None:
    pred, truth, mask = batch()
    filled = np.where(mask, truth, pred)
    c1, c2 = (0.01 * 3.5) ** 2, (0.03 * 3.5) ** 2
    values = []
    for n, v, u in np.ndindex(mask.shape):
        if not mask[n, v, u]:
            continue
        window = (n, slice(max(v - 3, 0), v + 4), slice(max(u - 3, 0), u + 4))
        p, t = pred[window].ravel(), filled[window].ravel()
        (pp, pt), (_, tt) = np.cov(p, t, bias=True)
        mp, mt = p.mean(), t.mean()
        score = (2 * mp * mt + c1) * (2 * pt + c2) / ((mp**2 + mt**2 + c1) * (pp + tt + c2))
        values.append(min(max((1 - score) / 2, 0), 1))
    assert call(log_depth.ssim, pred, truth, mask) == pytest.approx(np.mean(values))


# --- SSIM with a Gaussian window -----------------------------------------------------------------


@pytest.mark.parametrize("dynamic_range", [1.0, 100.0])
@pytest.mark.parametrize("size", [(24, 31), (11, 11)])
def test_ssim_without_holes_is_the_usual_one(dynamic_range: float, size: tuple[int, int]) -> None:
    pred, truth, _ = batch(*size)
    pred, truth = pred * dynamic_range / 2, truth * dynamic_range / 2
    _, image = image_metrics.structural_similarity_index_measure(
        torch.tensor(pred[:, None]),
        torch.tensor(truth[:, None]),
        data_range=dynamic_range,
        return_full_image=True,
    )
    # The reference pads the maps; what the padding has touched is left out.
    expected = float(image[..., 5:-5, 5:-5].mean())
    everywhere = np.ones(pred.shape, np.bool_)
    result = call(dissimilarity, pred, truth, everywhere, dynamic_range=dynamic_range)
    assert result == pytest.approx((1 - expected) / 2, rel=1e-5)


def test_ssim_takes_the_moments_of_the_pixels_in_the_mask() -> None:
    pred, truth, mask = batch()
    c1, c2 = 0.01**2, 0.03**2
    offsets = np.arange(11) - 5
    gaussian = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    values = []
    for n, v, u in np.ndindex(mask.shape):
        _, height, width = mask.shape
        if not mask[n, v, u] or not (5 <= v < height - 5 and 5 <= u < width - 5):
            continue
        window = (n, slice(v - 5, v + 6), slice(u - 5, u + 6))
        inside = mask[window]
        p, t, weights = pred[window][inside], truth[window][inside], gaussian[inside]
        (pp, pt), (_, tt) = np.cov(p, t, bias=True, aweights=weights)
        mp, mt = np.average(p, weights=weights), np.average(t, weights=weights)
        score = (2 * mp * mt + c1) * (2 * pt + c2) / ((mp**2 + mt**2 + c1) * (pp + tt + c2))
        values.append((1 - score) / 2)
    result = call(dissimilarity, pred, truth, mask, dynamic_range=1.0)
    assert result == pytest.approx(np.mean(values))


def test_ssim_of_opposites_is_one_and_of_equals_nothing() -> None:
    stripes = np.broadcast_to(np.arange(24) % 2 * 2.0 - 1, (1, 24, 24))
    everywhere = np.ones(stripes.shape, np.bool_)
    assert call(dissimilarity, stripes, stripes, everywhere, dynamic_range=1.0) == 0
    opposite = call(dissimilarity, stripes, -stripes, everywhere, dynamic_range=1.0)
    assert opposite == pytest.approx(1, abs=1e-3)


def test_maps_smaller_than_the_ssim_window_are_a_one_line_error() -> None:
    small = torch.rand(1, 1, WINDOW, WINDOW - 1)
    for name in ("paper", "article"):
        with pytest.raises(ValueError, match=r"^[^\n]*11x11[^\n]*11x10[^\n]*$"):
            LOSSES[name](small, small, torch.ones_like(small))


# --- the paper's ---------------------------------------------------------------------------------


def test_the_papers_gradient_is_a_sum_of_differences_over_the_number_of_pixels() -> None:
    pred, truth, mask = batch()
    error, total = pred - truth, 0.0
    for n, v, u in np.ndindex(mask.shape):
        for other in ((n, v, u + 1), (n, v + 1, u)):
            if other[1] < mask.shape[1] and other[2] < mask.shape[2] and mask[n, v, u]:
                total += abs(error[other] - error[n, v, u]) * mask[other]
    assert call(paper.gradient, pred, truth, mask) == pytest.approx(total / mask.sum())


def test_the_papers_loss_without_holes_worked_out_by_hand() -> None:
    # A ramp of 0.5 a column against a flat wall: errors 0, 0.5, ... 5.5, a step of 0.5 in 11 of
    # 12 columns, and in every window the same spread 0.25 s^2 of the ramp and none of the wall.
    ramp = torch.arange(12.0).expand(1, 1, 14, 12) * 0.5 + 20
    wall = torch.full_like(ramp, 20)
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets**2) / 4.5)
    weights /= weights.sum()
    c1, c2 = 1.0, 9.0
    structure = c2 / (0.25 * (weights * offsets**2).sum() + c2)
    # The window's centre is at column 5 or 6.
    luminance = np.mean([(2 * m * 20 + c1) / (m * m + 400 + c1) for m in (22.5, 23.0)])
    parts = paper.paper_loss(ramp, wall, torch.ones_like(ramp))
    assert float(parts["l1"]) == pytest.approx(2.75)
    assert float(parts["gradient"]) == pytest.approx(0.5 * 11 / 12)
    assert float(parts["ssim"]) == pytest.approx((1 - luminance * structure) / 2, rel=1e-4)
    assert float(parts["total"]) == pytest.approx(
        0.275 + 0.5 * 11 / 12 + (1 - luminance * structure) / 2, rel=1e-4
    )


# --- the article's -------------------------------------------------------------------------------


def boxes(*corners: int, step: float = 1.0) -> Tensor:
    """A flat map 24x24 with a raised 8x8 box at each corner (row and column)."""
    image: Tensor = torch.zeros(1, 1, 24, 24)
    for i in corners:
        image[..., i : i + 8, i : i + 8] = step
    return image


def hard_f1(pred: Tensor, target: Tensor) -> float:
    """F1 of Sobel magnitudes over 0.5, by SciPy, away from the map's border."""
    p, t = (
        np.hypot(ndimage.sobel(m, axis=0), ndimage.sobel(m, axis=1))[1:-1, 1:-1] > 0.5
        for m in (pred[0, 0].numpy(), target[0, 0].numpy())
    )
    precision, recall = (p & t).sum() / p.sum(), (p & t).sum() / t.sum()
    return float(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("shifted", [2, 3, 5, 8])
def test_soft_f1_of_sharp_edges_is_the_usual_one(shifted: int) -> None:
    pred, target = boxes(shifted), boxes(5, 14)
    loss = float(article.edge_f1_loss(pred, target, torch.ones_like(pred)))
    assert 0.05 < 1 - hard_f1(pred, target) < 1
    assert loss == pytest.approx(1 - hard_f1(pred, target), abs=0.02)


def test_soft_edges_are_half_at_the_threshold() -> None:
    # A step of h has a Sobel magnitude of 4 h on both sides.
    none = 1 / (1 + math.exp(10))
    for step, expected in ((0.125, 0.5), (0.25, 1 - none), (0.0, none)):
        columns = torch.where(torch.arange(8) < 4, 0.0, step).expand(1, 1, 6, 8)
        edges = article.soft_edges(columns)
        assert edges.shape == (1, 1, 4, 6)
        assert edges[0, 0, :, 2:4].numpy() == pytest.approx(expected, rel=0.01)
        assert edges[0, 0, :, :2].numpy() == pytest.approx(none, rel=0.01)


def test_maps_without_any_edge_agree_about_edges() -> None:
    flat, box = boxes(), boxes(8)
    everywhere = torch.ones_like(flat)
    assert float(article.edge_f1_loss(flat, flat + 0.3, everywhere)) == pytest.approx(0, abs=1e-4)
    assert float(article.edge_f1_loss(flat, box, everywhere)) > 0.95
    assert float(article.edge_f1_loss(box, flat, everywhere)) > 0.95


def test_edges_beside_a_hole_do_not_count() -> None:
    target = boxes(8)
    mask = torch.ones_like(target)
    mask[..., 8:16, 8:16] = 0
    # All that is left of the box's edge lies next to the hole.
    loss = article.edge_f1_loss(boxes(), target, mask)
    assert float(loss) == pytest.approx(0, abs=1e-4)


def test_edges_are_averaged_over_images() -> None:
    pred, target = torch.cat((boxes(5), boxes(8))), torch.cat((boxes(5, 14), boxes(8)))
    whole = article.edge_f1_loss(pred, target, torch.ones_like(pred))
    first = article.edge_f1_loss(pred[:1], target[:1], torch.ones_like(pred[:1]))
    assert float(whole) == pytest.approx(float(first) / 2, abs=1e-6)


def test_cosine_distance_is_that_of_the_pixels_in_the_mask() -> None:
    pred, truth, mask = batch()
    each = [distance.cosine(pred[n][mask[n]], truth[n][mask[n]]) for n in range(2)]
    result = call(article.cosine_distance, pred, truth, mask)
    assert result == pytest.approx(np.mean(each), rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 100), st.integers(0, 2**32 - 1))
def test_cosine_distance_ignores_a_common_scale(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pred, truth = rng.uniform(0.05, 1, (2, 1, 6, 7))
    everywhere = np.ones(pred.shape, np.bool_)
    once = call(article.cosine_distance, pred, truth, everywhere)
    scaled = call(article.cosine_distance, pred * scale, truth, everywhere)
    assert scaled == pytest.approx(once, abs=2e-3)
    assert 0 <= scaled <= 1
