"""Whole trainings on small data: what they write, how they go on, and what they refuse."""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("lightning")

import data_layouts

import training.train
from mono_depth_ros.camera import CameraModel
from training.checkpoint import load_checkpoint, load_network
from training.config import parse_config, read_config
from training.data.folder import write_pair, write_settings
from training.datamodule import DepthData
from training.depth_module import DepthModule, rate
from training.run import checkpoint_info
from training.train import main, train

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of walls whose brightness tells their distance, 20 frames in each."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("walls", "others"):
        for i in range(20):
            depth = np.full((48, 64), 1 + 0.15 * i, np.float32)
            depth[:24] += 0.5
            image = np.repeat((250 - 45 * depth)[..., None].clip(0, 255), 3, axis=2)
            image += rng.normal(0, 3, image.shape)
            write_pair(root / name, f"{i:03d}", image.clip(0, 255).astype(np.uint8), depth)
        write_settings(root / name, 1e-3, CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5))
    return root


def document(**changes: Any) -> dict[str, Any]:
    return {
        "architecture": "mobilenetv2-unet",
        "loss": "log",
        "data": {
            "walls": {"path": "walls", "split": "fit"},
            "others": {"path": "others", "split": "fit", "share": 0.25},
        },
        "validation": {"path": "walls", "split": "validation"},
        "augmentation": {"flip": 0.5, "colour": 1.0},
        "stages": [
            {"height": 32, "width": 64, "epochs": 1},
            {"height": 64, "width": 64, "epochs": 1},
        ],
        "optimiser": {"lr": 1e-3, "decoupled": True, "warmup": 0.1, "gradient_clip": 5.0},
        "batch": 4,
        "ema_decay": 0.9,
        **changes,
    }


