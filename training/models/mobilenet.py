"""MobileNetV2 as an encoder: five feature maps at strides 2, 4, 8, 16 and 32.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
Parameters carry torchvision's names, so that its published weight files load too.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

# (expansion t, channels c, repeats n, stride s) of each stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Index in `features` of the last block at each stride; 0 is the stem.
FEATURE_BLOCKS = (1, 3, 6, 13, 17)


def _conv_bn_relu6(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a residual where shapes allow."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, expansion: int, expand: bool
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expand:
            layers.append(_conv_bn_relu6(in_channels, hidden, kernel=1))
        layers += [
            _conv_bn_relu6(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2Encoder(nn.Module):
    """MobileNetV2 without its classifier.

    Args:
        expand_first: give the first block a 32->32 expand convolution too. MXNet Gluon's
            weights have one; torchvision's do not.

    Input: Nx3xHxW float, ImageNet-normalised. Output: a list of features, finest first,
    whose channels and strides are `channels` and `strides`.
    """

    channels = (16, 24, 32, 96, 320)
    strides = (2, 4, 8, 16, 32)

    def __init__(self, expand_first: bool = True) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_conv_bn_relu6(3, 32, stride=2)]
        in_channels = 32
        for expansion, out_channels, repeats, first_stride in STAGES:
            for i in range(repeats):
                expand = expansion != 1 or expand_first
                stride = first_stride if i == 0 else 1
                blocks.append(
                    InvertedResidual(in_channels, out_channels, stride, expansion, expand)
                )
                in_channels = out_channels
        self.features = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in FEATURE_BLOCKS:
                features.append(x)
        return features


def load_gluon_weights(encoder: MobileNetV2Encoder, path: str | Path) -> None:
    """Loads MXNet Gluon's ImageNet MobileNetV2 1.0 from an .npz into `encoder`, strictly.

    Names in the file: stem `c0`/`b0`; blocks `bl.I` with `c0`/`b0` expand, `c1`/`b1` depthwise,
    `c2`/`b2` project; the classifier's 1x1 head `c1`/`b1` is not used.

    Raises:
        ValueError: a parameter is missing or has another shape.
    """
    norm = {"g": "weight", "b": "bias", "m": "running_mean", "v": "running_var"}
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    state: dict[str, Tensor] = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"(?:bl\.(\d+)\.)?([cb])(\d)\.?(\w*)", name)
        if match is None:
            continue
        block, kind, index, field = match.groups()
        if block is None:
            if index != "0":
                continue
            prefix = "features.0.0" if kind == "c" else "features.0.1"
        elif index == "2":
            prefix = f"features.{int(block) + 1}.conv.{2 if kind == 'c' else 3}"
        else:
            prefix = f"features.{int(block) + 1}.conv.{index}.{0 if kind == 'c' else 1}"
        state[f"{prefix}.{norm.get(field, field) if kind == 'b' else 'weight'}"] = array
    try:
        missing, unexpected = encoder.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path}: not MobileNetV2 1.0 weights ({error})") from None
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"{path}: missing {missing[:3]}, unexpected {unexpected[:3]}")
