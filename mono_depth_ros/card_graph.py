"""Puts a model card into the graph: colour, layout and the way to metres around somebody else's
network, so that every runtime sees the one form that it knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from mono_depth_ros.model import METADATA_KEY, ModelError
from mono_depth_ros.model_card import ModelCard
from mono_depth_ros.onnx_graph import reads, subgraphs

# Since this one Max and Min broadcast.
MIN_OPSET = 8
_PREFIX = "network/"
_INPUT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8)
# Operators that carry numbers elsewhere and change none.
_MOVES = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


class _MismatchError(ValueError):
    """Network and card do not go together."""


def apply_card(network: onnx.ModelProto, card: ModelCard, source: str) -> onnx.ModelProto:
    """A copy of a network in the form that every engine reads.

    Args:
        network: one image in; its weights inside, not in other files.
        card: what it takes and gives.
        source: names the network in errors.

    Returns:
        `image` uint8 1xHxWx3 RGB in, `depth` float32 1xhxw metres out, metadata inside.

    Raises:
        ModelError: network and card do not go together.
    """
    try:
        return _apply(network, card)
    except _MismatchError as error:
        raise ModelError(f"{source}: {' '.join(str(error).split())}") from None


def _apply(network: onnx.ModelProto, card: ModelCard) -> onnx.ModelProto:
    opset = max((o.version for o in network.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < MIN_OPSET:
        raise _MismatchError(f"has opset {opset}; export it again with opset {MIN_OPSET} or later")
    model = onnx.ModelProto()
    model.CopyFrom(network)
    # With every name prefixed, ours cannot collide with one of the network's.
    _add_prefix(model.graph)
    # Before version 4, weights had to be listed among the inputs, too.
    model.ir_version = max(model.ir_version, 4)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    taken = _only_input([value for value in graph.input if value.name not in weights], card)
    given = _depth_output(graph, card)
    # What the file says of sizes is of another input size, or of none.
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(taken)
    given.type.tensor_type.ClearField("shape")
    graph.output.append(given)
    shape = _output_shape(model)
    size = _map_size(shape)
    if size is None:
        raise _MismatchError(
            f"output {_plain(given)} is {_by(shape)}, a depth map is 1xhxw, 1x1xhxw or 1xhxwx1;"
            " name another output in the card's output.name"
        )
    constants: list[onnx.TensorProto] = []
    nodes = [
        *_before(graph, card, constants),
        *_needed(graph),
        *_behind(card, given, shape, [1, *size], constants),
    ]
    used = {name for node in nodes for name in reads(node)}
    kept = [tensor for tensor in (*graph.initializer, *constants) if tensor.name in used]
    sides = [1, card.height, card.width, 3]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, sides)
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, *size])
    sparse = list(graph.sparse_initializer)
    graph.CopyFrom(
        helper.make_graph(nodes, card.name, [image], [depth], kept, sparse_initializer=sparse)
    )
    helper.set_model_props(model, {METADATA_KEY: json.dumps(card.document())})
    return model


def _plain(value: onnx.ValueInfoProto) -> str:
    return f"'{value.name.removeprefix(_PREFIX)}'"


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(size) if size else "?" for size in shape) or "a single number"


def _dims(value: onnx.ValueInfoProto) -> list[int] | None:
    """Sizes along the axes, 0 for one that is not fixed; None if not even their number is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    # Where a size is not fixed it reads as 0, and some exporters write -1.
    return [max(dim.dim_value, 0) for dim in tensor.shape.dim]


def _map_size(shape: list[int]) -> tuple[int, int] | None:
    """Height and width of a depth map in one of the usual shapes; None for another shape."""
    match shape:
        case [h, w] | [1, h, w] | [1, 1, h, w] | [1, h, w, 1]:
            return h, w
    return None


def _only_input(inputs: list[onnx.ValueInfoProto], card: ModelCard) -> onnx.ValueInfoProto:
    """The network's only input, fixed to the size of the card."""
    if len(inputs) != 1:
        names = ", ".join(map(_plain, inputs)) or "none"
        raise _MismatchError(
            f"has {len(inputs)} inputs ({names}); only a network of one image can be used"
        )
    (value,) = inputs
    channels_first = card.layout == "nchw"
    sides = [card.height, card.width]
    wanted = [1, 3, *sides] if channels_first else [1, *sides, 3]
    dims = _dims(value) or [0] * 4
    if len(dims) != 4 or any(dim not in (0, want) for dim, want in zip(dims, wanted, strict=True)):
        raise _MismatchError(
            f"input {_plain(value)} is {_by(dims)}, the card says {_by(wanted)} ({card.layout});"
            " correct its input.layout, height and width, or export the network again"
        )
    dtype = value.type.tensor_type.elem_type
    name = TensorProto.DataType.Name(dtype).lower()
    if dtype not in _INPUT_TYPES:
        raise _MismatchError(
            f"input {_plain(value)} is {name}; export it with float32, float16 or uint8"
        )
    if (dtype == TensorProto.UINT8) != (card.scale is None):
        raise _MismatchError(
            "takes bytes (uint8) and scales them itself; remove input.scale, mean and std"
            if card.scale is not None
            else f"takes {name}, not bytes; give input.scale (0.00392156862745098 makes bytes 0-1)"
        )
    return helper.make_tensor_value_info(value.name, dtype, wanted)


