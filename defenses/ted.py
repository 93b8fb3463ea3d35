"""Follow through the layers how near a query is to images of its class; a trigger brings it there only late."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import defense
from defenses.helpers.topology import Components, Layers, Topology, first_rank

CARD = Card(
    name="TED",
    title="Robust Backdoor Detection for Deep Learning via Topological Evolution Dynamics",
    venue="IEEE S&P",
    year=2024,
    url="https://arxiv.org/abs/2312.02673",
    follows="after each layer, the rank of the nearest clean image with the query's predicted class among all clean"
    " images (Euclidean distance of flattened activations); these ranks are scored by the PCA outlier detector of PyOD,"
    " fitted to the ranks of the clean images among each other; clean images are those that are predicted as their"
    " label. Layers as in the authors' notebook: convolutions larger than 1 x 1, ReLUs and linear layers",
    deviates="codes have no softmax: the predicted class is that of the nearest anchor; clean images are the fit half"
    " alone, with about ten images of a class on digits instead of at least 20; a module that runs several times counts"
    " each time; guess: a query whose class no clean image has gets the last rank plus 1 (the notebook leaves it out),"
    " and with fewer clean images than layers the PCA keeps 95 % of the variance, because Minka's estimate (`mle`)"
    " needs more",
)


@defense
class Ted(Topology):
    """Score: `topology`, the outlier score of the ranks."""

    def components(self, images: int, layers: int) -> Components:
        return "mle" if images >= layers > 1 else 0.95

    def ranks(
        self, layers: Layers, state: Mapping[str, Tensor], itself: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n layers"]:
        del state  # the clean images have no radius here
        return torch.stack([first_rank(found, layers.same, itself)[0] for found in layers.distances], 1)
