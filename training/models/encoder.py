"""What a U-Net and a weight file need to know of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A classification network without its classifier.

    Input: Nx3xHxW float, ImageNet-normalised. Output: a list of features, finest first.

    Attributes:
        channels: of each feature.
        strides: of each feature; sizes that they do not divide are rounded, up or down.
        weights: the published ImageNet weights that fit, in words.
        fresh: submodules that those weights do not fill, and that therefore always need training.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    weights: str
    fresh: tuple[str, ...] = ()

    @abstractmethod
    def own_name(self, published: str) -> str | None:
        """Our name of a tensor in the published file; None where we do not use it."""

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]: ...
