"""ResNet-50 v2 up to its third stage as an encoder: features at strides 2, 4, 8 and 16.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016: norm and ReLU come before each
convolution. Details are those of MXNet Gluon's `resnet50_v2`, whose weights load: the input has a
batch norm, a bottleneck's 3x3 convolution has the stride, and the shortcut of a stage's first block
is a strided 1x1 convolution of the normed and activated input.

Between stages nothing has been normed (channels deviate by 0.1 around a negative mean), so a
feature is taken after the norm and ReLU that the next stage begins with. The third stage's own,
`norms.3`, stands where the absent fourth stage would begin and is learned with the decoder.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.encoder import Encoder

STEM = 64
# (channels, blocks, stride) of each stage.
STAGES = ((256, 3, 1), (512, 4, 2), (1024, 6, 2))


class Bottleneck(nn.Module):
    """Three convolutions, 1x1, 3x3 and 1x1, added to the input.

    Args:
        stride: None for an identity shortcut. A number for a projection: then the input must have
            been normed and activated, because both branches see it so.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int | None = None) -> None:
        super().__init__()
        hidden = out_channels // 4
        self.norm1: nn.Module | None = None
        self.downsample: nn.Module | None = None
        if stride is None:
            self.norm1 = nn.BatchNorm2d(in_channels)
        else:
            self.downsample = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride or 1, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.norm1 is not None:
            x = F.relu(self.norm1(x), inplace=True)
        x = F.relu(self.norm2(self.conv1(x)), inplace=True)
        x = F.relu(self.norm3(self.conv2(x)), inplace=True)
        out: Tensor = shortcut + self.conv3(x)
        return out


class ResNet50V2Encoder(Encoder):
    """ResNet-50 v2 without its fourth stage and classifier."""

    channels = (STEM, *(channels for channels, _, _ in STAGES))
    strides = (2, 4, 8, 16)
    weights = "MXNet Gluon's resnet50_v2, stages 1 to 3 (.npz)"
    fresh = (f"norms.{len(STAGES)}",)

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(STEM)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in self.channels)
        stages, in_channels = [], STEM
        for channels, blocks, stride in STAGES:
            first = Bottleneck(in_channels, channels, stride)
            rest = (Bottleneck(channels, channels) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *rest))
            in_channels = channels
        self.stages = nn.ModuleList(stages)

    def own_name(self, published: str) -> str | None:
        """The file counts from 0: norms `b0` to `b2`, convolutions `c0` to `c2`, stages `st.0` on;
        `b_in`, `c0` and `b1` are the stem, `ds` is the shortcut.
        """
        stem = {"b_in": "input_norm", "c0": "conv", "b1": "norm"}
        module, _, tensor = published.rpartition(".")
        if module in stem:
            return f"{stem[module]}.{tensor}"
        match = re.fullmatch(r"st\.(\d+)\.(\d+)\.(?:(ds)|([bc])(\d))", module)
        if match is None:
            return published
        stage, block, shortcut, kind, index = match.groups()
        if (block, kind, index) == ("0", "b", "0"):
            return f"norms.{stage}.{tensor}"
        part = "downsample" if shortcut else {"b": "norm", "c": "conv"}[kind] + str(int(index) + 1)
        return f"stages.{stage}.{block}.{part}.{tensor}"

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.norm(self.conv(self.input_norm(x))), inplace=True)
        features = [x]
        x = F.relu(self.norms[0](self.pool(x)), inplace=True)
        for stage, norm in zip(self.stages, self.norms[1:], strict=True):
            x = F.relu(norm(stage(x)), inplace=True)
            features.append(x)
        return features
