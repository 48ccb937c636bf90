"""Engines: the same network gives the same depth in every runtime, and refusals say why."""

from __future__ import annotations

import sys
from pathlib import Path

import networks
import numpy as np
import onnx
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
    assert first.describe().startswith("openvino") and first.declined == ()
    # What Python's import does where the package is missing.
    monkeypatch.setitem(sys.modules, "openvino", None)
    second = open_engine(red)
    assert second.describe().startswith("onnxruntime")
    assert len(second.declined) == 1 and "openvino is not installed" in second.declined[0]
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
    with pytest.raises(EngineError, match="the onnx engine runs float32 only"):
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
    with pytest.raises(EngineError) as refusal:
        open_engine(red)
    text = str(refusal.value)
    assert "openvino:" in text and "onnx:" in text and "Frobnicate" in text
    assert "\n" not in text
