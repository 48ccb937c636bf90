"""Training parts against plain loops, and a whole tiny training."""

from __future__ import annotations

import json
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from training import losses
from training.checkpoint import load_checkpoint, load_network, save_checkpoint
from training.data import nyu
from training.data.augment import MAX_FRAME, _rotate, augment, draw_frame, resize_pair
from training.data.folder import read_folder, read_folders
from training.data.pair import Pair
from training.metrics import METRICS, MetricMean, depth_metrics
from training.models import MobileNetV2Encoder, build_unet
from training.train import learning_rate, main, training_focal

Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


# --- losses --------------------------------------------------------------------------------------


def batch(height: int = 19, width: int = 23) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Log depth of two images, its truth, and where the truth is known."""
    rng = np.random.default_rng(5)
    pred = rng.normal(0.8, 0.5, (2, height, width))
    truth = pred + rng.normal(0.1, 0.3, pred.shape)
    mask = rng.random(pred.shape) < 0.7
    mask[0, :8, :8] = False
    return pred, truth, mask


def call(name: str, pred: Array, truth: Array, mask: npt.NDArray[np.bool_], **more: float) -> float:
    """The loss of that name; what is outside the mask is replaced by rubbish first."""
    spoilt = np.where(mask, truth, 77.0)
    tensors = (torch.tensor(a[:, None], dtype=torch.float64) for a in (pred, spoilt, mask))
    return float(getattr(losses, name)(*tensors, **more))


def test_l1_is_the_mean_over_the_mask() -> None:
    pred, truth, mask = batch()
    errors = [abs(pred[i] - truth[i]) for i in np.ndindex(mask.shape) if mask[i]]
    assert call("l1", pred, truth, mask) == pytest.approx(sum(errors) / len(errors))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_scale_invariant_loss_is_averaged_over_images(weight: float) -> None:
    pred, truth, mask = batch()
    each = []
    for n in range(2):
        d = [pred[n][i] - truth[n][i] for i in np.ndindex(mask[n].shape) if mask[n][i]]
        mean, square = sum(d) / len(d), sum(v * v for v in d) / len(d)
        each.append(math.sqrt(square - weight * mean * mean))
    result = call("scale_invariant", pred, truth, mask, weight=weight)
    assert result == pytest.approx(sum(each) / 2)


def test_the_scale_invariant_loss_of_weight_one_ignores_a_common_scale() -> None:
    pred, truth, mask = batch()
    once = call("scale_invariant", pred, truth, mask, weight=1.0)
    assert call("scale_invariant", pred + 0.7, truth, mask, weight=1.0) == pytest.approx(once)
    assert call("scale_invariant", pred + 0.7, truth, mask, weight=0.5) > once + 0.1


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
    result = call("gradient", pred, truth, mask, scales=scales)
    assert result == pytest.approx(total / scales)


def test_ssim_uses_windows_of_seven_by_seven() -> None:
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
    assert call("ssim", pred, truth, mask) == pytest.approx(np.mean(values))


def test_equal_inputs_cost_nothing() -> None:
    depth = torch.rand(2, 1, 20, 24) * 5 + 0.3
    for name, value in losses.depth_loss(depth.log(), depth).items():
        assert abs(float(value)) < 1e-3, name


def test_the_total_is_the_weighted_sum() -> None:
    parts = losses.depth_loss(torch.zeros(1, 1, 20, 24), torch.rand(1, 1, 20, 24) + 0.5)
    expected = 0.5 * parts["l1"] + parts["silog"] + 0.5 * parts["gradient"] + parts["ssim"]
    assert float(parts["total"]) == pytest.approx(float(expected))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -2.0])
def test_gradients_ignore_pixels_without_depth(bad: float) -> None:
    pred = torch.randn(2, 1, 20, 24, requires_grad=True)
    depth = torch.rand(2, 1, 20, 24) * 5 + 0.3
    depth[0, :, 4:9, 3:12] = bad
    losses.depth_loss(pred, depth)["l1"].backward()
    assert pred.grad is not None
    assert (pred.grad[0, 0, 4:9, 3:12] == 0).all() and (pred.grad[1] != 0).all()
    losses.depth_loss(pred, depth)["total"].backward()
    assert torch.isfinite(pred.grad).all()


def test_an_image_without_any_depth_costs_nothing_and_breaks_nothing() -> None:
    pred = torch.randn(1, 1, 20, 24, requires_grad=True)
    total = losses.depth_loss(pred, torch.full((1, 1, 20, 24), math.nan))["total"]
    total.backward()
    assert pred.grad is not None
    assert float(total.detach()) < 1e-3
    assert (pred.grad == 0).all()


# --- metrics -------------------------------------------------------------------------------------


def test_metrics_worked_out_by_hand() -> None:
    pred = np.array([1.0, 2.0, 4.0, 10.0], np.float32)
    truth = np.array([1.0, 2.6, 2.0, 1.0], np.float32)  # ratios 1, 1.3, 2, 10
    result = depth_metrics(pred, truth)
    assert result["delta1"] == 0.25
    assert result["delta2"] == 0.5
    assert result["delta3"] == 0.5
    assert result["abs_rel"] == pytest.approx((0 + 0.6 / 2.6 + 1 + 9) / 4)
    assert result["rmse"] == pytest.approx(math.sqrt((0.36 + 4 + 81) / 4))
    assert result["log10"] == pytest.approx(math.log10(1.3 * 2 * 10) / 4)


def test_the_threshold_itself_is_not_within_delta1() -> None:
    low, high = np.array([1.0], np.float32), np.array([1.25], np.float32)
    assert depth_metrics(high, low)["delta1"] == depth_metrics(low, high)["delta1"] == 0


def test_metrics_are_averaged_over_images_not_pixels() -> None:
    mean = MetricMean()
    mean.add(np.full((10, 10), 2.0, np.float32), np.ones((10, 10), np.float32))
    mean.add(np.full((1, 1), 1.5, np.float32), np.ones((1, 1), np.float32))
    result = mean.compute()
    assert result["abs_rel"] == pytest.approx(0.75)
    assert result["rmse"] == pytest.approx(0.75)
    assert len(mean) == 2


def test_only_pixels_valid_in_both_count() -> None:
    pred = np.array([[2.0, np.nan, 3.0, 3.0, np.inf, -1.0, 0.0]], np.float32)
    truth = np.array([[1.0, 1.0, np.nan, 0.0, 1.0, 1.0, 1.0]], np.float32)
    mean = MetricMean()
    mean.add(pred, truth)
    assert mean.compute()["abs_rel"] == pytest.approx(1.0)


def test_an_image_without_valid_pixels_does_not_count() -> None:
    mean = MetricMean()
    mean.add(np.ones((2, 2), np.float32), np.full((2, 2), np.nan, np.float32))
    assert len(mean) == 0
    with pytest.raises(ValueError, match="no image"):
        mean.compute()
    with pytest.raises(ValueError, match="no valid pixel"):
        depth_metrics(np.zeros(0, np.float32), np.zeros(0, np.float32))


# --- augmentation --------------------------------------------------------------------------------

SIDE, DISTANCE = 0.1, 2.0


def square_pair(fx: float = 500.0, fy: float = 500.0) -> Pair:
    """A white square of side 0.1 m on a black wall 2 m away, in the image's centre."""
    image = np.zeros((480, 640, 3), np.uint8)
    w, h = round(fx * SIDE / DISTANCE), round(fy * SIDE / DISTANCE)
    image[240 - h // 2 : 240 - h // 2 + h, 320 - w // 2 : 320 - w // 2 + w] = 255
    return Pair(image, np.full((480, 640), DISTANCE, np.float32), fx, fy, "square")


def apparent_side(image: npt.NDArray[np.uint8]) -> float:
    """Side in pixels of a square of the area that is brighter than halfway, frames left out."""
    margin = round(MAX_FRAME * max(image.shape)) + 1
    grey = image[margin:-margin, margin:-margin].astype(float).mean(axis=2)
    return math.sqrt((grey > (grey.min() + grey.max()) / 2).sum())


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (240, 240), (192, 256), (360, 640)])
@pytest.mark.parametrize(("fx", "fy"), [(500.0, 500.0), (400.0, 640.0), (900.0, 900.0)])
def test_the_apparent_size_of_a_resized_pair_fits_its_depth(
    size: tuple[int, int], fx: float, fy: float
) -> None:
    focal = 300.0
    image, depth = resize_pair(square_pair(fx, fy), size, focal)
    # The area of an anti-aliased square is the sum of its brightness.
    side = math.sqrt(image[..., 0].sum() / 255)
    np.testing.assert_allclose(depth, focal * SIDE / side, rtol=0.02)


