"""torchvision's AlexNet, with ImageNet weights or from scratch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from bench.api.card import Card
from bench.api.hashing import backbone
from hashing.backbones.helpers.classifiers import Classifier
from hashing.pretrained import PretrainedWeights

CARD = Card(
    name="AlexNet",
    title="One weird trick for parallelizing convolutional neural networks",
    year=2014,
    url="https://arxiv.org/abs/1404.5997",
    follows="torchvision's AlexNet and ImageNet weights (alexnet-owt-7be5be79) up to the last layer but one: 4096"
    " features after ReLU; both fully connected layers that are kept have dropout before them",
    deviates="images whose shorter side is below 63 pixels, the minimum of the network, are enlarged to it (bilinear);"
    " the channel of grey images is repeated three times",
)


@backbone
class AlexNet(Classifier):
    """Blocks: three groups of convolutions, each with its max-pooling; average pooling and two linear layers."""

    published: ClassVar[PretrainedWeights] = PretrainedWeights(
        "alexnet", "alexnet-owt-7be5be79.pth", cut="classifier.6."
    )
    least: ClassVar[int] = 63

    frozen: Annotated[int, Field(ge=0, le=4)] = 0
