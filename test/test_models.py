"""Every network through the same tests; encoders against plain forwards of published weight files.

The lists of what those files hold are written out from the papers and the files' descriptions, not
from the modules that load them, and so are the forwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A robot has no torch, and needs none.
torch = pytest.importorskip("torch")

from torch import Tensor, nn
from torch.nn import functional

from training.models import (
    ARCHITECTURES,
    DenseNetEncoder,
    MobileNetV2Encoder,
    UNet,
    build_unet,
    freeze_encoder,
    load_encoder,
)

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]

# The deepest differs from its smaller variant in width only, and takes long.
every_architecture = pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "densenet169-unet" else [])
        for name in ARCHITECTURES
    ],
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def fill(shapes: Shapes, seed: int = 0) -> State:
    """Random tensors that keep a network's activations near 1."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=random) + 0.5
        elif len(shape) > 1:
            fan_in = math.prod(shape[1:])
            state[name] = torch.randn(shape, generator=random) * (2 / fan_in) ** 0.5
        elif name.endswith("weight"):
            state[name] = torch.rand(shape, generator=random) * 0.5 + 0.75
        else:
            state[name] = torch.randn(shape, generator=random) * 0.1
    return state


@cache
def evaluated(architecture: str) -> UNet:
    """A random network in evaluation mode. Tests share it and leave it as it is."""
    network = build_unet(architecture)
    network.load_state_dict(
        fill({name: tuple(t.shape) for name, t in network.state_dict().items()}), strict=True
    )
    return network.eval()


def image(height: int, width: int, count: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(1)
    result: Tensor = torch.rand(count, 3, height, width, generator=random)
    return result


# --- every architecture --------------------------------------------------------------------------


@every_architecture
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (33, 71)])
def test_features_have_the_channels_and_strides_that_the_encoder_declares(
    architecture: str, height: int, width: int
) -> None:
    encoder = evaluated(architecture).encoder
    with torch.inference_mode():
        features = encoder(image(height, width))
    assert encoder.strides[0] == 2
    for feature, channels, stride in zip(features, encoder.channels, encoder.strides, strict=True):
        assert feature.shape[:2] == (1, channels)
        for side, whole in zip(feature.shape[2:], (height, width), strict=True):
            assert side in (whole // stride, math.ceil(whole / stride))


@every_architecture
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (50, 38)])
def test_the_u_net_answers_at_half_size(architecture: str, height: int, width: int) -> None:
    with torch.inference_mode():
        out = evaluated(architecture)(image(height, width, count=2))
    assert tuple(out.shape) == (2, 1, math.ceil(height / 2), math.ceil(width / 2))
    assert torch.isfinite(out).all()


@every_architecture
def test_every_parameter_gets_a_gradient(architecture: str) -> None:
    torch.manual_seed(0)
    network = build_unet(architecture).train()
    out = network(image(64, 64, count=2))
    (out * torch.randn(out.shape)).mean().backward()
    without = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all() or not p.grad.any()
    ]
    assert without == []


@every_architecture
def test_evaluation_is_deterministic_and_a_state_dict_gives_the_same_network_back(
    architecture: str,
) -> None:
    network, again = evaluated(architecture), build_unet(architecture).eval()
    x = image(64, 64)
    with torch.inference_mode():
        first, fresh = network(x), again(x)
        again.load_state_dict(network.state_dict())
        assert not torch.equal(fresh, first)
        assert torch.equal(network(x), first)
        assert torch.equal(again(x), first)


