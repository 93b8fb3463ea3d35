"""Paste the salient pixels of a query onto clean images; a trigger gives these images the code of the query."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, PositiveShare, Rng, Share, Split, defense
from bench.api.errors import UserError
from bench.api.hashing import Backbone, HashingMethod
from bench.api.types import to_unit
from defenses.helpers.saliency import grad_cam, salient
from hashing.inference import Inference, encode

CARD = Card(
    title="SentiNet: Detecting Localized Universal Attacks Against Deep Learning Systems",
    venue="IEEE Security and Privacy Workshops",
    year=2020,
    url="https://arxiv.org/abs/1812.00292",
    follows="the Grad-CAM region above 15 % of its maximum is pasted onto clean images, and inert noise into the same"
    " region; the score is the share of images that take the query's code, relative to a quadratic boundary in the"
    " confidence under noise",
    deviates="the maps are the last ones of at least 7 x 7 positions, which are those of the last convolution of"
    " ImageNet networks, as published; the last maps of small images have 2 x 2 positions, so that the region would be"
    " the whole image and every image would be fooled; one code replaces several proposed"
    " classes, so that no regions of other classes are subtracted; a class is a Hamming ball (95 % of the distances"
    " within a class), and the confidence is one minus the mean distance to the clean image's code; radius and boundary"
    " are fitted on the fit half, where no image is its own overlay, because the calibration half sets the threshold;"
    " the score is the height above the boundary, not a distance to the curve with a margin; the boundary is constant"
    " beyond the confidences of the fit half; there are fewer than 100 overlays if the half is smaller",
)
BATCH = 50  # images whose regions are computed at a time


@defense
class SentiNet(InputDetector):
    """Scores: `fooled`, the share of overlays that take the query's code; `margin`, `fooled` minus the boundary."""

    overlays: Annotated[int, Field(ge=2)] = 100  # METHODOLOGY.md#sentinet; similar in the paper
    """Clean images that get the salient region of a query."""
    region: Share = 0.15  # the paper
    """Share of the saliency's maximum from which a pixel is salient."""
    # Tried on attacked digits (AUROC .95; .45 with the last convolution), so results on digits are exploratory.
    cells: Annotated[int, Field(ge=1)] = 7
    """Least width and height of the saliency map: the last layer with such large maps is used; 1: last convolution."""
    quantile: PositiveShare = 0.95  # METHODOLOGY.md#sentinet
    """Quantile of the distances within a class that gives the radius of the class."""
    bins: Annotated[int, Field(ge=3)] = 10  # METHODOLOGY.md#sentinet
    """Number of bins of the confidence axis for the decision boundary."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return "" if backbone.convolutional() else "it needs maps of convolutions, and this backbone has none"

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        trusted, device = view.fit_set, view.fit_set.images.device
        signs = torch.where(encode(view.model, trusted.images, device=device) > 0, 1.0, -1.0).to(device)
        chosen = rng.child("overlays").permutation(len(trusted))[: self.overlays].to(device)
        overlays = to_unit(trusted.images[chosen])
        state = {
            "overlays": overlays,
            "noise": rng.child("noise").uniform(overlays.shape).to(device),  # guess: uniform; the same for all queries
            "signs": signs[chosen],
            "radius": within(signs, trusted, self.quantile),
        }
        itself = torch.arange(len(trusted), device=device)[:, None] == chosen
        with torch.no_grad():
            parts = [
                self.measure(to_unit(trusted.images[i : i + BATCH]), view.model, state, itself[i : i + BATCH])
                for i in range(0, len(trusted), BATCH)
            ]
        fooled, confidence = (torch.cat(part) for part in zip(*parts, strict=True))
        return {**state, **boundary(fooled, confidence, self.bins)}

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        fooled, confidence = self.measure(images, model, state)
        return {"margin": fooled - level(confidence, state), "fooled": fooled}

    def measure(
        self, images: Images, model: nn.Module, state: Mapping[str, Tensor], skip: Bool[Tensor, "n j"] | None = None
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """`fooled` and confidence of METHODOLOGY.md#sentinet. skip: overlays that do not count for an image.

        One forward pass per image has all its pasted versions, so that neither memory nor results depend on the batch.
        """
        model.eval()
        overlays, kept = state["overlays"], torch.ones(len(images), len(state["overlays"]), device=images.device)
        if skip is not None:
            kept = (~skip).float()
        region = salient(grad_cam(model, images, self.cells), self.region)
        inference = Inference(model, images.shape[1:])
        fooled, intact = [], []
        for image, where in zip(images, region, strict=True):
            pasted = torch.where(where, image, overlays)
            inert = torch.where(where, state["noise"], overlays)
            logits = inference.logits(torch.cat([image[None], pasted, inert]))
            signs = torch.where(logits > 0, 1.0, -1.0)
            own, taken, disturbed = signs[:1], signs[1 : 1 + len(overlays)], signs[1 + len(overlays) :]
            fooled.append((distance(taken, own) <= state["radius"]).float())
            intact.append(1 - distance(disturbed, state["signs"]) / signs.shape[1])
        counts = kept.sum(1).clamp_min(1)
        return (torch.stack(fooled) * kept).sum(1) / counts, (torch.stack(intact) * kept).sum(1) / counts


def distance(one: Float[Tensor, "#n b"], other: Float[Tensor, "#n b"]) -> Float[Tensor, " n"]:
    """Hamming distance in bits."""
    return (one.shape[1] - (one * other).sum(1)) / 2


def within(signs: Float[Tensor, "n b"], split: Split, quantile: float) -> Float[Tensor, ""]:
    """The quantile of the distances between images with a common label. UserError: there are no such images."""
    distances = (signs.shape[1] - signs @ signs.T) / 2
    pairs = (split.labels.float() @ split.labels.float().T > 0).triu(1)
    found = distances[pairs].sort().values
    if not len(found):
        raise UserError("no two images of the fit half share a label", "make the data set's `trusted` larger")
    return found[ceil(quantile * len(found)) - 1].clone()


def boundary(fooled: Float[Tensor, " n"], confidence: Float[Tensor, " n"], bins: int) -> dict[str, Tensor]:
    """A quadratic curve through the upper envelope: the point with the largest `fooled` in each bin of the confidence.

    Bins have equal widths over the confidences of the fit half. With two points the curve is a line, with one constant.
    """
    x, y = confidence.cpu().double(), fooled.cpu().double()
    low, high = x.min(), x.max()
    place = ((x - low) / (high - low).clamp_min(1e-12) * bins).long().clamp_max(bins - 1)
    inside = place == torch.arange(bins)[:, None]
    top = torch.where(inside, y, -1.0).argmax(1)[inside.any(1)]
    curve = torch.zeros(3, dtype=torch.float64)
    degree = min(3, len(top))
    powers = (x[top, None] - low) ** torch.arange(degree)
    curve[:degree] = torch.linalg.lstsq(powers, y[top, None], driver="gelsd").solution[:, 0]
    return {"curve": curve.float(), "span": torch.stack([low, high]).float()}


def level(confidence: Float[Tensor, " n"], state: Mapping[str, Tensor]) -> Float[Tensor, " n"]:
    """The value of the boundary at each confidence."""
    low, high = state["span"]
    x = confidence.clamp(low, high) - low
    a, b, c = state["curve"]
    height: Tensor = a + b * x + c * x**2
    return height
