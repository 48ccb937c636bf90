"""Static INT8: convolutions with 8-bit weights and inputs, written into the ONNX file as Q/DQ.

Inputs have one scale a tensor, weights one an output channel, and all are symmetric (zero point 0),
which TensorRT demands. Inputs are quantised where they enter, after activations and sums; what lies
between convolutions stays float, and runtimes fuse it. What precedes the first convolution and
begins with the last one stays as it is.

Two measures keep the accuracy (compact, 11 images: mean difference from float32 3.6 % without,
1.6 % with them). The mean error that rounding leaves in each channel goes into the biases, as in
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
but measured; and what adds up of it by the end into the head's. And a convolution whose own
rounding is too loud stays float.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mono_depth_ros.model import METADATA_KEY
from mono_depth_ros.onnx_graph import copied, set_nodes

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Channels = npt.NDArray[np.float64]

# Error over signal, both as variance, in what a convolution gives. Compact has 6 of 65 above it.
MAX_NOISE = 0.003

_LEVELS = 127
_BINS = 2048


def quantize(model: onnx.ModelProto, images: Iterable[Image]) -> onnx.ModelProto:
    """A copy with INT8 convolutions, calibrated on images; its inputs and outputs stay as they are.

    Args:
        model: float32 with one input, uint8 1xHxWx3; opset 13 or later.
        images: HxWx3 uint8 RGB of the input size; thirty ordinary ones are plenty.

    Raises:
        ValueError: there is no image, nothing to quantise between a first convolution and a head,
            or ONNX Runtime refuses the model.
    """
    pictures = list(images)
    if not pictures:
        raise ValueError("INT8 needs images to calibrate on; give a folder of them")
    model = _split_concatenations(_folded(model))
    exact, graph = copied(model), model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [copied(node) for node in graph.node if node.op_type == "Conv"][:-1]
    nodes = [node for node in nodes if node.input[1] in weights]
    if not nodes:
        raise ValueError("a network needs two convolutions, a first one and a head, to be INT8")
    scales = _input_scales(model, sorted({node.input[0] for node in nodes}), pictures)
    rounded = _insert_roundings(graph, nodes, scales)
    errors = _measure(model, nodes, rounded, pictures)
    for node in graph.node:
        bias, noise = errors.get(node.output[0], (0.0, np.inf))
        if noise > MAX_NOISE:
            continue
        node.input[0], node.input[1] = (rounded[name] for name in node.input[:2])
        old = node.input[2] if len(node.input) > 2 else ""
        if old and old not in weights:
            continue  # a bias that is computed
        corrected = np.asarray(bias + weights.get(old, 0), np.float32)
        del node.input[2:]
        node.input.append(_constant(graph, f"{node.output[0]}_bias", corrected))
    set_nodes(graph, graph.node)
    _centre_head(model, exact, pictures)
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = json.dumps({**json.loads(entry.value), "precision": "int8"})
    return model


def best_scale(counts: npt.NDArray[np.int64], largest: float) -> float:
    """The scale of symmetric INT8 with the least mean squared error.

    Values beyond 127 steps are clipped, the others rounded, with the uniform error of scale^2 / 12.

    Args:
        counts: histogram of magnitudes, in equal bins from 0 to `largest`.
        largest: greater than 0.
    """
    edges = np.linspace(0, largest, len(counts) + 1)
    values = (edges[1:] + edges[:-1]) / 2
    # Sums of value^power beyond each edge; with them the squared distance to the edge expands.
    n, mean, square = (
        np.append(np.cumsum((counts * values**power)[::-1])[::-1], 0) for power in (0, 1, 2)
    )
    clipping = square - 2 * edges * mean + edges**2 * n
    rounding = (n[0] - n) * (edges / _LEVELS) ** 2 / 12
    # An edge of less than 127 bins is finer than the histogram.
    start = min(_LEVELS, len(counts))
    return float(edges[start + np.argmin((clipping + rounding)[start:])] / _LEVELS)


def rounded_weights(weights: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """8-bit weights of a convolution (output channels first), and each output channel's scale."""
    largest = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    # No scale below the normal range of float16: TensorRT shall be able to have it as float16.
    scales = np.maximum(largest / _LEVELS, np.finfo(np.float16).tiny).astype(np.float32)
    steps = np.rint(weights / scales.reshape(-1, *[1] * (weights.ndim - 1)))
    return np.clip(steps, -_LEVELS, _LEVELS).astype(np.int8), scales


