"""Work of networks, against counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mono_depth_ros.arithmetic import Cost, cost


def network(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    constants: dict[str, Any],
    output: str = "y",
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_a_convolution_with_stride_and_bias() -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])
    model = network([node], {"x": [1, 3, 10, 12]}, {"w": zeros(8, 3, 3, 3), "b": zeros(8)})
    # 8 x 5 x 6 outputs of 3 x 3 x 3 multiply-adds.
    assert cost(model) == Cost(2 * 240 * 27, 8 * 27 + 8, 3 * 10 * 12 + 240)


def test_a_depthwise_convolution_reads_one_channel_for_an_output() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], group=8)
    model = network([node], {"x": [1, 8, 5, 6]}, {"w": zeros(8, 1, 3, 3)})
    assert cost(model) == Cost(2 * 240 * 9, 72, 480)


def test_a_transposed_convolution_spends_on_its_input() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    model = network([node], {"x": [1, 4, 5, 6]}, {"w": zeros(4, 3, 2, 2)})
    # Each of the 4 x 5 x 6 inputs adds to 3 channels of 2 x 2 outputs.
    assert cost(model) == Cost(2 * 120 * 12, 48, 120 + 3 * 10 * 12)


def test_matrix_products_of_weights_and_of_activations() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"]),
        helper.make_node("MatMul", ["q", "k"], ["y"]),
    ]
    model = network(nodes, {"x": [2, 3, 4], "k": [2, 5, 7]}, {"w": zeros(4, 5)})
    # 2 x 3 x 5 values of 4, then 2 x 3 x 7 of 5; q is written once and read once.
    assert cost(model) == Cost(2 * (30 * 4 + 42 * 5), 20, (24 + 30) + (30 + 70 + 42))


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_general_product_with_its_operand_as_it_lies(transposed: int) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transA=transposed)
    shape = [4, 3] if transposed else [3, 4]
    model = network([node], {"x": shape}, {"w": zeros(4, 5), "b": zeros(5)})
    assert cost(model) == Cost(2 * 15 * 4, 25, 12 + 15)


def test_weights_that_are_shared_cast_or_quantised_count_once_and_as_weights() -> None:
    constants = {"h": zeros(3, 3, 1, 1).astype(np.float16), "q": np.zeros((3, 3, 1, 1), np.int8)}
    constants["s"] = np.float32(0.1)
    nodes = [
        helper.make_node("Cast", ["h"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["q", "s"], ["v"]),
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    model = network(nodes, {"x": [1, 3, 2, 2]}, constants)
    assert cost(model) == Cost(2 * 3 * 12 * 3, 9 + 9, 3 * 24)


def test_bytes_follow_the_width_of_a_value() -> None:
    assert Cost(0, 10, 30).bytes_moved(4) == 160
    assert Cost(0, 10, 30).bytes_moved(1) == 40


def test_open_shapes_are_refused_by_name() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    model = network([node], {"x": [1, 3, "height", 12]}, {"w": zeros(8, 3, 3, 3)})
    with pytest.raises(ValueError, match=r"tensor x has no fixed shape"):
        cost(model)
    unknown = helper.make_node("Frobnicate", ["x"], ["z"])
    node = helper.make_node("Conv", ["z", "w"], ["y"])
    model = network([unknown, node], {"x": [1, 3, 10, 12]}, {"w": zeros(8, 3, 3, 3)})
    with pytest.raises(ValueError, match=r"tensor [zy] has no fixed shape|cannot be inferred"):
        cost(model)