@every_architecture
def test_channels_last_tensors_stay_so_and_compute_the_same(architecture: str) -> None:
    network = build_unet(architecture).eval()
    network.load_state_dict(evaluated(architecture).state_dict())
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = image(64, 96)
    with torch.inference_mode():
        features = network.encoder(x.to(memory_format=torch.channels_last))
        out = network(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(out, evaluated(architecture)(x), rtol=1e-3, atol=1e-3)
    assert all(feature.is_contiguous(memory_format=torch.channels_last) for feature in features)


@every_architecture
def test_a_decoder_is_the_paper_s_with_batch_norms(architecture: str) -> None:
    network = evaluated(architecture)
    state = network.state_dict()
    rgb = image(64, 96)
    colours = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]  # mean, deviation in ImageNet
    normalised = torch.cat([(rgb[:, i : i + 1] - m) / s for i, (m, s) in enumerate(colours)], 1)
    with torch.inference_mode():
        out = network(rgb)
        x, *skips = reversed(network.encoder(normalised))
        x = functional.conv2d(x, state["bottleneck.weight"], state["bottleneck.bias"])
        for i, skip in enumerate(skips):
            x = functional.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, skip], 1)
            for j, part in enumerate("ab"):
                name = f"decoder.{i}"
                x = functional.conv2d(x, state[f"{name}.conv_{part}.weight"], padding=1)
                x = batch_norm(x, state, f"{name}.norm_{part}")
                # Only the compact networks activate after the very last of them.
                if (i, j) != (len(skips) - 1, 1) or "mobilenet" in architecture:
                    x = torch.where(x < 0, 0.2 * x, x)
        x = functional.conv2d(x, state["head.weight"], state["head.bias"], padding=1)
    torch.testing.assert_close(out, x, rtol=1e-3, atol=1e-3)


@every_architecture
def test_a_step_with_a_frozen_encoder_leaves_all_that_its_weight_file_fills(
    architecture: str,
) -> None:
    torch.manual_seed(0)
    network = build_unet(architecture)
    freeze_encoder(network)
    network.eval()
    network.train()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(image(32, 64, count=2)).square().mean().backward()
    optimiser.step()
    learned = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    # The norm after ResNet's third stage is in no file.
    ours = {name for name in before if not name.startswith("encoder.")}
    ours |= {name for name in before if name.startswith("encoder.norms.3.")}
    assert learned == ours


@every_architecture
@pytest.mark.slow
def test_compilation_needs_no_graph_break(architecture: str) -> None:
    network, x = evaluated(architecture), image(32, 64)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.inference_mode():
        assert torch.equal(compiled(x), network(x))