def _constant(graph: onnx.GraphProto, name: str, array: npt.NDArray[np.generic]) -> str:
    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _insert_roundings(
    graph: onnx.GraphProto, convolutions: Sequence[NodeProto], scales: dict[str, float]
) -> dict[str, str]:
    """Adds Q/DQ of inputs and DQ of weights before each convolution; it does not read them yet.

    Returns:
        The name of the rounded tensor for that of each input and weight.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    rounded: dict[str, str] = {}
    nodes: list[NodeProto] = []
    starts = {node.output[0] for node in convolutions}
    for node in graph.node:
        source, weight = node.input[:2] if starts.intersection(node.output) else ("", "")
        if source and source not in rounded:
            rounded[source] = f"{source}_rounded"
            scale = _constant(graph, f"{source}_scale", np.asarray(scales[source], np.float32))
            zero = _constant(graph, f"{source}_zero", np.asarray(0, np.int8))
            middle, end = f"{source}_int8", rounded[source]
            nodes += [
                helper.make_node("QuantizeLinear", [source, scale, zero], [middle], middle),
                helper.make_node("DequantizeLinear", [middle, scale, zero], [end], end),
            ]
        if weight and weight not in rounded:
            rounded[weight] = f"{weight}_rounded"
            steps, factors = rounded_weights(numpy_helper.to_array(weights[weight]))
            inputs = [
                _constant(graph, f"{weight}_int8", steps),
                _constant(graph, f"{weight}_scale", factors),
                _constant(graph, f"{weight}_zero", np.zeros(len(factors), np.int8)),
            ]
            end = rounded[weight]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [end], end, axis=0))
        nodes.append(node)
    # Not set_nodes: nothing leads to an output yet.
    del graph.node[:]
    graph.node.extend(nodes)
    return rounded


def _session(
    model: onnx.ModelProto, outputs: Sequence[str], options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """A session that gives these float tensors of a model."""
    observed = copied(model)
    del observed.graph.output[:]
    observed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
    )
    return onnxruntime.InferenceSession(
        observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


def _input_scales(
    model: onnx.ModelProto, names: list[str], images: Sequence[Image]
) -> dict[str, float]:
    """The best scale of each named tensor over the images."""
    counts = {name: np.zeros(_BINS, np.int64) for name in names}
    limits = dict.fromkeys(names, 0.0)
    session = _session(model, names, _options())
    source = model.graph.input[0].name
    for image in images:
        tensors = session.run(names, {source: image[None]})
        for name, tensor in zip(names, tensors, strict=True):
            magnitudes = np.abs(tensor).ravel()
            largest = float(magnitudes.max())
            limits[name] = limits[name] or largest
            while largest > limits[name]:
                # Twice the range: each two bins become one, and what was counted stays.
                pairs = counts[name].reshape(-1, 2).sum(axis=1)
                counts[name] = np.concatenate([pairs, np.zeros_like(pairs)])
                limits[name] *= 2
            if largest:
                steps = np.minimum(magnitudes * (_BINS / limits[name]), _BINS - 1)
                counts[name] += np.bincount(steps.astype(np.int64), minlength=_BINS)
    return {name: best_scale(counts[name], limits[name]) if limits[name] else 1.0 for name in names}


def _measure(
    model: onnx.ModelProto,
    convolutions: Sequence[NodeProto],
    rounded: dict[str, str],
    images: Sequence[Image],
) -> dict[str, tuple[Channels, float]]:
    """What rounding costs each convolution by itself, its input being right.

    Returns:
        By output: the mean of exact minus rounded answer for each channel; and the variance of that
        difference over the variance of the answer.
    """
    twins = copied(model)
    graph = twins.graph
    names: list[str] = []
    for node in convolutions:
        exact, twin = node.output[0], copied(node)
        twin.name = twin.output[0] = f"{exact}_twin"
        twin.input[0], twin.input[1] = (rounded[name] for name in node.input[:2])
        error = f"{exact}_error"
        graph.node.extend([twin, helper.make_node("Sub", [exact, twin.output[0]], [error])])
        for tensor in (error, exact):
            square, mean, mean_square = (f"{tensor}_{name}" for name in ("sq", "mean", "meansq"))
            graph.node.extend(
                [
                    helper.make_node("Mul", [tensor, tensor], [square]),
                    helper.make_node("GlobalAveragePool", [tensor], [mean]),
                    helper.make_node("GlobalAveragePool", [square], [mean_square]),
                ]
            )
            names += [mean, mean_square]
    options = _options()
    # Optimised, ONNX Runtime would compute some twins otherwise than they are written.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = _session(twins, names, options)
    source = graph.input[0].name
    runs = [session.run(names, {source: image[None]}) for image in images]
    means = [
        np.mean([r.ravel() for r in tensor], axis=0, dtype=float)
        for tensor in zip(*runs, strict=True)
    ]
    result = {}
    for node, i in zip(convolutions, range(0, len(means), 4), strict=True):
        bias, error_square, mean, square = means[i : i + 4]
        noise = (error_square - bias**2).sum()
        signal = (square - mean**2).sum()
        result[node.output[0]] = bias, float(noise / signal) if signal > 0 else 0.0
    return result


def _centre_head(model: onnx.ModelProto, exact: onnx.ModelProto, images: Sequence[Image]) -> None:
    """Puts into the bias of the last convolution what errors have added up to on the way there."""
    graph = model.graph
    head = next(node for node in reversed(graph.node) if node.op_type == "Conv")
    name, source = head.output[0], graph.input[0].name
    sessions = [_session(m, [name], _options()) for m in (exact, model)]
    means = [
        [s.run(None, {source: image[None]})[0].mean(axis=(0, 2, 3)) for image in images]
        for s in sessions
    ]
    shift = np.mean(means[0], axis=0) - np.mean(means[1], axis=0)
    biases = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    old = head.input[2] if len(head.input) > 2 else ""
    if old and old not in biases:
        return  # a bias that is computed
    bias = np.asarray(shift + biases.get(old, 0), np.float32)
    del head.input[2:]
    head.input.append(_constant(graph, f"{name}_bias", bias))


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which ONNX Runtime has folded constants, and batch norms into convolutions."""
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class but Exception
            raise ValueError(f"ONNX Runtime: {str(error).splitlines()[0]}") from None
        folded = onnx.load(path)
    # ONNX Runtime lists every domain that it knows.
    used = {node.domain for node in folded.graph.node}
    opsets = [opset for opset in folded.opset_import if opset.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(opsets)
    return folded


def _split_concatenations(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which a convolution of concatenated tensors is a sum of convolutions.

    Each then has a scale of its own. OpenVINO 2026.4 besides takes a signed INT8 concatenation that
    feeds a convolution for an unsigned one, and loses what is negative.
    """
    result = copied(model)
    graph = result.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    dimensions = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
    }
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    concatenated = {
        node.output[0]: list(node.input)
        for node in graph.node
        if node.op_type == "Concat" and node.attribute[0].i == 1
    }
    nodes: list[NodeProto] = []
    for node in graph.node:
        parts = concatenated.get(node.input[0], []) if node.op_type == "Conv" else []
        widths = [(dimensions.get(part) or [0, 0])[1] for part in parts]
        weight = weights.get(node.input[1]) if parts else None
        # A grouped convolution is not the sum over its inputs.
        if weight is None or not all(widths) or weight.shape[1] != sum(widths):
            nodes.append(node)
            continue
        output, total = node.output[0], ""
        slices = np.split(weight, np.cumsum(widths)[:-1], axis=1)
        for i, (part, weights_of_part) in enumerate(zip(parts, slices, strict=True)):
            name = f"{output}_part{i}"
            piece = copied(node)
            piece.name = piece.output[0] = name
            piece.input[0] = part
            piece.input[1] = _constant(
                graph, f"{name}_weight", np.ascontiguousarray(weights_of_part)
            )
            nodes.append(piece)
            if i == 0:
                total = name
                continue
            del piece.input[2:]  # the bias counts once
            sum_ = output if i == len(parts) - 1 else f"{output}_sum{i}"
            nodes.append(helper.make_node("Add", [total, name], [sum_], sum_))
            total = sum_
    set_nodes(graph, nodes)
    return result
