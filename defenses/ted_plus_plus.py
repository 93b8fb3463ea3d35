"""TED, in which an image farther from its class than clean images are from each other gets the last rank."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import PositiveShare, defense
from defenses.helpers.topology import Components, Layers, Topology, first_rank

CARD = Card(
    name="TED++",
    title="TED++: Submanifold-Aware Backdoor Detection via Layerwise Tubular-Neighbourhood Screening",
    venue="arXiv",
    year=2025,
    url="https://arxiv.org/abs/2510.14299",
    follows="the authors' code: ranks as in `ted`; v is the nearest clean image of the predicted class. If the query is"
    " farther from v than the ceil(m / 2)-th nearest of the m clean images of that class, the rank is replaced by the"
    " largest one, the number of clean images minus 1 (locally adaptive ranking). The ranks are scored by PyOD's PCA"
    " detector with two components. Images with the same activations as v do not count for its radius; the ranks of"
    " clean images leave out the image itself, but the radius of v does not",
    deviates="codes have no softmax: the predicted class is that of the nearest anchor; m is the number of clean images"
    " of the class, which differs between classes, where the code draws equally many; a class without clean images gets"
    " the largest rank. guess: if no other image of the class has other activations, there is no radius, where the code"
    " fails; with fewer than two layers or images the PCA has one component. Only the abstract and the code of the"
    " paper were read",
)


@defense
class TedPlusPlus(Topology):
    """Score: `topology`, the outlier score of the ranks."""

    alpha: PositiveShare = 0.5  # the authors' code
    """Share of the clean images of a class that lie within the radius of each of them."""

    def components(self, images: int, layers: int) -> Components:
        return min(2, images, layers)

    def measure(self, layers: Layers) -> dict[str, Float[Tensor, "n layers"]]:
        """The radius of each clean image after each layer."""
        wanted = (self.alpha * layers.same.sum(1)).ceil().long()
        return {"radius": torch.stack([radii(found, layers.same, wanted) for found in layers.distances], 1)}

    def ranks(
        self, layers: Layers, state: Mapping[str, Tensor], itself: Int64[Tensor, " n"] | None
    ) -> Float[Tensor, "n layers"]:
        columns = []
        for found, radius in zip(layers.distances, state["radius"].T, strict=True):
            rank, distance, place = first_rank(found, layers.same, itself)
            last = float(found.shape[1] - 1)
            columns.append(torch.where(distance > radius[place], last, rank).clamp_max(last))
        return torch.stack(columns, 1)


def radii(
    distances: Float[Tensor, "n m"], same: Bool[Tensor, "n m"], wanted: Int64[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Distance of each image to the `wanted`-th nearest of its class (from 1), or to the last one; infinity: no other.

    Images at distance 0, such as the image itself, do not count.
    """
    others = torch.where(same & (distances > 0), distances, torch.inf).sort(1).values
    there = others.isfinite().sum(1)
    at = torch.minimum(wanted, there).clamp_min(1) - 1
    return others.gather(1, at[:, None])[:, 0]
