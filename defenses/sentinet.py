"""Paste the pixels behind a query's code onto clean images: a trigger takes the code along."""

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
from hashing.model import encode

CARD = Card(
    title="SentiNet: Detecting Localized Universal Attacks Against Deep Learning Systems",
    venue="IEEE Security and Privacy Workshops",
    year=2020,
    url="https://arxiv.org/abs/1812.00292",
    follows="Grad-CAM region above 15 % of its maximum, pasted onto clean images, inert noise in the same region; the"
    " share of images that take the query's code, over a quadratic boundary in how little the noise disturbs them",
    deviates="`cells` may ask for finer maps than the last convolution's: from the 2 x 2 positions that small images"
    " leave there, the region is the whole image, and every image fools; one code in place of several proposed"
    " classes, so the region is that of the code, without the difference to other classes' regions; the class is a"
    " Hamming ball (95 % of distances within a class), the confidence one minus the mean distance to the clean image's"
    " code; radius and boundary come from the fitting half, each image without itself as overlay: on the calibration"
    " half they would fit the very scores that set the threshold; higher over the boundary is more suspicious, in place"
    " of a distance to the curve with a margin; beyond the confidences seen the boundary stays level; fewer than 100"
    " overlays where the half is smaller",
)
BATCH = 50  # images whose region is found at once


@defense
class SentiNet(InputDetector):
    """Scores: `margin`, the fooled share over the boundary; `fooled`, the share alone."""

    overlays: Annotated[int, Field(ge=2)] = 100  # METHODOLOGY.md#sentinet, and the paper's order of size
    """Clean images that get the salient region of a query."""
    region: Share = 0.15  # of the saliency's maximum (the paper)
    """Share of the saliency's maximum from which a pixel is salient."""
    # 1: the last convolution, as published; more: the last maps at least as wide. 7, where ImageNet networks end, was
    # tried on attacked digits (AUROC .95 against .45), so that there it is exploratory
    cells: Annotated[int, Field(ge=1)] = 1
    """Least width and height of the saliency map."""
    quantile: PositiveShare = 0.95  # METHODOLOGY.md#sentinet: of the distances within a class; their radius
    """Quantile of the distances within a class that gives the radius of the class."""
    bins: Annotated[int, Field(ge=3)] = 10  # METHODOLOGY.md#sentinet: of the confidence, for the upper envelope
    """Bins of the confidence for the decision boundary."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return "" if backbone.convolutional() else "looks at maps of channels, and this backbone has none"

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
        """Fooled and confidence of METHODOLOGY.md#sentinet. skip: overlays that do not count for an image.

        One forward per image holds all that is pasted: memory does not grow with the batch, and neither do results
        depend on it.
        """
        model.eval()
        overlays, kept = state["overlays"], torch.ones(len(images), len(state["overlays"]), device=images.device)
        if skip is not None:
            kept = (~skip).float()
        region = salient(grad_cam(model, images, self.cells), self.region)
        fooled, intact = [], []
        for image, where in zip(images, region, strict=True):
            pasted = torch.where(where, image, overlays)
            inert = torch.where(where, state["noise"], overlays)
            logits = model(torch.cat([image[None], pasted, inert]))
            signs = torch.where(logits > 0, 1.0, -1.0)
            own, taken, disturbed = signs[:1], signs[1 : 1 + len(overlays)], signs[1 + len(overlays) :]
            fooled.append((distance(taken, own) <= state["radius"]).float())
            intact.append(1 - distance(disturbed, state["signs"]) / signs.shape[1])
        counts = kept.sum(1).clamp_min(1)
        return (torch.stack(fooled) * kept).sum(1) / counts, (torch.stack(intact) * kept).sum(1) / counts


def distance(one: Float[Tensor, "#n b"], other: Float[Tensor, "#n b"]) -> Float[Tensor, " n"]:
    """In bits."""
    return (one.shape[1] - (one * other).sum(1)) / 2


def within(signs: Float[Tensor, "n b"], split: Split, quantile: float) -> Float[Tensor, ""]:
    """The distance that this share of all pairs with a common label does not exceed."""
    distances = (signs.shape[1] - signs @ signs.T) / 2
    pairs = (split.labels.float() @ split.labels.float().T > 0).triu(1)
    found = distances[pairs].sort().values
    if not len(found):
        raise UserError("no two images of the fitting set share a label: make the data set's `trusted` larger")
    return found[ceil(quantile * len(found)) - 1].clone()


def boundary(fooled: Float[Tensor, " n"], confidence: Float[Tensor, " n"], bins: int) -> dict[str, Tensor]:
    """A quadratic through the upper envelope: each bin of the confidence gives the point with the largest share.

    Bins are of equal width over the confidences seen. With fewer than three points the curve is a line, or level.
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
    """The boundary at each confidence."""
    low, high = state["span"]
    x = confidence.clamp(low, high) - low
    a, b, c = state["curve"]
    height: Tensor = a + b * x + c * x**2
    return height
