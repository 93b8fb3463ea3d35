"""torchvision's ResNet-18, trained from scratch or on public ImageNet weights."""

from __future__ import annotations

from typing import ClassVar

from bench.api.card import Card
from bench.api.hashing import backbone
from hashing.backbones.helpers.resnet import ResNet
from hashing.pretrained import PretrainedWeights, Weights

CARD = Card(
    title="Deep Residual Learning for Image Recognition",
    venue="CVPR",
    year=2016,
    url="https://arxiv.org/abs/1512.03385",
    follows="torchvision's network and ImageNet weights (resnet18-f37072fd) up to the global average pool",
    deviates="from scratch by default, as the network for small images here;"
    " from scratch below 64 pixels the stem is 'small' (3x3, no pooling), as is customary on CIFAR-10; grey"
    " images take the place of all three colours of ImageNet weights",
)


@backbone
class ResNet18(ResNet):
    published: ClassVar[PretrainedWeights] = PretrainedWeights("resnet18", "resnet18-f37072fd.pth", cut="fc.")

    weights: Weights = "none"  # not as the papers: it is the network for small images here
