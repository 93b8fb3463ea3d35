"""torchvision's VGG-11 without batch norm, with ImageNet weights or from scratch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import backbone
from hashing.backbones.helpers.classifiers import Classifier
from hashing.pretrained import PretrainedWeights

CARD = Card(
    name="VGG-11",
    title="Very Deep Convolutional Networks for Large-Scale Image Recognition",
    venue="ICLR",
    year=2015,
    url="https://arxiv.org/abs/1409.1556",
    follows="torchvision's network and ImageNet weights (vgg11-8a719046) up to the last layer but one: 4096 features"
    " after ReLU and dropout, the cut of CIBA's code",
    deviates="images whose shorter side is below 32 pixels, the minimum of the network, are enlarged to it (bilinear);"
    " the channel of grey images is repeated three times",
)


@backbone
class VGG11(Classifier):
    """Blocks: five groups of convolutions, each with its max-pooling; average pooling and two linear layers."""

    published: ClassVar[PretrainedWeights] = PretrainedWeights("vgg11", "vgg11-8a719046.pth", cut="classifier.6.")
    least: ClassVar[int] = 32

    frozen: Annotated[int, Field(ge=0, le=6)] = 0
