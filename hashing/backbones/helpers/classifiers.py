"""The base class of AlexNet and VGG: convolutions, then linear layers, of which the last is cut off."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated
from torch import nn

from bench.api.hashing import FeatureExtractor
from hashing.pretrained import Pretrained, entrance


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Classifier(Pretrained, ABC):
    """Blocks: the convolutions up to each max-pooling; average pooling and the linear layers except the last.

    least: smallest shorter side in pixels; smaller images are enlarged to it.
    """

    least: ClassVar[int]

    def batch_norm(self) -> bool:
        return False

    def chain(self, network: Any, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        blocks: list[nn.Module] = []
        layers = entrance(image_shape, at_least(image_shape, self.least))
        for layer in network.features:
            layers.append(layer)
            if isinstance(layer, nn.MaxPool2d):
                blocks.append(nn.Sequential(*layers))
                layers = []
        linear = nn.Sequential(network.avgpool, nn.Flatten(), *network.classifier[:-1])
        return self.extractor([*blocks, linear], network.classifier[-1].in_features, linear=1, last_stage=0)


def at_least(image_shape: tuple[int, int, int], side: int) -> tuple[int, int]:
    """Height and width, enlarged by a common factor if the shorter one is below `side`."""
    _, height, width = image_shape
    short = min(height, width)
    return (height, width) if short >= side else (round(height * side / short), round(width * side / short))
