"""A small four-block convolutional network that trains in seconds to minutes on one CPU core."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import gcd
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from bench.api.card import Card
from bench.api.hashing import Backbone, FeatureExtractor, backbone

CARD = Card(
    title="HashDoor's reference backbone for CPUs",
    year=2026,
    url="https://github.com/hashdoor/hashdoor",
    follows="3x3 convolution, normalisation, ReLU and 2x2 average pooling, four times",
    deviates="the network is not published; it has average pooling only, because global max-pooling makes every patch"
    " trigger look stronger than it is",
)


@backbone
class ConvNet(Backbone):
    width: Annotated[int, Field(ge=1)] = 24
    """Channels of the first block; the other blocks have 2, 4 and 4 times as many."""
    norm: Literal["batch", "group"] = "batch"
    """Normalisation: batch norm, or group norm for training without batch statistics."""

    def batch_norm(self) -> bool:
        return self.norm == "batch"

    def per_image(self) -> ConvNet:
        return replace(self, norm="group")

    def build(self, image_shape: tuple[int, int, int]) -> FeatureExtractor:
        widths = (image_shape[0], self.width, 2 * self.width, 4 * self.width, 4 * self.width)
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after) if self.norm == "batch" else nn.GroupNorm(gcd(8, after), after),
                nn.ReLU(inplace=True),
                # There is no padding, so that the flag changes no value. Without it, torch.compile computes too small
                # gradients for windows that overlap the border (pytorch issue 198119, torch 2.14).
                nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
            )
            for before, after in pairwise(widths)
        ]
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return FeatureExtractor([*blocks, pool], features=widths[-1])
