"""MobileNetV2 as an encoder: five feature maps at strides 2, 4, 8, 16 and 32.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
Parameters carry torchvision's names. MXNet Gluon's network is the same but for an expand
convolution in the first block, too.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from training.models.encoder import Encoder

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


class MobileNetV2Encoder(Encoder):
    """MobileNetV2 without its classifier.

    Args:
        expand_first: give the first block a 32->32 expand convolution too, as MXNet Gluon does;
            torchvision does not.
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
        self.expand_first = expand_first
        self.weights = (
            "MXNet Gluon's mobilenetv2_1.0 (.npz; torchvision's fits mobilenetv2-torchvision-unet)"
            if expand_first
            else "torchvision's mobilenet_v2 (.pth; Gluon's fits mobilenetv2-unet)"
        )

    def own_name(self, published: str) -> str | None:
        """Gluon's file: stem `c0`, `b0`; blocks `bl.I` with `c0`, `b0` expand, `c1`, `b1`
        depthwise, `c2`, `b2` project. Its head `c1`, `b1` and torchvision's are not used.
        """
        if not self.expand_first:
            head = published.startswith((f"features.{len(self.features)}.", "classifier."))
            return None if head else published
        match = re.fullmatch(r"(?:bl\.(\d+)\.)?([cb])(\d)\.(\w+)", published)
        if match is None:
            return published
        block, kind, index, tensor = match.groups()
        norm = int(kind == "b")
        if block is None:
            return f"features.0.{norm}.{tensor}" if index == "0" else None
        part = f"{2 + norm}" if index == "2" else f"{index}.{norm}"
        return f"features.{int(block) + 1}.conv.{part}.{tensor}"

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in FEATURE_BLOCKS:
                features.append(x)
        return features
