"""float16: what is typed so and what is not, and that the answers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mono_depth_ros.float16 import to_float16, uint8_into_cast
from mono_depth_ros.model import default_model

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
Array = npt.NDArray[Any]


def network(
    inner: list[onnx.NodeProto], constants: dict[str, Array], shape: tuple[int, ...] = (1, 4, 6, 6)
) -> onnx.ModelProto:
    """Nodes from `x` to `y`, both 4 channels, between two convolutions that do nothing."""
    nodes = [
        helper.make_node("Conv", ["image", "identity"], ["x"]),
        *inner,
        helper.make_node("Conv", ["y", "identity"], ["depth"]),
    ]
    weights = {"identity": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1), **constants}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", FLOAT, shape)],
        [helper.make_tensor_value_info("depth", FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, image: Array) -> Array:
    """By ONNX's reference, which rounds to float16 after every node; ONNX Runtime does not."""
    onnx.checker.check_model(model, full_check=True)
    with np.errstate(over="ignore", invalid="ignore"):
        (answer,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: image})
    return np.asarray(answer)


def run_fast(model: onnx.ModelProto, image: Array) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (answer,) = session.run(None, {model.graph.input[0].name: image})
    return np.asarray(answer)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {tensor.name: tensor.data_type for tensor in graph.initializer}


def inputs(scale: float) -> Array:
    return (scale * np.random.default_rng(0).uniform(0.5, 1, (1, 4, 6, 6))).astype(np.float32)


# --- what stays float32 --------------------------------------------------------------------------


def test_a_graph_without_a_head_cannot_be_float16(tmp_path: Path) -> None:
    model = onnx.load(networks.red_channel(tmp_path / "red.onnx"))
    with pytest.raises(ValueError, match="two convolutions"):
        to_float16(model)


def test_tensors_that_both_sides_read_are_kept() -> None:
    """A weight that the head and the inside share, an input that skips the first convolution, an
    inner output that skips the head.
    """
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=FLOAT),
        helper.make_node("Conv", ["float", "w"], ["a"]),
        helper.make_node("Add", ["a", "float"], ["b"]),
        helper.make_node("Cast", ["x"], ["again"], to=FLOAT),
        helper.make_node("Add", ["b", "again"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["up"], mode="nearest"),
        helper.make_node("Resize", ["up", "", "", "size"], ["down"], mode="nearest"),
        helper.make_node("Conv", ["down", "w"], ["d"]),
        helper.make_node("Add", ["d", "a"], ["y"]),
    ]
    weights: dict[str, Array] = {
        "w": np.full((1, 1, 1, 1), 0.5, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "size": np.array([1, 1, 2, 3], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 1, 2, 3])],
        [helper.make_tensor_value_info("y", FLOAT, [1, 1, 2, 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    result = to_float16(model)
    onnx.checker.check_model(result, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in result.graph.initializer}
    assert kinds.pop("scales") == kinds.pop("w") == FLOAT
    assert kinds.pop("size") == TensorProto.INT64
    assert list(kinds.values()) == [FLOAT16]
    x = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    (y,) = ReferenceEvaluator(result).run(None, {"x": x})
    assert isinstance(y, np.ndarray) and y.dtype == np.float32
    # a = x / 2, b = 3x / 2, c = 5x / 2, d = 5x / 4, y = 7x / 4: exact in float16.
    np.testing.assert_array_equal(y, x * np.float32(1.75))


NORM = [
    helper.make_node("ReduceMean", ["x", "axis"], ["mean"]),
    helper.make_node("Sub", ["x", "mean"], ["centred"]),
    helper.make_node("Pow", ["centred", "two"], ["square"]),
    helper.make_node("ReduceMean", ["square", "axis"], ["variance"]),
    helper.make_node("Add", ["variance", "epsilon"], ["sum"]),
    helper.make_node("Sqrt", ["sum"], ["deviation"]),
    helper.make_node("Div", ["centred", "deviation"], ["y"]),
]
NORM_CONSTANTS: dict[str, Array] = {
    "axis": np.array([1], np.int64),
    "two": np.array(2, np.float32),
    "epsilon": np.array(1e-12, np.float32),
}


def test_a_norm_that_is_written_out_does_not_overflow() -> None:
    """Differences of hundreds have squares above 65504, and the epsilon is 0 in float16."""
    model = network(NORM, NORM_CONSTANTS)
    x = inputs(2000.0)
    exact = x.astype(np.float64)
    centred = exact - exact.mean(axis=1, keepdims=True)
    truth = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True))
    half = to_float16(model)
    np.testing.assert_allclose(run(half, x), truth, atol=0.01)
    kinds = types(half)
    assert kinds["x"] == kinds["centred"] == FLOAT16
    float32 = ("mean", "square", "variance", "sum", "deviation", "y")
    assert {kinds[name] for name in float32} == {FLOAT}


@pytest.mark.parametrize(
    ("nodes", "constants", "scale"),
    [
        # Channels that sum to more than float16 can hold.
        (
            [
                helper.make_node("ReduceSum", ["x", "axis"], ["total"]),
                helper.make_node("Div", ["x", "total"], ["y"]),
            ],
            {"axis": np.array([1], np.int64)},
            30000.0,
        ),
        # A product with itself.
        (
            [
                helper.make_node("Mul", ["x", "x"], ["square"]),
                helper.make_node("Sqrt", ["square"], ["y"]),
            ],
            {},
            1000.0,
        ),
        # exp(13) = 442413.
        (
            [
                helper.make_node("Exp", ["x"], ["power"]),
                helper.make_node("Log", ["power"], ["y"]),
            ],
            {},
            13.0,
        ),
        (
            [
                helper.make_node(
                    "BatchNormalization", ["x", "one", "zero", "zero", "variance"], ["y"]
                )
            ],
            {
                "one": np.ones(4, np.float32),
                "zero": np.zeros(4, np.float32),
                "variance": np.full(4, 1e6, np.float32),
            },
            1000.0,
        ),
    ],
    ids=["sum", "square", "exponential", "norm"],
)
def test_what_leaves_the_range_on_the_way_stays_float32(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], scale: float
) -> None:
    model, x = network(nodes, constants), inputs(scale)
    truth, answer = run(model, x), run(to_float16(model), x)
    np.testing.assert_allclose(answer, truth, rtol=2e-3)


