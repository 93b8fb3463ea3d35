"""Estimate the covariance of each class's clean features robustly, and remove the images that inflate it most."""

from __future__ import annotations

from math import isqrt
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import DataFilter, DefenderView, Filtered, Rng, Share, defense
from defenses.helpers.features import MARGIN, Space, by_label, embed, percentiles, principal
from defenses.helpers.robust_covariance import ROUNDING, covariance, robust_rows, whitened

CARD = Card(
    title="SPECTRE: Defending Against Backdoor Attacks Using Robust Statistics",
    venue="ICML",
    year=2021,
    url="https://arxiv.org/abs/2104.11315",
    follows="the features of a class are projected on their first k principal components, whitened by a robust estimate"
    " of the clean covariance (the filter of Diakonikolas et al., 2017, which leaves out at most twice the expected"
    " number of poisons) and scored by their quantum entropy (QUE, alpha = 4); 1.5 times the expected number is removed"
    " and the model is trained again. k is the one of 1, 4, 9, ..., 100 after whose removal the mean QUE of the class,"
    " whitened by the covariance of the images that stay, is largest. All as in the authors' Julia code",
    deviates="the paper filters the class of the target; here every class is filtered, with the bound, the limit of"
    " half a class and the percentiles of spectral_signatures, so that the two can be compared. The expected number of"
    " poisons is therefore at most a third of a class; guess: five images must stay for each component, because images"
    " that are left out of a covariance of as many components as images are always outliers. On the training sets of"
    " digits models with seeds 5 and 7 (badnets, blend, ciba) two images removed as much poison, 20 and more (the"
    " authors have 45) as little as spectral_signatures, because one component was left. The Python ports in"
    " backdoor-toolbox and BackdoorBench take the exponential of the entries, not of the matrix",
)


@defense
class Spectre(DataFilter):
    bound: Share = 0.05  # guess: that of spectral_signatures
    """Assumed largest number of poisoned images, as a share of the training set."""
    alpha: PositiveFloat = 4.0  # the paper
    """Strength of QUE: 0 is the mean of all directions, infinity the direction of largest variance."""
    dims: Annotated[int, Field(ge=1)] = 100  # the authors' code
    """Largest number of components; squares up to it are tried."""
    rows: Annotated[int, Field(ge=1)] = 5  # guess: see CARD
    """Least number of remaining images for each component."""
    space: Space = "features"  # the paper
    """Input of the analysis: features before the hash layer, or relaxed codes."""

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        del rng  # nothing is drawn
        embedded = embed(view, self.space)
        most, chosen = int(MARGIN * self.bound * len(view.train)), list[int]()

        def judge(own: Int64[Tensor, " m"]) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
            count = min(most, len(own) // 2)
            side = isqrt(max(1, min(self.dims, (len(own) - count) // self.rows)))
            components = principal(embedded[own.to(embedded.device)], side**2).cpu().numpy()
            k, scores, removed = self.best(components, count)
            chosen.append(k)
            return percentiles(torch.from_numpy(scores)), torch.from_numpy(removed)

        scores, removed = by_label(view.train.labels, judge, lowest=0.0)
        view.notes["mean number of components"] = float(np.mean(chosen)) if chosen else 0.0
        return Filtered(scores, ~removed)

    def best(
        self, components: Float64[np.ndarray, "n d"], count: int
    ) -> tuple[int, Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Number of components, scores, and the `count` rows to remove."""
        found, highest = (0, np.zeros(len(components)), top(np.zeros(len(components)), count)), -np.inf
        for k in (side**2 for side in range(1, isqrt(components.shape[1]) + 1)):
            scores = self.scores(components[:, :k], count / MARGIN)
            removed = top(scores, count)
            white = whitened(components, covariance(components[~removed], 1))
            if (level := float(self.entropies(white).mean())) > highest:
                found, highest = (k, scores, removed), level
        return found

    def scores(self, components: Float64[np.ndarray, "n k"], expected: float) -> Float64[np.ndarray, " n"]:
        """QUE scores of the rows, whitened by the covariance of the rows that the robust estimate keeps."""
        if components.shape[1] == 1:
            return components[:, 0] ** 2
        clean = robust_rows(components, expected / len(components), round(2 * expected))
        return self.entropies(whitened(components, covariance(components[clean], 0)))

    def entropies(self, white: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
        """QUE scores x'Qx, with Q = exp(alpha (S - I) / (|S| - 1)) / trace; S is the covariance, |S| its norm."""
        values, vectors = np.linalg.eigh(covariance(white, 1))
        excess = values[-1] - 1
        weights = np.exp(self.alpha * ((values - 1) / excess - 1)) if excess > ROUNDING else np.ones(len(values))
        return np.asarray((white @ vectors) ** 2 @ weights / weights.sum())


def top(scores: Float64[np.ndarray, " n"], count: int) -> Bool[np.ndarray, " n"]:
    """The rows with the highest scores; of equal ones the first."""
    removed = np.zeros(len(scores), dtype=bool)
    removed[np.argsort(-scores, kind="stable")[:count]] = True
    return removed
