"""Remove the training images that are outliers on the first singular vector of the features of their class."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import DataFilter, DefenderView, Filtered, Rng, Share, defense
from defenses.helpers.features import MARGIN, Space, by_label, embed, percentiles, principal

CARD = Card(
    name="Spectral Signatures",
    title="Spectral Signatures in Backdoor Attacks",
    venue="NeurIPS",
    year=2018,
    url="https://arxiv.org/abs/1811.00636",
    follows="features are centred by the mean of their class; the score is the squared projection on the top right"
    " singular vector; 1.5 times the largest number of poisoned images that the defender expects is removed from each"
    " class, and the model is trained again on the others",
    deviates="the number is a share of the training set, and at most half of a class is removed, as in"
    " backdoor-toolbox; scores are percentiles inside the class, so that classes of different scale can be pooled; an"
    " image with several labels gets the largest percentile and is removed if one label says so; guess: a bound of 5 %,"
    " the dose of most suites (the paper knows the number). BackdoorBench and ART also centre the features for the"
    " singular vector, but project uncentred features. The ranking inverts if poison is more than half of its class: in"
    " theory clean images score pi^2 and poison (1 - pi)^2, with pi the share of poison",
)


@defense
class SpectralSignatures(DataFilter):
    bound: Share = 0.05  # guess: see CARD
    """Assumed largest number of poisoned images, as a share of the training set."""
    space: Space = "features"  # the paper; METHODOLOGY.md#spectral_signatures
    """Input of the analysis: features before the hash layer, or relaxed codes."""

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        del rng
        embedded = embed(view, self.space)
        most = int(MARGIN * self.bound * len(view.train))

        def judge(own: Int64[Tensor, " m"]) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
            squared = projections(embedded[own.to(embedded.device)]).cpu()
            removed = torch.zeros(len(own), dtype=torch.bool)
            removed[squared.argsort(descending=True, stable=True)[: min(most, len(own) // 2)]] = True
            return percentiles(squared), removed

        scores, removed = by_label(view.train.labels, judge, lowest=0.0)
        return Filtered(scores, ~removed)


def projections(embedded: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """Squared projections of the centred rows on their top right singular vector; zero if all rows are equal."""
    return principal(embedded, 1).square().sum(1)