def test_a_resized_pair_has_the_sizes_asked_for() -> None:
    image, depth = resize_pair(square_pair(), (96, 128), 100.0)
    assert image.shape == (96, 128, 3)
    assert image.dtype == np.uint8
    assert depth.shape == (48, 64)
    assert depth.dtype == np.float32
    assert resize_pair(square_pair(), (96, 128), 100.0, stride=4)[1].shape == (24, 32)


def test_resizing_invents_no_depth_between_two_surfaces() -> None:
    depth = np.full((480, 640), 1.0, np.float32)
    depth[100:300, 200:333] = 3.0
    depth[:7] = np.nan
    pair = Pair(np.zeros((480, 640, 3), np.uint8), depth, 500, 500, "step")
    _, small = resize_pair(pair, (226, 302), 500 * 302 / 640)
    ratio = small / np.nanmin(small)
    assert set(np.round(ratio[np.isfinite(ratio)], 4)) == {1.0, 3.0}
    assert np.isnan(small[:2]).all() and np.isfinite(small[2:]).all()


def test_augmented_views_keep_metric_truth() -> None:
    pair, focal = square_pair(), 260.0
    sides, depths = [], []
    for seed in range(40):
        image, depth = augment(pair, np.random.default_rng(seed), (240, 320), focal)
        z = float(np.nanmax(depth))
        assert np.nanmin(depth) == pytest.approx(z)
        sides.append(apparent_side(image) * z / focal)
        depths.append(z)
    np.testing.assert_allclose(sides, SIDE, rtol=0.08)
    assert np.mean(sides) == pytest.approx(SIDE, rel=0.02)
    # Views differ, or the test above has not seen a zoom.
    assert max(depths) / min(depths) > 1.3