def run(data: Path, out: Path, *options: str, **changes: Any) -> int:
    """The command on a configuration; its exit status."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.parent / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(document(**changes), sort_keys=False))
    always = ["--config", str(path), "--data-root", str(data), "--out", str(out)]
    return main([*always, "--workers", "0", "--accelerator", "cpu", *options])


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(out: Path, name: str = "last.ckpt") -> dict[str, Any]:
    state: dict[str, Any] = load_checkpoint(out / name)["state_dict"]
    return state


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    assert run(data, out) == 0
    return out


def test_a_run_writes_down_what_would_repeat_it(data: Path, trained: Path) -> None:
    written = yaml.safe_load((trained / "run.yaml").read_text())
    config = read_config(trained.parent / "out.yaml")
    assert written["config"] == config.document()
    assert written["seed"] == 1
    assert len(written["data_list_sha256"]) == 64
    assert written["data"] == ["walls (18 frames)", "others (18 frames)"]
    assert {"commit", "command", "versions", "device"} <= written.keys()


def test_tensorboard_has_curves_and_panels(trained: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    assert {"train/total", "validation/delta1"} <= set(events.Tags()["scalars"])
    panels = events.Images("validation/panel")
    assert len(panels) == 2
    # Two frames of image, truth and prediction, side by side at the network's output size.
    assert (panels[-1].height, panels[-1].width) == (2 * 32, 3 * 32)


def test_every_epoch_has_a_row_of_metrics(trained: Path) -> None:
    first, second = rows(trained)
    assert (first["epoch"], first["step"], second["epoch"], second["step"]) == ("0", "4", "1", "8")
    for name in ("train/total", "train/silog", "validation/delta1", "validation/abs_rel"):
        assert math.isfinite(float(second[name]))


def test_the_checkpoint_tells_what_network_it_is(trained: Path) -> None:
    network, info = load_network(trained / "last.ckpt")
    assert (info.architecture, info.target) == ("mobilenetv2-unet", "log")
    assert (info.height, info.width) == (64, 64)
    assert math.sqrt(info.fx * info.fy) == pytest.approx(math.sqrt(518.858 * 519.470) / 10)
    with torch.inference_mode():
        assert torch.isfinite(network(torch.rand(1, 3, 64, 64))).all()


def test_the_best_checkpoint_is_of_the_best_epoch(trained: Path) -> None:
    scores = [float(row["validation/delta1"]) for row in rows(trained)]
    assert load_checkpoint(trained / "best.ckpt")["epoch"] == int(np.argmax(scores))


def test_a_finished_run_is_left_as_it_is(data: Path, trained: Path) -> None:
    before = weights(trained), rows(trained)
    assert run(data, trained) == 0
    after = weights(trained), rows(trained)
    assert after[1] == before[1]
    assert all(torch.equal(after[0][name], before[0][name]) for name in before[0])


class InterruptionError(Exception):
    """Stands for the end of a process between two steps."""


def test_a_run_that_ends_in_mid_epoch_goes_on_as_if_nothing_had_happened(
    data: Path, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.train, "SAVE_EVERY", timedelta(0))  # after every step
    steps = 0
    whole_step = DepthModule.training_step

    def step(self: Any, batch: Any, index: int) -> Any:
        nonlocal steps
        steps += 1
        if steps == 7:
            raise InterruptionError
        return whole_step(self, batch, index)

    monkeypatch.setattr(DepthModule, "training_step", step)
    with pytest.raises(InterruptionError):
        run(data, tmp_path / "out")
    assert load_checkpoint(tmp_path / "out" / "last.ckpt")["global_step"] == 6
    monkeypatch.setattr(DepthModule, "training_step", whole_step)
    assert run(data, tmp_path / "out") == 0
    assert_same_weights(tmp_path / "out", trained)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_images(
    data: Path, tmp_path: Path, trained: Path
) -> None:
    out = tmp_path / "out"
    shutil.copy(trained.parent / "out.yaml", tmp_path / "out.yaml")
    command = [
        sys.executable, "-m", "training.train", "--config", str(tmp_path / "out.yaml"),
        "--data-root", str(data), "--out", str(out), "--workers", "1", "--accelerator", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / "last.ckpt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
    assert_same_weights(out, trained)
    assert [row["epoch"] for row in rows(out)] == ["0", "1"]


@pytest.mark.slow
def test_two_processes_have_the_same_loss_as_one(data: Path, tmp_path: Path) -> None:
    # Batch statistics are each process's own (on CPUs torch cannot share them), so they are fixed.
    changes: dict[str, Any] = {"freeze_norms": True, "ema_decay": None}
    assert run(data, tmp_path / "one", **changes) == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "training.train", "--config", str(tmp_path / "one.yaml"), "--data-root", str(data),
        "--out", str(tmp_path / "two"), "--workers", "0", "--accelerator", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=240)
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        for name in ("train/total", "validation/delta1", "validation/abs_rel", "validation/rmse"):
            # The loss averages over an image's or a batch's pixels; here all are valid.
            assert float(two[name]) == pytest.approx(float(one[name]), rel=2e-3), name
    assert yaml.safe_load((tmp_path / "two" / "run.yaml").read_text())["processes"] == 2


def test_the_loss_goes_down(data: Path, tmp_path: Path) -> None:
    stages = [{"height": 32, "width": 64, "epochs": 5}]
    assert run(data, tmp_path / "out", stages=stages) == 0
    losses = [float(row["train/total"]) for row in rows(tmp_path / "out")]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("loss", ["paper", "article"])
def test_the_published_losses_train(data: Path, tmp_path: Path, loss: str) -> None:
    stages = [{"height": 32, "width": 64, "epochs": 4}]
    assert run(data, tmp_path / "out", loss=loss, stages=stages) == 0
    losses = [float(row["train/total"]) for row in rows(tmp_path / "out")]
    assert losses[-1] < 0.9 * losses[0]
    assert load_network(tmp_path / "out" / "last.ckpt")[1].target != "log"


def test_bfloat16_training_keeps_float32_weights(data: Path, tmp_path: Path) -> None:
    stages = [{"height": 32, "width": 64, "epochs": 4}]
    assert run(data, tmp_path / "out", precision="bf16-mixed", stages=stages) == 0
    losses = [float(row["train/total"]) for row in rows(tmp_path / "out")]
    assert losses[-1] < 0.9 * losses[0]
    weight = weights(tmp_path / "out")["network.head.weight"]
    assert weight.dtype == torch.float32


def test_a_compiled_network_trains_as_an_eager_one(
    data: Path, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default backend takes minutes on a CPU; what comes before it is the same.
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled(self, backend="eager"))
    assert run(data, tmp_path / "out", compile=True) == 0
    assert_same_weights(tmp_path / "out", trained)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    ["densenet169-unet", "densenet169-unet-512", "densenet121-unet", "resnet50v2-unet"],
)
def test_every_architecture_trains(data: Path, tmp_path: Path, architecture: str) -> None:
    stages = [{"height": 32, "width": 64, "epochs": 1}]
    assert run(data, tmp_path / "out", architecture=architecture, stages=stages) == 0
    network, info = load_network(tmp_path / "out" / "last.ckpt")
    assert info.architecture == architecture
    with torch.inference_mode():
        assert torch.isfinite(network(torch.rand(1, 3, 32, 64))).all()


TENTHS = [0.1 * i for i in range(8)]  # seconds
LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "nyu folder": lambda root: data_layouts.write_nyu_folder(root / "nyu"),
    "nyu mat": lambda root: data_layouts.write_mat(root / "nyu_depth_v2_labeled.mat"),
    "nyu zip": lambda root: data_layouts.write_zip(
        root / "nyu_data.zip", data_layouts.zip_members()
    ),
    "folder": lambda root: data_layouts.write_folder(root / "f", {"fx": 30, "fy": 30}, frames=8),
    "tum": lambda root: data_layouts.write_sequence(
        root / "rgbd_dataset_freiburg1_x", TENTHS, TENTHS
    ),
    "7-scenes": lambda root: data_layouts.write_scene(root / "chess"),
    "bag": lambda root: data_layouts.write_bag(root / "bag", frames=8),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_network_trains_on_every_layout(tmp_path: Path, layout: str) -> None:
    path = LAYOUTS[layout](tmp_path)
    config = parse_config(
        document(
            data={"it": {"path": str(path), "split": "fit"}},
            validation={"path": str(path), "split": "validation"},
            stages=[{"height": 32, "width": 64, "epochs": 2}],
            epoch_images=8,
        ),
        layout,
    )
    loaded = DepthData(config, Path(), workers=0)
    train(config, loaded, tmp_path / "out", accelerator="cpu")
    first, second = rows(tmp_path / "out")
    assert int(second["step"]) == 4
    for row in (first, second):
        assert 0 < float(row["train/total"]) < 5
        assert 0 <= float(row["validation/delta1"]) <= 1


def test_a_frozen_encoder_stays_as_it_was(data: Path, tmp_path: Path, trained: Path) -> None:
    before = weights(trained)
    options = ("--init", str(trained / "last.ckpt"))
    assert run(data, tmp_path / "out", *options, freeze_encoder=True, ema_decay=None) == 0
    after = weights(tmp_path / "out")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert not any(name.startswith("network.encoder.") for name in changed)


def test_a_network_can_start_from_a_checkpoint(data: Path, tmp_path: Path, trained: Path) -> None:
    stages = [{"height": 64, "width": 64, "epochs": 1}]
    tiny = {"lr": 1e-12, "decoupled": True}
    options = ("--init", str(trained / "last.ckpt"))
    changes = {"stages": stages, "optimiser": tiny, "freeze_norms": True, "ema_decay": None}
    assert run(data, tmp_path / "out", *options, **changes) == 0
    one, two = weights(trained), weights(tmp_path / "out")
    for name in (n for n in one if n.startswith("network.")):
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_a_student_learns_what_its_teacher_answers(
    data: Path, tmp_path: Path, trained: Path
) -> None:
    stages = [{"height": 32, "width": 64, "epochs": 4}]
    changes: dict[str, Any] = {"teacher": str((trained / "last.ckpt").absolute())}
    assert run(data, tmp_path / "out", stages=stages, teacher_weight=1.0, **changes) == 0
    first, *_, last = (float(row["train/teacher"]) for row in rows(tmp_path / "out"))
    assert last < 0.7 * first
    # The teacher is no part of the student.
    assert weights(tmp_path / "out").keys() == weights(trained).keys()


def test_early_stop_ends_a_run_that_no_longer_improves(data: Path, tmp_path: Path) -> None:
    stages = [{"height": 32, "width": 32, "epochs": 9}]
    still = {"lr": 1e-12, "decoupled": True}
    changes = {"freeze_norms": True, "early_stop": 2, "ema_decay": None}
    assert run(data, tmp_path / "out", stages=stages, optimiser=still, **changes) == 0
    assert len(rows(tmp_path / "out")) == 3


def test_the_rate_warms_up_then_falls_to_zero() -> None:
    rates = [rate(t / 100, 0.03, 0.9) for t in range(101)]
    assert rates[0] == 0 and rates[3] == pytest.approx(1.0) and rates[-1] == 0
    assert rates[:4] == sorted(rates[:4]) and rates[3:] == sorted(rates[3:], reverse=True)
    assert rate(0.5, 0.0, 1.0) == pytest.approx(0.5)


# --- what is refused -----------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ended with."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "training.train: " in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_another_configuration_does_not_continue_a_run(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "out")
    assert run(data, tmp_path / "out", batch=2) == 1
    message = refused(capsys)
    assert "batch" in message and "--out" in message


def test_other_data_do_not_continue_a_run(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "out")
    shutil.copytree(data, tmp_path / "data")
    for name in ("rgb/003.jpg", "depth/003.png"):
        (tmp_path / "data" / "walls" / name).unlink()
    assert run(tmp_path / "data", tmp_path / "out") == 1
    assert "list of images" in refused(capsys)


def test_a_checkpoint_of_another_architecture_is_refused(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--init", str(trained / "last.ckpt"))
    assert run(data, tmp_path / "out", *options, architecture="resnet50v2-unet") == 1
    message = refused(capsys)
    assert "mobilenetv2-unet" in message and "resnet50v2-unet" in message


def test_a_damaged_image_is_named_although_a_loader_process_met_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "walls" / "rgb" / "002.jpg").write_bytes(b"\xff\xd8 cut off")
    for workers in ("0", "1"):
        out = tmp_path / f"out{workers}"
        assert run(tmp_path / "data", out, "--workers", workers) == 1
        assert "002.jpg" in refused(capsys)


def test_frames_without_any_depth_do_no_harm(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    for path in sorted((tmp_path / "data" / "walls" / "depth").iterdir())[:10]:
        cv2.imwrite(str(path), np.zeros((48, 64), np.uint16))
    assert run(tmp_path / "data", tmp_path / "out") == 0
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "out").values())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--data", "walls=/nowhere"), "/nowhere"),
        (("--pretrained", "/nowhere.pth"), "/nowhere.pth"),
        (("--init", "/nowhere.ckpt"), "/nowhere.ckpt"),
        (("--set", "optimiser.rate=1"), "optimiser.rate"),
        (("--set", "batch=64"), "batch"),
    ],
)
def test_what_is_missing_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: tuple[str, str], text: str,
) -> None:  # fmt: skip
    assert run(data, tmp_path / "out", *options) == 1
    assert text in refused(capsys)


def test_a_full_disk_while_saving_leaves_the_last_good_checkpoint(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(trained.parent / "out.yaml", tmp_path / "out.yaml")
    shutil.copy(trained / "last.ckpt", out / "last.ckpt")
    before = (out / "last.ckpt").read_bytes()
    # A limit on the size of files fails in the middle of a write, as a full disk does.
    program = (
        "import resource, sys, torch; from pathlib import Path;"
        "from training.checkpoint import AtomicCheckpointIO;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "AtomicCheckpointIO().save_checkpoint({'a': torch.zeros(1 << 20)}, Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(out / "last.ckpt")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "last.ckpt" in last and "unharmed" in last
    assert (out / "last.ckpt").read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["last.ckpt"]


def test_the_whole_run_is_described_before_it_starts(data: Path, trained: Path) -> None:
    config = read_config(trained.parent / "out.yaml")
    loaded = DepthData(config, data, workers=0)
    info = checkpoint_info(config, loaded)
    assert info.training["config"] == config.document()
    module = train(config, loaded, trained, accelerator="cpu")
    assert module.total_steps == 8
