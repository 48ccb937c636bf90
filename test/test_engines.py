"""Engines: the same network gives the same depth in every runtime, and refusals say why."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

import networks
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

from mono_depth_ros.engines import EngineError, open_engine
from mono_depth_ros.model import ModelError, default_model

RUNTIMES = ("openvino", "onnx")


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return networks.red_channel(tmp_path / "red.onnx")


def random_image(
    seed: int, height: int = networks.HEIGHT, width: int = networks.WIDTH
) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_answers_what_numpy_computes(red: Path, runtime: str) -> None:
    engine = open_engine(red, runtime)
    assert engine.input_spec.shape == (1, 96, 128, 3) and engine.input_spec.dtype == "uint8"
    assert engine.output_spec.shape == (1, 48, 64) and engine.output_spec.dtype == "float32"
    for seed in range(3):
        image = random_image(seed)
        blocks = image[..., 0].reshape(48, 2, 64, 2).astype(np.float64)
        truth = blocks.mean(axis=(1, 3)) * networks.RED_SCALE
        np.testing.assert_allclose(engine.infer(image), truth, rtol=1e-5)
    engine.close()


def test_runtimes_agree_on_the_shipped_network() -> None:
    engines = [open_engine(default_model(), runtime, "float32") for runtime in RUNTIMES]
    height, width = engines[0].input_spec.shape[1:3]
    image = random_image(0, height, width)
    first, second = (engine.infer(image) for engine in engines)
    assert first.min() > 0.1 and np.ptp(first) > 0
    np.testing.assert_allclose(first, second, rtol=1e-3)


def test_bfloat16_stays_near_float32() -> None:
    exact, rounded = (open_engine(default_model(), "openvino", p) for p in ("float32", "bfloat16"))
    image = random_image(1, *exact.input_spec.shape[1:3])
    np.testing.assert_allclose(rounded.infer(image), exact.infer(image), rtol=0.1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_description_names_runtime_and_precision(red: Path, runtime: str) -> None:
    name = {"openvino": "openvino", "onnx": "onnxruntime"}[runtime]
    description = open_engine(red, runtime, "float32").describe()
    assert description.startswith(name) and description.endswith("f32")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((95, 128, 3), np.uint8),
        np.zeros((96, 128, 3), np.float32),
        np.zeros((128, 96, 3), np.uint8).transpose(1, 0, 2),
    ],
)
def test_wrong_images_are_refused(red: Path, runtime: str, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="the network takes contiguous uint8"):
        open_engine(red, runtime).infer(image)


def test_auto_takes_the_first_that_loads(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_engine(red)
    assert first.describe().startswith("openvino")
    assert len(first.declined) == 1 and first.declined[0].startswith("tensorrt: ")
    # What Python's import does where the package is missing.
    monkeypatch.setitem(sys.modules, "openvino", None)
    second = open_engine(red)
    assert second.describe().startswith("onnxruntime")
    assert len(second.declined) == 2 and "openvino is not installed" in second.declined[1]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        EngineError, match=r"openvino is not installed.*onnxruntime is not installed"
    ):
        open_engine(red)


def test_unknown_names_are_refused(red: Path) -> None:
    with pytest.raises(ValueError, match="engine 'tensorflow' is unknown; known: auto"):
        open_engine(red, "tensorflow")
    with pytest.raises(ValueError, match="precision 'int4' is unknown"):
        open_engine(red, precision="int4")
    with pytest.raises(EngineError, match="the onnx engine runs float32 or int8"):
        open_engine(red, "onnx", "bfloat16")


def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx: no such model file"):
        open_engine(tmp_path / "nowhere.onnx")


def test_input_of_another_size_than_the_metadata_says(red: Path) -> None:
    model = onnx.load(red)
    size = model.graph.input[0].type.tensor_type.shape.dim[1]
    size.dim_value = 98
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 49
    onnx.save(model, red)
    with pytest.raises(EngineError, match="metadata says uint8"):
        open_engine(red)


def test_unsupported_operator_is_reported_by_every_runtime(red: Path) -> None:
    model = onnx.load(red)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, red)
    for runtime in RUNTIMES:
        with pytest.raises(EngineError, match="Frobnicate") as refusal:
            open_engine(red, runtime)
        assert "\n" not in str(refusal.value) and runtime in str(refusal.value)
    with pytest.raises(EngineError, match=r"tensorrt: .*; openvino: .*; onnx: "):
        open_engine(red)


# --- precisions ----------------------------------------------------------------------------------


def declare(path: Path, precision: str) -> None:
    """Has a model say that it is of a precision."""
    model = onnx.load(path)
    (entry,) = model.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), "precision": precision})
    onnx.save(model, path)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_float16_runs_only_where_the_file_is_float16(red: Path, runtime: str) -> None:
    with pytest.raises(EngineError, match="precision float16"):
        open_engine(red, runtime, "float16")
    declare(red, "float16")
    assert open_engine(red, runtime, "float16").infer(random_image(0)).max() > 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_needs_a_calibrated_model(red: Path, runtime: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="--precision int8 --calibrate DIR"):
        open_engine(red, runtime, "int8", tmp_path / "cache")
    declare(red, "int8")
    assert "int8" in open_engine(red, runtime, "int8", tmp_path / "cache").describe()


# --- what OpenVINO compiled, kept ----------------------------------------------------------------


def never(*arguments: Any, **more: Any) -> NoReturn:
    raise RuntimeError("compiled again")


def answer(path: Path, cache: Path) -> np.ndarray:
    engine = open_engine(path, "openvino", "float32", cache)
    depth = engine.infer(random_image(3)).copy()
    engine.close()
    return depth


def test_a_second_start_compiles_nothing(
    red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(red, tmp_path / "cache")
    monkeypatch.setattr(openvino.Core, "compile_model", never)
    np.testing.assert_array_equal(answer(red, tmp_path / "cache"), first)
    # Another model or precision is another entry.
    networks.red_channel(red, factor=0.02)
    with pytest.raises(EngineError, match="compiled again"):
        answer(red, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "changed", "nothing"])
def test_a_damaged_file_is_named_and_compiled_again(
    red: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    first = answer(red, tmp_path / "cache")
    (file,) = (tmp_path / "cache").rglob("*.runtime")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(8 * [255])
    changed: dict[str, bytes | bytearray] = {
        "cut": content[:middle],
        "changed": content,
        "nothing": b"",
    }
    file.write_bytes(bytes(changed[damage]))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(answer(red, tmp_path / "cache"), first)
    assert len(caplog.messages) == 1 and file.name in caplog.messages[0]


def test_a_file_that_openvino_refuses_is_compiled_again(
    red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = answer(red, tmp_path / "cache")

    def refuse(*arguments: Any) -> NoReturn:
        raise RuntimeError("Check failed at core.cpp:1:\nanother CPU")

    monkeypatch.setattr(openvino.Core, "import_model", refuse)
    np.testing.assert_array_equal(answer(red, tmp_path / "cache"), first)
    assert caplog.messages == ["nothing of OpenVINO's is taken from the cache: another CPU"]


def test_a_cache_that_cannot_be_used_is_done_without(
    red: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert answer(red, tmp_path / "file").max() > 1
    assert len(caplog.messages) == 1 and str(tmp_path / "file") in caplog.messages[0]


# --- CUDA in ONNX Runtime ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_does_not_work_is_done_without(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a driver ONNX Runtime drops CUDA; other failures it raises."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPU"]
    )
    engine = open_engine(red, "onnx")
    assert "CPU f32" in engine.describe() and engine.infer(random_image(0)).max() > 1
    opened = onnxruntime.InferenceSession

    def fail(model: bytes, options: Any, providers: list[Any], **more: Any) -> Any:
        if len(providers) > 1:
            raise RuntimeError("CUDA failure 35: driver too old\nin file.cc")
        return opened(model, options, providers=providers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    assert open_engine(red, "onnx").infer(random_image(0)).max() > 1
    first, second = caplog.messages
    assert first.endswith("not with CUDA: its libraries or the driver cannot be loaded")
    assert second.endswith("not with CUDA: CUDA failure 35: driver too old")