def test_flips_keep_image_and_depth_registered() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    depth = np.full((480, 640), 1.0, np.float32)
    image[:, 320:], depth[:, 320:] = 255, 3.0
    pair, bright_on_the_right = Pair(image, depth, 500, 500, "halves"), []
    for seed in range(20):
        view, z = augment(pair, np.random.default_rng(seed), (120, 160), 130.0)
        grey = view.astype(float).mean(axis=2)
        small = cv2.resize(grey, (z.shape[1], z.shape[0]), interpolation=cv2.INTER_AREA)
        bright, valid = small > (small.min() + small.max()) / 2, np.isfinite(z)
        far = z > 2 * np.nanmin(z)
        assert (bright == far)[valid].mean() > 0.97
        bright_on_the_right.append(bool(bright[:, -5:].mean() > 0.5))
    assert len(set(bright_on_the_right)) == 2


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_rotation_turns_image_and_depth_alike_and_uncovers_corners_without_depth(seed: int) -> None:
    v, u = np.mgrid[:240, :320]
    slope = u // 2 + v // 4 + 10
    image = np.repeat(slope[..., None], 3, axis=2).astype(np.uint8)
    pair = Pair(image, slope.astype(np.float32), 250, 250, "slope")
    turned = _rotate(pair, np.random.default_rng(seed))
    hole = np.isnan(turned.depth)
    assert hole.any() and not hole[12:-12, 12:-12].any()
    uncovered = [hole[0, :40], hole[0, -40:], hole[-1, :40], hole[-1, -40:]]
    assert sum(corner.any() for corner in uncovered) >= 2
    np.testing.assert_allclose(turned.image[..., 0][~hole], turned.depth[~hole], atol=1.5)
    assert (turned.depth[~hole] != pair.depth[~hole]).any()
    assert (turned.fx, turned.fy) == (250, 250)


