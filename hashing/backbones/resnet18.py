"""torchvision's ResNet-18, trained from scratch."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet18

from bench.api.hashing import Backbone, FeatureExtractor, backbone
from bench.api.paper import Paper
from bench.api.types import Images

CARD = Paper(
    title="Deep Residual Learning for Image Recognition",
    venue="CVPR",
    year=2016,
    url="https://arxiv.org/abs/1512.03385",
    follows="torchvision's network up to the global average pool",
    deviates="stem 'small' (3x3, no pooling) below 64 pixels, as is customary on CIFAR-10; no ImageNet weights",
)


@backbone
class ResNet18(Backbone):
    stem: Literal["auto", "imagenet", "small"] = "auto"  # auto: small below 64 pixels

    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        channels, height, width = image_shape
        small = self.stem == "small" or (self.stem == "auto" and min(height, width) < 64)
        return _ResNet(channels, small)


class _ResNet(FeatureExtractor):
    def __init__(self, channels: int, small: bool) -> None:
        super().__init__()
        network = resnet18(weights=None)
        self.features = network.fc.in_features
        network.fc = nn.Identity()
        if small:
            network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
            network.maxpool = nn.Identity()
        elif channels != 3:
            network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.network = network

    def forward(self, images: Images) -> Float[Tensor, "n d"]:
        out: Tensor = self.network(images)
        return out
