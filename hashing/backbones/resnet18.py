"""torchvision's ResNet-18, trained from scratch."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torchvision.models import resnet18

from bench.api.hashing import Backbone, FeatureExtractor, backbone
from bench.api.paper import Paper

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
        network = resnet18(weights=None)
        first: list[nn.Module] = [network.conv1, network.bn1, network.relu, network.maxpool]
        if small:
            first = [nn.Conv2d(channels, 64, 3, padding=1, bias=False), network.bn1, network.relu]
        elif channels != 3:
            first[0] = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        pool = nn.Sequential(network.avgpool, nn.Flatten())
        return FeatureExtractor([nn.Sequential(*first), *layers, pool], features=network.fc.in_features)