@every_architecture
@pytest.mark.slow
def test_an_exported_network_computes_the_same_in_onnx_runtime(
    architecture: str, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network, x, path = evaluated(architecture), image(33, 64), tmp_path / "network.onnx"
    torch.onnx.export(
        network,
        (x,),
        path,
        input_names=["image"],
        opset_version=18,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"image": x.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(out, network(x).numpy(), rtol=1e-3, atol=1e-3)


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match=r"'resnet'.*resnet50v2-unet"):
        build_unet("resnet")


@every_architecture
@pytest.mark.parametrize("initial", [0.85, 4.2])
def test_a_fresh_network_starts_near_its_initial_output(architecture: str, initial: float) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        out = build_unet(architecture, initial).eval()(image(64, 64))
    assert float(out.median()) == pytest.approx(initial, abs=0.5)


# --- sizes ---------------------------------------------------------------------------------------


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_deep_network_has_the_paper_s_42_6_million_parameters() -> None:
    with torch.device("meta"):
        network = build_unet("densenet169-unet")
    assert parameters(network) / 1e6 == pytest.approx(42.6, abs=0.1)
    state = network.state_dict()
    names = ["bottleneck", *(f"decoder.{i}.conv_b" for i in range(4))]
    assert [len(state[f"{name}.weight"]) for name in names] == [1664, 832, 416, 208, 104]


def test_the_smaller_network_s_decoder_has_no_more_than_512_channels() -> None:
    network = evaluated("densenet169-unet-512")
    convolutions = [
        module
        for part in (network.bottleneck, network.decoder, network.head)
        for module in part.modules()
        if isinstance(module, nn.Conv2d)
    ]
    assert len(convolutions) == 10
    assert max(convolution.out_channels for convolution in convolutions) == 512


@pytest.mark.parametrize(
    ("encoder", "published", "head"),
    # Parameters that torchvision states of the whole network, and those of what follows ours.
    [
        (DenseNetEncoder(121), 7_978_856, 1024 * 1000 + 1000),
        (DenseNetEncoder(169), 14_149_480, 1664 * 1000 + 1000),
        (MobileNetV2Encoder(expand_first=False), 3_504_872, 1280 * (320 + 2) + 1280 * 1000 + 1000),
    ],
)
def test_an_encoder_and_its_classifier_have_the_published_number_of_parameters(
    encoder: nn.Module, published: int, head: int
) -> None:
    assert parameters(encoder) + head == published


# --- weight files --------------------------------------------------------------------------------


def norm_shapes(name: str, channels: int) -> Shapes:
    """A batch norm in an old file, which does not count batches."""
    return {
        f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
    }


def batch_norm(x: Tensor, state: State, name: str) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


DENSE_LAYERS = {"densenet121": (6, 12, 24, 16), "densenet169": (6, 12, 32, 32)}


def densenet_shapes(name: str) -> Shapes:
    """What torchvision's file holds, which names a layer's modules norm.1, not norm1."""
    shapes: Shapes = {"features.conv0.weight": (64, 3, 7, 7)}
    shapes |= norm_shapes("features.norm0", 64)
    width = 64
    for block, layers in enumerate(DENSE_LAYERS[name], 1):
        for layer in range(1, layers + 1):
            prefix = f"features.denseblock{block}.denselayer{layer}"
            shapes |= norm_shapes(f"{prefix}.norm.1", width)
            shapes[f"{prefix}.conv.1.weight"] = (128, width, 1, 1)
            shapes |= norm_shapes(f"{prefix}.norm.2", 128)
            shapes[f"{prefix}.conv.2.weight"] = (32, 128, 3, 3)
            width += 32
        if block < 4:
            shapes |= norm_shapes(f"features.transition{block}.norm", width)
            shapes[f"features.transition{block}.conv.weight"] = (width // 2, width, 1, 1)
            width //= 2
    shapes |= norm_shapes("features.norm5", width)
    return shapes | {"classifier.weight": (1000, width), "classifier.bias": (1000,)}


def densenet_forward(state: State, x: Tensor) -> list[Tensor]:
    layers = [
        sum(key.startswith(f"features.denseblock{b}.") and key.endswith("2.bias") for key in state)
        for b in range(1, 5)
    ]
    x = functional.conv2d(x, state["features.conv0.weight"], stride=2, padding=3)
    x = batch_norm(x, state, "features.norm0").clamp(min=0)
    features = [x]
    x = functional.max_pool2d(x, 3, 2, 1)
    features.append(x)
    for block in range(1, 5):
        for layer in range(1, layers[block - 1] + 1):
            prefix = f"features.denseblock{block}.denselayer{layer}"
            y = batch_norm(x, state, f"{prefix}.norm.1").clamp(min=0)
            y = functional.conv2d(y, state[f"{prefix}.conv.1.weight"])
            y = batch_norm(y, state, f"{prefix}.norm.2").clamp(min=0)
            x = torch.cat([x, functional.conv2d(y, state[f"{prefix}.conv.2.weight"], padding=1)], 1)
        if block < 4:
            prefix = f"features.transition{block}"
            x = batch_norm(x, state, f"{prefix}.norm").clamp(min=0)
            x = functional.avg_pool2d(functional.conv2d(x, state[f"{prefix}.conv.weight"]), 2)
        if block < 3:
            features.append(x)
    return [*features, batch_norm(x, state, "features.norm5").clamp(min=0)]


# (channels of the input, hidden, output, stride) of the 17 blocks of MobileNetV2.
INVERTED = [
    (32, 32, 16, 1),
    (16, 96, 24, 2),
    (24, 144, 24, 1),
    (24, 144, 32, 2),
    *[(32, 192, 32, 1)] * 2,
    (32, 192, 64, 2),
    *[(64, 384, 64, 1)] * 3,
    (64, 384, 96, 1),
    *[(96, 576, 96, 1)] * 2,
    (96, 576, 160, 2),
    *[(160, 960, 160, 1)] * 2,
    (160, 960, 320, 1),
]


def mobilenet_shapes(gluon: bool) -> Shapes:
    """What Gluon's or torchvision's file of MobileNetV2 1.0 holds."""
    shapes: Shapes = {}

    def add(convolution: str, norm: str, shape: tuple[int, ...]) -> None:
        shapes[f"{convolution}.weight"] = shape
        shapes.update(norm_shapes(norm, shape[0]))

    if gluon:
        add("c0", "b0", (32, 3, 3, 3))
        for i, (channels, hidden, out, _) in enumerate(INVERTED):
            add(f"bl.{i}.c0", f"bl.{i}.b0", (hidden, channels, 1, 1))
            add(f"bl.{i}.c1", f"bl.{i}.b1", (hidden, 1, 3, 3))
            add(f"bl.{i}.c2", f"bl.{i}.b2", (out, hidden, 1, 1))
        add("c1", "b1", (1280, 320, 1, 1))
        return shapes
    add("features.0.0", "features.0.1", (32, 3, 3, 3))
    for i, (channels, hidden, out, _) in enumerate(INVERTED, 1):
        prefix, first = f"features.{i}.conv", int(i > 1)
        if first:
            add(f"{prefix}.0.0", f"{prefix}.0.1", (hidden, channels, 1, 1))
        add(f"{prefix}.{first}.0", f"{prefix}.{first}.1", (hidden, 1, 3, 3))
        add(f"{prefix}.{first + 1}", f"{prefix}.{first + 2}", (out, hidden, 1, 1))
    add("features.18.0", "features.18.1", (1280, 320, 1, 1))
    return shapes | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def mobilenet_forward(state: State, x: Tensor, gluon: bool) -> list[Tensor]:
    def apply(x: Tensor, convolution: str, norm: str, **how: Any) -> Tensor:
        x = functional.conv2d(x, state[f"{convolution}.weight"], **how)
        return batch_norm(x, state, norm)

    stem = ("c0", "b0") if gluon else ("features.0.0", "features.0.1")
    x = apply(x, *stem, stride=2, padding=1).clamp(0, 6)
    features = []
    for i, (channels, hidden, out, stride) in enumerate(INVERTED):
        if gluon:
            names = [(f"bl.{i}.c{j}", f"bl.{i}.b{j}") for j in range(3)]
        else:
            prefix, first = f"features.{i + 1}.conv", int(i > 0)
            names = [(f"{prefix}.{j}.0", f"{prefix}.{j}.1") for j in range(first + 1)]
            names.append((f"{prefix}.{first + 1}", f"{prefix}.{first + 2}"))
        y = x
        if len(names) == 3:
            y = apply(y, *names[0]).clamp(0, 6)
        y = apply(y, *names[-2], stride=stride, padding=1, groups=hidden).clamp(0, 6)
        y = apply(y, *names[-1])
        x = x + y if stride == 1 and channels == out else y
        if i in (0, 2, 5, 12, 16):
            features.append(x)
    return features


RESIDUAL = [(256, 3, 1), (512, 4, 2), (1024, 6, 2)]


def resnet_shapes() -> Shapes:
    """What the first three stages of Gluon's ResNet-50 v2 hold."""
    shapes = norm_shapes("b_in", 3) | {"c0.weight": (64, 3, 7, 7)} | norm_shapes("b1", 64)
    width = 64
    for stage, (out, blocks, _) in enumerate(RESIDUAL):
        for block in range(blocks):
            prefix, hidden = f"st.{stage}.{block}", out // 4
            shapes |= norm_shapes(f"{prefix}.b0", width)
            shapes[f"{prefix}.c0.weight"] = (hidden, width, 1, 1)
            shapes |= norm_shapes(f"{prefix}.b1", hidden)
            shapes[f"{prefix}.c1.weight"] = (hidden, hidden, 3, 3)
            shapes |= norm_shapes(f"{prefix}.b2", hidden)
            shapes[f"{prefix}.c2.weight"] = (out, hidden, 1, 1)
            if block == 0:
                shapes[f"{prefix}.ds.weight"] = (out, width, 1, 1)
            width = out
    return shapes


def resnet_forward(state: State, x: Tensor) -> list[Tensor]:
    x = functional.conv2d(batch_norm(x, state, "b_in"), state["c0.weight"], stride=2, padding=3)
    features = [batch_norm(x, state, "b1").clamp(min=0)]
    x = functional.max_pool2d(features[0], 3, 2, 1)
    for stage, (_, blocks, first_stride) in enumerate(RESIDUAL):
        for block in range(blocks):
            prefix, stride = f"st.{stage}.{block}", first_stride if block == 0 else 1
            y = batch_norm(x, state, f"{prefix}.b0").clamp(min=0)
            if block == 0:
                x = functional.conv2d(y, state[f"{prefix}.ds.weight"], stride=stride)
                if stage > 0:
                    features.append(y)
            y = functional.conv2d(y, state[f"{prefix}.c0.weight"])
            y = batch_norm(y, state, f"{prefix}.b1").clamp(min=0)
            y = functional.conv2d(y, state[f"{prefix}.c1.weight"], stride=stride, padding=1)
            y = batch_norm(y, state, f"{prefix}.b2").clamp(min=0)
            x = x + functional.conv2d(y, state[f"{prefix}.c2.weight"])
    # A norm that has not seen anything yet only divides by sqrt(1 + epsilon).
    return [*features, x.clamp(min=0) / math.sqrt(1 + 1e-5)]


def save(state: State, path: Path) -> Path:
    """As the extension says; .pth in the format before torch 1.6, which published files have."""
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in state.items()}
        np.savez(path, **arrays)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


Forward = Callable[[State, Tensor], list[Tensor]]
published = pytest.mark.parametrize(
    ("architecture", "shapes", "forward", "suffix"),
    [
        pytest.param(
            "densenet169-unet-512",
            densenet_shapes("densenet169"),
            densenet_forward,
            ".pth",
            id="densenet169",
        ),
        pytest.param(
            "densenet121-unet",
            densenet_shapes("densenet121"),
            densenet_forward,
            ".pth",
            id="densenet121",
        ),
        pytest.param(
            "mobilenetv2-unet",
            mobilenet_shapes(gluon=True),
            lambda state, x: mobilenet_forward(state, x, gluon=True),
            ".npz",
            id="mobilenetv2-gluon",
        ),
        pytest.param(
            "mobilenetv2-torchvision-unet",
            mobilenet_shapes(gluon=False),
            lambda state, x: mobilenet_forward(state, x, gluon=False),
            ".pth",
            id="mobilenetv2-torchvision",
        ),
        pytest.param(
            "resnet50v2-unet", resnet_shapes(), resnet_forward, ".npz", id="resnet50v2-gluon"
        ),
    ],
)


@published
def test_an_encoder_with_published_weights_computes_what_its_paper_says(
    architecture: str, shapes: Shapes, forward: Forward, suffix: str, tmp_path: Path
) -> None:
    state, network = fill(shapes), build_unet(architecture)
    decoder = {name: t.clone() for name, t in network.decoder.state_dict().items()}
    load_encoder(network, save(state, tmp_path / f"weights{suffix}"))
    x = image(64, 96)
    with torch.inference_mode():
        features, expected = network.eval().encoder(x), forward(state, x)
    for feature, truth in zip(features, expected, strict=True):
        assert truth.std() > 0.1
        torch.testing.assert_close(feature, truth, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(t, decoder[name]) for name, t in network.decoder.state_dict().items())


def test_every_tensor_of_the_published_densenet169_lands_under_its_name(tmp_path: Path) -> None:
    state, network = fill(densenet_shapes("densenet169")), build_unet("densenet169-unet")
    load_encoder(network, save(state, tmp_path / "densenet169.pth"))
    loaded = network.encoder.state_dict()
    renamed = {
        name.replace("norm.", "norm").replace("conv.", "conv") if "denselayer" in name else name: t
        for name, t in state.items()
        if not name.startswith("classifier")
    }
    assert {name for name in loaded if not name.endswith("num_batches_tracked")} == set(renamed)
    assert [name for name, tensor in renamed.items() if not torch.equal(loaded[name], tensor)] == []


def test_a_state_dict_of_today_that_counts_batches_loads_too(tmp_path: Path) -> None:
    """Newer files are zip archives, as .npz files are, and hold `num_batches_tracked`."""
    source, network = build_unet("densenet121-unet"), build_unet("densenet121-unet")
    source.encoder.state_dict()["features.norm0.num_batches_tracked"].fill_(7)
    torch.save(source.encoder.state_dict(), tmp_path / "weights.pth")
    load_encoder(network, tmp_path / "weights.pth")
    loaded = network.encoder.state_dict()
    assert all(torch.equal(t, loaded[name]) for name, t in source.encoder.state_dict().items())


def test_checkpoints_of_the_compact_network_keep_their_names() -> None:
    """Names and shapes in a state dict of `mobilenetv2-unet`, which trained weights exist for."""
    shapes: Shapes = {}
    for name, shape in mobilenet_shapes(gluon=False).items():
        layer = name.split(".")
        if layer[1] == "18" or layer[0] == "classifier":
            continue
        if layer[:3] == ["features", "1", "conv"]:  # Gluon's has one more before these
            layer[3] = str(int(layer[3]) + 1)
        shapes["encoder." + ".".join(layer)] = shape
    shapes["encoder.features.1.conv.0.0.weight"] = (32, 32, 1, 1)
    shapes |= norm_shapes("encoder.features.1.conv.0.1", 32)
    shapes |= {"bottleneck.weight": (256, 320, 1, 1), "bottleneck.bias": (256,)}
    for i, (width, skip) in enumerate([(256, 96), (128, 32), (64, 24), (32, 16)]):
        out = width // 2
        shapes[f"decoder.{i}.conv_a.weight"] = (out, width + skip, 3, 3)
        shapes[f"decoder.{i}.conv_b.weight"] = (out, out, 3, 3)
        shapes |= norm_shapes(f"decoder.{i}.norm_a", out) | norm_shapes(f"decoder.{i}.norm_b", out)
    shapes |= {"head.weight": (1, 16, 3, 3), "head.bias": (1,)}
    shapes |= {
        name.replace("running_var", "num_batches_tracked"): ()
        for name in shapes
        if name.endswith("running_var")
    }
    state = evaluated("mobilenetv2-unet").state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


# --- weight files that do not fit ----------------------------------------------------------------


def refusal(network: UNet, path: Path) -> str:
    """The one-line message with which `path` is refused; the network stays as it was."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match="give ") as error:
        load_encoder(network, path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert network.encoder.weights in message
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    return message


@published
def test_a_file_that_lacks_or_exceeds_or_distorts_something_is_refused_by_name(
    architecture: str, shapes: Shapes, forward: Forward, suffix: str, tmp_path: Path
) -> None:
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    bent, missing, *_ = (name for name in state if "denselayer" not in name)
    state[bent] = torch.zeros(2, 5)
    del state[missing]
    state["fc.weight"] = torch.zeros(2)
    message = refusal(evaluated(architecture), save(state, tmp_path / f"weights{suffix}"))
    lacks, unexpected, misshaped, _ = message.removeprefix(str(tmp_path)).split("; ", 3)
    assert re.fullmatch(r"/weights\.(pth|npz): lacks \S+", lacks)
    assert unexpected == "has unexpected fc.weight"
    assert misshaped == f"has {bent} (2, 5), not {shapes[bent]}"


def test_a_file_without_resnet_s_input_norm_is_refused(tmp_path: Path) -> None:
    state = {name: t for name, t in fill(resnet_shapes()).items() if not name.startswith("b_in")}
    message = refusal(build_unet("resnet50v2-unet"), save(state, tmp_path / "weights.npz"))
    assert "lacks input_norm.weight, input_norm.bias and 2 more;" in message


def test_another_network_s_weights_are_refused_with_what_they_are_for(tmp_path: Path) -> None:
    path = save(fill(mobilenet_shapes(gluon=False)), tmp_path / "mobilenet_v2.pth")
    message = refusal(evaluated("mobilenetv2-unet"), path)
    assert "torchvision's fits mobilenetv2-torchvision-unet" in message
    message = refusal(evaluated("densenet121-unet"), path)
    assert "torchvision's densenet121" in message
    path = save(fill(densenet_shapes("densenet169")), tmp_path / "densenet169.pth")
    assert "features.denseblock3.denselayer25" in refusal(evaluated("densenet121-unet"), path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04N.", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_weight_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    for path in (tmp_path / "bad.pth", tmp_path / "missing.pth", tmp_path):
        assert "cannot be read" in refusal(evaluated("mobilenetv2-unet"), path)


@pytest.mark.parametrize("content", [[1], {"weight": 1}, {1: torch.zeros(1)}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    message = refusal(evaluated("mobilenetv2-unet"), tmp_path / "other.pth")
    assert "cannot be read" in message


class Intruder:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_code_in_a_weight_file_is_not_run(tmp_path: Path, suffix: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / f"bad{suffix}"
    if suffix == ".npz":
        arrays: dict[str, Any] = {"c0.weight": np.array([Intruder(mark)], dtype=object)}
        np.savez(path, **arrays)
    else:
        torch.save({"features.0.0.weight": Intruder(mark)}, path)
    refusal(evaluated("mobilenetv2-unet"), path)
    assert not mark.exists()
    # The file would have done it.
    if suffix == ".npz":
        with np.load(path, allow_pickle=True) as archive:
            archive["c0.weight"]
    else:
        torch.load(path, weights_only=False)
    assert mark.exists()
