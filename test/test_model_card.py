"""Model cards: any depth network gives metres in every runtime, or a line that says why not."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mono_depth_ros.engines import open_engine
from mono_depth_ros.model import ModelError, read_model
from mono_depth_ros.model_card import parse_card

ROOT = Path(__file__).resolve().parent.parent
CARDS = sorted((ROOT / "config/model_cards").glob("*.yaml"))
RUNTIMES = ("openvino", "onnx")
HEIGHT, WIDTH = 6, 10
# What the networks below weigh their three channels with: exact in float16, and no two alike.
WEIGHTS = (1.0, 2.0, 4.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Content = dict[str, Any]


def content(**changes: Any) -> Content:
    """A card for the plainest network; `section__key` changes a key, and `...` removes it."""
    card: Content = {
        "schema": 1,
        "name": "sum",
        "licence": "MIT",
        "source": "https://example.org/sum",
        "input": {
            "height": HEIGHT,
            "width": WIDTH,
            "layout": "nchw",
            "colour": "rgb",
            "scale": 1 / 255,
        },
        "output": {"meaning": "metric"},
        "training_focal_px": {"fx": 12.0, "fy": 27.0},
        "depth_m": {"min": 0.5, "max": 5.0},
    }
    for path, value in changes.items():
        *outer, key = path.split("__")
        place = card[outer[0]] if outer else card
        if value is ...:
            del place[key]
        else:
            place[key] = value
    return card


def save_network(
    path: Path,
    layout: str = "nchw",
    dtype: int = TensorProto.FLOAT,
    dims: list[int | str | None] | None = None,
    keepdims: bool = False,
    second: bool = False,
    cast: bool = True,
    reshape: bool = False,
) -> Path:
    """The weighted sum of the channels.

    Args:
        path: of the file.
        layout, dtype: of its input `x`.
        dims: shape of the input as the file states it; None is 1x3xHxW or 1xHxWx3.
        keepdims: the output `y` is 1x1xHxW or 1xHxWx1, not 1xHxW.
        second: there is another output first, `confidence`, of two channels.
        cast: a network of bytes casts them to float32 at once; else it first takes their maximum
            with 7, as bytes.
        reshape: the output's size is computed while the network runs, unknown to shape inference.
    """
    axis = layout.index("c")
    shape: list[int | str | None] = [1, 3, HEIGHT, WIDTH]
    if layout == "nhwc":
        shape = [1, HEIGHT, WIDTH, 3]
    kind = TensorProto.FLOAT if dtype == TensorProto.UINT8 else dtype
    number = helper.tensor_dtype_to_np_dtype(kind)
    weights = np.array(WEIGHTS, number).reshape([3 if i == axis else 1 for i in range(4)])
    constants = {"weights": weights, "axis": np.array([axis]), "half": np.array(0.5, number)}
    nodes, value = [], "x"
    if dtype == TensorProto.UINT8 and not cast:
        constants["seven"] = np.array(7, np.uint8)
        nodes.append(helper.make_node("Clip", ["x", "seven"], ["bytes"]))
        value = "bytes"
    if dtype == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", [value], ["float"], to=kind))
        value = "float"
    nodes += [
        helper.make_node("Mul", [value, "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["sum"], keepdims=int(keepdims)),
    ]
    if reshape:
        constants["zero"] = np.array(0.0, number)
        # A shape that depends on data: twice the non-zero count of a constant is no constant.
        nodes += [
            helper.make_node("Greater", ["sum", "zero"], ["positive"]),
            helper.make_node("NonZero", ["positive"], ["places"]),
            helper.make_node("Shape", ["places"], ["count"], start=0, end=1),
            helper.make_node("Sub", ["count", "count"], ["nought"]),
            helper.make_node("Shape", ["sum"], ["shape"]),
            helper.make_node("Add", ["shape", "nought"], ["same_shape"]),
            helper.make_node("Reshape", ["sum", "same_shape"], ["y"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["y"]))
    unknown = [None] * (4 if keepdims else 3)
    outputs = [helper.make_tensor_value_info("y", kind, unknown)]
    if second:
        nodes.append(helper.make_node("Mul", [value, "half"], ["confidence"]))
        outputs.insert(0, helper.make_tensor_value_info("confidence", kind, [None] * 4))
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", dtype, dims or shape)],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write(path: Path, card: Content) -> Path:
    path.write_text(yaml.safe_dump(card))
    return path


def weighted(image: npt.NDArray[np.uint8], card: Content) -> npt.NDArray[np.float64]:
    """What such a network gives, HxW, computed from an image by NumPy."""
    source = card["input"]
    x = image.astype(np.float64)
    x = x[..., ::-1] if source["colour"] == "bgr" else x
    x = x * source.get("scale", 1.0)
    x = (x - source.get("mean", 0.0)) / source.get("std", 1.0)
    total: npt.NDArray[np.float64] = x @ np.array(WEIGHTS)
    return total


def image() -> npt.NDArray[np.uint8]:
    result = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    result[0, 0], result[0, 1] = 0, 255
    return result


def infer(path: Path, runtime: str) -> npt.NDArray[np.float32]:
    engine = open_engine(path, runtime, "float32")
    assert engine.input_spec.dtype == "uint8"
    assert engine.input_spec.shape == (1, HEIGHT, WIDTH, 3)
    assert engine.output_spec.dtype == "float32"
    assert engine.output_spec.shape == (1, HEIGHT, WIDTH)
    depth = engine.infer(image()).copy()
    engine.close()
    return depth


def refusal(path: Path) -> str:
    """The error of reading `path`, which must be one line."""
    with pytest.raises(ModelError) as error:
        read_model(path)
    text = str(error.value)
    assert "\n" not in text
    return text


# --- Kinds of networks

NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "mean and deviation": ({}, {"input__mean": list(MEAN), "input__std": list(STD)}),
    "blue first": ({}, {"input__colour": "bgr"}),
    "blue first, mean and deviation": (
        {"layout": "nhwc"},
        {
            "input__colour": "bgr",
            "input__mean": list(MEAN),
            "input__std": list(STD),
            "input__layout": "nhwc",
        },
    ),
    "channels last": ({"layout": "nhwc"}, {"input__layout": "nhwc"}),
    "bytes": ({"dtype": TensorProto.UINT8}, {"input__scale": ...}),
    "bytes, channels last": (
        {"dtype": TensorProto.UINT8, "layout": "nhwc"},
        {"input__scale": ..., "input__layout": "nhwc"},
    ),
    "half precision": ({"dtype": TensorProto.FLOAT16}, {}),
    "map of one channel": ({"keepdims": True}, {}),
    "map of one channel, last": (
        {"keepdims": True, "layout": "nhwc"},
        {"input__layout": "nhwc"},
    ),
    "two outputs": ({"second": True}, {"output__name": "y"}),
    "any size": ({"dims": ["batch", 3, "height", "width"]}, {}),
    "no size at all": ({"dims": [None, None, None, None]}, {}),
    "size of the output known only by running": (
        {"reshape": True, "dims": ["batch", 3, "height", "width"]},
        {},
    ),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_gives_what_numpy_computes(tmp_path: Path, kind: str, runtime: str) -> None:
    network, changes = NETWORKS[kind]
    card = content(**changes)
    truth = weighted(image(), card)
    # Limits within what the network gives, so that both are met.
    low, high = max(0.0, float(np.quantile(truth, 0.2))), float(np.quantile(truth, 0.8))
    card["depth_m"] = {"min": low, "max": high}
    write(tmp_path / "sum.yaml", card)
    depth = infer(save_network(tmp_path / "sum.onnx", **network), runtime)
    half = network.get("dtype") == TensorProto.FLOAT16
    np.testing.assert_allclose(depth, truth.clip(low, high), rtol=4e-3 if half else 1e-5)
    assert len(np.unique(depth)) > 20


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bytes_that_are_not_cast_at_once_stay_bytes(tmp_path: Path, runtime: str) -> None:
    card = content(input__scale=..., depth_m__max=2000)
    write(tmp_path / "sum.yaml", card)
    path = save_network(tmp_path / "sum.onnx", dtype=TensorProto.UINT8, cast=False)
    truth = np.maximum(image(), 7).astype(np.float64) @ np.array(WEIGHTS)
    np.testing.assert_allclose(infer(path, runtime), truth, rtol=1e-6)


@pytest.mark.parametrize("kind", NETWORKS)
def test_bytes_go_into_nothing_but_a_cast_to_float32(tmp_path: Path, kind: str) -> None:
    network, changes = NETWORKS[kind]
    write(tmp_path / "sum.yaml", content(**changes))
    model = onnx.load_model_from_string(
        read_model(save_network(tmp_path / "sum.onnx", **network)).onnx
    )
    onnx.checker.check_model(model, full_check=True)
    (reader,) = (node for node in model.graph.node if "image" in node.input)
    assert reader.op_type == "Cast" and reader.attribute[0].i == TensorProto.FLOAT
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.type.tensor_type.elem_type for value in inferred.value_info}
    assert len(inferred.value_info) >= 2 and TensorProto.UINT8 not in types


def test_what_no_depth_depends_on_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "sum.yaml", content(output__name="y"))
    model = read_model(save_network(tmp_path / "sum.onnx", second=True))
    graph = onnx.load_model_from_string(model.onnx).graph
    assert "network/confidence" not in {name for node in graph.node for name in node.output}
    assert "network/half" not in {tensor.name for tensor in graph.initializer}


def test_a_network_whose_names_are_ours_is_no_problem(tmp_path: Path) -> None:
    """An input called depth, an output called image."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["depth", "before/0"], ["behind/0"]),
            helper.make_node("ReduceSum", ["behind/0", "axis"], ["image"], keepdims=0),
        ],
        "sum",
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, HEIGHT, WIDTH])],
        [
            numpy_helper.from_array(np.array(WEIGHTS, np.float32).reshape(1, 3, 1, 1), "before/0"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "sum.onnx")
    card = content()
    write(tmp_path / "sum.yaml", card)
    truth = weighted(image(), card).clip(0.5, 5.0)
    np.testing.assert_allclose(infer(tmp_path / "sum.onnx", "onnx"), truth, rtol=1e-5)


def test_a_network_with_branches(tmp_path: Path) -> None:
    """Its branches read the input, and weights, from outside of them."""
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["x", name], [f"{name}_result"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_result", TensorProto.FLOAT, None)],
        )
        for name in ("weights", "nothing")
    ]
    weights = np.array(WEIGHTS, np.float32).reshape(1, 3, 1, 1)
    constants = {"weights": weights, "nothing": weights * 0, "axis": np.array([1])}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["bright"], to=TensorProto.BOOL),
            helper.make_node(
                "If", ["bright"], ["product"], then_branch=branches[0], else_branch=branches[1]
            ),
            helper.make_node("ReduceSum", ["product", "axis"], ["y"], keepdims=0),
        ],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, HEIGHT, WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "sum.onnx")
    card = content()
    write(tmp_path / "sum.yaml", card)
    truth = weighted(image(), card).clip(0.5, 5.0)
    np.testing.assert_allclose(infer(tmp_path / "sum.onnx", "onnx"), truth, rtol=1e-5)


