"""Export and evaluation: what ships computes what PyTorch computes, and is measured rightly."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import networks
import numpy as np
import onnx
import pytest

# A robot has no torch, and needs none.
torch = pytest.importorskip("torch")

from mono_depth_ros.engines import open_engine
from mono_depth_ros.estimator import DepthEstimator
from mono_depth_ros.model import default_model, read_metadata
from training import evaluate, export
from training.checkpoint import load_network, save_checkpoint
from training.data import nyu
from training.data.pair import Pair
from training.models import build_unet
from training.train import predict, training_focal

LIMIT_BYTES = 12_000_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network whose batch norms have seen data, as after training."""
    torch.manual_seed(3)
    network = build_unet("mobilenetv2-unet").train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, 64, 96))
    path = tmp_path_factory.mktemp("checkpoint") / "last.pt"
    save_checkpoint(
        path,
        {
            "architecture": "mobilenetv2-unet",
            "size": [64, 96],
            "focal_px": [80.0, 82.0],
            "data": ["random"],
            "epoch": 1,
            "ema": network.state_dict(),
        },
    )
    return path


def test_exported_network_matches_pytorch(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"metrics": {"protocol": {"delta1": 0.5}}}))
    status = export.main([str(checkpoint), "--out", str(out), "--metrics", str(metrics)])
    assert status == 0
    assert out.stat().st_size < LIMIT_BYTES
    network, _ = load_network(checkpoint)
    module = export.BytesToMetres(network).eval()
    image = np.random.default_rng(2).integers(0, 256, (64, 96, 3), np.uint8)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 3))
    with torch.inference_mode():
        truth = module(torch.from_numpy(image)[None]).numpy()[0]
    assert truth.shape == (32, 48)
    for runtime in ("onnx", "openvino"):
        engine = open_engine(out, runtime, "float32")
        assert np.max(np.abs(engine.infer(image) - truth) / truth) < 1e-3
    metadata = read_metadata(out)
    assert (metadata.height, metadata.width) == (64, 96)
    assert metadata.focal == pytest.approx((80.0 * 82.0) ** 0.5)
    assert metadata.document["metrics"] == {"protocol": {"delta1": 0.5}}
    assert metadata.document["licence"] == "Apache-2.0" and metadata.document["commit"]


def test_calibration_takes_out_a_common_factor(checkpoint: Path, tmp_path: Path) -> None:
    """Truth is the network's own depth times 1.3, with outliers that a median must ignore."""
    network, _ = load_network(checkpoint)
    pairs = []
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)
        focal = training_focal(96)
        depth = 1.3 * predict(network, image, torch.device("cpu"))
        depth[:10] = 9.0
        truth = np.asarray(cv2.resize(depth, (96, 64), interpolation=cv2.INTER_NEAREST), np.float32)
        truth[-4:] = np.nan
        pairs.append(Pair(image, truth, focal, focal, str(seed)))
    out = tmp_path / "net.onnx"
    export.export(checkpoint, out, None, {}, calibration=pairs)
    assert read_metadata(out).document["scale_correction"] == pytest.approx(1.3, rel=1e-3)
    plain = tmp_path / "plain.onnx"
    export.export(checkpoint, plain, None, {})
    answers = [open_engine(path, "onnx").infer(pairs[0].image) for path in (plain, out)]
    np.testing.assert_allclose(answers[1], 1.3 * answers[0], rtol=2e-3)


def test_another_size_scales_the_focal_length(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    assert export.main([str(checkpoint), "--out", str(out), "--size", "96", "144"]) == 0
    metadata = read_metadata(out)
    assert (metadata.height, metadata.width) == (96, 144)
    assert metadata.focal == pytest.approx(1.5 * (80.0 * 82.0) ** 0.5)


def test_bad_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(b"nothing")
    assert export.main([str(path), "--out", str(tmp_path / "net.onnx")]) == 1
    assert "bad.pt: cannot be read as a checkpoint" in capsys.readouterr().out


def test_shipped_model_is_self_contained_and_measured() -> None:
    path = default_model()
    assert path.stat().st_size <= LIMIT_BYTES
    model = onnx.load(path, load_external_data=False)
    assert all(tensor.data_location == tensor.DEFAULT for tensor in model.graph.initializer)
    metadata = read_metadata(path)
    measured = metadata.document["metrics"][evaluate.PROTOCOL]
    with (path.parent / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == path.name]
    assert rows, "results.csv has no row for the shipped model"
    assert rows[-1]["images"] == "654" and rows[-1]["split"] == "test"
    for name, value in measured.items():
        assert float(rows[-1][name]) == pytest.approx(value, abs=2e-3)
    assert metadata.document["data"][0] == "nyu_depth_v2_labeled_train795"


@pytest.fixture
def tiny_nyu(tmp_path: Path) -> Path:
    """Two test images whose red channel is the depth code times a known factor."""
    root = tmp_path / "nyu"
    for folder in ("rgb", "depth8"):
        (root / folder).mkdir(parents=True)
    (root / "test654.txt").write_text("0\n1\n")
    (root / "train795.txt").write_text("2\n")
    for index, code in enumerate((60, 120)):
        image = np.full((480, 640, 3), code, np.uint8)
        depth = np.full((480, 640), code, np.uint8)
        depth[:45] = 255  # outside the Eigen crop: must not count
        cv2.imwrite(str(root / "rgb" / f"{index:04d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
        cv2.imwrite(str(root / "depth8" / f"{index:04d}.png"), depth)
    return root


def test_evaluation_on_known_depth(tiny_nyu: Path, tmp_path: Path) -> None:
    scale = nyu.FX * networks.WIDTH / 640 * nyu.FY * networks.HEIGHT / 480
    scale = scale**0.5 / networks.FOCAL
    # The network answers 1.1 times the truth, apart from half a step of the 8-bit code.
    model = networks.red_channel(tmp_path / "red.onnx", factor=1.1 / 25.5 / scale)
    table, result = tmp_path / "rows.csv", tmp_path / "row.json"
    arguments = [str(model), "--nyu", str(tiny_nyu), "--csv", str(table), "--json", str(result)]
    assert evaluate.main(arguments) == 0
    assert evaluate.main(arguments) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and rows[0] == rows[1] and rows[0]["images"] == "2"
    ratios = [1.1 * code / (code + 0.5) for code in (60, 120)]
    assert float(rows[0]["abs_rel"]) == pytest.approx(np.mean(ratios) - 1, abs=1e-3)
    assert float(rows[0]["log10"]) == pytest.approx(np.mean(np.log10(ratios)), abs=1e-3)
    errors = [
        (ratio - 1) * (code + 0.5) / 25.5 for ratio, code in zip(ratios, (60, 120), strict=True)
    ]
    assert float(rows[0]["rmse"]) == pytest.approx(np.mean(errors), abs=2e-3)
    assert rows[0]["delta1"] == "1.0"
    written = json.loads(result.read_text())["metrics"][evaluate.PROTOCOL]
    assert written["abs_rel"] == float(rows[0]["abs_rel"])


def test_evaluation_undoes_nothing_by_median_scaling(tiny_nyu: Path, tmp_path: Path) -> None:
    model = networks.red_channel(tmp_path / "red.onnx", factor=0.3)
    scores, _ = evaluate.evaluate(DepthEstimator.open(model), tiny_nyu, "test")
    assert scores["delta1"] == 0.0 and scores["abs_rel"] > 1
