"""Remove the training images whose features lie in a sparser place than those of their neighbours, and train again."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import DataFilter, DefenderView, Filtered, Rng, Share, defense
from defenses.helpers.features import MARGIN, Space, embed, kept

CARD = Card(
    name="LOF",
    title="LOF: Identifying Density-Based Local Outliers",
    venue="SIGMOD",
    year=2000,
    url="https://doi.org/10.1145/342009.335388",
    follows="the local outlier factor of each training image, by scikit-learn: the mean density of its neighbours"
    " divided by its own, where the density is one over the mean reachability distance",
    deviates="the paper finds outliers in any data; its use on the features of a possibly poisoned training set is a"
    " plain baseline without labels: unlike spectral signatures and activation clustering, it can judge data sets whose"
    " images have many labels or none; guess: Euclidean distances of penultimate features, and 1.5 times a declared"
    " bound is removed, as in spectral signatures. Poison with more images in one place than `neighbours` is as dense"
    " as a class and is not found (20, scikit-learn's default, find little of 40 images), so that guess: neighbours are"
    " 1.25 times the images that the bound allows. This factor was chosen on the training sets of digits models with"
    " seed 0 (badnets and blend with 40 images); more neighbours than a class has images find little either",
)
MORE = 1.25  # guess: so that a fifth of the neighbours of poison are clean


@defense
class LocalOutliers(DataFilter):
    neighbours: Annotated[int, Field(ge=2)] | None = None  # guess: more than the poison (scikit-learn: 20)
    """Nearest training images that give the density around an image; default: 1.25 times the images of `bound`."""
    bound: Share = 0.05  # guess: the default of the other filters
    """Assumed upper bound of the poisoned share of the training set. The defense removes 1.5 times this share."""
    space: Space = "features"
    """Input of the analysis: features before the hash layer, or relaxed codes."""

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        del rng  # nothing is drawn
        embedded = embed(view, self.space).cpu()
        neighbours = self.neighbours or max(2, round(MORE * self.bound * len(embedded)))
        view.notes["neighbours"] = float(neighbours)
        scores = local_outlier_factors(embedded, neighbours)
        return Filtered(scores, kept(scores, MARGIN * self.bound))


def local_outlier_factors(embedded: Float[Tensor, "n d"], neighbours: int) -> Float[Tensor, " n"]:
    """About 1 inside an evenly dense region, larger for outliers."""
    from sklearn.neighbors import LocalOutlierFactor

    if len(embedded) == 1:
        return torch.ones(1)
    lof = LocalOutlierFactor(n_neighbors=min(neighbours, len(embedded) - 1)).fit(embedded.double().numpy())
    return torch.from_numpy(-lof.negative_outlier_factor_).float()