def test_an_old_file_that_lists_its_weights_as_inputs(tmp_path: Path) -> None:
    """IR version 3, opset 9: what PyTorch wrote before 1.4. The network is 1x1 convolution."""
    weights = np.array(WEIGHTS, np.float32).reshape(1, 3, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weights"], ["y"], kernel_shape=[1, 1])],
        "sum",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, [1, 3, 1, 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, HEIGHT, WIDTH])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    onnx.save(model, tmp_path / "sum.onnx")
    card = content(input__colour="bgr")
    write(tmp_path / "sum.yaml", card)
    truth = weighted(image(), card).clip(0.5, 5.0)
    adapted = onnx.load_model_from_string(read_model(tmp_path / "sum.onnx").onnx)
    onnx.checker.check_model(adapted, full_check=True)
    for runtime in RUNTIMES:
        np.testing.assert_allclose(infer(tmp_path / "sum.onnx", runtime), truth, rtol=1e-5)


# --- What the output means


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_metric_depth_in_millimetres(tmp_path: Path, runtime: str) -> None:
    card = content(input__scale=1.0, output__scale=0.001, depth_m={"min": 0.3, "max": 1.2})
    write(tmp_path / "sum.yaml", card)
    depth = infer(save_network(tmp_path / "sum.onnx"), runtime)
    truth = (image().astype(np.float64) @ np.array(WEIGHTS) / 1000).clip(0.3, 1.2)
    np.testing.assert_allclose(depth, truth, rtol=1e-5)
    assert {0.3, 1.2} <= set(np.round(depth.astype(np.float64), 6).ravel())


