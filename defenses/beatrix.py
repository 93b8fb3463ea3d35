"""Compare the products of a query's features with those of clean images of its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from jaxtyping import Float, Float64, Int64
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, Images, InputDetector, Rng, defense
from bench.api.types import Logits, to_unit
from defenses.helpers.code_posterior import nearest_anchor
from defenses.helpers.trigger_inversion import class_anchors
from hashing.model import HashModel

CARD = Card(
    name="Beatrix",
    title="The Beatrix Resurrections: Robust Backdoor Detection via Gram Matrices",
    venue="NDSS",
    year=2023,
    url="https://arxiv.org/abs/2209.11715",
    follows="Gram matrices of the maps that enter the last stage of the network (layer4 of a ResNet), of orders 1 to 8;"
    " for each predicted class, each entry has bounds of 10 median absolute deviations around its median over clean"
    " images; the deviation of a query is the sum of its relative excesses over these bounds; a class has a threshold,"
    " the 95 % quantile of a five-fold cross-validation. Formulas as in the released code",
    deviates="codes have no softmax: the predicted class is that of the nearest anchor; the score is the deviation"
    " divided by the threshold of the class, because HashDoor has one threshold for all classes; clean images are the"
    " fit half, with about ten of a class on digits instead of 30; the test that names the infected class (kernel"
    " maximum mean discrepancy) needs many queries at once and is left out; guess: entries that are equal in most clean"
    " images are left out: the paper's network has no ReLU there, while others have maps that are 0 in a whole class,"
    " whose bounds of 0 made the constant 1e-6 in the denominator decide (chosen on trusted images of digits, seeds 5"
    " and 7); guess: folds have all images (the released code leaves out the rest of a division by five), there are no"
    " more folds than images, and a class that fewer than four clean images are predicted as is compared with all",
)
BATCH = 50  # images
FEWEST = 4  # guess: median absolute deviations of fewer images say nothing
TINY = 1e-6  # the released code


@defense
class Beatrix(InputDetector):
    """The scores.

    relative: the deviation divided by the threshold of the predicted class.
    deviation: the paper's deviation.
    """

    orders: Annotated[int, Field(ge=1)] = 8  # the released code
    """Gram matrices have the orders 1 to this number."""
    width: PositiveFloat = 10.0  # the released code
    """Half the width of the bounds, in median absolute deviations."""
    folds: Annotated[int, Field(ge=2)] = 5  # the released code
    """Folds of the cross-validation that gives the threshold of a class."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95  # the paper
    """The threshold of a class is this quantile of the deviations of its clean images."""

    def fit(self, view: DefenderView, rng: Rng) -> Mapping[str, Tensor]:
        del rng  # nothing is drawn
        known = class_anchors(view.model, view.fit_set)
        logits, maps = watched(view.model, to_unit(view.fit_set.images))
        predicted = nearest_anchor(logits, known.codes)
        thresholds = torch.stack([self.threshold(maps[members(predicted, c)]) for c in range(len(known.codes))])
        return {"anchors": known.codes, "maps": maps, "predicted": predicted, "thresholds": thresholds}

    def threshold(self, maps: Float[Tensor, "m d p"]) -> Float64[Tensor, ""]:
        places, count = torch.arange(len(maps), device=maps.device), min(self.folds, len(maps))
        folds = [places * count // len(maps) == fold for fold in range(count)]
        found = torch.cat([self.deviations(maps[fold], maps[~fold]) for fold in folds])
        return found.sort().values[int(self.level * len(found))].clamp_min(TINY)

    def score(self, images: Images, model: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Float[Tensor, " n"]]:
        logits, maps = watched(model, images)
        classes = nearest_anchor(logits, state["anchors"])
        found = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        for c in torch.unique(classes).tolist():
            found[classes == c] = self.deviations(maps[classes == c], state["maps"][members(state["predicted"], c)])
        return {"relative": (found / state["thresholds"][classes]).float(), "deviation": found.float()}

    def deviations(self, maps: Float[Tensor, "n d p"], clean: Float[Tensor, "m d p"]) -> Float64[Tensor, " n"]:
        """How far the Gram matrices of the maps are outside the bounds of the clean ones."""
        total = torch.zeros(len(maps), dtype=torch.float64, device=maps.device)
        for gram, reference in zip(self.grams(maps), self.grams(clean), strict=True):
            median = reference.median(0).values
            spread = self.width * (reference - median).abs().median(0).values
            used = spread > 0  # see CARD
            median, spread, own = median[used], spread[used], gram[:, used]
            for excess, bound in ((median - spread - own, median - spread), (own - median - spread, median + spread)):
                total += (excess.clamp_min(0) / (bound + TINY).abs()).sum(1)
        return total / (maps.shape[1] ** 2 / 2 * self.orders)

    def grams(self, maps: Float[Tensor, "n d p"]) -> Iterator[Float64[Tensor, "n e"]]:
        """For each order r, the upper triangles of (F^r F^r')^(1/r); powers are taken entry by entry."""
        rows, columns = torch.triu_indices(maps.shape[1], maps.shape[1], device=maps.device)
        for order in range(1, self.orders + 1):
            powers = maps.double() ** order
            gram = (powers @ powers.transpose(1, 2))[:, rows, columns]
            yield gram.sign() * gram.abs() ** (1 / order)


def members(predicted: Int64[Tensor, " m"], c: int) -> Tensor:
    """The clean images of a class, as a mask."""
    own = predicted == c
    return own if int(own.sum()) >= FEWEST else torch.ones_like(own)


@torch.inference_mode()
def watched(model: nn.Module, images: Images) -> tuple[Logits, Float[Tensor, "n d p"]]:
    """Logits, and the maps that enter the last stage; for a transformer, the tokens."""
    assert isinstance(model, HashModel)
    blocks, seen = model.backbone.blocks, list[Tensor]()

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        del module
        seen.append((inputs[0].flatten(2) if inputs[0].dim() == 4 else inputs[0].transpose(1, 2)).clone())

    handle = blocks[len(blocks) - 1 - model.backbone.last_stage].register_forward_pre_hook(keep)
    try:
        logits = [model.eval()(some) for some in torch.split(images, BATCH)]
    finally:
        handle.remove()
    return torch.cat(logits), torch.cat(seen)
