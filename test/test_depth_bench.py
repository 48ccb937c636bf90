"""depth_bench: rows in processes of their own, what they are compared with, tables and plot."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import onnx
import pytest

from mono_depth_ros.depth_bench import (
    RUNTIMES,
    Bench,
    Subject,
    combinations,
    engine_table,
    main,
    parse_args,
    subjects,
)
from mono_depth_ros.engine_bench import Job, bench_engine, run
from mono_depth_ros.engines.cache import EngineCache
from mono_depth_ros.latency import percentiles, time_calls
from mono_depth_ros.model import default_model, read_model
from mono_depth_ros.node_bench import bench_node
from mono_depth_ros.stage_bench import bench_stages

TIMEOUT_S = 120.0
ENGINE_KEYS = {
    "model",
    "size",
    "engine",
    "precision",
    "description",
    "load_s",
    "first_frame_s",
    "cached_s",
    "cached_first_frame_s",
    "ms_p50",
    "ms_p95",
    "ms_p99",
    "frames_per_s",
    "latencies_ms",
    "memory_mb",
    "gpu_mb",
    "abs_rel",
    "delta1",
    "non_finite",
    "speedup",
    "speedup_over",
    "gflop_per_s",
    "gb_per_s",
}


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return networks.red_channel(tmp_path / "red.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of noise, in a folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(2):
        noise = np.random.default_rng(i).integers(1, 256, (96, 128, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), noise)
    return folder


def job(folder: Path, model: Path, engine: str = "onnx", **changes: Any) -> Job:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3), np.uint8)
    np.save(folder / "images.npy", pictures)
    cache = folder / f"cache-{engine}"
    cache.mkdir(mode=0o700, exist_ok=True)
    fields: dict[str, Any] = {"precision": "float32", "images": str(folder / "images.npy")}
    return Job(model=str(model), engine=engine, cache_dir=str(cache), **{**fields, **changes})


def test_percentiles_of_known_times() -> None:
    times = np.arange(1.0, 102.0)
    assert percentiles(times) == {"ms_p50": 51.0, "ms_p95": 96.0, "ms_p99": 100.0}


def test_calls_that_warm_up_are_not_counted() -> None:
    calls = []
    times = time_calls(lambda: calls.append(1), 50)
    assert times.shape == (50,) and len(calls) >= 55


def test_a_row_answers_what_the_network_is(tmp_path: Path, red: Path) -> None:
    answers = tmp_path / "answers.npy"
    row = run(job(tmp_path, red, repeat=50, answers=str(answers)), TIMEOUT_S)
    pictures = np.load(tmp_path / "images.npy")
    blocks = pictures[..., 0].reshape(2, 48, 2, 64, 2).astype(np.float64)
    truth = blocks.mean(axis=(2, 4)) * networks.RED_SCALE
    np.testing.assert_allclose(np.load(answers), truth, rtol=1e-5)
    assert row["description"].startswith("onnxruntime") and len(row["latencies_ms"]) == 50
    assert row["ms_p50"] == pytest.approx(np.median(row["latencies_ms"]), abs=2e-3)
    assert row["frames_per_s"] == pytest.approx(1e3 / np.mean(row["latencies_ms"]), rel=0.02)
    assert 0 < row["load_s"] < row["first_frame_s"]


@pytest.mark.slow
def test_memory_is_the_rows_own(tmp_path: Path, red: Path) -> None:
    ours = np.ones(400 << 20, np.uint8)  # in the peak that a child inherits
    small = run(job(tmp_path, red), TIMEOUT_S)
    model = onnx.load(red)
    ballast = np.zeros(64 << 18, np.float32)  # 64 MiB
    model.graph.initializer.append(onnx.numpy_helper.from_array(ballast, "ballast"))
    onnx.save(model, tmp_path / "large.onnx")
    large = run(job(tmp_path, tmp_path / "large.onnx"), TIMEOUT_S)
    assert 0 < small["memory_mb"] < ours.nbytes / 1e6
    assert large["memory_mb"] > small["memory_mb"] + ballast.nbytes / 1e6


def test_what_fails_in_a_row_is_one_line(
    tmp_path: Path, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(red)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, tmp_path / "odd.onnx")
    error = run(job(tmp_path, tmp_path / "odd.onnx"), TIMEOUT_S)["error"]
    assert "Frobnicate" in error and "\n" not in error
    assert "not done after 0.01 s" in run(job(tmp_path, red), 0.01)["error"]
    assert "--checkpoint" in run(job(tmp_path, red, "torch"), TIMEOUT_S)["error"]
    # A runtime that crashes.
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert run(job(tmp_path, red), TIMEOUT_S) == {"error": "the process was ended by SIGSEGV"}
    python.write_text("#!/bin/sh\necho first >&2\necho ValueError: last >&2\nexit 3\n")
    assert bench_engine(job(tmp_path, red), TIMEOUT_S) == {"error": "ValueError: last"}


@pytest.mark.slow
def test_only_what_is_cached_has_times_of_a_cached_start(tmp_path: Path, red: Path) -> None:
    cached = bench_engine(job(tmp_path, red, "openvino", repeat=50), TIMEOUT_S)
    assert cached["cached_s"] > 0 and cached["cached_first_frame_s"] > cached["cached_s"]
    plain = bench_engine(job(tmp_path, red, "onnx", repeat=50), TIMEOUT_S)
    assert plain["cached_s"] is None and plain["cached_first_frame_s"] is None


def bench_of(red: Path, folder: Path, images: Path) -> Bench:
    return Bench(Subject("red.onnx", read_model(red), None, None), folder, images, 50, TIMEOUT_S)


def test_comparisons_against_hand_computed_figures(tmp_path: Path, red: Path, images: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    expected = np.full((1, 2, 5), 2.0, np.float32)
    np.save(folder / "onnx-float32.npy", expected)
    answers = expected.copy()
    answers[0, 0, 0] = np.nan
    answers[0, 1, :3] = 3.0  # three of the nine others are 50 % off
    np.save(folder / "openvino-bfloat16.npy", answers)
    np.save(folder / "openvino-int8.npy", np.full_like(expected, np.nan))
    np.save(folder / "openvino-float32.npy", expected[:, :, :4])
    rows: list[dict[str, Any]] = [
        {"engine": "onnx", "precision": "float32", "ms_p50": 10.0},
        {"engine": "openvino", "precision": "bfloat16", "ms_p50": 4.0},
        {"engine": "openvino", "precision": "int8", "ms_p50": 1.0},
        {"engine": "openvino", "precision": "float32", "ms_p50": 1.0},
        {"engine": "tensorrt", "precision": "float16", "error": "no GPU"},
    ]
    bench_of(red, folder, images).add_comparisons(rows)
    assert rows[0]["abs_rel"] == 0 and rows[0]["delta1"] == 1 and rows[0]["speedup"] == 1
    assert rows[1]["abs_rel"] == pytest.approx(0.5 / 3)
    assert rows[1]["delta1"] == pytest.approx(2 / 3) and rows[1]["non_finite"] == 1
    assert rows[1]["speedup"] == 2.5 and rows[1]["speedup_over"] == "onnx float32"
    assert rows[2]["abs_rel"] is None and rows[2]["delta1"] == 0 and rows[2]["non_finite"] == 10
    assert "differ in size" in rows[3]["error"]
    assert set(rows[4]) == {"engine", "precision", "error"}
    # The red channel's network has no convolution and no matrix product.
    assert rows[1]["gflop_per_s"] == 0 and rows[1]["gb_per_s"] == 0


def test_speed_is_over_pytorch_where_that_was_measured(
    tmp_path: Path, red: Path, images: Path
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    rows: list[dict[str, Any]] = [
        {"engine": "torch", "precision": "float32", "ms_p50": 30.0},
        {"engine": "onnx", "precision": "float32", "ms_p50": 20.0},
    ]
    for row in rows:
        np.save(folder / f"{row['engine']}-float32.npy", np.ones((1, 2, 5), np.float32))
    bench_of(red, folder, images).add_comparisons(rows)
    assert [row["speedup"] for row in rows] == [1.0, 1.5]
    assert {row["speedup_over"] for row in rows} == {"torch float32"}


def test_rates_of_work_count_bytes_at_the_precisions_width(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    model = networks.slow(tmp_path / "slow.onnx", 0)
    rows: list[dict[str, Any]] = [
        {"engine": "onnx", "precision": "float32", "ms_p50": 2.0},
        {"engine": "openvino", "precision": "bfloat16", "ms_p50": 2.0},
    ]
    for row in rows:
        np.save(folder / f"{row['engine']}-{row['precision']}.npy", np.ones((1, 2, 5), np.float32))
    bench_of(model, folder, images).add_comparisons(rows)
    # One convolution of 3x3x3 at 96x128 into 64 channels.
    pixels, values = 96 * 128, 96 * 128 * (3 + 64) + 64 * 27
    assert rows[0]["gflop_per_s"] == pytest.approx(2 * pixels * 64 * 27 / 2e-3 / 1e9, abs=0.01)
    assert rows[0]["gb_per_s"] == pytest.approx(4 * values / 2e-3 / 1e9, abs=0.01)
    assert rows[1]["gb_per_s"] == pytest.approx(2 * values / 2e-3 / 1e9, abs=0.01)


def test_a_model_is_measured_with_the_checkpoint_beside_it_at_each_size(
    tmp_path: Path, red: Path
) -> None:
    cache = EngineCache(tmp_path / "cache")
    (own,) = subjects([default_model()], [], cache, None)
    assert own.size == "240x320" and own.checkpoint == default_model().with_suffix(".ckpt")
    assert own.int8 is None and own.float32 == read_model(default_model())
    small, large = subjects([default_model()], [(96, 128), (192, 256)], cache, None)
    assert (small.size, large.size) == ("96x128", "192x256")
    work = [subject.cost() for subject in (small, large)]
    assert work[0] and work[1] and work[1].flops == 4 * work[0].flops
    (red_subject,) = subjects([red], [], cache, None)
    assert red_subject.checkpoint is None


def test_every_engine_runs_what_makes_sense_unless_asked() -> None:
    assert ("openvino", "bfloat16") in combinations(None, None)
    assert {engine for engine, _ in combinations(None, None)} == set(RUNTIMES)
    assert ("onnx", "bfloat16") not in combinations(None, ["bfloat16"])
    assert combinations(["onnx"], ["bfloat16"]) == [("onnx", "bfloat16")]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["--size", "240"], "is not HEIGHTxWIDTH"),
        (["--size", "0x320"], "is not HEIGHTxWIDTH"),
        (["--repeat", "49"], "50 or more"),
        (["--engine", "tensorflow"], "invalid choice"),
        (["a.onnx", "b.onnx", "--checkpoint", "a.ckpt"], "belongs to one model"),
    ],
)
def test_options_that_cannot_be(
    command: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_args(command)
    assert reason in capsys.readouterr().err


def test_a_model_that_is_missing_ends_before_anything_is_measured(
    tmp_path: Path, red: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(red), str(tmp_path / "nowhere.onnx"), "--cache-dir", str(tmp_path / "cache")]
    assert main([*command, "--engine", "onnx"]) == 1
    assert "depth_bench: " in capsys.readouterr().err.splitlines()[-1]


def test_a_plot_without_matplotlib_names_the_remedy(
    tmp_path: Path,
    red: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What Python's import does where the package is missing.
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main([str(red), "--plot", str(tmp_path / "plot.png")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install -r requirements/bench.txt" in line


def test_the_plot_has_a_curve_for_every_row(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from mono_depth_ros.latency_plot import latency_figure, save_latency_plot

    series = [("one", [1.0, 2.0, 4.0]), ("two", [3.0, 3.0, 5.0, 9.0]), ("two", [1.0, 1.0])]
    (axes,) = latency_figure(series).axes
    assert len(axes.lines) == 3
    times, shares = np.asarray(axes.lines[0].get_xydata()).T
    # Two of the three calls took no longer than 2 ms.
    assert shares[times <= 2].max() == pytest.approx(2 / 3)
    save_latency_plot(series, tmp_path / "plots" / "latency.png")
    content = (tmp_path / "plots" / "latency.png").read_bytes()
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert content.startswith(b"\x89PNG") and picture is not None and np.ptp(picture) > 200


def test_the_table_shows_what_was_measured_and_beneath_it_what_was_not() -> None:
    good = dict.fromkeys(ENGINE_KEYS - {"latencies_ms"})
    good |= {"description": "onnxruntime 1.0 CPU f32", "ms_p50": 9.5, "delta1": 1.0}
    bad = {"engine": "tensorrt", "precision": "float16", "error": "no GPU"}
    worse = {**bad, "precision": "int8"}
    assert engine_table([good, bad, worse]).splitlines() == [
        "| engine                  | p50 ms | delta1 |",
        "|:------------------------|-------:|-------:|",
        "| onnxruntime 1.0 CPU f32 |    9.5 | 1.0000 |",
        "- tensorrt float16, tensorrt int8: no GPU",
    ]
    assert engine_table([bad]) == "- tensorrt float16: no GPU"


@pytest.mark.slow
def test_the_command_measures_what_runs_and_says_why_the_rest_does_not(
    tmp_path: Path, red: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    odd = tmp_path / "odd.onnx"
    model = onnx.load(red)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, odd)
    result, plot = tmp_path / "out" / "bench.json", tmp_path / "out" / "latency.png"
    options = ["--repeat", "50", "--images", str(images), "--cache-dir", str(tmp_path / "cache")]
    command = [str(odd), str(red), "--precision", "float32", "int8", *options]
    assert main([*command, "--json", str(result), "--plot", str(plot)]) == 0
    document = json.loads(result.read_text())
    assert document["machine"]["cores"] >= 1 and "onnxruntime" in document["machine"]["versions"]
    rows = {(row["model"], row["engine"], row["precision"]): row for row in document["rows"]}
    assert len(rows) == len(document["rows"]) == 14
    for engine in ("onnx", "openvino"):
        good = rows["red.onnx", engine, "float32"]
        assert set(good) == ENGINE_KEYS
        assert good["abs_rel"] < 1e-5 and good["delta1"] == 1 and good["non_finite"] == 0
        assert good["size"] == "96x128" and good["speedup_over"] == "onnx float32"
        assert rows["odd.onnx", engine, "float32"]["error"].startswith("odd.onnx: ")
        assert "build_engine" in rows["red.onnx", engine, "int8"]["error"]
    output = capsys.readouterr().out
    assert "| onnxruntime" in output and "| openvino" in output and "Frobnicate" in output
    assert plot.read_bytes().startswith(b"\x89PNG")
    # Asked for by name, it must run.
    assert main([str(odd), "--engine", "onnx", "--precision", "float32", *options]) == 1


@pytest.mark.slow
def test_stages_are_those_of_the_cameras_size(red: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (72, 128, 3), np.uint8)
    rows = bench_stages(red, image, 50)
    assert {row["camera"] for row in rows} == {"128x72"}
    times = {row["stage"]: float(row["ms_p50"]) for row in rows}
    assert "resize to 128x96" in times and min(times.values()) > 0


@pytest.mark.slow
def test_the_node_reports_on_what_it_is_sent(red: Path) -> None:
    pytest.importorskip("rclpy")
    rows = bench_node(red, 3.0, cameras=2, outputs=("depth", "points"), rate=10.0)
    assert {row["camera"] for row in rows} == {"2 cameras of 640x480 at 10 Hz"}
    figures = {str(row["stage"]).removeprefix("node: "): row for row in rows}
    total, network = figures["stamp to last publish"], figures["in the network"]
    assert float(total["ms_p50"]) > float(network["ms_p50"]) > 0
    slowest = float(figures["frames published, slowest camera"]["value"])
    assert 0 < slowest <= float(figures["frames published, fastest camera"]["value"]) < 15
    assert figures["frames published twice or out of order"]["value"] == 0
    assert float(figures["parameter service, round trip"]["ms_p50"]) > 0
    assert 0 <= float(figures["CPU, nobody subscribes"]["value"]) < 100


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_computes_the_same_at_another_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cache = EngineCache(tmp_path / "cache")
    (subject,) = subjects([default_model()], [(96, 128)], cache, None)
    folder = tmp_path / "runs"
    folder.mkdir()
    bench = Bench(subject, folder, None, 50, TIMEOUT_S)
    rows = [bench.row("torch", "float32")]
    assert "error" not in rows[0], rows[0]
    bench.add_comparisons(rows)
    assert rows[0]["abs_rel"] < 1e-3 and rows[0]["description"].startswith("torch")
    assert rows[0]["speedup_over"] == "torch float32"
