"""torchvision's ResNet-18, from scratch or with ImageNet weights."""

from __future__ import annotations

from typing import ClassVar

from bench.api.card import Card
from bench.api.hashing import backbone
from hashing.backbones.helpers.resnet import ResNet
from hashing.pretrained import PretrainedWeights, Weights

CARD = Card(
    name="ResNet-18",
    title="Deep Residual Learning for Image Recognition",
    venue="CVPR",
    year=2016,
    url="https://arxiv.org/abs/1512.03385",
    follows="torchvision's network and ImageNet weights (resnet18-f37072fd) up to the global average pool",
    deviates="the default is training from scratch, because the network is used for small images; then images below 64"
    " pixels get the stem 'small' (3x3, no pooling), as is customary on CIFAR-10; with ImageNet weights the channel of"
    " grey images is repeated three times",
)


@backbone
class ResNet18(ResNet):
    published: ClassVar[PretrainedWeights] = PretrainedWeights("resnet18", "resnet18-f37072fd.pth", cut="fc.")

    weights: Weights = "none"  # unlike the papers, because the network is used for small images
