"""The base class of the ResNets, with a stem for large images and one for small images."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as validated
from torch import nn

from bench.api.hashing import FeatureExtractor
from hashing.pretrained import COLOURS, Colours, Pretrained

WIDTH = 64  # channels of the stem


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ResNet(Pretrained, ABC):
    """Blocks: the stem, layer1 to layer4, the pooling.

    stem: "imagenet" (7x7, stride 2, max-pooling) or "small" (3x3, no pooling, no public weights). "auto" is "small" for
    images below 64 pixels if the network is trained from scratch, else "imagenet".
    """

    frozen: Annotated[int, Field(ge=0, le=5)] = 0
    stem: Literal["auto", "imagenet", "small"] = "auto"
    """imagenet (7 x 7, stride 2, pooling), small (3 x 3), or auto: small if below 64 pixels and from scratch."""

    @model_validator(mode="after")
    def _stem_has_weights(self) -> ResNet:
        if self.stem == "small" and self.weights != "none":
            raise ValueError("stem = 'small' has no public weights: leave the stem out, or set weights = 'none'")
        return self

    def chain(self, network: Any, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        channels, height, width = image_shape
        first: list[nn.Module] = [network.conv1, network.bn1, network.relu, network.maxpool]
        if self.weights != "none":
            first = [Colours(), *first] if channels != COLOURS else first
        elif self.stem == "small" or (self.stem == "auto" and min(height, width) < 64):
            first = [nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False), network.bn1, network.relu]
        elif channels != COLOURS:
            first[0] = nn.Conv2d(channels, WIDTH, 7, stride=2, padding=3, bias=False)
        layers = (network.layer1, network.layer2, network.layer3, network.layer4)
        pool = nn.Sequential(network.avgpool, nn.Flatten())
        return self.extractor([nn.Sequential(*first), *layers, pool], network.fc.in_features)
