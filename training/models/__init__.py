"""Networks: an encoder is a module that returns a list of features; a U-Net decodes them."""

from training.models.densenet import DenseNetEncoder
from training.models.encoder import Encoder
from training.models.mobilenet import MobileNetV2Encoder
from training.models.pretrained import load_encoder
from training.models.resnet import ResNet50V2Encoder
from training.models.unet import ARCHITECTURES, UNet, build_unet, freeze_encoder

__all__ = [
    "ARCHITECTURES",
    "DenseNetEncoder",
    "Encoder",
    "MobileNetV2Encoder",
    "ResNet50V2Encoder",
    "UNet",
    "build_unet",
    "freeze_encoder",
    "load_encoder",
]
