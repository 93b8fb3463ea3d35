"""Prune the channels that are least active on clean images, then fine-tune."""

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
    follows="channels of the last convolution are pruned in the order of their mean activation on clean images, lowest"
    " first, as many as the bound on the drop of clean quality allows; then the network is fine-tuned on clean images",
    deviates="quality is leave-one-out mAP on the calibration half of the trusted set, not accuracy, with"
    " BackdoorBench's 10 % relative bound; fine-tuning uses the victim's hash loss and optimiser at a constant rate,"
    " chosen from a grid by the same mAP; guess: 10 epochs (BackdoorBench: 100, for classifiers); in residual networks"
    " the branch of the last block is pruned",
)


@defense
class FinePruning(Repair):
    ratio: Share | None = None
    """Share of the channels that is pruned; default: as many as `max_drop` allows."""
    max_drop: Share = 0.1  # BackdoorBench, config/defense/fp
    """Largest accepted relative drop of mAP on the calibration images."""
    step: PositiveShare = 0.01  # BackdoorBench
    """Share of the channels that is pruned at a time."""
    epochs: Annotated[int, Field(ge=0)] = 10  # guess: see CARD
    """Epochs of fine-tuning after pruning; 0: no fine-tuning."""
    lr: Rates = RATES
    """Learning rates that are tried."""
    choose: Choice = "best"  # METHODOLOGY.md#operating-points
    """best: rate with the highest calibration mAP. strongest: largest rate that lowers it by at most 10 %."""

    def unsupported_reason(self, backbone: Backbone, method: HashingMethod) -> str:
        del method
        return (
            "" if backbone.convolutional() else "it prunes channels of convolutions, and this backbone works on tokens"
        )

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
        """The number of channels to prune; one channel always stays."""
        if self.ratio is not None:
            return min(round(self.ratio * len(order)), len(order) - 1)
        floor = (1 - self.max_drop) * reference
        width = max(1, round(self.step * len(order)))
        for count in reversed(range(width, len(order), width)):  # quality may dip in between: the largest counts
            off: Bool[Tensor, " d"] = torch.zeros(len(order), dtype=torch.bool, device=order.device)
            off[order[:count]] = True
            with switched_off(view.model, off):
                if calibration_map(view.model, view.calibration_set) >= floor:
                    return count
        return 0