@pytest.mark.parametrize("nearest", [0.5, 0.0])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_inverse_depth(tmp_path: Path, runtime: str, nearest: float) -> None:
    # The mean makes some of the outputs zero or negative: as far as the card goes.
    card = content(
        input__mean=[0.3, 0.3, 0.3],
        output={"meaning": "inverse", "scale": 2.0},
        depth_m={"min": nearest, "max": 8.0},
    )
    write(tmp_path / "sum.yaml", card)
    y = weighted(image(), card)
    assert (y < -0.1).sum() > 5 and (y > 2 / 0.5).any()
    truth = np.full(y.shape, 8.0)
    truth[y > 0] = (2.0 / y[y > 0]).clip(nearest, 8.0)
    depth = infer(save_network(tmp_path / "sum.onnx"), runtime)
    np.testing.assert_allclose(depth, truth, rtol=1e-5)
    assert depth[0, 0] == pytest.approx(8.0)  # a black pixel's output is negative


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_disparity_at_all_is_far_away(tmp_path: Path, runtime: str) -> None:
    """The black pixel's output is exactly zero."""
    write(tmp_path / "sum.yaml", content(output__meaning="inverse"))
    depth = infer(save_network(tmp_path / "sum.onnx"), runtime)
    assert depth[0, 0] == pytest.approx(5.0) and np.isfinite(depth).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_relative_depth_with_a_fitted_scale_and_shift(tmp_path: Path, runtime: str) -> None:
    card = content(output={"meaning": "relative", "scale": 0.2, "shift": -0.3})
    write(tmp_path / "sum.yaml", card)
    disparity = 0.2 * weighted(image(), card) - 0.3
    assert (disparity < 0).any()
    truth = np.full(disparity.shape, 5.0)
    truth[disparity > 0] = (1 / disparity[disparity > 0]).clip(0.5, 5.0)
    depth = infer(save_network(tmp_path / "sum.onnx"), runtime)
    np.testing.assert_allclose(depth, truth, rtol=1e-5)


