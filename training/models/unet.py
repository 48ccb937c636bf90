"""The U-Net of "High Quality Monocular Depth Estimation via Transfer Learning".

Alhashim & Wonka, arXiv 1812.11941, section 3.1: a 1x1 convolution on the encoder's coarsest
feature, then per step bilinear up-sampling, concatenation with the skip, and two 3x3 convolutions,
with the number of filters halving; leaky ReLU of slope 0.2 except after the last convolution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.mobilenet import MobileNetV2Encoder, load_gluon_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(Protocol):
    """What a U-Net needs of an encoder."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, x: Tensor) -> list[Tensor]: ...


class UpBlock(nn.Module):
    """Up-sample to the skip's size, concatenate, convolve twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1, bias=False)
        self.norm_a = nn.BatchNorm2d(out_channels)
        self.conv_b = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_b = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat((x, skip), dim=1)
        x = F.leaky_relu(self.norm_a(self.conv_a(x)), 0.2)
        return F.leaky_relu(self.norm_b(self.conv_b(x)), 0.2)


class UNet(nn.Module):
    """Encoder + decoder; predicts the natural logarithm of depth at half the input resolution.

    Args:
        encoder: a module that returns features, finest (stride 2) first.
        bottleneck: channels of the 1x1 convolution; each step up halves it.
        mean_log_depth: initial value of the output, so that training starts near the data.

    Input: Nx3xHxW float in [0, 1], RGB. Output: Nx1xhxw float, log metres, where h and w are those
    of the encoder's finest feature.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, bottleneck: int, mean_log_depth: float = 0.85) -> None:
        super().__init__()
        self.encoder = encoder
        channels: tuple[int, ...] = encoder.channels  # type: ignore[assignment]
        self.bottleneck = nn.Conv2d(channels[-1], bottleneck, 1)
        blocks = []
        width = bottleneck
        for skip_channels in reversed(channels[:-1]):
            blocks.append(UpBlock(width, skip_channels, width // 2))
            width //= 2
        self.decoder = nn.ModuleList(blocks)
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.constant_(self.head.bias, mean_log_depth)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        features = self.encoder((image - self.mean) / self.std)
        x = self.bottleneck(features[-1])
        for block, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            x = block(x, skip)
        out: Tensor = self.head(x)
        return out


def build_unet(architecture: str, encoder_weights: str | Path | None = None) -> UNet:
    """Makes a network by name: `mobilenetv2-unet` (2.6 M parameters).

    Args:
        encoder_weights: ImageNet weights of the encoder; None leaves it random.

    Raises:
        ValueError: unknown name, or the weights do not fit.
    """
    if architecture != "mobilenetv2-unet":
        raise ValueError(f"architecture '{architecture}' is unknown; known: mobilenetv2-unet")
    encoder = MobileNetV2Encoder(expand_first=True)
    if encoder_weights is not None:
        load_gluon_weights(encoder, encoder_weights)
    return UNet(encoder, bottleneck=256)
