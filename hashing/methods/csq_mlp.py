"""CSQ with the head of the authors' network: three linear layers from features to logits."""

from __future__ import annotations

from torch import nn

from bench.api.card import Card
from bench.api.hashing import method
from hashing.methods.helpers.centres import CentreMethod

CARD = Card(
    name="CSQ (three layers)",
    title="Central Similarity Quantization for Efficient Image and Video Retrieval",
    venue="CVPR",
    year=2020,
    url="https://arxiv.org/abs/1908.00347",
    follows="as csq; the head is that of the authors' ResNets: two hidden layers as wide as the features, with ReLU,"
    " and dropout between them",
    deviates="as csq; no tanh after the last layer, since logits do not need it; the authors' AlexNet has no dropout in"
    " its head",
)


@method
class CSQThreeLayers(CentreMethod):
    def head(self, features: int, bits: int) -> nn.Module:
        hidden = [nn.Linear(features, features), nn.ReLU(), nn.Dropout(0.5), nn.Linear(features, features), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(features, bits))
