"""The U-Net of "High Quality Monocular Depth Estimation via Transfer Learning".

Alhashim & Wonka, arXiv 1812.11941, section 3.1: a 1x1 convolution on the encoder's coarsest
feature, then per step bilinear up-sampling, concatenation with the skip, and two 3x3 convolutions,
with the number of filters halving; leaky ReLU of slope 0.2 after each of them, but, as that section
has it, not after the last step (the authors' code activates there too). Other than theirs, each 3x3
convolution has a batch norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.densenet import DenseNetEncoder
from training.models.encoder import Encoder
from training.models.mobilenet import MobileNetV2Encoder
from training.models.resnet import ResNet50V2Encoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SLOPE = 0.2


class UpBlock(nn.Module):
    """Up-sample to the skip's size, concatenate, convolve twice.

    Args:
        activate: end with a leaky ReLU, not with the norm.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, activate: bool
    ) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1, bias=False)
        self.norm_a = nn.BatchNorm2d(out_channels)
        self.conv_b = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_b = nn.BatchNorm2d(out_channels)
        self.activate = activate

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat((x, skip), dim=1)
        x = F.leaky_relu(self.norm_a(self.conv_a(x)), SLOPE)
        x = self.norm_b(self.conv_b(x))
        return F.leaky_relu(x, SLOPE) if self.activate else x


class UNet(nn.Module):
    """Encoder + decoder; predicts depth, as a target transform says it, at half the resolution.

    Args:
        encoder: whose finest feature has stride 2.
        bottleneck: channels of the 1x1 convolution; each step up halves it.
        last_activation: activate after the last step, too.
        initial_output: the head's bias, so that training starts near the data.

    Input: Nx3xHxW float in [0, 1], RGB. Output: Nx1xhxw float, where h and w are those of the
    encoder's finest feature.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: Encoder,
        bottleneck: int,
        last_activation: bool = False,
        initial_output: float = 0.85,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.encoder_frozen = False
        channels = encoder.channels
        self.bottleneck = nn.Conv2d(channels[-1], bottleneck, 1)
        blocks = []
        width = bottleneck
        for i in reversed(range(len(channels) - 1)):
            blocks.append(
                UpBlock(width, channels[i], width // 2, activate=i > 0 or last_activation)
            )
            width //= 2
        self.decoder = nn.ModuleList(blocks)
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.constant_(self.head.bias, initial_output)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> UNet:
        """Sets the mode of all but a frozen encoder, whose batch norms stay in evaluation."""
        super().train(mode)
        if self.encoder_frozen:
            self.encoder.eval()
            for name in self.encoder.fresh:
                self.encoder.get_submodule(name).train(mode)
        return self

    def forward(self, image: Tensor) -> Tensor:
        features = self.encoder((image - self.mean) / self.std)
        x = self.bottleneck(features[-1])
        for block, skip in zip(self.decoder, reversed(features[:-1]), strict=True):
            x = block(x, skip)
        out: Tensor = self.head(x)
        return out


def freeze_encoder(network: UNet) -> None:
    """Keeps the encoder as its weight file made it: neither weights nor batch statistics change.

    What such a file does not fill (`Encoder.fresh`) goes on learning with the decoder.
    """
    network.encoder_frozen = True
    network.encoder.requires_grad_(False)
    for name in network.encoder.fresh:
        network.encoder.get_submodule(name).requires_grad_(True)
    network.train(network.training)


@dataclass(frozen=True)
class Architecture:
    """An encoder and the decoder that goes with it; see `UNet`."""

    encoder: Callable[[], Encoder]
    bottleneck: int
    last_activation: bool = False


ARCHITECTURES = {
    # As in the paper: as many channels in the bottleneck as the encoder has.
    "densenet169-unet": Architecture(partial(DenseNetEncoder, 169), 1664),
    # No more than 512 channels anywhere in the decoder.
    "densenet169-unet-512": Architecture(partial(DenseNetEncoder, 169), 512),
    "densenet121-unet": Architecture(partial(DenseNetEncoder, 121), 1024),
    # Half of the encoder's 1024: its end is twice as fine as a DenseNet's, so four times the work.
    "resnet50v2-unet": Architecture(ResNet50V2Encoder, 512),
    # The published compact weights were trained with the last activation.
    "mobilenetv2-unet": Architecture(MobileNetV2Encoder, 256, last_activation=True),
    "mobilenetv2-torchvision-unet": Architecture(
        partial(MobileNetV2Encoder, expand_first=False), 256, last_activation=True
    ),
}


def build_unet(architecture: str, initial_output: float = 0.85) -> UNet:
    """Makes a network with random weights by its name in `ARCHITECTURES`.

    Args:
        initial_output: `Target.initial` of the target that it will predict.

    Raises:
        ValueError: unknown name.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture '{architecture}' is unknown; known: {', '.join(ARCHITECTURES)}"
        )
    chosen = ARCHITECTURES[architecture]
    return UNet(chosen.encoder(), chosen.bottleneck, chosen.last_activation, initial_output)
