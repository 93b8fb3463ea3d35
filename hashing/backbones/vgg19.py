"""torchvision's VGG-19 without batch norm, on public ImageNet weights or from scratch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn
from torchvision.models import vgg19

from bench.api.hashing import FeatureExtractor, backbone
from bench.api.paper import Paper
from hashing.backbones._imagenet import Pretrained, Published, blocks

CARD = Paper(
    title="Very Deep Convolutional Networks for Large-Scale Image Recognition",
    venue="ICLR",
    year=2015,
    url="https://arxiv.org/abs/1409.1556",
    follows="torchvision's network and ImageNet weights (vgg19-dcbb9e9d) up to the last layer but one: 4096 features"
    " after ReLU and dropout, cut as CIBA's code cuts VGG-11",
    deviates="images whose shorter side is below 32 pixels, the least that the network takes, are enlarged to that"
    " (bilinear); grey images take the place of all three colours",
)
LEAST = 32  # pixels


@backbone
class VGG19(Pretrained):
    """Stages: five blocks of convolutions, each up to its max-pooling; average pooling and two linear layers."""

    published: ClassVar[Published] = Published("vgg19", "vgg19-dcbb9e9d.pth", cut="classifier.6.")

    frozen: Annotated[int, Field(ge=0, le=6)] = 0

    def batch_norm(self) -> bool:
        return False

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:
        del image_shape
        net: nn.Module = vgg19(weights=None)
        return net

    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        network = self.filled(image_shape)
        return self.extractor(blocks(image_shape, LEAST, network), network.classifier[-1].in_features)
