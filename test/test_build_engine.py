"""Building, checking, keeping and finding TensorRT plans.

TensorRT-RTX builds for GPUs that are not there, so those tests run the real one. What needs a GPU
runs on the stand-in of `host_tensorrt`, whose kernels are ONNX Runtime's.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import onnx
import pytest
from gpu_fixture import gpu_environment, put_gpu
from onnx import numpy_helper

import mono_depth_ros.parity as parity_module
from mono_depth_ros import build_engine
from mono_depth_ros.engines import (
    EngineError,
    NotBuiltError,
    UnavailableError,
    open_engine,
    openvino_choice,
    tensorrt_plans,
)
from mono_depth_ros.engines.cache import EngineCache, open_cache
from mono_depth_ros.engines.calibrated import calibrate
from mono_depth_ros.engines.tensorrt_plans import Plan, build
from mono_depth_ros.model import DepthModel, default_model, read_model
from mono_depth_ros.parity import parity_images

TARGETS = ("sm86", "sm89", "sm120")


@pytest.fixture
def red(tmp_path: Path) -> DepthModel:
    return read_model(networks.convolutions(tmp_path / "red.onnx"))


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return open_cache(tmp_path / "cache")


def pictures(model: DepthModel, count: int = 2) -> list[np.ndarray]:
    shape = (model.metadata.height, model.metadata.width, 3)
    return [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i in range(count)]


def make(
    model: DepthModel, cache: EngineCache, precision: str = "auto", target: str | None = None
) -> Plan:
    return build(model, precision, cache, pictures(model), lambda share, phase: None, target)


def opened(model: DepthModel, cache: EngineCache, precision: str = "auto") -> np.ndarray:
    """The answer of the engine that is in the cache to the first picture."""
    engine = open_engine(model.path, "tensorrt", precision, cache.directory.parent)
    try:
        return engine.infer(pictures(model)[0]).copy()
    finally:
        engine.close()


# --- Ahead of time, with the real TensorRT-RTX ----------------------------------------------------

rtx = pytest.mark.skipif(
    not any(Path(p, "tensorrt_rtx_bindings").exists() for p in sys.path),
    reason="TensorRT-RTX is not installed (no wheel for this machine)",
)


@rtx
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["red", "compact"])
def test_rtx_builds_for_a_gpu_that_is_not_there(
    red: DepthModel, cache: EngineCache, name: str, target: str
) -> None:
    model = red if name == "red" else read_model(default_model())
    steps: list[float] = []
    plan = build(model, "auto", cache, pictures(model), lambda s, p: steps.append(s), target)
    assert (plan.precision, plan.device, plan.built) == ("float16", target, True)
    assert plan.library.startswith("TensorRT-RTX") and "ONNX Runtime" in plan.agreement
    assert plan.path.read_bytes()[:4] == b"vtrt"
    assert steps == sorted(steps) and steps[-1] == 1.0 and len(steps) > 10
    assert not make(model, cache, target=target).built
    # Another GPU is another plan.
    other = TARGETS[(TARGETS.index(target) + 1) % len(TARGETS)]
    assert make(model, cache, target=other).built
    assert len([e for e in cache.entries() if e.key.kind == "plan"]) == 2


@rtx
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_what_rtx_is_given_has_the_contracts_inputs_and_outputs(precision: str) -> None:
    import tensorrt_rtx_bindings as trt

    from mono_depth_ros.engines.tensorrt_library import libraries
    from mono_depth_ros.engines.tensorrt_plans import typed

    model = read_model(default_model())
    (library,) = [entry for entry in libraries() if entry.name == "tensorrt_rtx"]
    network = trt.Builder(library.log).create_network(0)
    parser = trt.OnnxParser(network, library.log)
    assert parser.parse(typed(model, precision).onnx)
    (source,) = [network.get_input(i) for i in range(network.num_inputs)]
    (result,) = [network.get_output(i) for i in range(network.num_outputs)]
    assert (source.name, tuple(source.shape), source.dtype) == (
        "image", (1, 240, 320, 3), trt.uint8,
    )  # fmt: skip
    assert (result.name, tuple(result.shape), result.dtype) == ("depth", (1, 120, 160), trt.float32)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    types = [
        layer.get_output(0).dtype for layer in layers if layer.type == trt.LayerType.CONVOLUTION
    ]
    # All convolutions but the head.
    inner = trt.float16 if precision == "float16" else trt.float32
    assert set(types[:-1]) == {inner} and types[-1] == trt.float32


@rtx
def test_an_unknown_compute_capability_is_refused_with_the_known_ones(
    red: DepthModel, cache: EngineCache
) -> None:
    with pytest.raises(EngineError, match=r"builds for sm75, .*sm120.*, not for sm90$"):
        make(red, cache, target="sm90")


@rtx
def test_an_operator_that_rtx_does_not_know_is_named(red: DepthModel, cache: EngineCache) -> None:
    proto = onnx.load_model_from_string(red.onnx)
    node = next(node for node in proto.graph.node if node.op_type == "Conv")
    node.op_type = "Frobnicate"
    broken = replace(red, onnx=proto.SerializeToString(), digest="0" * 64)
    with pytest.raises(EngineError, match="operator Frobnicate") as refusal:
        make(broken, cache, "float32", target="sm86")
    assert "\n" not in str(refusal.value) and "red.onnx" in str(refusal.value)
    assert cache.entries() == []


@rtx
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_build_of_rtx_and_is_no_reason_to_refuse_a_precision(
    red: DepthModel, cache: EngineCache, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    phases: list[str] = []

    def report(share: float, phase: str) -> None:
        phases.append(phase)
        if len(phases) == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        build(red, "auto", cache, pictures(red), report, "sm86")
    assert cache.entries() == [] and signal.getsignal(number) == before
    assert len(phases) < 20


@rtx
def test_a_network_of_an_old_opset_gets_the_steps_around_it(
    tmp_path: Path, cache: EngineCache
) -> None:
    path = networks.convolutions(tmp_path / "old.onnx")
    proto = onnx.load(path)
    squeeze = proto.graph.node[-1]
    del squeeze.input[1]
    squeeze.attribute.append(onnx.helper.make_attribute("axes", [1]))
    proto.opset_import[0].version = 11
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    model = read_model(path)
    images = pictures(model)
    plan = build(model, "auto", cache, images, lambda share, phase: None, "sm86", (192, 256))
    assert plan.precision == "float16"


# --- Precisions -----------------------------------------------------------------------------------


def overflowing(path: Path) -> DepthModel:
    """The network of `convolutions` with sums on the way that are beyond float16, of weights that
    are not.
    """
    proto = onnx.load(networks.convolutions(path))
    for name, factor in (("first", 3e5), ("last", 1 / 3e5)):
        weight = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
        array = numpy_helper.to_array(weight) * np.float32(factor)
        weight.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(proto, path)
    return read_model(path)


@pytest.mark.parametrize("target", [pytest.param("sm86", marks=rtx), None])
def test_auto_takes_the_next_precision_where_float16_fails(
    tmp_path: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, target: str | None
) -> None:
    if target is None:
        put_gpu(monkeypatch)
    model = overflowing(tmp_path / "hot.onnx")
    plan = make(model, cache, target=target)
    assert plan.precision == "float32"
    assert "not finite" in plan.refused["float16"]
    # Asked again it does not try again.
    again = make(model, cache, target=target)
    assert not again.built and again.refused == plan.refused
    with pytest.raises(EngineError, match=r"float16: refused, .* not finite"):
        make(model, cache, "float16", target)


def test_a_plan_of_float32_that_was_asked_for_is_not_what_auto_takes(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch)
    assert make(red, cache, "float32").precision == "float32"
    with pytest.raises(NotBuiltError):
        opened(red, cache)
    assert make(red, cache).precision == "float16"
    engine = open_engine(red.path, "tensorrt", "auto", cache.directory.parent)
    assert engine.describe() == "tensorrt 10.3.0 Host GPU, CUDA graph f16"
    engine.close()


def test_a_precision_that_tensorrt_does_not_offer(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch)
    with pytest.raises(UnavailableError, match="bfloat16: tensorrt runs int8, float16, float32"):
        opened(red, cache, "bfloat16")
    with pytest.raises(EngineError, match=r"calibrated model; run build_engine .*red\.onnx"):
        opened(red, cache, "int8")


# --- int8 -----------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Six pictures of the size that `convolutions` takes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (96, 128, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.GaussianBlur(noise, (0, 0), 1 + i))
    return folder


def test_what_was_calibrated_is_what_auto_takes_on_the_cpu_too(
    red: DepthModel, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "cache"
    arguments = ("--calibrate", photographs, "--cache-dir", place, "--json", tmp_path / "r.json")
    assert run(red.path, *arguments) == 0
    assert "openvino and onnx run the calibrated model" in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["int8"]["images"] == 3 and result["int8"]["abs_rel"] < 0.05
    image = pictures(red)[0]
    truth = open_engine(red.path, "onnx", "float32", place).infer(image)
    for engine, precision in (("openvino", "auto"), ("openvino", "int8"), ("onnx", "int8")):
        opened_ = open_engine(red.path, engine, precision, place)
        assert "int8" in opened_.describe()
        answer = opened_.infer(image)
        np.testing.assert_allclose(answer, truth, rtol=0.05)
        assert not np.array_equal(answer, truth)
    # The reference stays what it is.
    assert "f32" in open_engine(red.path, "onnx", "auto", place).describe()
    # Another model has not been calibrated.
    networks.convolutions(red.path, seed=1)
    assert "int8" not in open_engine(red.path, "openvino", "auto", place).describe()
    with pytest.raises(EngineError, match="needs a calibrated model"):
        open_engine(red.path, "openvino", "int8", place)


@pytest.mark.parametrize("target", [pytest.param("sm86", marks=rtx), None])
def test_tensorrt_prefers_int8_where_it_was_calibrated(
    red: DepthModel,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str | None,
) -> None:
    cache = open_cache(tmp_path / "cache")
    images = list(parity_images(photographs, 6, (96, 128)))
    calibrate(red, images, cache)
    if target is None:
        put_gpu(monkeypatch)
    plan = build(red, "auto", cache, images, lambda share, phase: None, target)
    assert plan.precision == "int8" and plan.built
    if target is None:
        truth = open_engine(red.path, "onnx").infer(pictures(red)[0])
        np.testing.assert_allclose(opened(red, cache), truth, rtol=0.05)


def test_a_calibration_that_is_too_far_off_is_refused_with_its_numbers(
    red: DepthModel, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(tmp_path / "cache")
    monkeypatch.setitem(parity_module.TOLERANCES, "int8", (1e-9, 1.0))
    images = list(parity_images(photographs, 6, (96, 128)))
    with pytest.raises(EngineError, match=r"int8 is refused: abs_rel .* is above 1e-09"):
        calibrate(red, images, cache)
    with pytest.raises(EngineError, match="two images are the least"):
        calibrate(red, images[:1], cache)
    assert cache.entries() == []


# --- What auto is in OpenVINO ---------------------------------------------------------------------


def choose(
    model: DepthModel, place: Path, monkeypatch: pytest.MonkeyPatch, milliseconds: list[float]
) -> Any:
    """The command, on a CPU that takes this long for float32, bfloat16 and int8."""
    times = iter(milliseconds)
    monkeypatch.setattr(openvino_choice, "time_calls", lambda call, n: np.full(n, next(times)))
    json_file = place / "result.json"
    assert run(model.path, "--engine", "openvino", "--cache-dir", place, "--json", json_file) == 0
    return json.loads(json_file.read_text())["openvino"]


def described(model: DepthModel, place: Path) -> str:
    engine = open_engine(model.path, "openvino", "auto", place)
    try:
        return engine.describe().split()[-1]
    finally:
        engine.close()


def test_auto_takes_what_was_measured_to_be_fastest(
    red: DepthModel, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    assert described(red, place) == "f32"
    result = choose(red, place, monkeypatch, [3.0, 2.0])
    assert result["auto"] == "bfloat16" and set(result["measured"]) == {"float32", "bfloat16"}
    assert described(red, place) == "bf16"
    assert choose(red, place, monkeypatch, [2.0, 3.0])["auto"] == "float32"
    assert described(red, place) == "f32"
    # Who calibrates after that wants int8, unless it turns out to be slow.
    calibrate(red, list(parity_images(photographs, 6, (96, 128))), open_cache(place))
    assert described(red, place) == "int8+f32"
    assert choose(red, place, monkeypatch, [2.0, 3.0, 2.5])["auto"] == "float32"
    assert described(red, place) == "f32"
    assert choose(red, place, monkeypatch, [2.0, 3.0, 1.0])["auto"] == "int8"
    assert described(red, place) == "int8+f32"
    # Another model has not been measured.
    networks.convolutions(red.path, seed=1)
    assert described(read_model(red.path), place) == "f32"


def test_a_fast_precision_that_is_too_far_off_is_not_taken(
    red: DepthModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity_module.TOLERANCES, "bfloat16", (1e-9, 1.0))
    result = choose(red, tmp_path, monkeypatch, [3.0, 1.0])
    assert result["auto"] == "float32"
    assert "is above 1e-09" in result["measured"]["bfloat16"]["refused"]
    assert described(red, tmp_path) == "f32"


# --- The cache, on the stand-in's GPU -------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["tensorrt 10.3", "tensorrt 11.4", "tensorrt_rtx 1.7"])
def test_what_is_built_is_found_and_computes_what_onnx_runtime_does(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, flavour: str
) -> None:
    put_gpu(monkeypatch, flavour)
    with pytest.raises(NotBuiltError, match=r"no engine of red\.onnx .* run build_engine .*red"):
        opened(red, cache)
    plan = make(red, cache)
    assert plan.built and "on Host GPU" in plan.agreement
    truth = open_engine(red.path, "onnx").infer(pictures(red)[0])
    np.testing.assert_allclose(opened(red, cache), truth, rtol=2e-3)


def test_an_engine_that_was_tampered_with_is_named_and_built_anew(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch)
    path = make(red, cache).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        NotBuiltError, match=rf"{re.escape(path.name)}: changed .* it will be rebuilt"
    ):
        opened(red, cache)
    assert make(red, cache).built
    assert np.isfinite(opened(red, cache)).all()


@pytest.mark.parametrize(
    ("upgrade", "words"),
    [
        ({"flavour": "tensorrt 11.4"}, "now 11.4.0.106+"),
        ({"name": "Other GPU"}, "device Host GPU, driver 13.0, now Other GPU, driver 13.0"),
        ({"driver": 13010}, "device Host GPU, driver 13.0, now Host GPU, driver 13.1"),
        ({"capability": (8, 9)}, "compute capability sm86, now sm89"),
    ],
)
def test_an_upgrade_asks_for_another_engine_and_says_why(
    red: DepthModel,
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
    upgrade: dict[str, object],
    words: str,
) -> None:
    put_gpu(monkeypatch)
    make(red, cache, "float16")
    with pytest.MonkeyPatch.context() as patch:
        put_gpu(patch, **upgrade)  # type: ignore[arg-type]
        with pytest.raises(NotBuiltError) as refusal:
            opened(red, cache, "float16")
        assert words in str(refusal.value)
        assert make(red, cache, "float16").built
        opened(red, cache, "float16")
    # The way back needs no building.
    opened(red, cache, "float16")


def test_another_model_of_the_same_name_asks_for_another_engine(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch)
    make(red, cache, "float32")
    networks.convolutions(red.path, seed=1)
    other = read_model(red.path)
    with pytest.raises(NotBuiltError, match="another model file"):
        opened(other, cache, "float32")
    make(other, cache, "float32")
    truth = open_engine(other.path, "onnx").infer(pictures(other)[0])
    np.testing.assert_allclose(opened(other, cache, "float32"), truth, rtol=1e-4)


def test_a_plan_built_ahead_of_time_is_checked_and_taken_on_its_gpu(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = put_gpu(monkeypatch, "tensorrt_rtx 1.7")
    assert "the converted model in ONNX Runtime" in make(red, cache, target="sm86").agreement
    # Nobody has seen it run, so it may not serve.
    with pytest.raises(NotBuiltError):
        opened(red, cache)
    host.fail("build_serialized_network")
    plan = make(red, cache)
    assert plan.built and "on Host GPU" in plan.agreement
    opened(red, cache)


def test_kernels_that_a_load_compiled_are_kept_for_the_next(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = put_gpu(monkeypatch, "tensorrt_rtx 1.7")
    make(red, cache)
    opened(red, cache)
    compiled = host.compiled
    opened(red, cache)
    assert host.compiled == compiled > 0


def test_timings_of_kernels_are_kept_for_the_next_build(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch)
    make(red, cache, "float32")
    (timing,) = [entry for entry in cache.entries() if entry.key.kind == "timing"]
    make(red, cache, "float16")
    assert [e.key for e in cache.entries() if e.key.kind == "timing"] == [timing.key]


# --- What goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "error", "words"),
    [
        ({"driver": 0}, UnavailableError, "no NVIDIA driver is installed"),
        ({"devices": 0}, UnavailableError, "CUDA finds no NVIDIA GPU"),
        (
            {"driver": 12040},
            EngineError,
            r"driver supports CUDA 12\.4, cuda-python is for 13\.0; update the driver",
        ),
    ],
)
def test_what_the_machine_lacks_is_said(
    red: DepthModel,
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
    gpu: dict[str, int],
    error: type[EngineError],
    words: str,
) -> None:
    put_gpu(monkeypatch, **gpu)  # type: ignore[arg-type]
    with pytest.raises(error, match=words) as refusal:
        opened(red, cache)
    assert type(refusal.value) is error
    with pytest.raises(error, match=words):
        make(red, cache)


def test_a_tensorrt_that_is_too_old_is_named(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = put_gpu(monkeypatch)
    monkeypatch.setattr(host.module, "__version__", "8.6.1")
    with pytest.raises(UnavailableError, match=r"TensorRT 8\.6\.1 is older than 10\.3"):
        opened(red, cache)


def test_another_way_of_converting_networks_asks_for_another_engine(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch)
    make(red, cache)
    opened(red, cache)
    monkeypatch.setattr(tensorrt_plans, "_conversion", lambda: "12345678")
    with pytest.raises(NotBuiltError, match=r"version 10\.3\.0\+.*, now 10\.3\.0\+12345678"):
        opened(red, cache)


@pytest.mark.parametrize("module", ["cuda.bindings.runtime", "tensorrt"])
def test_a_package_that_is_missing_is_named(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    put_gpu(monkeypatch)
    monkeypatch.setitem(sys.modules, module, None)
    if module == "cuda.bindings.runtime":
        monkeypatch.delattr(sys.modules["cuda.bindings"], "runtime")
    words = "cuda-python is not installed" if "cuda" in module else "TensorRT is not installed"
    with pytest.raises(UnavailableError, match=rf"{words} .*pip install"):
        opened(red, cache)


def test_a_build_that_runs_out_of_memory_says_so_for_each_precision(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = put_gpu(monkeypatch)
    host.fail("build_serialized_network")
    host.fail("build_serialized_network")
    with pytest.raises(EngineError, match=r"float16: TensorRT 10\.3\.0 .*out of memory.*float32: "):
        make(red, cache)
    assert not [entry for entry in cache.entries() if entry.key.kind == "plan"]


def test_where_float16_runs_out_of_memory_float32_is_tried(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = put_gpu(monkeypatch)
    host.fail("build_serialized_network")
    plan = make(red, cache)
    assert plan.precision == "float32" and "memory" in plan.refused["float16"]


def test_a_full_disk_is_said_and_the_cache_stays_whole(
    red: DepthModel, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpu(monkeypatch)
    make(red, cache, "float32")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EngineError, match=r"the disk is full; .*cache"):
            make(red, cache, "float16")
    opened(red, cache, "float32")


# --- The command ----------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    return build_engine.main([str(argument) for argument in arguments])


@rtx
def test_the_command_builds_lists_and_clears(
    red: DepthModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--cache-dir", tmp_path / "cache")
    assert run(red.path, "--target", "sm86", "--json", tmp_path / "r" / "result.json", *place) == 0
    printed = capsys.readouterr().out
    assert "built in" in printed and "sm86" in printed and "float16: abs_rel" in printed
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["plan"]["precision"] == "float16" and Path(result["plan"]["path"]).is_file()
    assert run(red.path, "--target", "sm86", *place) == 0
    assert "was there already" in capsys.readouterr().out
    assert run("--list", *place) == 0
    assert Path(result["plan"]["path"]).name in capsys.readouterr().out
    assert run("--clear", *place) == 0
    assert not Path(result["plan"]["path"]).exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.onnx"], "nowhere.onnx: no such model file"),
        (["--target", "sm1"], "not for sm1"),
        (["--precision", "int8"], "needs a calibrated model"),
        (["--calibrate", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_command_that_cannot_work_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    if "--precision" in arguments:
        arguments = [*arguments, "--target", "sm86"]
    assert run(*arguments, "--cache-dir", tmp_path / "cache") == 1
    lines = capsys.readouterr().err.strip().split("\r")[-1].splitlines()
    assert len([line for line in lines if line.strip()]) == 1 and words in lines[-1]


def command(red: DepthModel, cache: EngineCache, **gpu: object) -> subprocess.Popen[str]:
    arguments = [str(red.path), "--progress", "json", "--cache-dir", str(cache.directory.parent)]
    return subprocess.Popen(
        [sys.executable, "-m", "mono_depth_ros.build_engine", *arguments],
        env={**os.environ, **gpu_environment(**gpu)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_that_start_at_once_one_builds(
    red: DepthModel, cache: EngineCache
) -> None:
    both = [command(red, cache, build_s=2.0) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    lines = [[json.loads(line) for line in out.splitlines()] for out, _ in outputs]
    assert sorted(steps[-1]["plan"]["built"] for steps in lines) == [False, True]
    (waited,) = [steps for steps in lines if not steps[-1]["plan"]["built"]]
    assert waited[0]["phase"] == "waiting: another process builds it"


def test_a_build_that_is_stopped_ends_soon_and_leaves_the_cache_whole(
    red: DepthModel, cache: EngineCache
) -> None:
    process = command(red, cache, build_s=30.0)
    assert process.stdout is not None
    while "Measuring" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1 and errors == (
        "build_engine: stopped; what is in the cache is unharmed\n"
    )
    assert cache.entries() == [] and cache.clear() == 0