@pytest.mark.parametrize("seed", range(5))
def test_a_painted_frame_has_no_depth_and_is_thin(seed: int) -> None:
    image, depth = np.full((96, 128, 3), 100, np.uint8), np.ones((48, 64), np.float32)
    draw_frame(image, depth, np.random.default_rng(seed))
    painted = (image != 100).any(axis=2)
    hole = np.isnan(depth).repeat(2, axis=0).repeat(2, axis=1)
    assert painted.any() and hole[painted].all()
    assert not hole[4:-4, 4:-4].any()
    assert (depth[np.isfinite(depth)] == 1).all()


def test_the_same_seed_gives_the_same_view() -> None:
    first, second, third = (
        augment(square_pair(), np.random.default_rng(seed), (96, 128), 100.0) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != third[0]).any()


def test_augmentation_leaves_the_data_set_alone() -> None:
    pair = square_pair()
    for seed in range(5):
        augment(pair, np.random.default_rng(seed), (96, 128), 100.0)
    np.testing.assert_array_equal(pair.image, square_pair().image)
    np.testing.assert_array_equal(pair.depth, square_pair().depth)


# --- networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (33, 71)])
@pytest.mark.parametrize("expand_first", [True, False])
def test_encoder_features_have_the_channels_and_strides_it_declares(
    height: int, width: int, expand_first: bool
) -> None:
    encoder = MobileNetV2Encoder(expand_first).eval()
    with torch.inference_mode():
        features = encoder(torch.rand(1, 3, height, width))
    shapes = [
        (1, c, math.ceil(height / s), math.ceil(width / s))
        for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == shapes


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (50, 38)])
def test_the_u_net_answers_at_half_size(height: int, width: int) -> None:
    with torch.inference_mode():
        out = build_unet("mobilenetv2-unet").eval()(torch.rand(2, 3, height, width))
    assert tuple(out.shape) == (2, 1, math.ceil(height / 2), math.ceil(width / 2))
    assert torch.isfinite(out).all()


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = build_unet("mobilenetv2-unet").train()
    losses.depth_loss(network(torch.rand(2, 3, 96, 128)), torch.rand(2, 1, 48, 64) + 1)[
        "total"
    ].backward()
    without = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()
    ]
    assert without == []


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="'resnet'"):
        build_unet("resnet")


def test_a_fresh_network_starts_near_indoor_depth() -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        depth = build_unet("mobilenetv2-unet").eval()(torch.rand(1, 3, 64, 96)).exp()
    assert 1.0 < float(depth.median()) < 5.0


# --- checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_gives_the_same_network_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, other = build_unet("mobilenetv2-unet"), build_unet("mobilenetv2-unet")
    content = {"architecture": "mobilenetv2-unet", "epoch": 3, "size": [64, 96]}
    content |= {"network": other.state_dict(), "ema": network.state_dict()}
    save_checkpoint(tmp_path / "a.pt", content)
    loaded, again = load_network(tmp_path / "a.pt")
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network.eval()(image))
    assert (again["epoch"], again["size"]) == (3, [64, 96])
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


