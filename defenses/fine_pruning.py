"""Prune the features that are least active on clean images, then fine-tune."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, PositiveShare, Repair, Rng, Share, defense
from bench.api.hashing import Backbone, HashingMethod
from defenses.helpers.fine_tuning import MAX_DROP, PEAKS, STEPS, Quality, Rates, Steps, quality, tuned_twice
from defenses.helpers.head_features import first_layer, mean_activations, remove, switched_off

CARD = Card(
    title="Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks",
    venue="RAID",
    year=2018,
    url="https://arxiv.org/abs/1805.12185",
    follows="the features that enter the last layer (channels of the last convolution after pooling) are pruned in the"
    " order of their mean activation on clean images, lowest first, until clean quality falls below a bound for the"
    " first time; then the network is fine-tuned on clean images",
    deviates="the last layer is the hash head, and its inputs are ordered by their mean absolute value: they are signed"
    " in ViT, and units of a linear layer in AlexNet and VGG; quality is leave-one-out mAP on the calibration half of"
    " the trusted set, not accuracy; guess: a bound of 4 % (the paper: the defender's choice; BackdoorBench: 10 % of"
    " the accuracy); fine-tuning as in fine_tuning, where the drop counts from the network before pruning",
)


@defense
class FinePruning(Repair):
    ratio: Share | None = None
    """Share of the features that is pruned; default: until `max_drop` is exceeded for the first time."""
    step: PositiveShare = 0.01  # BackdoorBench
    """Share of the features that is pruned at a time."""
    max_drop: Share = MAX_DROP
    """Largest accepted relative drop of mAP on the calibration images."""
    steps: Steps = STEPS
    """Least number of tuning steps; a larger trusted set has as many as in BackdoorBench. 0: no tuning."""
    peaks: Rates = PEAKS
    """Peak learning rates, as multiples of the victim's; the largest that `max_drop` allows counts."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del backbone
        with torch.device("meta"):
            head = method.head(2, 8)
        return "" if first_layer(head) else "it prunes inputs of a linear layer, and the hash head starts with another"

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        reference = quality(view.model, view.calibration_set)
        order = mean_activations(view.model, view.fit_set).argsort(stable=True)
        pruned = first(order, self._count(view, order, reference))
        view.notes["pruned share"] = float(pruned.float().mean())
        with switched_off(view.model, pruned):
            best = tuned_twice(
                view, view.model, rng, steps=self.steps, peaks=self.peaks, max_drop=self.max_drop, reference=reference
            ).on_both
        remove(best, pruned)
        return best

    def _count(self, view: DefenderView, order: Tensor, reference: Quality) -> int:
        """The number of features to prune; one always stays."""
        if self.ratio is not None:
            return min(round(self.ratio * len(order)), len(order) - 1)
        width = max(1, round(self.step * len(order)))
        allowed = 0
        for count in range(width, len(order), width):
            with switched_off(view.model, first(order, count)):
                if reference.drop_to(quality(view.model, view.calibration_set)) > self.max_drop:
                    break
            allowed = count
        return allowed


def first(order: Tensor, count: int) -> Bool[Tensor, " d"]:
    """A mask of the first `count` features of the order."""
    mask = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    mask[order[:count]] = True
    return mask