@pytest.mark.parametrize("missing", ["scale", "shift"])
def test_relative_depth_without_both_numbers_says_how_to_find_them(
    tmp_path: Path, missing: str
) -> None:
    output = {"meaning": "relative", "scale": 0.2, "shift": -0.3}
    del output[missing]
    card = write(tmp_path / "sum.yaml", content(output=output))
    text = refusal(save_network(tmp_path / "sum.onnx"))
    assert text.startswith(f"{card}: output.scale and output.shift are needed")
    assert "1/Z = scale * y + shift" in text and "least squares" in text


# --- Which card, and what becomes of it


def test_the_metadata_says_what_the_card_says(tmp_path: Path) -> None:
    write(tmp_path / "sum.yaml", content())
    metadata = read_model(save_network(tmp_path / "sum.onnx")).metadata
    assert (metadata.architecture, metadata.height, metadata.width) == ("sum", HEIGHT, WIDTH)
    assert metadata.focal == pytest.approx(18.0)
    assert (metadata.min_depth, metadata.max_depth) == (0.5, 5.0)
    assert metadata.document["licence"] == "MIT"


def test_a_file_that_says_what_it_is_needs_no_card(tmp_path: Path) -> None:
    write(tmp_path / "sum.yaml", content(name="first"))
    adapted = tmp_path / "adapted.onnx"
    adapted.write_bytes(read_model(save_network(tmp_path / "sum.onnx")).onnx)
    first = read_model(adapted)
    # The settings of a training, say, of the same name.
    (tmp_path / "adapted.yaml").write_text("epochs: 3")
    assert read_model(adapted) == first and first.metadata.architecture == "first"


def test_neither_card_nor_metadata_says_what_to_write(tmp_path: Path) -> None:
    text = refusal(save_network(tmp_path / "sum.onnx"))
    assert "sum.yaml (docs/models.md)" in text


