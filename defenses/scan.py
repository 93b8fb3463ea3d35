"""Test whether the features of a class are two groups, and remove the one that has fewer trusted images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from pydantic import PositiveFloat
from torch import Tensor

from bench.api.card import Card
from bench.api.defense import DataFilter, DefenderView, Filtered, Rng, defense
from defenses.helpers.features import Space, by_label, embed, embed_images
from defenses.helpers.identities import STEPS, covariances, distances, expectation

CARD = Card(
    name="SCAn",
    title="Demon in the Variant: Statistical Analysis of DNNs for Robust Backdoor Contamination Detection",
    venue="USENIX Security",
    year=2021,
    url="https://arxiv.org/abs/1908.00686",
    follows="a feature is the sum of the identity of its class and a variation that all classes share; EM on clean"
    " images gives their covariances. In each class a mixture of two groups with this covariance is fitted to training"
    " and clean images; its likelihood ratio against one group is compared with those of the other classes (distance"
    " from the median, in units of 1.4826 median absolute deviations), and a class above e^2 is infected. As the"
    " authors' MATLAB code",
    deviates="the paper names infected classes; as in backdoor-toolbox and BackdoorBench, the group with fewer clean"
    " images is removed from an infected class, and the model is trained again; backdoor-toolbox has e instead of e^2,"
    " and both leave a factor out of the mean of a single group; clean images are the trusted set,"
    " with 20 of a class on digits; guess: with equally many clean images in both groups (as without"
    " any of the class) the smaller one is removed; guess: an identity is a set of labels with two clean"
    " images or more; an image with several labels is removed if one of them says so;"
    " the score of an image is the largest product of a class's index and the probability of the suspected group",
)


class Groups(NamedTuple):
    """The two groups of a class: which rows are suspected, their log-likelihood ratios, and the class's test."""

    suspected: Bool[Tensor, " n"]
    ratios: Float64[Tensor, " n"]
    statistic: float


@defense
class Scan(DataFilter):
    threshold: PositiveFloat = 7.3891  # e^2, the paper
    """A class with a larger anomaly index is infected."""
    space: Space = "features"  # the paper
    """Input of the analysis: features before the hash layer, or relaxed codes."""

    def judge(self, view: DefenderView, rng: Rng) -> Filtered:
        trusted = view.trusted_set
        clean = embed_images(view.model, trusted.images, self.space).double()
        rows, labels = embed(view, self.space).double(), view.train.labels.to(clean.device)
        between, within = covariances(clean, trusted.labels)
        centre = torch.cat([rows, clean]).mean(0)
        used = torch.nonzero(labels.any(0)).flatten().tolist()
        found = [
            groups(rows[labels[:, c]] - centre, clean[trusted.labels[:, c]] - centre, between, within, rng.child(c))
            for c in used
        ]
        indices = anomaly_indices(torch.tensor([each.statistic for each in found], dtype=torch.float64))
        view.notes["infected classes"] = float((indices > self.threshold).sum())
        view.notes["largest index"] = float(indices.max()) if used else 0.0
        view.notes["number of its class"] = float(used[int(indices.argmax())]) if used else -1.0
        verdicts = iter(zip(found, indices.tolist(), strict=True))

        def judge(own: Int64[Tensor, " m"]) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
            del own  # classes come in the order of `used`
            each, index = next(verdicts)
            return (index * each.ratios.sigmoid()).float(), each.suspected & (index > self.threshold)

        scores, removed = by_label(view.train.labels, judge, lowest=-1.0)
        return Filtered(scores, ~removed)


def groups(
    rows: Float64[Tensor, "n d"],
    clean: Float64[Tensor, "m d"],
    between: Float64[Tensor, "d d"],
    within: Float64[Tensor, "d d"],
    rng: Rng,
) -> Groups:
    """The two groups of a class, from a random start."""
    both, precision = torch.cat([rows, clean]), torch.linalg.pinv(within, hermitian=True)
    start = (rng.uniform((len(both),)) >= 0.5).to(rows.device)
    if start.all() or not start.any():  # no group is empty at the start, as in the authors' code
        start[0] = ~start[0]
    first, one, two = split(both, precision, start)
    ratios = 0.5 * (distances(both, two, precision) - distances(both, one, precision))
    single = distances(both, expectation(len(both), between, within, precision) @ both.sum(0), precision)
    own = torch.where(first, distances(both, one, precision), distances(both, two, precision))
    # the group with fewer trusted images is suspected; with equally many, the one with fewer training images
    sizes = [(int(own[len(rows) :].sum()), int(own[: len(rows)].sum())) for own in (first, ~first)]
    if sizes[0] > sizes[1]:
        first, ratios = ~first, -ratios
    return Groups(first[: len(rows)], ratios[: len(rows)], float((single - own).mean()))


def split(
    rows: Float64[Tensor, "n d"], precision: Float64[Tensor, "d d"], first: Bool[Tensor, " n"]
) -> tuple[Bool[Tensor, " n"], Float64[Tensor, " d"], Float64[Tensor, " d"]]:
    """The rows of the first of two groups and both means, by EM from a start; each row is in its nearer group."""
    one = two = rows.mean(0)
    for _ in range(STEPS):
        if first.all() or not first.any():
            break
        one, two = rows[first].mean(0), rows[~first].mean(0)
        before, first = first, distances(rows, one, precision) < distances(rows, two, precision)
        if torch.equal(first, before) or torch.equal(first, ~before):
            break
    return first, one, two


def anomaly_indices(values: Float64[Tensor, " k"]) -> Float64[Tensor, " k"]:
    """Distances from the median, in units of 1.4826 median absolute deviations; 0 if all deviations are 0."""
    if not len(values):
        return values
    gaps = (values - values.quantile(0.5)).abs()
    spread = float(gaps.quantile(0.5))
    return gaps / (1.4826 * spread) if spread > 0 else torch.zeros_like(values)