class Intruder:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"format": 1, "architecture": Intruder(mark)}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=r"bad\.pt"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not mark.exists()
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert mark.exists()  # the file would have done it


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04N."])
def test_what_is_no_checkpoint_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pt").write_bytes(content)
    for path in (tmp_path / "bad.pt", tmp_path / "missing.pt"):
        with pytest.raises(ValueError, match=re.escape(path.name)):
            load_checkpoint(path)


@pytest.mark.parametrize("content", [{"format": 2}, {}, [1], {"model": 1}])
def test_another_format_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: not a checkpoint"):
        load_checkpoint(tmp_path / "other.pt")


# --- NYU -----------------------------------------------------------------------------------------

FRAMES = 48


@pytest.fixture(scope="module")
def nyu_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 2 test frames in NYU's layout: a wall whose brightness tells its distance."""
    root = tmp_path_factory.mktemp("nyu")
    (root / "rgb").mkdir()
    (root / "depth8").mkdir()
    for i in range(FRAMES + 2):
        code = np.full((480, 640), 20 + 4 * i, np.uint8)
        code[240:] -= 10
        code[:, 300:303] = 0
        image = cv2.cvtColor(255 - code, cv2.COLOR_GRAY2BGR)
        image[..., 0] = image[..., 0] // 2  # blue, in OpenCV's order
        cv2.imwrite(str(root / "rgb" / f"{i:04d}.jpg"), image)
        cv2.imwrite(str(root / "depth8" / f"{i:04d}.png"), code)
    (root / "train795.txt").write_text("\n".join(f"{i:04d}" for i in range(FRAMES)))
    (root / "test654.txt").write_text(f"{FRAMES}\n{FRAMES + 1}\n")
    return root


def test_nyu_depth_is_the_middle_of_its_step(nyu_folder: Path) -> None:
    pair = nyu.read_nyu(nyu_folder, "train", border=0)[7]
    assert pair.name == "nyu/0007"
    assert pair.depth[0, 0] == pytest.approx((48 + 0.5) / 25.5)
    assert pair.depth[300, 0] == pytest.approx((38 + 0.5) / 25.5)
    assert np.isnan(pair.depth[:, 300:303]).all()
    assert np.isfinite(pair.depth).sum() == 480 * 637


def test_nyu_images_are_rgb(nyu_folder: Path) -> None:
    red, _, blue = nyu.read_nyu(nyu_folder, "train")[0].image[0, 0].astype(int)
    assert red > 1.7 * blue


@pytest.mark.parametrize("border", [0, 10, 25])
def test_the_border_is_cut_on_all_sides(nyu_folder: Path, border: int) -> None:
    whole, cut = (nyu.read_nyu(nyu_folder, "test", border=b)[0] for b in (0, border))
    inside = (slice(border, 480 - border), slice(border, 640 - border))
    np.testing.assert_array_equal(cut.depth, whole.depth[inside])
    np.testing.assert_array_equal(cut.image, whole.image[inside])
    assert (cut.fx, cut.fy) == (518.858, 519.470)


def test_fit_and_validation_share_out_the_training_split(nyu_folder: Path) -> None:
    fit, validation, train, test = (
        nyu.split_indices(nyu_folder, split) for split in ("fit", "validation", "train", "test")
    )
    assert not set(fit) & set(validation)
    assert sorted(fit + validation) == train == list(range(FRAMES))
    assert len(validation) == 32
    assert not set(test) & set(train)
    # Four runs of eight: neighbouring frames show the same room.
    assert sum(b - a != 1 for a, b in pairwise(validation)) == 3


