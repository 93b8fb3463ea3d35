"""Remove the training images that stick out along each class's main direction."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import DataFilter, DefenderView, Filtered, Rng, defense
from defenses.helpers.features import Space, by_label, embed, principal

CARD = Card(
    title="Spectral Signatures in Backdoor Attacks",
    venue="NeurIPS",
    year=2018,
    url="https://arxiv.org/abs/1811.00636",
    follows="features centred by their class's mean; squared projection on the top right singular vector; of each class"
    " the top 1.5 eps are removed and the model is trained again on the others",
    deviates="scores are percentiles inside the class, so that classes of different scale can be pooled; with several"
    " labels the largest percentile counts and one label suffices for removal; guess: eps = 0.1 for every attack, so"
    " that 15 % of every class goes, as in BackdoorBench (whose features are not centred). Where poison is more than"
    " half of its class the ranking inverts: theory says pi^2 for clean images and (1 - pi)^2 for poison",
)


@defense
class SpectralSignatures(DataFilter):
    eps: Annotated[float, Field(gt=0, lt=0.5)] = 0.1  # guess: bound on a class's poison share (BackdoorBench cuts 15 %)
    """Bound on the share of poison in a class; 1.5 times as many images are removed."""
    space: Space = "features"  # the paper's; "code": the relaxed code, METHODOLOGY.md#spectral_signatures
    """What is analysed: features before the hash layer, or relaxed codes."""

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        del rng
        embedded = embed(view, self.space)

        def judge(own: Int64[Tensor, " m"]) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
            squared = projections(embedded[own.to(embedded.device)]).cpu()
            removed = torch.zeros(len(own), dtype=torch.bool)
            removed[squared.argsort(descending=True, stable=True)[: int(1.5 * self.eps * len(own))]] = True
            return percentiles(squared), removed

        scores, removed = by_label(view.train.labels, judge, lowest=0.0)
        return Filtered(scores, ~removed)


def projections(embedded: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """Squared projections of the centred rows on their top right singular vector; zero where all rows are equal."""
    return principal(embedded, 1).square().sum(1)


def percentiles(values: Float64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Share of the values below each one, equals counted half."""
    from scipy.stats import rankdata

    return torch.from_numpy((rankdata(values.numpy()) - 0.5) / len(values)).float()
