"""Export: what ships computes what PyTorch computes, and says what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper

# A robot has no torch, and needs none.
torch = pytest.importorskip("torch")

from torch import Tensor, nn

from mono_depth_ros.engines import open_engine
from mono_depth_ros.json_file import write_json
from mono_depth_ros.model import default_model, read_metadata
from training import export
from training.bytes_to_metres import BytesToMetres, load_bytes_to_metres
from training.calibrate import scale_correction
from training.checkpoint import CheckpointInfo, load_network, save_weights
from training.data.frame import Frame
from training.data.pair import Pair
from training.models import Encoder, UNet, build_unet
from training.targets import TARGETS

LIMIT_BYTES = 12_000_000
SIZE = HEIGHT, WIDTH = (64, 96)
FX, FY = 80.0, 82.0
FOCAL = math.sqrt(FX * FY)

Image = npt.NDArray[np.uint8]
Depth = npt.NDArray[np.floating[Any]]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def settle(network: UNet) -> UNet:
    """Makes a random network like a trained one: its batch norms have seen data, it says much."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(2, 3, *SIZE))
        network.head.weight *= 3
    return network.eval()


class SmallEncoder(Encoder):
    """What MobileNetV2 does, a tenth as often."""

    channels = (8, 16, 24)
    strides = (2, 4, 8)
    weights = "none"

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU6())
            for a, b in pairwise((3, *self.channels))
        )
        # A norm that no convolution can absorb, as DenseNet and ResNet v2 have them.
        self.norm = nn.BatchNorm2d(self.channels[-1])

    def own_name(self, published: str) -> str | None:
        return published

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [x := block(x) for block in self.blocks]
        return [*features[:-1], self.norm(features[-1]).relu()]


def small(target: str) -> tuple[BytesToMetres, CheckpointInfo]:
    torch.manual_seed(5)
    network = UNet(SmallEncoder(), 16, initial_output=TARGETS[target].initial)
    info = CheckpointInfo("small", target, *SIZE, FX, FY, ["random"], {})
    return BytesToMetres(settle(network), TARGETS[target]).eval(), info


def blobs(seed: int = 2, height: int = HEIGHT, width: int = WIDTH) -> Image:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    soft = cv2.GaussianBlur(image, (0, 0), 3).astype(np.float32)
    return np.asarray(255 * (soft - soft.min()) / (soft.max() - soft.min()), np.uint8)


def output_of(network: UNet, image: Image) -> Depth:
    """What the network itself predicts for an image of its size, in the space of its target."""
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        y: Depth = network(x)[0, 0].numpy()
    assert np.ptp(y) > 0.02 * abs(y.mean())
    return y


METRES: dict[str, Callable[[Depth], Depth]] = {
    "log": lambda y: np.clip(np.exp(y), 0.1, 20),
    "reciprocal": lambda y: 10 / np.clip(y, 1, 100),
    "normalised": lambda y: np.clip(10 * y, 0.1, 10),
}