def test_nyu_errors_are_one_line_that_names_the_file(nyu_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*'dev'[^\n]*$"):
        nyu.split_indices(nyu_folder, "dev")
    with pytest.raises(ValueError, match=r"^[^\n]*test654\.txt[^\n]*--nyu[^\n]*$"):
        nyu.read_nyu(tmp_path, "test")
    (tmp_path / "test654.txt").write_text("12\nseven\n")
    with pytest.raises(ValueError, match=r"^[^\n]*test654\.txt[^\n]*seven[^\n]*$"):
        nyu.read_nyu(tmp_path, "test")
    (tmp_path / "test654.txt").write_text("5")
    with pytest.raises(ValueError, match=r"^[^\n]*0005\.jpg[^\n]*$"):
        nyu.read_nyu(tmp_path, "test")


def test_nyu_frames_of_another_size_are_rejected(tmp_path: Path) -> None:
    for folder, name, channels in (("rgb", "0005.jpg", 3), ("depth8", "0005.png", 1)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / name), np.ones((240, 320, channels), np.uint8))
    (tmp_path / "test654.txt").write_text("5")
    with pytest.raises(ValueError, match="0005 is not 640x480"):
        nyu.read_nyu(tmp_path, "test")


# --- folders -------------------------------------------------------------------------------------


def write_folder(root: Path, meta: object, frames: int = 2) -> Path:
    for name in ("rgb", "depth"):
        (root / name).mkdir(parents=True)
    for i in range(frames):
        depth = np.full((24, 32), 1000 * (i + 1), np.uint16)
        depth[0, 0] = 0
        cv2.imwrite(str(root / "rgb" / f"{i:04d}.jpg"), np.full((24, 32, 3), 50, np.uint8))
        cv2.imwrite(str(root / "depth" / f"{i:04d}.png"), depth)
    (root / "meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    return root


def test_folder_depth_is_in_metres_and_zero_is_none(tmp_path: Path) -> None:
    first, second = read_folder(write_folder(tmp_path / "desk", {"fx": 30, "fy": 31.5}))
    assert (first.fx, first.fy, first.name) == (30.0, 31.5, "desk/0000")
    assert first.depth[1, 1] == 1.0 and second.depth[1, 1] == 2.0
    assert np.isnan(first.depth[0, 0])
    assert first.image.shape == (24, 32, 3)


def test_a_folder_may_have_intrinsics_for_each_frame(tmp_path: Path) -> None:
    per_frame = [{"fx": 30, "fy": 31}, {"fx": 60, "fy": 62}]
    pairs = read_folder(write_folder(tmp_path / "desk", {"per_frame": per_frame}))
    assert [(pair.fx, pair.fy) for pair in pairs] == [(30.0, 31.0), (60.0, 62.0)]


def test_all_folders_with_a_description_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_folder(tmp_path / name, {"fx": 30, "fy": 30})
    (tmp_path / "notes").mkdir()
    names = [pair.name for pair in read_folders(tmp_path)]
    assert names == ["a/0000", "a/0001", "b/0000", "b/0001"]


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ("{", "meta.json"),
        ({"fx": 30}, "meta.json.*fy"),
        ({"fx": "wide", "fy": 30}, "meta.json.*wide"),
        ({"fx": 0, "fy": 30}, "meta.json.*positive"),
        ({"fx": math.nan, "fy": 30}, "meta.json.*positive"),
        ([1, 2], "meta.json"),
        ({"per_frame": [{"fx": 30, "fy": 30}]}, "2 images but intrinsics for 1"),
        ({"per_frame": [{"fx": 30, "fy": 30}, {}]}, "meta.json.*fx"),
    ],
)
def test_a_bad_description_is_a_one_line_error(tmp_path: Path, meta: object, text: str) -> None:
    with pytest.raises(ValueError, match=text) as error:
        read_folder(write_folder(tmp_path / "desk", meta))
    assert "\n" not in str(error.value)
    assert "desk" in str(error.value)


