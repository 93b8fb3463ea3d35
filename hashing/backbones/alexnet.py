"""torchvision's AlexNet, on public ImageNet weights or from scratch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn
from torchvision.models import alexnet

from bench.api.hashing import FeatureExtractor, backbone
from bench.api.paper import Paper
from hashing.backbones._imagenet import Pretrained, Published, blocks

CARD = Paper(
    title="One weird trick for parallelizing convolutional neural networks",
    year=2014,
    url="https://arxiv.org/abs/1404.5997",
    follows="torchvision's AlexNet and ImageNet weights (alexnet-owt-7be5be79) up to the last layer but one: 4096"
    " features after ReLU; dropout stands before both fully connected layers that are kept",
    deviates="images whose shorter side is below 63 pixels, the least that the network takes, are enlarged to that"
    " (bilinear); grey images take the place of all three colours",
)
LEAST = 63  # pixels


@backbone
class AlexNet(Pretrained):
    """Stages: three blocks of convolutions, each up to its max-pooling; average pooling and two linear layers."""

    published: ClassVar[Published] = Published("alexnet", "alexnet-owt-7be5be79.pth", cut="classifier.6.")

    frozen: Annotated[int, Field(ge=0, le=4)] = 0

    def batch_norm(self) -> bool:
        return False

    def network(self, image_shape: tuple[int, int, int]) -> nn.Module:
        del image_shape
        net: nn.Module = alexnet(weights=None)
        return net

    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        network = self.filled(image_shape)
        return self.extractor(blocks(image_shape, LEAST, network), network.classifier[-1].in_features)