def test_the_digest_covers_network_and_card(tmp_path: Path) -> None:
    path = save_network(tmp_path / "sum.onnx")
    card = write(tmp_path / "sum.yaml", content())
    first = read_model(path)
    assert first.digest == hashlib.sha256(path.read_bytes() + card.read_bytes()).hexdigest()
    card.write_text(card.read_text() + "# the same\n")
    second = read_model(path)
    assert second.digest != first.digest and second.onnx == first.onnx


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_cards_that_ship_can_be_read(path: Path) -> None:
    card = parse_card(path.read_bytes(), str(path))
    # The field of view that the focal length means is a camera's.
    assert 30 < np.degrees(2 * np.arctan(card.width / 2 / card.fx)) < 120
    assert abs(card.fx / card.fy - 1) < 0.02


def test_the_depth_anything_card_has_hypersim_s_camera() -> None:
    path = ROOT / "config/model_cards/depth_anything_v2_metric_indoor_small.yaml"
    card = parse_card(path.read_bytes(), str(path))
    focal = 1024 / 2 / np.tan(np.radians(60) / 2)
    assert (card.fx, card.fy) == pytest.approx((focal * 686 / 1024, focal * 518 / 768), abs=0.01)


# --- Weights in other files


def save_apart(path: Path) -> Path:
    """The plain network with its weights in NAME.data beside it; returns the latter."""
    model = onnx.load(save_network(path))
    name = f"{path.stem}.data"
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location=name,
        size_threshold=0,
        all_tensors_to_one_file=True,
    )
    return path.with_name(name)


