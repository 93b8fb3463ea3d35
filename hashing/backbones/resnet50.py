"""torchvision's ResNet-50, with ImageNet weights or from scratch."""

from __future__ import annotations

from typing import ClassVar

from bench.api.card import Card
from bench.api.hashing import backbone
from hashing.backbones.helpers.resnet import ResNet
from hashing.pretrained import PretrainedWeights

CARD = Card(
    name="ResNet-50",
    title="Deep Residual Learning for Image Recognition",
    venue="CVPR",
    year=2016,
    url="https://arxiv.org/abs/1512.03385",
    follows="torchvision's network and ImageNet weights (resnet50-0676ba61) up to the global average pool",
    deviates="from scratch, images below 64 pixels get the stem 'small' (3x3, no pooling), as is customary on CIFAR-10;"
    " the channel of grey images is repeated three times. The weights are torchvision's first ones, which the hashing"
    " papers used; the later resnet50-11ad3fa6 can be given by its path",
)


@backbone
class ResNet50(ResNet):
    published: ClassVar[PretrainedWeights] = PretrainedWeights("resnet50", "resnet50-0676ba61.pth", cut="fc.")