def _depth_output(graph: onnx.GraphProto, card: ModelCard) -> onnx.ValueInfoProto:
    outputs = {_plain(value): value for value in graph.output}
    names = ", ".join(outputs)
    if card.output is None:
        if len(outputs) != 1:
            raise _MismatchError(
                f"has {len(outputs)} outputs ({names}); name the depth in the card's output.name"
            )
        (chosen,) = outputs.values()
    elif f"'{card.output}'" in outputs:
        chosen = outputs[f"'{card.output}'"]
    else:
        raise _MismatchError(f"has no output '{card.output}'; output.name can be {names}")
    result = onnx.ValueInfoProto()
    result.CopyFrom(chosen)
    return result


def _output_shape(model: onnx.ModelProto) -> list[int]:
    """Shape of the only output at the fixed input size: inferred, or else found by running."""
    reason = ""
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        reason = f"; {error}"
    else:
        dims = _dims(inferred.graph.output[0])
        if dims is not None and 0 not in dims:
            return dims
    try:
        import onnxruntime
    except ImportError:
        raise _MismatchError(
            f"only running it tells the size of its output; pip install onnxruntime{reason}"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    value = model.graph.input[0]
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = _dims(value) or []
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (result,) = session.run(None, {value.name: np.zeros(shape, dtype)})
    except Exception as error:  # its exceptions share no base class but Exception
        raise _MismatchError(
            f"does not run at the card's input size {_by(shape)}; correct input.height and width,"
            f" or export it at that size ({error}{reason})"
        ) from None
    return list(result.shape)


def _add_prefix(graph: onnx.GraphProto) -> None:
    """Prefixes every name in a graph (onnx.compose misses weights that subgraphs read)."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = _PREFIX + value.name
    for sparse in graph.sparse_initializer:
        sparse.values.name = _PREFIX + sparse.values.name
    for node in graph.node:
        node.name = _PREFIX + node.name if node.name else ""
        for names in (node.input, node.output):
            # An empty name stands for an input or output that is left out.
            names[:] = [_PREFIX + name if name else "" for name in names]
        for subgraph in subgraphs(node):
            _add_prefix(subgraph)


def _needed(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on, in their order."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed |= reads(node)
            kept.append(node)
    return kept[::-1]


def _is_only_cast(graph: onnx.GraphProto, name: str) -> bool:
    """Whether a value is, once it was moved about, only cast to another type."""
    return all(
        node.op_type == "Cast" or (node.op_type in _MOVES and _is_only_cast(graph, node.output[0]))
        for node in graph.node
        if name in reads(node)
    )


class _Chain:
    """Nodes that follow each other; each reads the one before."""

    def __init__(self, name: str, start: str, constants: list[onnx.TensorProto]) -> None:
        self._name, self._value, self._constants = name, start, constants
        self._nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, constant: npt.ArrayLike | None = None, **attributes: Any) -> None:
        """Appends a node; a constant, float32 unless it is of integers, is its second input."""
        inputs = [self._value]
        self._value = f"{self._name}/{len(self._nodes)}"
        if constant is not None:
            array = np.asarray(constant)
            array = array.astype(np.float32) if array.dtype.kind == "f" else array
            inputs.append(f"{self._value}/constant")
            self._constants.append(numpy_helper.from_array(array, inputs[1]))
        self._nodes.append(
            helper.make_node(operator, inputs, [self._value], self._value, **attributes)
        )

    def end(self, name: str) -> list[onnx.NodeProto]:
        """The nodes; what the last one gives is called `name`."""
        self._nodes[-1].output[0] = name
        return self._nodes


def _before(
    graph: onnx.GraphProto, card: ModelCard, constants: list[onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """From `image` to what the network takes."""
    (taken,) = graph.input
    dtype = taken.type.tensor_type.elem_type
    chain = _Chain("before", "image", constants)
    # First of all, and to float32: TensorRT takes uint8 into nothing else.
    chain.add("Cast", to=TensorProto.FLOAT)
    if card.colour == "bgr":
        chain.add("Gather", np.array([2, 1, 0]), axis=3)
    if card.scale is not None:
        mean, std = np.array(card.mean), np.array(card.std)
        chain.add("Mul", card.scale / std)
        if mean.any():
            chain.add("Sub", mean / std)
    if card.layout == "nchw":
        chain.add("Transpose", perm=[0, 3, 1, 2])
    # A network that itself begins with a Cast can as well be given the same numbers as float32.
    if dtype == TensorProto.FLOAT16 or (
        dtype == TensorProto.UINT8 and not _is_only_cast(graph, taken.name)
    ):
        chain.add("Cast", to=dtype)
    return chain.end(taken.name)


def _behind(
    card: ModelCard,
    given: onnx.ValueInfoProto,
    shape: list[int],
    wanted: list[int],
    constants: list[onnx.TensorProto],
) -> list[onnx.NodeProto]:
    """From what the network gives to `depth`, clipped to the card's range."""
    chain = _Chain("behind", given.name, constants)
    if given.type.tensor_type.elem_type != TensorProto.FLOAT:
        chain.add("Cast", to=TensorProto.FLOAT)
    low, high = card.min_depth, card.max_depth
    if card.meaning == "metric":
        if card.out_scale != 1:
            chain.add("Mul", card.out_scale)
        chain.add("Max", low)
        chain.add("Min", high)
    else:
        # In 1/metres, where the far limit is a small positive number, so that a disparity of
        # nothing, or less, is far away, and nothing is divided by zero.
        factor = card.out_scale if card.meaning == "relative" else 1 / card.out_scale
        if factor != 1:
            chain.add("Mul", factor)
        if card.out_shift:
            chain.add("Add", card.out_shift)
        chain.add("Max", 1 / high)
        if low > 0:
            chain.add("Min", 1 / low)
        chain.add("Reciprocal")
    if shape != wanted:
        chain.add("Reshape", np.array(wanted))
    return chain.end("depth")
