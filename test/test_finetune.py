"""From a bag of somebody's camera to a better network, in one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")
pytest.importorskip("rosbags")

import data_layouts

from mono_depth_ros.model import read_metadata
from training.checkpoint import CheckpointInfo, save_weights
from training.finetune import CONFIG, main
from training.models import build_unet

SMALL = ("--set", "stages=[{height: 32, width: 64, epochs: 3}]", "--set", "epoch_images=16")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A network that has seen nothing."""
    torch.manual_seed(0)
    info = CheckpointInfo("mobilenetv2-unet", "log", 32, 64, 51.9, 51.9, [], {})
    save_weights(build_unet("mobilenetv2-unet"), info, tmp_path / "start.ckpt")
    return tmp_path / "start.ckpt"


@pytest.mark.slow
def test_a_bag_becomes_a_network_that_fits_its_camera(
    tmp_path: Path, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, out, table = data_layouts.write_bag(tmp_path / "bag", 9), tmp_path / "out", tmp_path / "t"
    options = ["--out", str(out), "--init", str(start), "--workers", "0", "--json", str(table)]
    fast = ["--set", "optimiser.lr=2e-3", "--set", "freeze_norms=false", *SMALL]
    assert main([str(bag), *options, *fast]) == 0
    result = json.loads(table.read_text())
    assert result["images"] == 1  # the end of the recording
    assert result["after"]["abs_rel"] < result["before"]["abs_rel"]
    printed = capsys.readouterr().out
    assert "before" in printed and f"{result['after']['abs_rel']:.4f}" in printed
    metadata = read_metadata(out / "model.onnx")
    assert (metadata.height, metadata.width) == (32, 64)
    assert "camera (8 frames)" in metadata.document["data"]


@pytest.mark.parametrize(
    ("options", "text"),
    [(("--init", "/nowhere.ckpt"), "/nowhere.ckpt"), (("--set", "optimiser.rate=1"), "rate")],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str], text: str
) -> None:
    folder = data_layouts.write_folder(tmp_path / "f", {"fx": 30, "fy": 30}, frames=12)
    assert main([str(folder), "--out", str(tmp_path / "out"), "--workers", "0", *options]) == 1
    assert text in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_bag_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.mcap"), "--out", str(tmp_path / "out")]) == 1
    assert "none.mcap" in capsys.readouterr().err.splitlines()[-1]


def test_the_schedule_ships_with_the_package() -> None:
    assert CONFIG.is_file()