def test_a_weight_beyond_the_range_keeps_its_node_float32() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["a"]),
        helper.make_node("Mul", ["a", "small"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["y"]),
    ]
    constants: dict[str, Array] = {
        "large": np.array(1e5, np.float32),
        "small": np.array(1e-5, np.float32),
    }
    half = to_float16(network(nodes, constants))
    np.testing.assert_allclose(run(half, inputs(3.0)), 2 * inputs(3.0), rtol=2e-3)
    kinds = types(half)
    assert (kinds["a"], kinds["x"], kinds["y"]) == (FLOAT, FLOAT16, FLOAT16)


def test_an_inner_tensor_that_the_network_returns_keeps_its_type() -> None:
    model = network([helper.make_node("Relu", ["x"], ["y"])], {})
    model.graph.output.append(helper.make_tensor_value_info("y", FLOAT, (1, 4, 6, 6)))
    half = to_float16(model)
    onnx.checker.check_model(half, full_check=True)
    assert (types(half)["x"], types(half)["y"]) == (FLOAT16, FLOAT)


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", FLOAT, (1, 4, 6, 6))],
    )
    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
    with pytest.raises(ValueError, match="control flow"):
        to_float16(network(nodes, {"yes": np.array(True)}))


# --- Q/DQ ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "kind"), [(0.01, FLOAT16), (1e-6, FLOAT)])
def test_scales_become_float16_where_it_has_the_digits(scale: float, kind: int) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    constants: dict[str, Array] = {"scale": np.array(scale, np.float32)}
    constants["zero"] = np.array(0, np.int8)
    model = network(nodes, constants)
    half = to_float16(model)
    assert half.opset_import[0].version >= 19
    x = inputs(100 * scale)
    np.testing.assert_allclose(run_fast(half, x), run_fast(model, x), atol=1.01 * scale, rtol=1e-3)
    assert types(half)["y"] == kind


# --- the uint8 input -----------------------------------------------------------------------------


def test_the_shipped_network_begins_with_a_cast_and_answers_the_same() -> None:
    model = onnx.load(default_model())
    result = uint8_into_cast(model)
    source = result.graph.input[0].name
    assert [n.op_type for n in result.graph.node if source in n.input] == ["Cast"]
    count = [sum(n.op_type == "Cast" for n in m.graph.node) for m in (model, result)]
    assert count == [1, 1]
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(run_fast(result, image), run_fast(model, image))
    half = to_float16(result)
    error = np.abs(run_fast(half, image) / run_fast(model, image) - 1)
    assert 0 < error.mean() < 0.01


def test_arithmetic_on_bytes_is_refused() -> None:
    """It may wrap around, which float32 does not."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["image", "image"], ["twice"]),
            helper.make_node("Cast", ["twice"], ["depth"], to=FLOAT),
        ],
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [2, 2])],
        [helper.make_tensor_value_info("depth", FLOAT, [2, 2])],
    )
    with pytest.raises(ValueError, match="Add reads the uint8 input"):
        uint8_into_cast(helper.make_model(graph))


def test_a_cast_to_something_else_stays() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["image"], ["t"]),
            helper.make_node("Cast", ["t"], ["whole"], to=TensorProto.INT32),
            helper.make_node("Cast", ["t"], ["depth"], to=FLOAT),
            helper.make_node("Add", ["whole", "whole"], ["twice"]),
        ],
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [2, 3])],
        [
            helper.make_tensor_value_info("depth", FLOAT, [3, 2]),
            helper.make_tensor_value_info("twice", TensorProto.INT32, [3, 2]),
        ],
    )
    model = uint8_into_cast(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    )
    onnx.checker.check_model(model, full_check=True)
    image = np.arange(250, 256, dtype=np.uint8).reshape(2, 3)
    depth, twice = ReferenceEvaluator(model).run(None, {"image": image})
    np.testing.assert_array_equal(depth, image.T.astype(np.float32))
    np.testing.assert_array_equal(twice, 2 * image.T.astype(np.int32))
