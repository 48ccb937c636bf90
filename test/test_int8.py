"""INT8: scales, weights and biases against NumPy, and the whole in ONNX Runtime and OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mono_depth_ros.engines import open_engine
from mono_depth_ros.int8 import best_scale, quantize, rounded_weights

HEIGHT, WIDTH = networks.HEIGHT, networks.WIDTH
Array = npt.NDArray[Any]


def images(count: int, seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8))


def unet(outlier: float = 1.0, seed: int = 0) -> onnx.ModelProto:
    """Two scales, a signed concatenation, a depthwise convolution, a batch norm, a head; `outlier`
    is how much larger one channel of the depthwise convolution's input is than the others.
    """
    rng = np.random.default_rng(seed)

    def conv(source: str, weight: str, result: str, **more: Any) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, weight], [result], pads=[1, 1, 1, 1], **more)

    def random(*shape: int) -> Array:
        return np.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])), np.float32)

    gain = np.ones((8, 1, 1, 1), np.float32)
    gain[0] = outlier
    constants: dict[str, Array] = {
        "scale": np.array(1 / 64, np.float32),
        "w0": random(8, 3, 3, 3) * gain,
        "w1": random(8, 1, 3, 3) / gain,
        "w2": random(16, 8, 3, 3),
        "w3": random(8, 24, 3, 3),
        "w4": random(1, 8, 3, 3) / 10,
        "bias": rng.normal(size=8).astype(np.float32),
        "one": np.ones(8, np.float32),
        "mean": rng.normal(size=8).astype(np.float32) / 10,
        "variance": np.full(8, 2, np.float32),
        "size": np.array([1, 16, HEIGHT // 2, WIDTH // 2], np.int64),
        "offset": np.array(3, np.float32),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["nchw", "scale"], ["colours"]),
        conv("colours", "w0", "c0", strides=[2, 2]),
        helper.make_node("Relu", ["c0"], ["a0"]),
        conv("a0", "w1", "a1", group=8),
        conv("a1", "w2", "a2", strides=[2, 2]),
        helper.make_node("Resize", ["a2", "", "", "size"], ["up"], mode="linear"),
        helper.make_node("Concat", ["up", "a1"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "w3", "bias"], ["a3"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a3", "one", "bias", "mean", "variance"], ["a4"]),
        helper.make_node("LeakyRelu", ["a4"], ["a5"], alpha=0.2),
        conv("a5", "w4", "head"),
        helper.make_node("Add", ["head", "offset"], ["metres"]),
        helper.make_node("Squeeze", ["metres", "axis"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, HEIGHT // 2, WIDTH // 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"mono_depth": json.dumps(networks.document())})
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, image: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"image": image[None]})[0])


def spread(model: onnx.ModelProto, reference: onnx.ModelProto, image: Array) -> float:
    """Root mean square of the difference, as a share of what the reference varies by."""
    truth = run(reference, image)
    return float(np.sqrt(((run(model, image) - truth) ** 2).mean()) / truth.std())


# --- scales and weights --------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3))
def test_the_best_scale_is_the_one_that_a_search_finds(seed: int, tail: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.abs(rng.standard_normal(4000)) ** tail
    largest = float(values.max())
    counts, _ = np.histogram(values, bins=2048, range=(0, largest))

    def error(scale: float) -> float:
        return float(((values - np.clip(np.rint(values / scale), -127, 127) * scale) ** 2).mean())

    searched = min(error(largest * share / 127) for share in np.linspace(0.05, 1, 60))
    assert error(best_scale(counts, largest)) <= 1.1 * searched


def test_values_without_outliers_are_not_clipped() -> None:
    assert best_scale(np.full(2048, 10), 5.0) == pytest.approx(5 / 127, rel=0.02)


def test_weights_are_rounded_by_output_channel() -> None:
    weights = np.zeros((3, 1, 2, 2), np.float32)
    weights[0] = [[[1.0, -0.5], [0.25, 0.004]]]
    weights[1] = 127 * weights[0]
    steps, scales = rounded_weights(weights)
    # 0.004 is half a step of 1 / 127 = 0.00787 and a little more.
    assert steps[0].ravel().tolist() == steps[1].ravel().tolist() == [127, -64, 32, 1]
    np.testing.assert_allclose(scales[:2], [1 / 127, 1], rtol=1e-6)
    assert not steps[2].any() and scales[2] == 2.0**-14
    # The most negative value has no opposite, so it is not used.
    assert rounded_weights(-weights)[0].min() == -127


# --- the network ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return unet()


@pytest.fixture(scope="module")
def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    return quantize(model, images(4))


def test_the_answers_stay(model: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    (image,) = images(1, seed=9)
    assert 1e-4 < spread(int8, model, image) < 0.03


def test_all_is_symmetric_and_by_output_channel(int8: onnx.ModelProto) -> None:
    """What TensorRT takes: int8, zero point 0, no quantised bias."""
    onnx.checker.check_model(int8, full_check=True)
    constants = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    nodes = [n for n in int8.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {constants[n.input[2]].dtype for n in nodes} == {np.dtype(np.int8)}
    assert not any(constants[n.input[2]].any() for n in nodes)
    made = {n.output[0]: n for n in int8.graph.node}
    *inner, head = [n for n in int8.graph.node if n.op_type == "Conv"]
    for node in inner:
        source, weight = (made[name] for name in node.input[:2])
        assert source.op_type == weight.op_type == "DequantizeLinear"
        assert constants[source.input[1]].shape == ()
        assert constants[weight.input[1]].shape == constants[weight.input[0]].shape[:1]
        assert constants[node.input[2]].dtype == np.float32
    assert head.input[1] in constants and made[head.input[0]].op_type == "LeakyRelu"
    # The batch norm went into its convolution; the concatenation into a sum of two.
    kinds = [n.op_type for n in int8.graph.node]
    assert "BatchNormalization" not in kinds and "Concat" not in kinds and len(inner) == 5


def means(model: onnx.ModelProto, name: str) -> Array:
    """Mean of each channel of a tensor over the images that the fixture was calibrated on."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.insert(0, helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    answers = np.concatenate([run(observed, image) for image in images(4)])
    return np.asarray(answers.mean(axis=(0, 2, 3), dtype=np.float64))


