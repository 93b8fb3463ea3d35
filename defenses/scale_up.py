"""Multiply the pixels of a query; a code that keeps its class at every brightness is a sign of a trigger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Rng, defense
from bench.api.types import to_unit
from defenses.helpers.code_posterior import label_votes, nearest_anchor
from hashing.inference import Inference

CARD = Card(
    title="SCALE-UP: An Efficient Black-box Input-level Backdoor Detection via Analyzing Scaled Prediction Consistency",
    venue="ICLR",
    year=2023,
    url="https://arxiv.org/abs/2302.03251",
    follows="scaled prediction consistency (SPC): the share of the images x, 2x, ..., 11x, clipped to [0, 1], that get"
    " the prediction of x, as in the released code; a high SPC is suspicious. In the data-limited variant SPC is"
    " standardised by mean and deviation over clean images of the predicted class",
    deviates="codes have no softmax: the prediction is the class with the nearest anchor; anchors need the labels of"
    " trusted images, so that `consistency`, the data-free variant, is not free of data here; a further score without"
    " labels, `bits`, is the mean share of bits that stay; the released code first adds noise of at most .02 to the"
    " images of Tiny-ImageNet, which is left out; BackdoorBox multiplies by 3, 5, 7, 9 and 11, and standardises over"
    " all classes together; guess: a deviation is at least one copy, because it is often 0 on few images; a class"
    " that no clean image is predicted as has the mean and deviation of all images",
)
BATCH = 50  # images


@defense
class ScaleUp(InputDetector):
    """The scores.

    consistency: share of the copies whose nearest anchor is that of the query (data-free variant).
    standardised: this share minus its mean over the fit images with the same nearest anchor, divided by the deviation
    (data-limited variant).
    bits: mean share of bits that the copies share with the query.
    """

    factors: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = tuple(range(1, 12))  # the released code
    """Factors by which the pixels are multiplied."""

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        del rng  # nothing is drawn
        images = view.fit_set.images
        anchors = torch.unique(label_votes(view.model, view.fit_set)[2], dim=0).to(images.device)
        inference = Inference(view.model, images.shape[1:])
        found = [self.measure(to_unit(part), inference, anchors) for part in torch.split(images, BATCH)]
        kept, _, classes = (torch.cat(part) for part in zip(*found, strict=True))
        mean, deviation = kept.mean().repeat(len(anchors)), kept.std(correction=0).repeat(len(anchors))
        for c in torch.unique(classes):
            mean[c], deviation[c] = kept[classes == c].mean(), kept[classes == c].std(correction=0)
        return {"anchors": anchors, "mean": mean, "deviation": deviation.clamp_min(1 / len(self.factors))}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        kept, bits, classes = self.measure(images, Inference(model, images.shape[1:]), state["anchors"])
        standardised = (kept - state["mean"][classes]) / state["deviation"][classes]
        return {"consistency": kept, "standardised": standardised, "bits": bits}

    def measure(
        self, images: Images, inference: Inference, anchors: Float[Tensor, "k b"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Tensor]:
        """Shares of copies that keep the class, mean shares of bits that stay, and the classes of the images."""
        logits = inference.logits(images)
        classes = nearest_anchor(logits, anchors)
        copies = torch.stack([inference.logits((images * factor).clamp(0, 1)) for factor in self.factors])
        kept = nearest_anchor(copies.flatten(0, 1), anchors).reshape(len(self.factors), -1) == classes
        same = ((copies > 0) == (logits > 0)).sum((0, 2)) / (len(self.factors) * logits.shape[1])
        return kept.sum(0) / len(self.factors), same, classes