def point_to(path: Path, location: str) -> None:
    """Makes every tensor of a file look for its data elsewhere."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def test_weights_in_another_file_are_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "sum.onnx"
    data = save_apart(path)
    card = content()
    write(tmp_path / "sum.yaml", card)
    truth = weighted(image(), card).clip(0.5, 5.0)
    np.testing.assert_allclose(infer(path, "onnx"), truth, rtol=1e-5)
    first = read_model(path)
    graph = onnx.load_model_from_string(first.onnx).graph
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in graph.initializer)
    content_before = bytearray(data.read_bytes())
    place = content_before.index(np.float32(WEIGHTS[2]).tobytes())
    content_before[place : place + 4] = np.float32(3.0).tobytes()
    data.write_bytes(content_before)
    assert read_model(path).digest != first.digest


def test_weights_of_our_own_networks_may_be_apart_too(tmp_path: Path) -> None:
    write(tmp_path / "sum.yaml", content())
    adapted = read_model(save_network(tmp_path / "sum.onnx"))
    path = tmp_path / "ours.onnx"
    model = onnx.load_model_from_string(adapted.onnx)
    onnx.save(model, path, save_as_external_data=True, location="ours.bin", size_threshold=0)
    assert (tmp_path / "ours.bin").stat().st_size > 0
    np.testing.assert_array_equal(infer(path, "onnx"), infer(tmp_path / "sum.onnx", "onnx"))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "sum.onnx"
    save_apart(path).unlink()
    assert refusal(path) == f"{path}: its weights sum.data are not there; copy both"


def test_weights_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sum.onnx"
    os.truncate(save_apart(path), 3)
    assert refusal(path).startswith(f"{path}: its weights cannot be read")


@pytest.mark.parametrize("absolute", [False, True])
def test_weights_outside_the_model_s_folder_are_not_read(tmp_path: Path, absolute: bool) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    data = save_apart(folder / "sum.onnx")
    secret = tmp_path / "secret.data"
    secret.write_bytes(data.read_bytes())
    point_to(folder / "sum.onnx", str(secret) if absolute else "../secret.data")
    assert "its weights cannot be read" in refusal(folder / "sum.onnx")


def test_a_link_out_of_the_model_s_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    data = save_apart(folder / "sum.onnx")
    data.rename(tmp_path / "secret.data")
    data.symlink_to(tmp_path / "secret.data")
    assert "its weights cannot be read" in refusal(folder / "sum.onnx")


def test_more_than_protobuf_holds_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sum.onnx"
    data = save_apart(path)
    os.truncate(data, 2**31)  # a hole: takes no space
    model = onnx.load(path, load_external_data=False)
    entries = model.graph.initializer[0].external_data
    kept = [(entry.key, entry.value) for entry in entries if entry.key not in ("length", "offset")]
    del entries[:]
    for key, value in kept:
        entries.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    text = refusal(path)
    assert "2.0 GiB of weights" in text and "ends at 2 GiB" in text


# --- Cards that are wrong

BAD_KEYS: dict[str, list[Any]] = {
    "schema": [..., 2, "1", 1.0, None, True],
    "name": [..., 1, "", "  ", None, ["a"]],
    "licence": [..., 1, ""],
    "source": [..., {}, ""],
    "input": [..., None, 3, []],
    "input.height": [..., 0, -6, 6.0, "6", True, 10**6, None],
    "input.width": [..., 0, float("nan")],
    "input.layout": [..., "NCHW", "chw", 1, None],
    "input.colour": [..., "RGB", "grey", ["rgb"]],
    "input.scale": [0, -1.0, float("nan"), float("inf"), "1/255", "1e-3", 10**400, 1e-60, True],
    "input.mean": [0.5, [0.5], [0.1, 0.2, "a"], [0.1, 0.2, float("nan")], None],
    "input.std": [[1.0, 1.0, 0.0], [1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0]],
    "input.multiple_of": [0, 2.0, "14"],
    "input.size": [3],
    "output": [..., "y"],
    "output.name": ["", 1, None],
    "output.meaning": [..., "disparity", "Metric", 1],
    "output.scale": [0.0, -1.0, float("nan"), "2"],
    "output.shift": [0.5],
    "training_focal_px": [..., 500.0],
    "training_focal_px.fx": [..., 0.0, -500.0, float("nan"), float("inf"), "500"],
    "training_focal_px.fy": [..., 0.0, None],
    "training_focal_px.f": [500.0],
    "depth_m": [..., [0.1, 10.0]],
    "depth_m.min": [..., -1.0, 5.0, float("nan")],
    "depth_m.max": [..., 0.5, 0.0, float("inf"), "10"],
    "depth_m.unit": ["m"],
    "focal": [500.0],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_KEYS.items() for value in values]
)
def test_a_bad_value_is_named_by_file_and_key(tmp_path: Path, key: str, value: object) -> None:
    card = write(tmp_path / "sum.yaml", content(**{key.replace(".", "__"): value}))
    text = refusal(save_network(tmp_path / "sum.onnx"))
    # Where a range is empty, its two numbers are named together.
    assert text.startswith((f"{card}: {key} ", f"{card}: depth_m "))
    assert "docs/models.md" in text


def test_numbers_that_yaml_takes_for_text_are_explained(tmp_path: Path) -> None:
    text = yaml.safe_dump(content()).replace("max: 5.0", "max: 1e1")
    (tmp_path / "sum.yaml").write_text(text)
    assert "write 1.0e-3" in refusal(save_network(tmp_path / "sum.onnx"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"- 1",
        b"text",
        b"a: [",
        b"\xff\xfe\x00",
        b"\x00",
        b"[" * 5000,
        b"!!python/name:os.system",
        b"a: &a [*a]",
        b"? [1]\n: 2",
        b"a: 2001-99-99",
        b"1: 2",
    ],
)
def test_what_is_no_card_is_called_so(tmp_path: Path, text: bytes) -> None:
    card = tmp_path / "sum.yaml"
    card.write_bytes(text)
    assert refusal(save_network(tmp_path / "sum.onnx")).startswith(f"{card}: ")


def test_a_card_s_code_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "sum.yaml").write_text(f"!!python/object/apply:os.mkdir ['{mark}']")
    assert "not a YAML file" in refusal(save_network(tmp_path / "sum.onnx"))
    assert not mark.exists()


def test_a_billion_laughs_are_not_written_out(tmp_path: Path) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (tmp_path / "sum.yaml").write_text("\n".join([*lines, "schema: *i"]))
    assert len(refusal(save_network(tmp_path / "sum.onnx"))) < 300


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_any_bytes_give_a_model_error(text: bytes) -> None:
    with pytest.raises(ModelError) as error:
        parse_card(text, "card.yaml")
    assert str(error.value).startswith("card.yaml: ") and "\n" not in str(error.value)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.floats(), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


@settings(deadline=None)
@given(st.sampled_from([key for key in BAD_KEYS if key != "name"]), SCALARS)
def test_any_value_is_taken_or_refused_in_one_line(key: str, value: object) -> None:
    text = yaml.safe_dump(content(**{key.replace(".", "__"): copy.deepcopy(value)}))
    try:
        card = parse_card(text.encode(), "card.yaml")
    except ModelError as refused:
        message = str(refused)
    else:
        message = "card.yaml: taken"
        numbers = (card.scale, *card.mean, *card.std, card.out_scale, card.fx, card.fy)
        assert np.isfinite([number for number in numbers if number is not None]).all()
        assert min(card.fx, card.fy, *card.std) > 0 and 0 <= card.min_depth < card.max_depth
    assert message.startswith("card.yaml: ") and "\n" not in message


def test_a_size_that_is_no_multiple_says_which_is(tmp_path: Path) -> None:
    write(tmp_path / "sum.yaml", content(input__multiple_of=4))
    text = refusal(save_network(tmp_path / "sum.onnx"))
    assert "input.height 6 is no multiple of 4; take 8" in text
    write(tmp_path / "sum.yaml", content(input__multiple_of=2))
    read_model(tmp_path / "sum.onnx")


# --- Cards that are another network's

MISMATCHES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "height": (
        {},
        {"input__height": 8},
        "input 'x' is 1x3x6x10, the card says 1x3x8x10 (nchw); correct its input.layout",
    ),
    "layout": ({"layout": "nhwc"}, {}, "input 'x' is 1x6x10x3, the card says 1x3x6x10 (nchw)"),
    "batch": ({"dims": [2, 3, "h", "w"]}, {}, "input 'x' is 2x3x?x?"),
    "axes": ({"dims": [3, 6, 10]}, {}, "input 'x' is 3x6x10"),
    "type": ({"dtype": TensorProto.DOUBLE}, {}, "input 'x' is double; export it with float32"),
    "no scale": ({}, {"input__scale": ...}, "takes float, not bytes; give input.scale"),
    "scaled bytes": (
        {"dtype": TensorProto.UINT8},
        {},
        "takes bytes (uint8) and scales them itself; remove input.scale",
    ),
    "unknown output": ({}, {"output__name": "z"}, "has no output 'z'; output.name can be 'y'"),
    "one of two outputs": (
        {"second": True},
        {},
        "has 2 outputs ('confidence', 'y'); name the depth in the card's output.name",
    ),
    "output of two dimensions too many": (
        {"second": True},
        {"output__name": "confidence"},
        "output 'confidence' is 1x3x6x10, a depth map is",
    ),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_another_network_s_card_is_refused(tmp_path: Path, name: str) -> None:
    network, changes, message = MISMATCHES[name]
    write(tmp_path / "sum.yaml", content(**changes))
    path = tmp_path / "sum.onnx"
    assert refusal(save_network(path, **network)).startswith(f"{path}: {message}")


def changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """The plain network, changed, with its card beside it."""
    write(path.with_suffix(".yaml"), content())
    model = onnx.load(save_network(path))
    change(model)
    onnx.save(model, path)
    return path


def test_an_opset_that_is_too_old_is_named(tmp_path: Path) -> None:
    path = changed(
        tmp_path / "sum.onnx", lambda model: setattr(model.opset_import[0], "version", 7)
    )
    assert refusal(path) == f"{path}: has opset 7; export it again with opset 8 or later"


def test_a_network_of_two_inputs_is_refused(tmp_path: Path) -> None:
    camera = helper.make_tensor_value_info("camera", TensorProto.FLOAT, [3, 3])
    path = changed(tmp_path / "sum.onnx", lambda model: model.graph.input.append(camera))
    assert "has 2 inputs ('x', 'camera'); only a network of one image" in refusal(path)


def test_a_network_that_does_not_run_at_the_card_s_size_is_refused(tmp_path: Path) -> None:
    """Its sides are dynamic, as it says, but it adds what has one size."""
    wide = numpy_helper.from_array(np.ones((1, 3, HEIGHT, WIDTH + 1), np.float32), "weights")

    def change(model: onnx.ModelProto) -> None:
        (old,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
        old.CopyFrom(wide)

    text = refusal(changed(tmp_path / "sum.onnx", change))
    assert "does not run at the card's input size 1x3x6x10; correct input.height and width" in text