# --- the shipped architecture, from its checkpoint -----------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("checkpoint") / "last.ckpt"
    info = CheckpointInfo("mobilenetv2-unet", "log", *SIZE, FX, FY, ["random"], {})
    save_weights(settle(build_unet("mobilenetv2-unet")), info, path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net.onnx`, checked on three photographs, and what was said of it in `report.json`."""
    root = tmp_path_factory.mktemp("exported")
    result, photos, out = root / "result.json", root / "photos", root / "new" / "net.onnx"
    write_json(result, {"metrics": {"eigen": {"delta1": 0.7, "rmse": math.nan}}})
    photos.mkdir()
    for seed in range(3):
        cv2.imwrite(str(photos / f"{seed}.jpg"), blobs(seed, 120, 200))
    arguments = [str(checkpoint), "--out", str(out), "--metrics", str(result)]
    arguments += ["--images", str(photos), "--json", str(root / "new" / "report.json")]
    assert export.main(arguments) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_exported_network_is_that_of_the_checkpoint(
    checkpoint: Path, exported: Path, runtime: str
) -> None:
    image = blobs()
    truth = np.exp(output_of(load_network(checkpoint)[0], image))
    assert truth.shape == (32, 48)
    answer = open_engine(exported, runtime, "float32").infer(image)
    np.testing.assert_allclose(answer, truth, rtol=1e-3)


@pytest.mark.slow
def test_the_exported_file_says_what_it_is(exported: Path) -> None:
    assert exported.stat().st_size < LIMIT_BYTES
    metadata = read_metadata(exported)
    assert (metadata.height, metadata.width) == SIZE
    assert metadata.focal == pytest.approx(FOCAL)
    document = metadata.document
    assert document["metrics"] == {"eigen": {"delta1": 0.7, "rmse": None}}
    assert (document["target"], document["precision"]) == ("log", "float32")
    assert (document["data"], document["scale_correction"]) == (["random"], 1.0)
    assert document["licence"] == "Apache-2.0" and document["commit"]
    report = json.loads(exported.with_name("report.json").read_text())
    assert report["metadata"] == document
    assert report["agreement_with_pytorch"]["images"] == 3
    assert 0 <= report["agreement_with_pytorch"]["max_rel"] < 1e-3


def test_the_shipped_model_is_self_contained() -> None:
    path = default_model()
    assert path.stat().st_size <= LIMIT_BYTES
    model = onnx.load(path, load_external_data=False)
    assert all(tensor.data_location == tensor.DEFAULT for tensor in model.graph.initializer)


# --- targets and sizes ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=METRES)
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def full(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network for a target as float32."""
    out = tmp_path_factory.mktemp(target) / "full.onnx"
    export.export_network(*small(target), SIZE, out)
    return out


def test_every_target_becomes_metres_in_the_graph(target: str, full: Path) -> None:
    image = blobs()
    truth = METRES[target](output_of(small(target)[0].network, image))
    np.testing.assert_allclose(open_engine(full, "onnx").infer(image), truth, rtol=1e-3)
    metadata = read_metadata(full)
    limits = {"log": (0.1, 20.0), "reciprocal": (0.1, 10.0), "normalised": (0.1, 10.0)}
    assert (metadata.min_depth, metadata.max_depth) == limits[target]
    assert metadata.document["target"] == target


def test_another_size_scales_the_focal_length(tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    export.export_network(*small("log"), (96, 144), out)
    metadata = read_metadata(out)
    assert (metadata.height, metadata.width) == (96, 144)
    assert metadata.focal == pytest.approx(1.5 * FOCAL)
    assert open_engine(out, "onnx").output_spec.shape == (1, 48, 72)


# --- float16 -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as float16."""
    out = tmp_path_factory.mktemp(target) / "half.onnx"
    export.export_network(*small(target), SIZE, out, precision="float16")
    return out


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_float16_agrees_with_float32(full: Path, half: Path, runtime: str) -> None:
    assert read_metadata(half).document["precision"] == "float16"
    reference, engine = open_engine(full, "onnx"), open_engine(half, runtime, "float32")
    assert (engine.input_spec.dtype, engine.output_spec.dtype) == ("uint8", "float32")
    for seed in range(3):
        truth, answer = (network.infer(blobs(seed)) for network in (reference, engine))
        error = np.abs(answer / truth - 1)
        assert 0 < np.median(error) < 0.01
        assert (np.maximum(answer / truth, truth / answer) < 1.25).mean() >= 0.999


def test_float16_types_all_but_the_ends(half: Path) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(half), strict_mode=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    kinds |= {t.name: t.data_type for t in graph.initializer}
    nodes = list(graph.node)
    *inner, head = [node for node in nodes if node.op_type == "Conv"]
    for node in inner:
        assert {kinds[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    ends = [head, *nodes[nodes.index(head) :], *nodes[: nodes.index(inner[0])]]
    outputs = {kinds[node.output[0]] for node in ends if node.op_type not in ("Cast", "Transpose")}
    assert outputs == {TensorProto.FLOAT}
    # From bytes; into float16, and out of it; and around the norm that no convolution absorbs.
    assert sum(node.op_type == "Cast" for node in nodes) == 5
    # float16 to the end would leave steps of up to 0.1 % in the depth.
    assert np.unique(open_engine(half, "onnx").infer(blobs())).size > 0.9 * 32 * 48


# --- calibration ---------------------------------------------------------------------------------


def given(pair: Pair) -> Pair:
    return pair


def own_answers(module: BytesToMetres, factor: float) -> list[Frame]:
    """Frames whose truth is the network's own depth times a factor, with outliers and holes."""
    frames = []
    for seed in range(3):
        image = blobs(seed)
        depth = factor * np.exp(output_of(module.network, image))
        depth[:10] = 9.0
        truth = np.asarray(cv2.resize(depth, (96, 64), interpolation=cv2.INTER_NEAREST), np.float32)
        truth[-4:] = np.nan
        # A lens of twice the training's focal length shows things as from half their distance.
        pair = Pair(image, 2 * truth, 2 * FX, 2 * FY, str(seed))
        frames.append(Frame(str(seed), "scene", partial(given, pair)))
    return frames


def test_calibration_finds_a_common_factor() -> None:
    module, _ = small("log")
    factor = scale_correction(module, own_answers(module, 1.3), SIZE, FOCAL)
    assert factor == pytest.approx(1.3, rel=1e-3)


def test_frames_without_depth_cannot_calibrate() -> None:
    nothing = Pair(blobs(), np.full(SIZE, np.nan, np.float32), FX, FY, "nothing")
    frames = [Frame("nothing", "scene", partial(given, nothing))]
    for some in (frames, []):
        with pytest.raises(ValueError, match="no frame"):
            scale_correction(small("log")[0], some, SIZE, FOCAL)


def test_the_factor_is_in_the_graph_and_in_the_metadata(tmp_path: Path) -> None:
    module, info = small("log")
    image = blobs()
    truth = 1.3 * np.exp(output_of(module.network, image))
    module.scale = 1.3
    _, document = export.export_network(module, info, SIZE, tmp_path / "net.onnx")
    answer = open_engine(tmp_path / "net.onnx", "onnx").infer(image)
    np.testing.assert_allclose(answer, truth, rtol=1e-3)
    assert document["scale_correction"] == 1.3


@pytest.mark.slow
def test_a_checkpoint_is_calibrated_on_frames(checkpoint: Path, tmp_path: Path) -> None:
    frames = own_answers(load_bytes_to_metres(checkpoint)[0], 1.3)
    out, weights = tmp_path / "net.onnx", tmp_path / "net.ckpt"
    _, document = export.export(checkpoint, out, calibration=frames, weights=weights)
    assert document["scale_correction"] == pytest.approx(1.3, rel=1e-3)
    # The weights that go with the file answer as it does.
    engine = open_engine(out, "onnx")
    image = blobs(2, *engine.input_spec.shape[1:3])
    with torch.inference_mode():
        same = load_bytes_to_metres(weights)[0](torch.from_numpy(image)[None])[0]
    np.testing.assert_allclose(same, engine.infer(image), rtol=1e-3)


def test_a_corrected_network_stays_within_its_range() -> None:
    module, _ = small("log")
    module.scale = 30.0
    with torch.no_grad():
        depth = module(torch.from_numpy(blobs())[None])
    assert float(depth.max()) == pytest.approx(TARGETS["log"].max_depth)


# --- the check -----------------------------------------------------------------------------------


def test_a_file_that_differs_from_pytorch_does_not_replace_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original = tmp_path / "net.onnx", export.to_onnx
    out.write_bytes(b"good")

    def with_another_bias(*arguments: Any) -> onnx.ModelProto:
        model = original(*arguments)
        bias = next(t for t in model.graph.initializer if t.name.endswith("head.bias"))
        array = numpy_helper.to_array(bias) + np.float32(0.002)
        bias.CopyFrom(numpy_helper.from_array(array, bias.name))
        return model

    monkeypatch.setattr(export, "to_onnx", with_another_bias)
    with pytest.raises(ValueError, match=r"net\.onnx: not written.*2\.0.e-03"):
        export.export_network(*small("log"), SIZE, out)
    assert out.read_bytes() == b"good"
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none.ckpt"], "none.ckpt"),
        (["bad.pt"], "bad.pt: cannot be read as a checkpoint"),
        (["last.ckpt", "--size", "63", "96"], "--size 63 96"),
        (["last.ckpt", "--size", "16", "24"], "--size 16 24"),
        (["last.ckpt", "--metrics", "text.json"], "text.json"),
        (["last.ckpt", "--metrics", "list.json"], "list.json"),
        (["last.ckpt", "--metrics", "none.json"], "none.json"),
        (["last.ckpt", "--calibrate", "none"], "none"),
        (["last.ckpt", "--images", "none"], "none"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(checkpoint.read_bytes())
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    (tmp_path / "text.json").write_text("metrics")
    (tmp_path / "list.json").write_text('{"metrics": [1]}')
    assert export.main([*arguments, "--out", "net.onnx"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("training.export: ") and text in lines[-1]
    assert not (tmp_path / "net.onnx").exists()
