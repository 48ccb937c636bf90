"""A network at another input size computes there what it would have, exported at that size."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mono_depth_ros.engines.onnx import OnnxEngine
from mono_depth_ros.engines.openvino import OpenVinoEngine
from mono_depth_ros.input_size import resized
from mono_depth_ros.model import DepthModel, ModelError, default_model, read_model

ROOT = Path(__file__).resolve().parent.parent
# The eighth of the height is 1.5 pixels, which strides round up to 2: what is then resized to the 3
# of the quarter is not resized by 2.
HEIGHT, WIDTH = 12, 20
FX, FY = 30.0, 32.0

Image = npt.NDArray[np.uint8]


def save_unet(
    path: Path,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    resize: str = "initializer",
    reshape: bool = False,
) -> DepthModel:
    """Mean of every fourth pixel of the red channel and of every eighth, resized to a fourth.

    Args:
        path: of the file.
        size: of the input.
        resize: says where Resize takes its size from: `initializer`, `constant` (a node), `axes`
            (an initializer of the last two axes) or `factor` (always 2).
        reshape: the eighths are flattened and unflattened on the way, as transformers do.
    """
    height, width = size
    quarter, eighth = (height // 4, width // 4), (-(-height // 8), -(-width // 8))
    pool: dict[str, Any] = {"kernel_shape": [1, 1], "strides": [2, 2]}
    nearest: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    constants: dict[str, npt.NDArray[Any]] = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "tenth": np.array(0.1, np.float32),
        "flat": np.array([1, eighth[0] * eighth[1]]),
        "map": np.array([1, 1, *eighth]),
    }
    inputs, nodes = ["eighth", "", "", "sizes"], []
    sizes = np.array([1, 1, *quarter])
    if resize == "constant":
        value = numpy_helper.from_array(sizes)
        nodes.append(helper.make_node("Constant", [], ["sizes"], value=value))
    elif resize == "factor":
        inputs = ["eighth", "", "scales"]
        constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    else:
        constants["sizes"] = sizes[2:] if resize == "axes" else sizes
    if resize == "axes":
        nearest["axes"] = [2, 3]
    nodes += [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Slice", ["nchw", "zero", "one", "one"], ["red"]),
        helper.make_node("MaxPool", ["red"], ["half"], **pool),
        helper.make_node("MaxPool", ["half"], ["quarter"], **pool),
        helper.make_node("MaxPool", ["quarter"], ["pooled" if reshape else "eighth"], **pool),
    ]
    if reshape:
        nodes += [
            helper.make_node("Reshape", ["pooled", "flat"], ["tokens"], "flatten"),
            helper.make_node("Reshape", ["tokens", "map"], ["eighth"]),
        ]
    nodes += [
        helper.make_node("Resize", inputs, ["up"], **nearest),
        helper.make_node("Concat", ["quarter", "up"], ["both"], axis=1),
        helper.make_node("ReduceMean", ["both", "one"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "tenth"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes,
        "unet",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, *quarter])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        # What exporters write, and what is wrong at any other size.
        value_info=[helper.make_tensor_value_info("quarter", TensorProto.FLOAT, [1, 1, *quarter])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    document = {
        **networks.document(),
        "input": {"height": height, "width": width},
        "training_focal_px": {"fx": FX, "fy": FY},
        "metrics": {"eigen": {"delta1": 0.9}},
    }
    helper.set_model_props(model, {"mono_depth": json.dumps(document)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return read_model(path)


def truth(image: Image) -> npt.NDArray[np.float64]:
    """What `save_unet` says it computes."""
    fine, coarse = (image[::n, ::n, 0].astype(np.float64) for n in (4, 8))
    rows, columns = (
        np.arange(side) * small // side
        for side, small in zip(fine.shape, coarse.shape, strict=True)
    )
    return 0.1 * (fine + coarse[np.ix_(rows, columns)]) / 2


def random_image(height: int, width: int) -> Image:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def infer(model: DepthModel, image: Image) -> npt.NDArray[np.float32]:
    """Depth from both runtimes, which must agree."""
    engines = [engine(model, "float32", None) for engine in (OnnxEngine, OpenVinoEngine)]
    first, second = (engine.infer(image).copy() for engine in engines)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    return first


@pytest.mark.parametrize("resize", ["initializer", "constant", "axes"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (24, 40), (16, 20), (20, 16), (36, 100)])
def test_it_computes_what_numpy_does_at_that_size(
    tmp_path: Path, resize: str, size: tuple[int, int]
) -> None:
    model = resized(save_unet(tmp_path / "unet.onnx", resize=resize), *size)
    image = random_image(*size)
    depth = infer(model, image)
    assert depth.shape == (size[0] // 4, size[1] // 4)
    np.testing.assert_allclose(depth, truth(image), rtol=1e-5)
    onnx.checker.check_model(onnx.load_model_from_string(model.onnx), full_check=True)


def test_the_metadata_follows(tmp_path: Path) -> None:
    before = save_unet(tmp_path / "unet.onnx")
    after = resized(before, 24, 60)
    assert (after.metadata.height, after.metadata.width) == (24, 60)
    assert after.metadata.document["training_focal_px"] == {"fx": 3 * FX, "fy": 2 * FY}
    assert after.metadata.focal == pytest.approx(before.metadata.focal * 6**0.5)
    assert (after.metadata.min_depth, after.metadata.max_depth) == (0.1, 20.0)
    # What was measured at another size is not claimed of this one.
    assert after.metadata.document["metrics"] == {}
    assert after.path == before.path and after.digest != before.digest
    # It is in the file, too.
    (tmp_path / "after.onnx").write_bytes(after.onnx)
    assert read_model(tmp_path / "after.onnx").metadata == after.metadata


def test_the_same_size_is_the_same_model(tmp_path: Path) -> None:
    model = save_unet(tmp_path / "unet.onnx")
    assert resized(model, HEIGHT, WIDTH) is model


def test_there_and_back_again(tmp_path: Path) -> None:
    model = save_unet(tmp_path / "unet.onnx")
    back = resized(resized(model, 24, 40), HEIGHT, WIDTH)
    image = random_image(HEIGHT, WIDTH)
    np.testing.assert_array_equal(infer(back, image), infer(model, image))
    assert back.metadata.focal == pytest.approx(model.metadata.focal)


# --- Sizes that cannot be


def refusal(model: DepthModel, height: int, width: int) -> str:
    with pytest.raises(ModelError) as error:
        resized(model, height, width)
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{model.path}: cannot run at {height}x{width}")
    return text


@pytest.mark.parametrize("size", [(14, 20), (12, 22), (0, 20), (-12, 20), (1, 1)])
def test_a_size_that_strides_do_not_divide_is_refused(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    text = refusal(save_unet(tmp_path / "unet.onnx"), *size)
    assert text.endswith("exported at 12x20, its height must be a multiple of 4 and its width of 4")


def test_maps_that_do_not_meet_are_refused(tmp_path: Path) -> None:
    """Twice the eighth of 20, rounded up, is 6 and not the quarter, 5."""
    model = save_unet(tmp_path / "unet.onnx", (16, 16), "factor")
    image = random_image(32, 16)
    np.testing.assert_allclose(infer(resized(model, 32, 16), image), truth(image), rtol=1e-5)
    assert "export it at that size" in refusal(model, 20, 16)


def test_a_network_with_a_size_in_a_reshape_is_refused(tmp_path: Path) -> None:
    model = save_unet(tmp_path / "unet.onnx", reshape=True)
    assert "its Reshape 'flatten' is made for one input size" in refusal(model, 24, 40)


def test_a_network_with_an_answer_of_one_size_is_refused(tmp_path: Path) -> None:
    model = read_model(networks.apparent_size(tmp_path / "square.onnx", 1.0))
    assert "export it at that size" in refusal(model, 192, 256)


def test_a_file_that_is_not_of_our_form_is_refused(tmp_path: Path) -> None:
    proto = onnx.load_model_from_string(save_unet(tmp_path / "unet.onnx").onnx)
    proto.graph.output[0].type.tensor_type.shape.dim.add(dim_value=1)
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"other\.onnx: is not 1xHxWx3 in, 1xhxw out"):
        resized(read_model(tmp_path / "other.onnx"), 24, 40)


@pytest.mark.parametrize("multiple", [0, -2, "2", None])
def test_a_multiple_that_is_none_is_no_limit(tmp_path: Path, multiple: object) -> None:
    proto = onnx.load_model_from_string(save_unet(tmp_path / "unet.onnx").onnx)
    document = json.loads(proto.metadata_props[0].value)
    document["input"]["multiple_of"] = multiple
    helper.set_model_props(proto, {"mono_depth": json.dumps(document)})
    onnx.save(proto, tmp_path / "odd.onnx")
    assert resized(read_model(tmp_path / "odd.onnx"), 24, 40).metadata.width == 40


def test_a_card_s_multiple_is_kept(tmp_path: Path) -> None:
    model = save_unet(tmp_path / "unet.onnx")
    proto = onnx.load_model_from_string(model.onnx)
    document = json.loads(proto.metadata_props[0].value)
    document["input"]["multiple_of"] = 6
    helper.set_model_props(proto, {"mono_depth": json.dumps(document)})
    onnx.save(proto, tmp_path / "six.onnx")
    text = refusal(read_model(tmp_path / "six.onnx"), 16, 20)
    assert "a multiple of 12 and its width of 12" in text
    assert resized(read_model(tmp_path / "six.onnx"), 24, 36).metadata.width == 36


# --- The network that ships


@pytest.mark.parametrize("size", [(192, 256), (256, 320)])
def test_the_shipped_network_runs_at_other_sizes(size: tuple[int, int]) -> None:
    model = resized(read_model(default_model()), *size)
    engine = OnnxEngine(model, "float32", None)
    assert engine.output_spec.shape == (1, size[0] // 2, size[1] // 2)
    assert np.ptp(engine.infer(random_image(*size))) > 0


PYTORCH = """
import sys
import numpy as np, torch
from pathlib import Path
from training.bytes_to_metres import load_bytes_to_metres
module, _ = load_bytes_to_metres(Path(sys.argv[1]))
with torch.inference_mode():
    depth = module(torch.from_numpy(np.load(sys.argv[2]))[None])[0]
np.save(sys.argv[3], depth.numpy())
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("size", [(480, 640), (192, 256)])
def test_the_shipped_network_is_what_pytorch_computes_at_that_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    image = random_image(*size)
    np.save(tmp_path / "image.npy", image)
    # In a process of its own: beside the robot side's libraries PyTorch has crashed.
    files = (default_model().with_suffix(".ckpt"), tmp_path / "image.npy", tmp_path / "depth.npy")
    command = [sys.executable, "-c", PYTORCH, *map(str, files)]
    subprocess.run(command, cwd=ROOT, check=True)
    depth = OnnxEngine(resized(read_model(default_model()), *size), "float32", None).infer(image)
    np.testing.assert_allclose(depth, np.load(tmp_path / "depth.npy"), rtol=1e-3)
