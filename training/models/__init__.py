"""Networks: an encoder is a module that returns a list of features; a U-Net decodes them."""

from training.models.mobilenet import MobileNetV2Encoder
from training.models.unet import UNet, build_unet

__all__ = ["MobileNetV2Encoder", "UNet", "build_unet"]
