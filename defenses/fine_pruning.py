"""Prune the channels that clean images leave silent, then fine-tune."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor, nn

from bench.api.card import Card
from bench.api.defense import DefenderView, PositiveShare, Repair, Rng, Share, defense
from bench.api.hashing import Backbone, HashingMethod
from defenses.helpers.channels import mean_activations, remove, switched_off
from defenses.helpers.fine_tuning import RATES, Choice, Rates, calibration_map, fine_tuned

CARD = Card(
    title="Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks",
    venue="RAID",
    year=2018,
    url="https://arxiv.org/abs/1805.12185",
    follows="channels of the last convolution by mean activation on clean images, lowest first, as many as the bound on"
    " the drop of clean quality allows; then fine-tuning of the pruned network on clean images",
    deviates="quality is leave-one-out mAP on the calibration half of the trusted set instead of accuracy, with"
    " BackdoorBench's 10 % relative bound; tuning uses the victim's hash loss and optimiser with constant rate, chosen"
    " from a grid by the same mAP; guess: 10 epochs (BackdoorBench: 100, for classifiers); in residual networks the"
    " last block's branch is pruned",
)


@defense
class FinePruning(Repair):
    ratio: Share | None = None  # pruned share of the channels; None: as many as max_drop allows
    """Share of the channels that is pruned; default: as many as `max_drop` allows."""
    max_drop: Share = 0.1  # BackdoorBench, config/defense/fp: relative drop of clean quality
    """Largest accepted relative drop of mAP on the calibration images."""
    step: PositiveShare = 0.01  # BackdoorBench: share of the channels pruned at a time
    """Share of the channels that is pruned at a time."""
    epochs: Annotated[int, Field(ge=0)] = 10  # guess: see CARD; 0 prunes only
    """Epochs of fine-tuning after pruning; 0 prunes only."""
    lr: Rates = RATES
    """Learning rates that are tried."""
    choose: Choice = "best"  # "strongest": the largest rate within the bound; METHODOLOGY.md#operating-points
    """Which tried rate is kept: the best mAP, or the largest rate within the accepted drop."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return "" if backbone.convolutional() else "prunes channels, and this backbone hands on tokens"

    def repair(self, view: DefenderView, rng: Rng) -> nn.Module:
        reference = calibration_map(view.model, view.calibration_set)
        order = mean_activations(view.model, view.fit_set).argsort(stable=True)
        pruned = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        pruned[order[: self._count(view, order, reference)]] = True
        view.notes["pruned share"] = float(pruned.float().mean())
        with switched_off(view.model, pruned):
            tuned = partial(fine_tuned, view, view.model, rng, rates=self.lr, choose=self.choose)
            best = tuned(epochs=self.epochs, reference=reference)  # the drop counts from the network before pruning
        remove(best, pruned)
        return best

    def _count(self, view: DefenderView, order: Tensor, reference: float) -> int:
        """How many channels to prune, least active first; the last one always stays."""
        if self.ratio is not None:
            return min(round(self.ratio * len(order)), len(order) - 1)
        floor = (1 - self.max_drop) * reference
        width = max(1, round(self.step * len(order)))
        for count in reversed(range(width, len(order), width)):  # quality need not fall steadily: the strongest counts
            off: Bool[Tensor, " d"] = torch.zeros(len(order), dtype=torch.bool, device=order.device)
            off[order[:count]] = True
            with switched_off(view.model, off):
                if calibration_map(view.model, view.calibration_set) >= floor:
                    return count
        return 0
