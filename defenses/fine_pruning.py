"""Prune the channels that clean images leave silent, then fine-tune."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Bool
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from bench.api.defense import Case, PositiveShare, Repair, Rng, Share, defense
from bench.api.errors import DivergedError
from bench.api.paper import Paper
from defenses._channels import mean_activations, remove, switched_off
from defenses._trusted import calibration_map

CARD = Paper(
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
    max_drop: Share = 0.1  # BackdoorBench, config/defense/fp: relative drop of clean quality
    step: PositiveShare = 0.01  # BackdoorBench: share of the channels pruned at a time
    epochs: Annotated[int, Field(ge=0)] = 10  # guess: see CARD; 0 prunes only
    # guess: grid around BackdoorBench's 0.01; chosen on the trusted set
    lr: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1e-2, 1e-3, 1e-4)

    def repair(self, case: Case, rng: Rng) -> nn.Module:
        order = mean_activations(case.model, case.fit_set).argsort(stable=True)
        pruned = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        pruned[order[: self._count(case, order)]] = True
        with switched_off(case.model, pruned):
            candidates = self._tuned(case, rng) if self.epochs else [case.model]
            scores = [calibration_map(model, case.calibration_set) for model in candidates]
        best = candidates[max(range(len(scores)), key=scores.__getitem__)]
        remove(best, pruned)
        return best

    def _tuned(self, case: Case, rng: Rng) -> list[nn.Module]:
        """One fine-tuned copy per rate of the grid; a rate at which training diverges is no candidate."""
        recipe = replace(case.recipe, epochs=self.epochs, schedule="constant")
        found = []
        for lr in self.lr:
            with suppress(DivergedError):
                found.append(case.train_model(case.model, case.fit_set, replace(recipe, lr=lr), rng))
        if not found:
            raise DivergedError(f"fine-tuning diverged at every rate of {self.lr}")
        return found

    def _count(self, case: Case, order: Tensor) -> int:
        """How many channels to prune, least active first; the last one always stays."""
        if self.ratio is not None:
            return min(round(self.ratio * len(order)), len(order) - 1)
        floor = (1 - self.max_drop) * calibration_map(case.model, case.calibration_set)
        width = max(1, round(self.step * len(order)))
        for count in reversed(range(width, len(order), width)):  # quality need not fall steadily: the strongest counts
            off: Bool[Tensor, " d"] = torch.zeros(len(order), dtype=torch.bool, device=order.device)
            off[order[:count]] = True
            with switched_off(case.model, off):
                if calibration_map(case.model, case.calibration_set) >= floor:
                    return count
        return 0
