"""DenseNet as an encoder: five feature maps at strides 2, 4, 8, 16 and 32.

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, table 1 (DenseNet-BC, growth
rate 32). Parameters carry torchvision's names, so that its published weight files load.

The features are those that Alhashim & Wonka (arXiv 1812.11941, table of the network) concatenate:
the activated first convolution, the three poolings after it, and the activated end.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from torch import Tensor, cat, nn
from torch.nn import functional as F

from training.models.encoder import Encoder

# Dense layers in each of the four blocks.
LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32)}
STEM, GROWTH = 64, 32
# Channels of a layer's 1x1 convolution, in growth rates.
WIDENING = 4
FEATURES = ("relu0", "pool0", "transition1", "transition2", "relu5")


class DenseLayer(nn.Module):
    """Appends `GROWTH` channels, computed from all channels so far, to its input."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        hidden = WIDENING * GROWTH
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.norm1(x), inplace=True))
        new = self.conv2(F.relu(self.norm2(new), inplace=True))
        return cat((x, new), dim=1)


def _transition(in_channels: int) -> nn.Sequential:
    """Halves the channels and the resolution."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(in_channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(in_channels, in_channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


class DenseNetEncoder(Encoder):
    """DenseNet-121 or -169 without its classifier.

    Args:
        depth: 121 or 169.
    """

    strides = (2, 4, 8, 16, 32)

    def __init__(self, depth: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, STEM, 7, stride=2, padding=3, bias=False),
            norm0=nn.BatchNorm2d(STEM),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels, width = [STEM, STEM], STEM
        for block, count in enumerate(LAYERS[depth], 1):
            layers[f"denseblock{block}"] = nn.Sequential(
                OrderedDict(
                    (f"denselayer{i + 1}", DenseLayer(width + i * GROWTH)) for i in range(count)
                )
            )
            width += count * GROWTH
            if block < len(LAYERS[depth]):
                layers[f"transition{block}"] = _transition(width)
                width //= 2
                channels.append(width)
        layers["norm5"] = nn.BatchNorm2d(width)
        layers["relu5"] = nn.ReLU(inplace=True)
        self.features = nn.Sequential(layers)
        # The last transition, at stride 32 like the end, is no feature.
        self.channels = (*channels[:-1], width)
        self.weights = f"torchvision's densenet{depth} (.pth)"

    def own_name(self, published: str) -> str | None:
        if published.startswith("classifier."):
            return None
        # The published files are older than torch's rule that a module's name has no dot.
        return re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", published)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for name, module in self.features.named_children():
            x = module(x)
            if name in FEATURES:
                features.append(x)
        return features