@pytest.mark.parametrize(("name", "near"), [("c0", 2e-4), ("head", 2e-6)])
def test_rounding_moves_no_channel(
    model: onnx.ModelProto, int8: onnx.ModelProto, name: str, near: float
) -> None:
    """Of the first convolution, whose input is exact, and of the last, where all adds up."""
    np.testing.assert_allclose(means(int8, name), means(model, name), atol=near)


def test_a_convolution_that_cannot_be_rounded_stays_float() -> None:
    """One channel is 300 times as large as the others, of which int8 leaves nothing."""
    model = unet(outlier=300.0)
    result = quantize(model, images(2))
    weights = {tensor.name for tensor in result.graph.initializer}
    depthwise = [
        n for n in result.graph.node if any(a.name == "group" and a.i == 8 for a in n.attribute)
    ]
    assert len(depthwise) == 1 and depthwise[0].input[1] in weights
    assert spread(result, model, images(1, seed=9)[0]) < 0.03


def test_the_file_says_that_it_is_int8_and_is_left_as_it_was() -> None:
    model = unet()
    before = model.SerializeToString()
    result = quantize(model, images(1))
    assert model.SerializeToString() == before
    (entry,) = result.metadata_props
    assert json.loads(entry.value) == {**networks.document(), "precision": "int8"}


def test_openvino_runs_it_in_int8_and_agrees(
    model: onnx.ModelProto, int8: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save(int8, tmp_path / "int8.onnx")
    (image,) = images(1, seed=9)
    truth = run(model, image)[0]
    for runtime in ("openvino", "onnx"):
        engine = open_engine(tmp_path / "int8.onnx", runtime, "int8")
        assert "int8" in engine.describe()
        error = engine.infer(image) - truth
        assert np.sqrt((error**2).mean()) < 0.03 * truth.std()
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(int8.SerializeToString()), "CPU")
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    precisions = [
        fact["runtimePrecision"].astype(str)
        for fact in facts
        if fact["layerType"].astype(str) == "Convolution"
    ]
    assert len(precisions) == 6 and sum(p in ("u8", "i8") for p in precisions) == 5


# --- what cannot be ------------------------------------------------------------------------------


def test_what_cannot_be_quantised_is_refused(tmp_path: Path, model: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="give a folder"):
        quantize(model, [])
    red = onnx.load(networks.red_channel(tmp_path / "red.onnx"))
    with pytest.raises(ValueError, match="two convolutions"):
        quantize(red, images(1))
    red.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(ValueError, match=r"ONNX Runtime: .*Frobnicate"):
        quantize(red, images(1))
