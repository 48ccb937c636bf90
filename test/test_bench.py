"""The training benchmark measures what it says, on made and on real data."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

from training.bench import images_per_second, main, make_pairs
from training.data.folder import read_folder

CONFIG = {
    "architecture": "mobilenetv2-unet",
    "loss": "log",
    "data": {"nyu": {"path": "nyu", "split": "fit"}},
    "validation": {"path": "nyu", "split": "validation"},
    "stages": [{"height": 32, "width": 32, "epochs": 1}],
    "batch": 2,
}


def test_a_rate_counts_images_not_batches() -> None:
    def four_images() -> int:
        time.sleep(0.02)
        return 4

    rate = images_per_second(four_images, 0.2, torch.device("cpu"), warm_up=1)
    assert 4 / 0.06 < rate <= 4 / 0.02


def test_made_pairs_are_of_camera_size(tmp_path: Path) -> None:
    make_pairs(tmp_path, 2)
    frames = read_folder(tmp_path)
    assert [frame.read().image.shape for frame in frames] == [(480, 640, 3)] * 2


@pytest.mark.slow
def test_all_figures_come_from_one_run(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    options = ["--made", "8", "--workers", "0", "--seconds", "0.3", "--device", "cpu"]
    result = tmp_path / "bench.json"
    assert main(["--config", str(tmp_path / "c.yaml"), "--json", str(result), *options]) == 0
    figures = json.loads(result.read_text())
    for name in ("eager_float32_step", "tuned_step", "loader", "both"):
        assert figures[name] > 0
    ratio = figures["tuned_step"] / figures["eager_float32_step"]
    assert figures["tuned_over_eager"] == pytest.approx(ratio, rel=0.02)


def test_missing_data_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    command = ["--config", str(tmp_path / "c.yaml"), "--data-root", str(tmp_path), "--workers", "0"]
    assert main(command) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