def test_missing_and_mismatched_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder with a meta\.json"):
        read_folders(tmp_path)
    with pytest.raises(ValueError, match="no rgb"):
        read_folder(write_folder(tmp_path / "empty", {"fx": 30, "fy": 30}, frames=0))
    folder = write_folder(tmp_path / "desk", {"fx": 30, "fy": 30})
    cv2.imwrite(str(folder / "depth" / "0001.png"), np.ones((12, 32), np.uint16))
    with pytest.raises(ValueError, match=r"desk/0001: .*differ"):
        read_folder(folder)
    (folder / "depth" / "0001.png").unlink()
    with pytest.raises(ValueError, match=r"0001\.png"):
        read_folder(folder)


def test_a_colour_picture_is_no_depth(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "desk", {"fx": 30, "fy": 30})
    cv2.imwrite(str(folder / "depth" / "0000.png"), np.ones((24, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"0000\.png.*one-channel"):
        read_folder(folder)


# --- training ------------------------------------------------------------------------------------


def run(root: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    """Trains on 16 frames; returns the log."""
    always = ["--nyu", str(root), "--out", str(out), "--workers", "0", "--device", "cpu"]
    assert main([*always, *options]) == 0
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(nyu_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one epoch on 16 frames and an extra folder."""
    root = tmp_path_factory.mktemp("trained")
    write_folder(root / "extra" / "desk", {"fx": 30, "fy": 30})
    run(nyu_folder, root / "out", "--stages", "32x64x1", "--extra", str(root / "extra"))
    return root / "out"


def test_training_writes_a_checkpoint_that_says_what_it_was_trained_on(trained: Path) -> None:
    network, content = load_network(trained / "last.pt")
    assert (content["epoch"], content["size"]) == (1, [32, 64])
    assert "extra_rgbd_2" in content["data"]
    assert math.prod(content["focal_px"]) ** 0.5 == pytest.approx(training_focal(64))
    with torch.inference_mode():
        assert torch.isfinite(network(torch.rand(1, 3, 32, 64))).all()


def test_training_continues_from_its_checkpoint(
    nyu_folder: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "out")
    log = run(nyu_folder, tmp_path / "out", "--stages", "32x64x1", "64x64x1")
    content = load_checkpoint(tmp_path / "out" / "last.pt")
    assert [(row["epoch"], row["size"]) for row in log] == [(1, [32, 64]), (2, [64, 64])]
    assert (content["epoch"], content["size"]) == (2, [64, 64])
    assert set(log[-1]["validation"]) == set(METRICS)
    # Two steps of eight images an epoch: it went on counting.
    assert int(next(iter(content["optimiser"]["state"].values()))["step"]) == 4
    assert "continuing" in capsys.readouterr().out


def test_a_finished_training_is_left_as_it_is(nyu_folder: Path, trained: Path) -> None:
    before = (trained / "last.pt").read_bytes()
    assert len(run(nyu_folder, trained, "--stages", "32x64x1")) == 1
    assert (trained / "last.pt").read_bytes() == before


def test_the_loss_goes_down(nyu_folder: Path, tmp_path: Path) -> None:
    log = run(nyu_folder, tmp_path, "--stages", "32x64x4", "--batch", "4")
    assert log[-1]["total"] < 0.8 * log[0]["total"]
    assert all(math.isfinite(row[name]) for row in log for name in ("l1", "silog", "ssim"))


def test_training_without_data_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--nyu", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "train795.txt" in last and "--nyu" in last


def test_the_learning_rate_warms_up_then_falls_to_zero() -> None:
    rates = [learning_rate(t / 100, 2.0) for t in range(101)]
    assert rates[0] == 0 and rates[3] == pytest.approx(2.0) and rates[-1] == 0
    assert rates[:4] == sorted(rates[:4]) and rates[3:] == sorted(rates[3:], reverse=True)


@pytest.mark.parametrize("text", ["32x64", "axbxc", "", "1x2x3x4"])
def test_a_malformed_stage_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--nyu", "x", "--out", "y", "--stages", text])
    assert "HEIGHTxWIDTHxEPOCHS" in capsys.readouterr().err
